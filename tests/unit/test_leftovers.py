"""What starts and stops that came to no end have left: removed, and nothing else is."""

import asyncio

import docker.errors
import pytest
import requests

from ds01_spawner.admission.leftovers import Leftovers, Servers
from ds01_spawner.gpus.occupancy import Container

from .test_engine import api_error

NOBODYS = Servers(frozenset(), frozenset())


class Engine:
    """An engine with containers, name -> state."""

    def __init__(self, **states):
        self.states, self.failing = states, set()
        self.signals = []

    async def __call__(self, method, *args, **kwargs):
        await asyncio.sleep(0)
        if method in self.failing:
            raise api_error(500)
        return getattr(self, method)(*args, **kwargs)

    def inspect_container(self, name):
        if name not in self.states:
            raise docker.errors.NotFound("no")
        state = self.states[name]
        return {
            "Id": name,
            "State": {
                "Status": state,
                "Running": state == "running",
                "ExitCode": 143,
                "OOMKilled": False,
                "StartedAt": "2026-03-01T10:00:00Z"
                if state != "created"
                else "0001-01-01T00:00:00Z",
                "FinishedAt": "2026-03-01T12:00:00Z"
                if state == "exited"
                else "0001-01-01T00:00:00Z",
            },
            "Config": {"Labels": {"ds01.gpu.size": "full"}},
            "HostConfig": {"Memory": 2**30},
        }

    def kill(self, name, signal):
        self.signals.append(signal)
        self.states[name] = "exited"

    def remove_container(self, name, **_):
        del self.states[name]


class Store:
    def __init__(self):
        self.endings, self.uses = [], []

    def add_ending(self, ending):
        self.endings.append(ending)

    def add_gpu_use(self, size, duration):
        self.uses.append((size, duration.total_seconds()))


def listed(engine, start="s1"):
    """Return the engine's containers as a snapshot has them."""
    labels = {
        "ds01.user": "alice",
        "ds01.project": "default",
        "ds01.server": "",
        "ds01.start": start,
    }
    return [
        Container(name, name, state, labels=labels, of_a_hub=True, ours=True)
        for name, state in engine.states.items()
    ]


@pytest.mark.parametrize("state", ["created", "dead"])
async def test_what_was_never_started_goes_whoever_the_servers_are(state):
    engine, store = Engine(one=state), Store()

    assert await Leftovers(engine, store).bury(listed(engine))

    assert engine.states == {}
    assert [e.cause.value for e in store.endings] == ["start-failed"] * (state == "created")


@pytest.mark.parametrize("state", ["created", "exited", "running"])
async def test_a_start_under_way_is_left_alone(state):
    engine = Engine(one=state)
    leftovers = Leftovers(engine, Store(), lambda: NOBODYS)
    leftovers.starts.add("s1")

    assert not await leftovers.bury(listed(engine))

    assert engine.states == {"one": state}


async def test_what_ended_in_a_stop_that_was_interrupted_goes_and_is_remembered():
    engine, store = Engine(one="exited"), Store()

    assert await Leftovers(engine, store, lambda: NOBODYS).bury(listed(engine))

    assert engine.states == {}
    (ending,) = store.endings
    assert ending.message.startswith("Stopped by you or an admin.")
    assert store.uses == [("full", 7200)]


@pytest.mark.parametrize("state", ["exited", "running", "paused"])
@pytest.mark.parametrize(
    "servers",
    [
        None,
        Servers(frozenset({"one"}), frozenset()),
        Servers(frozenset(), frozenset({("alice", "")})),
    ],
    ids=["not known", "by container", "by name"],
)
async def test_a_server_of_the_hub_is_left_alone_in_any_state(state, servers):
    engine = Engine(one=state)

    assert not await Leftovers(engine, Store(), servers and (lambda: servers)).bury(listed(engine))
    await asyncio.sleep(0.05)

    assert engine.states == {"one": state}
    assert engine.signals == []


async def test_a_server_that_the_hub_gave_up_is_stopped_in_the_background():
    engine, store = Engine(one="running"), Store()
    leftovers = Leftovers(engine, store, lambda: NOBODYS)

    assert not await leftovers.bury(listed(engine))
    await asyncio.gather(*leftovers._stopping.values())

    assert engine.signals == ["SIGTERM"]
    assert engine.states == {}
    assert len(store.endings) == 1


async def test_a_container_that_cannot_be_removed_keeps_what_it_holds():
    engine = Engine(one="exited")
    engine.failing.add("remove_container")
    leftovers = Leftovers(engine, Store(), lambda: NOBODYS)

    assert not await leftovers.bury(listed(engine))
    assert engine.states == {"one": "exited"}

    engine.failing.clear()
    assert await leftovers.bury(listed(engine))


async def test_a_start_that_succeeded_since_the_list_was_made_is_no_leftover():
    engine = Engine(one="created")
    before = listed(engine)
    engine.states["one"] = "running"

    assert not await Leftovers(engine, Store()).bury(before)
    assert engine.states == {"one": "running"}


async def test_an_engine_that_does_not_answer_is_asked_again_by_the_next_grant(monkeypatch):
    engine, silent = Engine(one="running"), True
    answer = engine.kill

    def kill(name, signal):
        if silent:
            raise requests.exceptions.ConnectionError
        answer(name, signal)

    monkeypatch.setattr("ds01_spawner.engine.PATIENCE_S", 0.1)
    monkeypatch.setattr("ds01_spawner.engine.patiently.__defaults__", (0.1,))
    engine.kill = kill
    leftovers = Leftovers(engine, Store(), lambda: NOBODYS)
    await leftovers.bury(listed(engine))
    await asyncio.gather(*leftovers._stopping.values())
    assert engine.states == {"one": "running"}

    silent = False
    await leftovers.bury(listed(engine))
    await asyncio.gather(*leftovers._stopping.values())
    assert engine.states == {}


async def test_an_engine_that_chokes_on_a_leftover_keeps_nobody_from_a_grant():
    engine = Engine(one="exited")
    engine.failing.add("inspect_container")

    assert not await Leftovers(engine, Store(), lambda: NOBODYS).bury(listed(engine))

    assert engine.states == {"one": "exited"}


async def test_what_is_being_removed_is_left_to_it():
    engine = Engine(one="removing")

    assert not await Leftovers(engine, Store(), lambda: NOBODYS).bury(listed(engine))
    await asyncio.sleep(0.05)

    assert engine.signals == []
