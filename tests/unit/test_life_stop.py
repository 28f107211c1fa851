"""A stop as the Hub asks for it: work has its time, and nothing that fails keeps a server."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from types import SimpleNamespace

import docker.errors
import pytest
import requests.exceptions
from sqlalchemy.exc import OperationalError

from ds01_spawner import stop
from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle import words
from ds01_spawner.lifecycle.events import Event
from ds01_spawner.lifecycle.leaving import Files, Rescued
from ds01_spawner.policy import Lifecycle
from ds01_spawner.spawner import DS01Spawner
from ds01_spawner.storage.records import Kind, Use, Uses
from ds01_spawner.who import Requester

ID = "c0ffee"


class Server:
    """What of a spawner a stop needs; it keeps what was done, in its order."""

    stop = DS01Spawner.stop
    project = "vision"
    client = None

    def __init__(self, monkeypatch, by="you", running=True):
        self.user = SimpleNamespace(name="ada")
        self.log = logging.getLogger("tests")
        self._log_name = "ada"
        self.stop_grace_s, self.docker = 7, None
        self.running, self.done = running, []
        self.life_records = self.storage_records = self
        self.taken: int | None = None
        self.wanted: list[str] = []
        self.is_locked = False
        self.reason: str | Exception = "after 30 minutes without activity"
        self.policy: Exception | None = None
        self.rescue_bytes = 1 << 20
        self.kept: Rescued | Exception = Rescued("rescued/now", 0, 0, Files())
        self.told: list[Event] = []
        monkeypatch.setattr(stop, "keep_files", self.keep_files)
        asked = Requester(by.split()[-1], by, is_service=by.startswith("the service "))
        monkeypatch.setattr(stop, "requester", lambda _: asked)
        monkeypatch.setattr(stop, "end_work", self.end_work)
        monkeypatch.setattr(stop.engine, "stop", self.end)

    async def inspect_own(self):
        if self.running is None:
            return None
        return {"Id": ID, "State": {"Running": self.running, "Pid": 42}}

    async def in_thread(self, call, *args):
        return call(*args)

    def stop_reason(self, container_id):
        assert container_id == ID
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason

    def share(self):
        if self.policy:
            raise self.policy
        lifecycle = Lifecycle(
            stop_grace=timedelta(seconds=90),
            rescue_bytes=self.rescue_bytes,
            workspace_bytes=10 << 20,
        )
        limits = SimpleNamespace(lifecycle=lifecycle)
        return SimpleNamespace(resolved=SimpleNamespace(limits=limits))

    def uses(self, _now, user):
        return Uses({user: Use(Kind.USER, user, user, bytes=self.taken)})

    def want(self, user):
        self.wanted.append(user)
        if self.is_locked:
            raise OperationalError("UPDATE", {}, Exception("database is locked"))

    async def end_work(self, container_id, first, grace):
        self.done.append(("work", container_id, first, grace.total_seconds()))
        return True

    async def keep_files(self, _docker, _changed, container, most_bytes, _now):
        self.done.append(("keep", container["Id"], most_bytes))
        if isinstance(self.kept, Exception):
            raise self.kept
        return self.kept

    def tell(self, event):
        if event is not None:
            self.told.append(event)

    async def end(self, _docker, container_id, grace_s):
        self.done.append(("stop", container_id, grace_s))

    async def bury(self, inspected, stopped_by, reason):
        self.done.append(("bury", inspected["Id"], stopped_by.words, reason))


def stopped(server, **how):
    asyncio.run(server.stop(**how))
    return server.done


def test_what_computes_has_the_policys_time_before_the_container_ends(monkeypatch):
    assert stopped(Server(monkeypatch)) == [
        ("work", ID, 42, 90),
        ("stop", ID, 7),
        ("bury", ID, "you", ""),
    ]


def test_a_stop_at_once_waits_for_nothing(monkeypatch):
    assert stopped(Server(monkeypatch), now=True) == [("stop", ID, 0), ("bury", ID, "you", "")]


def test_a_server_that_has_ended_by_itself_has_no_work(monkeypatch):
    done = stopped(Server(monkeypatch, running=False))
    assert [each[0] for each in done] == ["stop", "bury"]


def test_a_server_without_a_container_needs_no_stop(monkeypatch):
    assert stopped(Server(monkeypatch, running=None)) == []


def test_only_the_service_that_stops_idle_servers_has_its_reason_told(monkeypatch):
    by = "the service ds01-culler"
    told = ("bury", ID, by, "after 30 minutes without activity")
    assert stopped(Server(monkeypatch, by=by))[-1] == told
    for other in ("you", "admin bob", "admin ds01-culler", "the service other", "the Hub"):
        assert stopped(Server(monkeypatch, by=other))[-1] == ("bury", ID, other, "")


def test_a_reason_that_cannot_be_read_keeps_no_server_from_its_stop(monkeypatch):
    server = Server(monkeypatch, by="the service ds01-culler")
    server.reason = OperationalError("SELECT", {}, Exception("database is locked"))
    server.kept = Rescued("rescued/now", 1, 1, Files())
    assert [each[0] for each in stopped(server)] == ["work", "keep", "stop", "bury"]
    assert server.done[-1][-1] == ""
    # Where the files are is told all the same.
    assert "rescued/now" in server.told[0].why


@pytest.mark.parametrize(
    ("taken", "most"), [(None, 1 << 20), (5 << 20, 1 << 20), (19 << 19, 1 << 19), (11 << 20, 0)]
)
def test_files_are_kept_as_far_as_their_owners_have_room(monkeypatch, taken, most):
    server = Server(monkeypatch, by="the service ds01-culler")
    server.taken = taken
    assert ("keep", ID, most) in stopped(server)
    # What was kept counts.
    assert server.wanted == ["ada"]


def test_what_was_kept_is_told_also_if_it_is_not_measured_soon(monkeypatch):
    server = Server(monkeypatch, by="the service ds01-culler")
    server.is_locked = True
    server.kept = Rescued("rescued/now", 1, 1, Files())
    assert "rescued/now" in stopped(server)[-1][-1]
    assert words.NOT_KEPT not in server.done[-1][-1]


def test_what_was_kept_in_part_counts_too(monkeypatch):
    server = Server(monkeypatch, by="the service ds01-culler")
    server.kept = Refused("it takes too long", reason="rescue")
    assert words.NOT_KEPT in stopped(server)[-1][-1]
    assert server.wanted == ["ada"]


def test_a_policy_that_cannot_be_read_keeps_no_server_from_its_stop(monkeypatch):
    server = Server(monkeypatch)
    server.policy = Refused("cannot be read", reason="policy")
    assert stopped(server)[0] == ("work", ID, 42, Lifecycle().stop_grace.total_seconds())


@pytest.mark.parametrize("now", [True, False])
def test_an_end_that_cannot_be_looked_at_is_told_from_what_was_seen_before(monkeypatch, now):
    server = Server(monkeypatch)
    looks = iter([{"Id": ID, "State": {"Running": True, "Pid": 42}}, None])

    async def inspect():
        return next(looks)

    server.inspect_own = inspect
    assert stopped(server, now=now)[-1] == ("bury", ID, "you", "")


CULLER = "the service ds01-culler"


def test_the_service_keeps_files_after_the_work_and_before_the_end(monkeypatch):
    server = Server(monkeypatch, by=CULLER)
    server.kept = Rescued("rescued/now", 2, 7, Files())
    assert stopped(server)[:3] == [("work", ID, 42, 90), ("keep", ID, 1 << 20), ("stop", ID, 7)]
    assert server.done[-1][-1] == (
        "after 30 minutes without activity. Files that you had outside /workspace and your home "
        "are in rescued/now"
    )
    assert [(event.kind, event.by) for event in server.told] == [("rescued", "ds01-culler")]


def test_a_server_without_such_files_is_told_of_none(monkeypatch):
    server = Server(monkeypatch, by=CULLER)
    assert stopped(server)[-1][-1] == "after 30 minutes without activity"
    assert server.told == []


@pytest.mark.parametrize(
    "error",
    [
        Refused("it takes too long", reason="rescue"),
        docker.errors.APIError("500"),
        requests.exceptions.ReadTimeout(),
        OSError("no"),
        KeyError("Labels"),
    ],
)
def test_files_that_cannot_be_kept_keep_no_server_from_its_stop(monkeypatch, error):
    server = Server(monkeypatch, by=CULLER)
    server.kept = error
    assert [each[0] for each in stopped(server)] == ["work", "keep", "stop", "bury"]
    assert server.done[-1][-1].endswith(words.NOT_KEPT)


def test_files_are_kept_only_where_nobody_was_asked_and_the_policy_says_so(monkeypatch):
    for by in ("you", "admin bob", "the service other", "the Hub"):
        assert "keep" not in [each[0] for each in stopped(Server(monkeypatch, by=by))]
    assert "keep" not in [each[0] for each in stopped(Server(monkeypatch, by=CULLER), now=True)]
    server = Server(monkeypatch, by=CULLER)
    server.rescue_bytes = 0
    assert "keep" not in [each[0] for each in stopped(server)]
