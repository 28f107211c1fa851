"""Containers that no server owns any more are removed, and no others."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import docker.errors
import pytest

from ds01_spawner.gpus.snapshot import own_containers
from ds01_spawner.lifecycle.sweep import Sweep
from ds01_spawner.store import Store

NOW = datetime.now(timezone.utc)
MINUTE = timedelta(minutes=1)


class Engine:
    """Has containers by name; `removed` are those that are gone."""

    def __init__(self) -> None:
        self.containers: dict[str, dict] = {}

    def add(self, name, state, hub="hub", **labels):
        project, _, user = name.partition("._.")
        server = "" if project == "default" else project
        self.containers[name] = {
            "Id": name,
            "Names": [f"/{name}"],
            "State": state,
            "Created": int(NOW.timestamp()),
            "Labels": {
                "ds01.managed": "true",
                "ds01.hub": hub,
                "ds01.user": user,
                "ds01.server": server,
                "ds01.project": project,
                "ds01.start": "s",
                **labels,
            },
        }

    async def __call__(self, method, *args, **options):
        return getattr(self, method)(*args, **options)

    def list(self, **options):
        return list(self.containers.values())

    def inspect_container(self, name):
        if name not in self.containers:
            raise docker.errors.NotFound("no")
        state = self.containers[name]["State"]
        return {
            "Id": name,
            "Config": {"Labels": self.containers[name]["Labels"]},
            "State": {
                "Status": state,
                "Running": state == "running",
                "ExitCode": 0,
                "OOMKilled": False,
                "FinishedAt": "2026-01-01T00:00:00Z",
            },
            "HostConfig": {"Memory": 1 << 30},
        }

    def kill(self, name, signal):
        self.containers[name]["State"] = "exited"

    def remove_container(self, name, **options):
        self.containers.pop(name, None)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def sweep(engine, tmp_path):
    return Sweep(engine, Store(tmp_path / "db"))


async def looked(sweep, engine, minutes, known=()):
    async def listing(method, **options):
        return engine.list()

    own = await own_containers(listing, "hub")
    removed = await sweep.look(own, known, 30 * MINUTE, NOW + minutes * MINUTE)
    return [container.name for container in removed]


async def test_what_was_made_and_never_ran_goes_after_the_policys_time(sweep, engine):
    engine.add("default._.alice", "created")

    assert await looked(sweep, engine, 0) == []
    assert await looked(sweep, engine, 29) == []
    assert await looked(sweep, engine, 30) == ["default._.alice"]
    assert engine.containers == {}


async def test_what_the_hub_has_given_up_goes_when_it_was_nobodys_for_ten_minutes(sweep, engine):
    engine.add("default._.alice", "exited")
    engine.add("vision._.alice", "exited")
    known = [("alice", "vision")]

    assert await looked(sweep, engine, 0, known) == []
    assert await looked(sweep, engine, 9, known) == []
    assert await looked(sweep, engine, 10, known) == ["default._.alice"]
    assert list(engine.containers) == ["vision._.alice"]


async def test_a_hub_that_knows_it_again_meanwhile_keeps_it(sweep, engine):
    engine.add("default._.alice", "running")

    assert await looked(sweep, engine, 0) == []
    assert await looked(sweep, engine, 5, [("alice", "")]) == []
    assert await looked(sweep, engine, 12) == []
    assert engine.containers["default._.alice"]["State"] == "running"


async def test_others_containers_are_never_touched(sweep, engine):
    engine.add("default._.alice", "exited", hub="another")
    engine.add("somebodys", "exited")

    for minutes in (0, 20, 60):
        assert await looked(sweep, engine, minutes) == []
    assert len(engine.containers) == 2


async def test_a_server_whose_owner_has_another_name_by_now_is_not_stopped(sweep, engine):
    engine.add("vision._.alice", "running")
    renamed = [("anna", "vision")]

    for minutes in (0, 20, 60):
        assert await looked(sweep, engine, minutes, renamed) == []
    # The Hub's server has a container of its own, so the first one is nobody's.
    engine.add("vision._.anna", "running")
    assert await looked(sweep, engine, 61, renamed) == ["vision._.alice"]
