"""Whatever a lab writes: the strongest layer counts, and each mistake is found where it is."""

from __future__ import annotations

import difflib
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01_spawner.policy import PolicyError, load_policy, parse_bytes

from .policies import (
    AGGREGATE,
    GLOBAL,
    GROUPS,
    IDLE,
    IMAGES,
    PLAIN,
    USERS,
    expected,
    group_of,
    policies,
)

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
#: What no key may have for a value, whatever its type.
WRONG = [[1], {"a": 1}, "?", "-1"]


@settings(max_examples=500)
@given(policies(), st.sampled_from(USERS), st.lists(st.sampled_from([*GROUPS, "hub-only"])))
def test_no_value_comes_from_a_weaker_layer(written, user, hub_groups):
    with tempfile.TemporaryDirectory() as folder:
        policy = load_policy(written.write(Path(folder)))
    resolved = policy.resolve(user, hub_groups, NOW)

    assert resolved.group == group_of(written, user, tuple(hub_groups))
    found = {
        key: (value.value, value.source.removesuffix(" until 2999-12-31"))
        for key, value in resolved.values.items()
    }
    assert found == expected(written, user, tuple(hub_groups))
    assert_parsed(resolved)


def assert_parsed(resolved):
    """See that the limits in bytes and cores say the same as the values."""
    limits, values = resolved.limits, resolved.values
    assert limits.memory_bytes == parse_bytes(values["memory"].value)
    assert limits.memory_swap_bytes >= limits.memory_bytes
    assert limits.cpus == values["max_cpus"].value
    assert limits.servers == values["max_containers_per_user"].value
    quota = values["aggregate.cpu_quota"].value
    assert limits.aggregate.cpus == (quota and float(quota.rstrip("%")) / 100)
    most = [values[key].value for key in ("max_gpu_equivalents", "aggregate.gpu_limit")]
    assert limits.gpu_equivalents == min((n for n in most if n is not None), default=None)
    hours, idle = values["idle_timeout_h"].value, limits.lifecycle.idle_timeout
    assert (idle is None) == (hours is None)
    assert idle is None or idle.total_seconds() == pytest.approx(hours * 3600)


@st.composite
def mistakes(draw):
    """Make a policy and say where to put a mistake: its dotted path, and the sections to it."""
    written = draw(policies())
    places = [("defaults",), ("policies",)]
    places += [("groups", name) for name in written.main["groups"] or {}]
    places += [("user_overrides", name) for name in written.main["user_overrides"] or {}]
    place = draw(st.sampled_from(places))
    if place != ("policies",):
        place += draw(st.sampled_from([(), ("aggregate",), ("images",), ("policies",)]))
    if place == ("policies",):
        keys = {**IDLE, **GLOBAL}
    else:
        keys = {"aggregate": AGGREGATE, "images": IMAGES, "policies": IDLE}.get(place[-1], PLAIN)
    return written, place, draw(st.sampled_from(sorted(keys)))


def section_at(written, place):
    """Return the section at a place, made when missing or null."""
    section = written.main
    for name in place:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
    return section


def refused(written, key):
    """Return the lines of the refusal, and the line of the file on which a key stands last."""
    with tempfile.TemporaryDirectory() as folder:
        file = written.write(Path(folder))
        lines = file.read_text().splitlines()
        with pytest.raises(PolicyError) as refusal:
            load_policy(file)
    at = [number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:")]
    return refusal.value.problems, at


@settings(max_examples=300)
@given(mistakes(), st.integers(0, 30), st.sampled_from("xq_"))
def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_known(mistake, at, letter):
    written, place, key = mistake
    at %= len(key)
    # Found again in the file by a name that nothing else has.
    wrong = f"{key[:at]}{letter}Z{key[at + 1 :]}"
    section = section_at(written, place)
    section.pop(key, None)
    section[wrong] = 1
    problems, lines = refused(written, wrong)

    known = {"aggregate": AGGREGATE, "images": IMAGES, "policies": {**IDLE, **GLOBAL}}.get(
        place[-1], PLAIN
    )
    nearest = difflib.get_close_matches(wrong, known, 1, 0)[0]
    path = ".".join((*place, wrong))
    assert len(problems) == 1, problems
    assert f"resource-limits.yaml:{lines[-1]}: {path}: unknown key" in problems[0]
    assert f"{nearest!r}" in problems[0]


@settings(max_examples=300)
@given(mistakes(), st.sampled_from(WRONG))
def test_a_wrong_value_is_named_with_its_place_and_line(mistake, value):
    written, place, key = mistake
    section_at(written, place)[key] = value
    if key == "priority" and value == "-1":
        return
    problems, lines = refused(written, key)

    path = ".".join((*place, key))
    assert all(path in problem for problem in problems), problems
    assert any(f"resource-limits.yaml:{line}: {path}" in problems[0] for line in lines)
