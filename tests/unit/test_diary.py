"""What happens to servers in the Hub, as events; a start or a stop pays nothing for it."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from ds01_spawner import spawner
from ds01_spawner.endings import Cause, Ending, explain, gone
from ds01_spawner.lifecycle import diary, events
from ds01_spawner.lifecycle.events import NONE_FREE, Event
from ds01_spawner.lifecycle.records import LifeRecords
from ds01_spawner.options import SpawnOptions
from ds01_spawner.policy import GIB
from ds01_spawner.spawner import DS01Spawner
from ds01_spawner.who import Requester, requester_of

from .machine import FIRST

NOW = datetime.now(timezone.utc)
DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"
ENDED = {
    "Id": "c0ffee",
    "State": {
        "Status": "exited",
        "ExitCode": 137,
        "OOMKilled": True,
        "StartedAt": "2026-06-01T12:00:00.5Z",
        "FinishedAt": "2026-06-01T14:00:00.123456789Z",
    },
    "HostConfig": {"Memory": 2 * GIB},
}


def test_a_start_is_told_with_what_it_got():
    options = SpawnOptions(image="python", cpus=2, memory=GIB, gpu=FIRST.profile)
    event = diary.started("ada", "vision", "root", options, (FIRST,))
    assert (event.kind, event.user, event.project, event.by) == ("started", "ada", "vision", "root")
    assert event.why == f"Started: python · 2 CPU · 1 GiB · {FIRST.profile}."
    assert event.numbers == {
        "image": "python",
        "cpus": 2,
        "memory_bytes": GIB,
        "gpu_weight": FIRST.weight,
        "gpu_uuids": [FIRST.uuid],
    }


@pytest.mark.parametrize(
    ("stopped_by", "by", "kind", "why"),
    [
        (None, "", "out-of-memory", "Memory ran out: the server used more than its 2 GiB."),
        ("you", "ada", "stopped", "Stopped by ada."),
        ("admin root", "root", "stopped", "Stopped by root."),
    ],
)
def test_an_end_is_told_with_who_and_how_long_it_ran(stopped_by, by, kind, why):
    ending = explain("ada", "vision", ENDED, stopped_by=stopped_by)
    event = diary.ended(ending, by, ENDED)
    assert (event.kind, event.by) == (kind, by or "nobody")
    assert event.why.startswith(why)
    assert "files" not in event.why
    assert event.numbers == {"exit_code": 137, "ran_s": 7200}


def test_an_end_that_docker_knows_nothing_of_is_told_as_well():
    event = diary.ended(gone("ada", "vision"), "")
    assert (event.kind, event.why) == (
        "ended",
        "The server's container was removed from outside.",
    )


def test_what_the_service_stops_it_tells_itself():
    ending = explain("ada", "vision", ENDED, stopped_by="x", reason="after an hour")
    assert ending.cause is Cause.CULLED
    assert diary.ended(ending, "ds01-culler", ENDED) is None


def test_a_record_that_cannot_be_written_fails_nothing(caplog):
    def locked(*_):
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    diary.write(
        SimpleNamespace(life_records=SimpleNamespace(tell=locked)),
        Event("started", "ada", "vision", "ada", "Started."),
    )
    assert "started of ada/vision" in caplog.text


def test_whoever_tries_a_start_again_and_again_is_told_of_once_in_a_while(tmp_path):
    settings = SimpleNamespace(life_records=LifeRecords(tmp_path / "db"))
    failed = Event("start-failed", "ada", "vision", "ada", "The disk is full.", at=NOW)
    others = (
        replace(failed, user="bob"),
        replace(failed, by="root"),
        replace(failed, kind=NONE_FREE),
        replace(failed, at=NOW + timedelta(seconds=6)),
    )
    for event in (failed, failed, replace(failed, project="other"), *others):
        diary.write(settings, event)
    told = settings.life_records.events()
    assert len(told) == 1 + len(others)
    assert {event.project for event in told} == {"vision"}
    stopped = replace(failed, kind="stopped")
    for _ in range(2):
        diary.write(settings, stopped)
    assert len(settings.life_records.events(kind="stopped")) == 2


def test_an_ending_without_a_time_of_its_start_is_told_without_how_long_it_ran():
    state = {**ENDED["State"], "StartedAt": "0001-01-01T00:00:00Z"}
    ending = Ending("ada", "vision", Cause.EXITED, "It ended.", NOW, 3)
    assert diary.ended(ending, "", {"State": state}).numbers == {"exit_code": 3}


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (None, Requester("the Hub", "the Hub")),
        (SimpleNamespace(name="ada"), Requester("ada", "you")),
        (SimpleNamespace(name="root"), Requester("root", "admin root")),
        (
            SimpleNamespace(name="tests", kind="service"),
            Requester("tests", "the service tests", True),
        ),
    ],
)
def test_who_asked_has_a_name_and_words_for_the_owner(person, expected):
    assert requester_of(SimpleNamespace(current_user=person), "ada") == expected
    assert requester_of(None, "ada").name == "the Hub"


# -- in the spawner --------------------------------------------------------------------------------


class Server:
    """What of a spawner the end of a server needs."""

    tell = DS01Spawner.tell
    bury = DS01Spawner.bury
    project, docker, object_id, _pid, _log_name = "vision", None, "c0ffee", 1, "ada"
    log = logging.getLogger("tests")

    def __init__(self, life_records):
        self.user = SimpleNamespace(name="ada")
        self.life_records = life_records
        self.executor = ThreadPoolExecutor(1)
        self.store = SimpleNamespace(add_ending=lambda _: None)

    async def in_thread(self, call, *args):
        return call(*args)

    async def leave_slice(self):
        pass


@pytest.fixture
def removed(monkeypatch):
    found = []

    async def remove(_docker, container_id):
        found.append(container_id)

    monkeypatch.setattr(spawner.engine, "remove", remove)
    monkeypatch.setattr(spawner.forecast, "use_of", lambda _: None)
    return found


async def test_a_stop_is_told_by_its_thread(tmp_path, removed):
    server = Server(LifeRecords(tmp_path / "db"))
    await server.bury(ENDED, Requester("root", "admin root"))
    server.executor.shutdown()
    (told,) = server.life_records.events("ada")
    assert (told.kind, told.by, removed) == ("stopped", "root", ["c0ffee"])


@pytest.mark.parametrize("how", ["locked", "over"])
async def test_a_stop_whose_event_cannot_be_kept_is_a_stop(removed, caplog, how):
    def locked(*_):
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    server = Server(SimpleNamespace(tell=locked))
    if how == "over":
        server.executor.shutdown()
    await server.bury(ENDED, Requester("ada", "you"))
    server.executor.shutdown()
    assert removed == ["c0ffee"]
    assert "kept" in caplog.text


def test_the_documentation_names_exactly_the_kinds_of_events_that_there_are():
    section = DOCS.read_text().split("\n## Events\n")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = re.findall("`(.+?)`", " ".join(first_cells))
    constants = [value for name, value in vars(events).items() if name.isupper()]
    assert sorted(named) == sorted(value for value in constants if isinstance(value, str))
