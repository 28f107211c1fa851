"""Users' rules of life: remembered while the policy is the same, and never for longer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.lifecycle import rules
from ds01_spawner.settings import DS01Settings

HOUR = timedelta(hours=1)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "resource-limits.yaml"
    path.write_text(
        "defaults: {idle_timeout_h: 1}\n"
        "groups: {staff: {idle_timeout_h: 4}}\n"
        "user_overrides: {mia: {idle_timeout_h: 9, until: 2100-01-01}}\n"
    )
    return path


def counted(file, monkeypatch) -> tuple[rules.LiveRules, Clock, list[str]]:
    """Return rules, their clock, and whose were worked out."""
    asked: list[str] = []
    settings, clock = DS01Settings(policy_file=str(file)), Clock()
    share_of = settings.share_of

    def share(user, groups):
        asked.append(user)
        return share_of(user, groups)

    monkeypatch.setattr(settings, "share_of", share)
    return rules.LiveRules(settings, clock), clock, asked


def test_rules_are_worked_out_once_for_a_user_and_their_groups(file, monkeypatch):
    live, clock, asked = counted(file, monkeypatch)
    for _ in range(3):
        assert live("tom", ["staff"]).idle_timeout == 4 * HOUR
        assert live("eve", []).idle_timeout == HOUR
        clock.now += 60
    assert asked == ["tom", "eve"]
    assert live("tom", ()).idle_timeout == HOUR


def test_a_changed_policy_is_seen(file, monkeypatch):
    live, clock, _ = counted(file, monkeypatch)
    assert live("eve", ()).idle_timeout == HOUR
    file.write_text("defaults: {idle_timeout_h: 24}\n")
    clock.now += 2
    assert live("eve", ()).idle_timeout == 24 * HOUR
    file.write_text("defaults: [not a policy\n")
    clock.now += 2
    assert live("eve", ()).idle_timeout == 24 * HOUR


def test_what_ends_on_a_day_is_worked_out_each_time(file, monkeypatch):
    file.with_name("lifecycle-exemptions.yaml").write_text(
        "- {username: ida, exempt_from: [idle_timeout_h], expires_on: 2100-01-01, reason: long}\n"
    )
    live, clock, asked = counted(file, monkeypatch)
    for _ in range(2):
        assert live("mia", ()).idle_timeout == 9 * HOUR
        assert live("ida", ()).idle_timeout is None
        clock.now += 60
    assert asked == ["mia", "ida"] * 2
    # Both have ended.
    later = datetime.now(timezone.utc) + timedelta(days=365 * 100)
    monkeypatch.setattr("ds01_spawner.policy.live.utc_now", lambda: later)
    assert live("mia", ()).idle_timeout == HOUR
    assert live("ida", ()).idle_timeout == HOUR


def test_without_a_policy_file_the_built_in_rules_hold(monkeypatch):
    live = rules.LiveRules(DS01Settings())
    assert live("eve", ()).idle_timeout == HOUR / 2
