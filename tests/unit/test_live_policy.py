"""The policy follows its files, and a mistake in them changes nothing."""

from __future__ import annotations

import pytest

from ds01_spawner.live import NeverRead
from ds01_spawner.policy import LivePolicy

MAIN = "default_group: g\ngroups: {g: , staff: {memory: 64g}}\n"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "resource-limits.yaml"
    write(file, MAIN)
    return file


def write(file, text):
    """Write a file as an editor does: a new one in the place of the old."""
    file.parent.mkdir(exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def memory(policy, user="ann"):
    value = policy.share(user, ()).resolved.values["memory"]
    return value.value, value.source


def test_without_a_file_everybody_has_the_defaults():
    assert memory(LivePolicy(None)) == ("32g", "built-in default")
    assert LivePolicy(None).problems == ()


@pytest.mark.parametrize(
    ("name", "text", "then"),
    [
        ("resource-limits.yaml", "defaults: {memory: 1g}", ("1g", "defaults")),
        ("user-overrides.yaml", "ann: {memory: 2g}", ("2g", "user override")),
        ("groups/staff.members", "ann\n", ("64g", "group staff")),
        ("group-overrides.txt", "ann:staff\n", ("64g", "group staff")),
    ],
)
def test_every_file_is_followed_when_it_comes_and_when_it_goes(file, name, text, then):
    policy = LivePolicy(file)
    assert memory(policy) == ("32g", "built-in default")
    write(file.parent / name, text)
    assert memory(policy) == then
    if name != file.name:
        (file.parent / name).unlink()
        assert memory(policy) == ("32g", "built-in default")


def test_a_mistake_leaves_the_last_good_policy_in_force_and_is_logged_once(file, caplog):
    write(file, "defaults: {memory: 1g}")
    policy = LivePolicy(file)
    memory(policy)
    write(file, "defaults: {memori: 64g}")

    assert memory(policy) == memory(policy) == ("1g", "defaults")
    assert policy.problems == (
        f"{file}:1: defaults.memori: unknown key; the nearest known is 'memory'",
    )
    assert len(caplog.records) == 1
    write(file, "defaults: {memory: 2g}")
    assert memory(policy) == ("2g", "defaults")
    assert policy.problems == ()


def test_a_policy_that_vanishes_gives_nobody_more(file):
    write(file, "defaults: {memory: 1g}")
    policy = LivePolicy(file)
    memory(policy)
    file.unlink()

    assert memory(policy) == ("1g", "defaults")
    assert "cannot be read" in policy.problems[0]


def test_a_policy_that_was_never_good_gives_nobody_anything(file):
    write(file, "{")
    with pytest.raises(NeverRead, match=r"resource-limits\.yaml:1"):
        memory(LivePolicy(file))


def test_the_list_of_folders_and_the_policy_do_not_touch_each_other(file):
    policy = LivePolicy(file)
    storage = file.with_name("storage.yaml")
    write(storage, "- {name: a, path: /srv/a, mode: ro, groups: ['*']}")
    assert [folder.name for folder in policy.share("ann", ()).folders] == ["a"]

    write(storage, "- {name: a}")
    write(file, "defaults: {memory: 1g}")
    assert memory(policy) == ("1g", "defaults")
    assert [folder.name for folder in policy.share("ann", ()).folders] == ["a"]
    assert {problem.split(":")[0] for problem in policy.problems} == {str(storage)}

    write(storage, "")
    write(file, "x: 1")
    assert policy.share("ann", ()).folders == ()
    assert memory(policy) == ("1g", "defaults")
