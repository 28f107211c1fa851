"""What is remembered of servers' lives, and the words that their owners read."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.deployment import DeploymentError, only_one, read_deployment
from ds01_spawner.endings import Cause, Ending
from ds01_spawner.lifecycle import words
from ds01_spawner.lifecycle.decide import Reason, Rules, Stop
from ds01_spawner.lifecycle.events import Event
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import ASKED, PROTECTED, Course, Kept, LifeRecords
from ds01_spawner.policy import GIB
from ds01_spawner.store import Store

NOW = datetime(2026, 6, 1, 8, 0, 0, 123456, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ds01.sqlite"


@pytest.fixture
def records(file):
    return LifeRecords(file)


def course(container_id="1", user="ada", **more):
    return Course(container_id, user, "default", Memory(NOW, NOW - MINUTE, NOW), **more)


WARNED = Memory(NOW, NOW - 30 * MINUTE, NOW, (NOW - 9 * MINUTE, NOW - MINUTE), (NOW,))
FULL = Course(
    *("2", "zoë / b", "größe", WARNED),
    stop_at=NOW + MINUTE,
    why="idle",
    is_warned=True,
    keep_until=NOW + 2 * MINUTE,
    cpu_percent=0.25,
    gpu_percent=3.5,
)


# -- lives, keeps, reasons -------------------------------------------------------------------------


def test_how_servers_are_is_read_as_it_was_written_also_by_another_process(records, file):
    records.keep_courses([course(), FULL])
    assert LifeRecords(file).courses() == [course(), FULL]
    assert records.courses("zoë / b") == [FULL]
    assert records.courses("nobody") == []


def test_times_of_another_zone_are_the_same_moments(records):
    there = NOW.astimezone(timezone(timedelta(hours=-7)))
    memory = Memory(there, there, there, (there,), (there,))
    records.keep_courses([Course("1", "ada", "default", memory, stop_at=there)])
    (found,) = records.courses()
    assert found.stop_at == found.memory.at == found.memory.warned_idle[0] == NOW
    assert found.stop_at.utcoffset() == timedelta(0)


def test_servers_that_have_ended_are_forgotten(records):
    records.keep_courses([course("1"), course("2")])
    records.keep_courses([course("2")])
    assert [each.container_id for each in records.courses()] == ["2"]
    records.keep_courses([])
    assert records.courses() == []


def test_a_look_that_cannot_be_written_leaves_the_one_before(records):
    records.keep_courses([course("1")])
    with pytest.raises(Exception, match="UNIQUE"):
        records.keep_courses([course("2"), course("2")])
    assert [each.container_id for each in records.courses()] == ["1"]


def test_a_wish_to_keep_a_server_lasts_until_its_time_and_can_change(records):
    records.keep(Kept("1", "ada", "default", ASKED, NOW + MINUTE, "ada"))
    records.keep(Kept("1", "ada", "default", ASKED, NOW + 3 * MINUTE, "bob", NOW))
    records.keep(Kept("2", "ada", "two", ASKED, NOW + MINUTE, "ada"))
    assert records.keeps(NOW) == {"1": NOW + 3 * MINUTE, "2": NOW + MINUTE}
    assert records.keeps(NOW + MINUTE) == {"1": NOW + 3 * MINUTE}
    (found,) = records.kept(NOW)
    assert found == Kept("1", "ada", "default", ASKED, NOW + 3 * MINUTE, "bob", NOW)
    assert records.end_keep("1")
    assert not records.end_keep("1")
    assert records.keeps(NOW) == {}


def test_an_admins_protection_and_an_owners_wish_are_two_things(records):
    records.keep(Kept("1", "ada", "default", ASKED, NOW + MINUTE, "ada"))
    records.keep(Kept("1", "ada", "default", PROTECTED, NOW + 3 * MINUTE, "admin"))
    assert records.keeps(NOW) == {"1": NOW + MINUTE}
    assert records.keeps(NOW, PROTECTED) == {"1": NOW + 3 * MINUTE}
    assert records.end_keep("1")
    assert records.keeps(NOW, PROTECTED) == {"1": NOW + 3 * MINUTE}
    assert records.end_keep("1", PROTECTED)
    assert records.kept(NOW) == []


def test_what_the_service_saw_of_a_keep_is_void_when_somebody_changes_it(records):
    records.keep_courses([replace(course("1"), keep_until=NOW + MINUTE), course("2")])
    records.keep(Kept("2", "ada", "default", ASKED, NOW + MINUTE, "ada"))
    assert records.courses()[0].keep_until == NOW + MINUTE
    records.keep(Kept("1", "ada", "default", ASKED, NOW + MINUTE, "ada"))
    records.end_keep("1")
    assert records.courses()[0].keep_until is None


def test_a_reason_is_kept_until_it_is_forgotten_and_the_latest_counts(records, file):
    assert records.stop_reason("1") == ""
    records.note_stop("1", "after 30 minutes")
    records.note_stop("1", "after 45 minutes")
    # The Hub's process reads what the service has written.
    assert LifeRecords(file).stop_reason("1") == "after 45 minutes"
    assert records.stop_reason("2") == ""
    records.forget_stop("1")
    records.forget_stop("1")
    assert records.stop_reason("1") == ""


# -- events ----------------------------------------------------------------------------------------


def event(kind="warned", user="ada", **more):
    return Event(kind, user, "default", "ds01-culler", "It will be stopped.", **more)


def test_what_happened_is_told_newest_first_with_its_numbers(records):
    for minute in range(5):
        records.tell(event(at=NOW + minute * MINUTE, numbers={"cpu_percent": None, "n": minute}))
    found = records.events(most=2)
    assert [each.numbers["n"] for each in found] == [4, 3]
    assert found[0].at == NOW + 4 * MINUTE
    assert found[0].numbers["cpu_percent"] is None
    assert found[0].id > found[1].id
    assert records.events("bob") == []


def test_an_event_without_a_time_is_of_now(records):
    records.tell(event())
    assert abs(records.events()[0].at - datetime.now(timezone.utc)) < MINUTE


def test_events_can_be_chosen_and_read_in_pages(records):
    for number in range(6):
        kind, user = ("warned", "stopped")[number % 2], ("ada", "bob")[number // 3]
        records.tell(event(kind, user, at=NOW + number * MINUTE, numbers={"n": number}))

    def numbers(*args, **chosen):
        return [each.numbers["n"] for each in records.events(*args, **chosen)]

    assert numbers("ada", kind="warned") == [2, 0]
    assert numbers(since=NOW + 4 * MINUTE) == [5, 4]
    assert numbers(project="default", most=1) == [5]
    assert numbers(project="other") == []
    first = records.events(most=4)
    assert numbers(before=first[-1].id) == [1, 0]
    assert records.event_kinds() == ["stopped", "warned"]


def test_of_each_user_only_so_many_events_are_kept(records, monkeypatch):
    monkeypatch.setattr("ds01_spawner.lifecycle.events._MOST_EVENTS", 3)
    for number in range(5):
        records.tell(event(user="ada", at=NOW, numbers={"n": number}))
    records.tell(event(user="bob", at=NOW))
    records.tell(event("stopped", user="ada", at=NOW))
    records.forget_old(NOW)
    assert [each.numbers["n"] for each in records.events("ada", kind="warned")] == [4, 3, 2]
    assert len(records.events("ada", kind="stopped")) == len(records.events("bob")) == 1


def test_a_flood_of_events_is_bounded_as_it_comes_and_takes_no_other_kind(records, monkeypatch):
    monkeypatch.setattr("ds01_spawner.lifecycle.events._MOST_EVENTS", 3)
    records.tell(event("stopped", at=NOW))
    records.tell(event("kept", user="bob", at=NOW))
    for number in range(98):
        records.tell(event("kept", at=NOW, numbers={"n": number}))
    assert [each.numbers["n"] for each in records.events("ada", kind="kept")] == [97, 96, 95]
    assert len(records.events("ada", kind="stopped")) == len(records.events("bob")) == 1


def test_it_is_told_whether_something_has_happened_since(records):
    records.tell(event("no-gpu", at=NOW))
    assert records.has_happened("no-gpu", NOW)
    assert not records.has_happened("no-gpu", NOW + timedelta(microseconds=1))
    assert not records.has_happened("stopped", NOW)


def test_what_is_old_is_forgotten_and_the_rest_is_not(records):
    for days in (0, 89, 91, 400):
        records.tell(event(at=NOW - timedelta(days=days)))
    records.note_stop("1", "after 30 minutes")
    records.forget_old(NOW)
    assert {(NOW - each.at).days for each in records.events()} == {0, 89}
    assert records.stop_reason("1")
    records.forget_old(datetime.now(timezone.utc) + timedelta(days=91))
    assert records.stop_reason("1") == ""


# -- a database that was there before --------------------------------------------------------------


def test_a_database_with_rows_of_the_hub_gets_the_services_tables_and_loses_nothing(file):
    store = Store(file)
    store.add_ending(Ending("ada", "default", Cause.STOPPED, "Stopped by you.", NOW))
    records = LifeRecords(file)
    records.keep_courses([FULL])
    assert store.last_ending("ada", "default").message == "Stopped by you."
    assert records.courses() == [FULL]
    store.close()


def test_rows_of_a_run_before_are_read_and_written_over(file):
    LifeRecords(file).keep_courses([course("1"), FULL])
    # As another version may have written them.
    with sqlite3.connect(file) as database:
        database.execute("UPDATE lives SET warned_idle = '[]', stop_at = NULL, why = ''")
        database.execute("UPDATE lives SET at = '2026-05-01 08:00:00.000000'")
    records = LifeRecords(file)
    found = records.courses()
    assert [each.memory.warned_idle for each in found] == [(), ()]
    assert {each.memory.at.month for each in found} == {5}
    records.keep_courses([course("1")])
    assert records.courses() == [course("1")]


def test_of_several_that_write_at_once_none_is_refused(file):
    LifeRecords(file)
    failed = []

    def write(number):
        own = LifeRecords(file)
        try:
            for step in range(10):
                own.note_stop("same", f"{number}-{step}")
                own.keep(Kept("same", "ada", "default", ASKED, NOW + MINUTE, str(number)))
                own.tell(event())
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(LifeRecords(file).events()) == 40


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(minutes=-5), "1 minute"),
        (timedelta(), "1 minute"),
        (timedelta(seconds=89), "1 minute"),
        (timedelta(minutes=45), "45 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(minutes=59, seconds=59), "1 hour"),
        (timedelta(hours=2, minutes=30), "2 hours 30 minutes"),
        (timedelta(hours=1, minutes=1), "1 hour 1 minute"),
        (timedelta(hours=24), "1 day"),
        (timedelta(days=1, minutes=5), "1 day"),
        (timedelta(days=7, hours=1, minutes=5), "7 days 1 hour"),
        (timedelta(hours=23, minutes=59, seconds=59), "1 day"),
    ],
)
def test_times_are_told_as_people_tell_them(time, text):
    assert words.duration(time) == text


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (Reason.IDLE, "after 45 minutes without activity"),
        (Reason.RUNTIME, "after 1 day, the longest that a server may run"),
        (
            Reason.STALLED,
            "after 45 minutes in which what runs in it used neither CPU nor GPU: it may wait for "
            "an input",
        ),
        (
            Reason.CONTAINER_FULL,
            "because its files outside /workspace and your home took more than 10 GiB",
        ),
        (
            Reason.WORKSPACE_FULL,
            "because your files take more than 50 GiB: start it without a GPU to delete some",
        ),
    ],
)
def test_the_owner_reads_why_a_server_was_stopped(why, text):
    rules = Rules(container_bytes=10 * GIB, workspace_bytes=50 * GIB)
    assert words.stopped(Stop(why, NOW - 45 * MINUTE), rules, NOW) == text


@pytest.mark.parametrize("why", list(Reason))
def test_the_owner_reads_before_a_stop_when_it_comes_and_why(why):
    text = words.warned(why, NOW + 10 * MINUTE, NOW)
    assert text.startswith("It will be stopped in 10 minutes")
    assert text.endswith(".")
    part = {"idle": "nothing runs", "runtime": "as long as", "stalled": "wait for an input"}
    part |= {"container-full": "outside /workspace", "workspace-full": "with a GPU"}
    assert part[why.value] in text


def test_records_of_an_older_version_get_what_they_lack(tmp_path):
    path = tmp_path / "ds01.sqlite"
    first = LifeRecords(path)
    memory = Memory(NOW, NOW, NOW, (), (), Reason.CONTAINER_FULL, (NOW,))
    course = Course("c1", "alice", "vision", memory)
    first.keep_courses([course])
    with sqlite3.connect(path) as connection:
        connection.execute('ALTER TABLE lives DROP COLUMN "full"')
        connection.execute("ALTER TABLE lives DROP COLUMN warned_full")

    renewed = LifeRecords(path)

    assert renewed.courses() == [replace(course, memory=Memory(NOW, NOW, NOW))]
    renewed.keep_courses([course])
    assert LifeRecords(path).courses() == [course]


# -- the deployment --------------------------------------------------------------------------------

CONFIGURATION = """
c.JupyterHub.hub_port = 18081
c.DS01Spawner.data_dir = {data!r}
c.DS01Spawner.cull_every_s = 5
c.JupyterHub.services = [
    {{"name": "ds01-culler", "api_token": "secret"}},
    {{"name": "twice", "api_token": "a"}},
    {{"name": "twice", "api_token": "b"}},
    {{"name": "bare"}},
]
"""


def test_a_service_reads_its_hub_from_the_hubs_own_configuration(tmp_path):
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(CONFIGURATION.format(data=str(tmp_path)))
    read = read_deployment(file)
    assert read.settings.cull_every_s == 5
    assert read.hub_api == "http://127.0.0.1:18081/hub/api"
    assert read.token("ds01-culler") == "secret"
    for service in ("twice", "bare", "nobody"):
        with pytest.raises(DeploymentError, match=service):
            read.token(service)


def test_one_service_runs_at_a_time(tmp_path):
    lock = tmp_path / "culler.lock"
    first = only_one(lock)
    with pytest.raises(DeploymentError, match="runs already"):
        only_one(lock)
    os.close(first)
    os.close(only_one(lock))


def test_a_lock_is_no_link_that_somebody_has_put_there(tmp_path):
    (tmp_path / "culler.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        only_one(tmp_path / "culler.lock")
    assert not (tmp_path / "elsewhere").exists()
