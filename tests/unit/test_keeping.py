"""Servers that are kept although they are idle, and what their owners are told."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import docker.errors
import pytest

from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle.decide import Reason
from ds01_spawner.lifecycle.keeping import Keeping, file_touched, kept_until
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import ASKED, PROTECTED, Course, Kept, LifeRecords
from ds01_spawner.lifecycle.told import told_to_owner
from ds01_spawner.policy import Lifecycle
from ds01_spawner.storage.records import Kind, StorageRecords, Use

NOW = datetime.now(timezone.utc)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
RULES = Lifecycle(keepalive_most=24 * HOUR)


class Engine:
    """Has one running server, alice's ``vision``."""

    async def __call__(self, method, name):
        assert method == "inspect_container"
        if name != "vision._.alice":
            raise docker.errors.NotFound("no")
        return {
            "Id": "c1",
            "Config": {"Labels": {"ds01.user": "alice", "ds01.hub": "hub"}},
            "HostConfig": {"Memory": 1 << 30},
            "State": {"Running": True, "Pid": 2**22 + 1},
        }


@pytest.fixture
def records(tmp_path):
    return LifeRecords(tmp_path / "db")


@pytest.fixture
def storage(tmp_path):
    return StorageRecords(tmp_path / "db")


@pytest.fixture
def keeping(records, storage):
    return Keeping(Engine(), "hub", records, storage)


def course(**more) -> Course:
    memory = Memory(NOW, more.pop("busy_until", NOW - HOUR), NOW - HOUR)
    given = {"stop_at": NOW + 9 * MINUTE, "why": "idle", "is_warned": True}
    return Course("c1", "alice", "vision", memory, **given | more)


async def test_a_server_is_kept_as_long_as_was_asked_or_as_it_can_be(keeping, records):
    records.keep_courses([course()])

    kept = await keeping.keep("alice", "vision", 4 * HOUR, RULES, NOW)
    assert kept.keep_until == NOW + 4 * HOUR
    longest = await keeping.keep("alice", "vision", 100 * HOUR, RULES, NOW)
    # A day from when it was last at work.
    assert longest.keep_until == longest.keep_most_until == NOW + 23 * HOUR
    assert [event.kind for event in records.events("alice")] == ["kept"]


async def test_whoever_keeps_a_server_again_and_again_is_told_of_once(keeping, records):
    records.keep_courses([course()])
    for by in [*["alice"] * 5, "root", "root"]:
        await keeping.keep("alice", "vision", HOUR, RULES, NOW)
        await keeping.end("alice", "vision", by)
    assert [(event.kind, event.by) for event in records.events("alice")] == [
        ("keep-ended", "root"),
        ("keep-ended", "root"),
        ("keep-ended", "alice"),
        ("kept", "alice"),
    ]


async def test_nobody_keeps_an_idle_server_for_ever(keeping, records):
    records.keep_courses([course(busy_until=NOW - 25 * HOUR)])

    with pytest.raises(Refused) as refused:
        await keeping.keep("alice", "vision", HOUR, RULES, NOW)

    assert refused.value.status_code == 409
    assert "1 day" in refused.value.jupyterhub_message
    assert records.keeps(NOW) == {}


@pytest.mark.parametrize(
    ("user", "project"), [("bob", "vision"), ("alice", "x"), ("alice", "../x")]
)
async def test_others_servers_are_none(keeping, user, project):
    for ask in (keeping.keep, keeping.life):
        rest = (HOUR, RULES, NOW) if ask == keeping.keep else (RULES, NOW)
        with pytest.raises(Refused) as refused:
            await ask(user, project, *rest)
        assert refused.value.status_code == 404


async def test_another_hubs_server_is_none(records, storage):
    with pytest.raises(Refused):
        await Keeping(Engine(), "another", records, storage).life("alice", "vision", RULES, NOW)


async def test_a_server_that_nothing_stops_needs_no_keeping(keeping):
    never = Lifecycle(idle_timeout=None)
    with pytest.raises(Refused, match="nothing to keep it from"):
        await keeping.keep("alice", "vision", HOUR, never, NOW)
    assert (await keeping.life("alice", "vision", never, NOW)).keep_most_until is None


async def test_a_warned_server_says_so_until_it_is_kept(keeping, records):
    records.keep_courses([course()])
    found = await keeping.life("alice", "vision", RULES, NOW)
    assert found.words.startswith("It will be stopped in 9 minutes if nothing runs in it.")
    assert told_to_owner(records, "alice", {})["vision"].notice

    await keeping.keep("alice", "vision", HOUR, RULES, NOW)

    found = await keeping.life("alice", "vision", RULES, NOW)
    assert (found.words, found.is_warned, found.stop_at) == ("", False, NOW + HOUR)
    assert told_to_owner(records, "alice", {})["vision"].notice == ""
    await keeping.end("alice", "vision", "admin")
    assert (await keeping.life("alice", "vision", RULES, NOW)).is_warned


async def test_who_fills_the_disk_is_told_in_the_server(keeping, storage):
    rules = Lifecycle(workspace_bytes=100 << 20, container_bytes=10 << 20)
    assert (await keeping.life("alice", "vision", rules, NOW)).disk == {}
    for use in (
        Use(Kind.USER, "alice", "alice", bytes=80 << 20, at=NOW),
        Use(Kind.CONTAINER, "c1", "alice", "vision", bytes=12 << 20, at=NOW),
        # Another server's, and another user's, are not told here.
        Use(Kind.CONTAINER, "c2", "alice", "thesis", bytes=1 << 30, at=NOW),
        Use(Kind.USER, "bob", "bob", bytes=1 << 30, at=NOW),
    ):
        storage.keep(use)

    disk = (await keeping.life("alice", "vision", rules, NOW)).disk

    assert disk["workspace"].startswith("Your files take 80 MiB of 100 MiB.")
    assert "take 12 MiB of 10 MiB" in disk["container"]
    # JupyterLab shows no more of a notice.
    assert all(len(words) <= 140 for words in disk.values())


async def test_a_server_that_an_admin_protects_is_told_of_no_stop(keeping, records):
    records.keep_courses([course(why=Reason.RUNTIME.value)])
    await keeping.protect("alice", "vision", 48 * HOUR, "root", NOW)

    found = await keeping.life("alice", "vision", RULES, NOW)
    assert (found.stop_at, found.is_warned) == (None, False)
    assert found.keep_until == NOW + 48 * HOUR
    told = told_to_owner(records, "alice", {})["vision"]
    assert (told.notice, told.keep_until) == ("", NOW + 48 * HOUR)
    with pytest.raises(Refused, match="Nobody keeps"):
        await keeping.end("alice", "vision", "root")
    await keeping.end("alice", "vision", "root", PROTECTED)
    assert (await keeping.life("alice", "vision", RULES, NOW)).is_warned
    assert [(event.kind, event.by) for event in records.events("alice")] == [
        ("keep-ended", "root"),
        ("protected", "root"),
    ]


async def test_admins_see_what_keeps_a_server_and_not_those_that_have_ended(keeping, records):
    def kept():
        return [(kept.kind, kept.by) for kept in keeping.all_kept({"c1"}, NOW)]

    records.keep_courses([course(keep_until=NOW + 9 * HOUR)])
    records.keep(Kept("gone", "bob", "old", ASKED, NOW + HOUR, "bob"))
    assert kept() == [("file", "")]
    await keeping.keep("alice", "vision", 4 * HOUR, RULES, NOW)
    await keeping.protect("alice", "vision", HOUR, "root", NOW)
    # The service has not looked at it since.
    assert kept() == [("asked", "alice"), ("protected", "root")]
    records.keep_courses([course(keep_until=NOW + 4 * HOUR)])
    assert kept() == [("asked", "alice"), ("protected", "root")]
    records.keep_courses([course(keep_until=NOW + 9 * HOUR)])
    assert kept() == [("asked", "alice"), ("file", ""), ("protected", "root")]
    assert keeping.all_kept(set(), NOW) == []


def test_a_server_of_which_nothing_is_known_any_more_is_told_nothing(records):
    # Warned of a stop, and then it did not answer.
    records.keep_courses([course(stop_at=None, why="")])
    assert told_to_owner(records, "alice", {}) == {}


async def test_a_server_that_a_file_keeps_is_told_to_be_kept(keeping, records):
    records.keep_courses([course(stop_at=NOW + HOUR, keep_until=NOW + HOUR)])
    assert (await keeping.life("alice", "vision", RULES, NOW)).keep_until == NOW + HOUR
    records.keep_courses([course(keep_until=NOW - MINUTE)])
    assert (await keeping.life("alice", "vision", RULES, NOW)).keep_until is None


async def test_it_is_told_which_warning_it_was(keeping, records):
    memory = Memory(NOW, NOW - HOUR, NOW - HOUR, (NOW, NOW), (NOW,))
    for why, warnings in (("idle", 2), ("stalled", 2), ("runtime", 1)):
        records.keep_courses([replace(course(why=why), memory=memory)])
        assert (await keeping.life("alice", "vision", RULES, NOW)).warnings == warnings
    records.keep_courses([replace(course(is_warned=False), memory=memory)])
    assert (await keeping.life("alice", "vision", RULES, NOW)).warnings == 0


async def test_the_longest_runtime_is_not_put_off(keeping, records):
    records.keep_courses([course(why=Reason.RUNTIME.value)])
    await keeping.keep("alice", "vision", HOUR, RULES, NOW)

    found = await keeping.life("alice", "vision", RULES, NOW)
    assert found.stop_at == NOW + 9 * MINUTE
    assert "as long as a server may" in found.words


@pytest.mark.parametrize(
    ("asked", "touched", "expected"),
    [
        (None, None, None),
        (5, None, 5),
        (None, -2, 20),
        (5, -2, 20),
        # Idle for four hours already.
        (30, None, 20),
        (None, -30, -6),
    ],
)
def test_what_keeps_longest_counts_up_to_a_day_without_work(asked, touched, expected):
    def at(hours):
        return None if hours is None else NOW + hours * HOUR

    assert kept_until(at(asked), at(touched), NOW - 4 * HOUR, RULES) == at(expected)


def test_ds01s_file_keeps_if_it_is_one(tmp_path):
    inspected = {
        "Mounts": [
            {"Destination": "/home", "Source": "/nowhere"},
            {"Destination": "/workspace", "Source": str(tmp_path)},
        ]
    }
    file = tmp_path / ".keep-alive"
    assert file_touched(inspected, NOW) is None
    file.touch()
    os.utime(file, (NOW.timestamp() - 60, NOW.timestamp() - 60))
    assert file_touched(inspected, NOW) == NOW - MINUTE
    for future in (2**32, 2**40):
        os.utime(file, (future, future))
        assert file_touched(inspected, NOW) == NOW
    os.utime(file, (-(2**40), -(2**40)))
    assert file_touched(inspected, NOW) < NOW
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert file_touched(inspected, NOW) is None
    file.unlink()
    file.mkdir()
    assert file_touched(inspected, NOW) is None
    assert file_touched({}, NOW) is None


def test_a_disk_that_does_not_say_is_not_taken_for_one_without_the_file(tmp_path, monkeypatch):
    inspected = {"Mounts": [{"Destination": "/workspace", "Source": str(tmp_path)}]}

    def stale(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "lstat", stale)
    with pytest.raises(OSError, match="Stale"):
        file_touched(inspected, NOW)


@pytest.mark.parametrize("why", [Reason.CONTAINER_FULL, Reason.WORKSPACE_FULL])
async def test_a_server_that_fills_the_disk_cannot_be_kept(keeping, records, why):
    memory = Memory(NOW, NOW, NOW, full=why, warned_full=(NOW,))
    records.keep_courses([replace(course(why=why.value), memory=memory)])
    found = await keeping.life("alice", "vision", RULES, NOW)
    assert (found.warnings, found.keep_most_until) == (1, None)
    told = told_to_owner(records, "alice", {})["vision"]
    assert ("of the disk" in told.notice, told.can_be_kept) == (True, False)
    with pytest.raises(Refused, match="does not help here"):
        await keeping.keep("alice", "vision", HOUR, RULES, NOW)
    assert (await keeping.life("alice", "vision", RULES, NOW)).stop_at == found.stop_at


async def test_what_a_server_takes_is_told_where_nothing_else_is(keeping, records):
    records.keep_courses([running := course(is_warned=False)])
    told = told_to_owner(records, "alice", {running.container_id: "It is large."})
    assert told["vision"].notice == "It is large."
    records.keep_courses([course()])
    told = told_to_owner(records, "alice", {running.container_id: "It is large."})
    assert told["vision"].can_be_kept
    assert "if nothing runs" in told["vision"].notice
