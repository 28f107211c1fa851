"""A snapshot is whole and of now, or there is none."""

from __future__ import annotations

import asyncio
import os
import threading

import docker.errors
import pytest
import requests

from ds01_spawner.gpus import snapshot as snapshot_module
from ds01_spawner.gpus.devices import GpuProcess, Inventory, Reading
from ds01_spawner.gpus.processes import locate
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.lone_thread import LoneThread

from .machine import FIRST, IDLE, INVENTORY, PARTED, WHOLE
from .test_engine import api_error

OURS = {"ds01.hub": "h1", "ds01.user": "alice", "ds01.project": "p", "ds01.server": "p"}


class Engine:
    """An engine with containers: id -> (entry of the list, inspection), and what it was asked."""

    def __init__(self):
        self.containers = {}
        self.asked = []
        self.silent = set()
        #: Container id -> what is answered in place of its inspection.
        self.answers = {}
        self.under_way = self.most_under_way = 0

    def add(self, container_id, name="job", ids=("0",), state="running", labels=None):
        listed = {
            "Id": container_id,
            "Names": [f"/{name}"],
            "State": state,
            "Created": 1795495232,
            "Labels": labels,
        }
        host = {"Runtime": "runc", "DeviceRequests": [{"Driver": "", "DeviceIDs": list(ids)}]}
        self.containers[container_id] = (listed, {"HostConfig": host, "Config": {"Env": None}})
        return listed

    async def __call__(self, method, *args, **kwargs):
        self.asked.append((method, *args))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if method in self.silent:
            raise requests.exceptions.ReadTimeout()
        if method == "containers":
            assert kwargs == {"all": True}
            return [dict(listed) for listed, _ in self.containers.values()]
        if method == "info":
            return {"Runtimes": {"runc": {"path": "runc"}}, "DefaultRuntime": "runc"}
        inspected = self.answers.get(args[0], self.containers[args[0]][1])
        if isinstance(inspected, Exception):
            raise inspected
        if inspected is None:
            raise docker.errors.NotFound("gone")
        return inspected

    def inspections(self):
        return [asked[1] for asked in self.asked if asked[0] == "inspect_container"]


@pytest.fixture
def engine():
    return Engine()


def snapshots(engine, *readings, **settings):
    readings = list(readings) or [Reading(INVENTORY)]

    def read():
        return readings.pop(0) if len(readings) > 1 else readings[0]

    return Snapshots(engine, read, asyncio.to_thread, **{"hub_id": "h1", **settings})


async def test_what_never_changes_is_asked_once_and_the_rest_every_time(engine):
    listed = engine.add("a", name="before")
    taking = snapshots(engine)
    await taking.take()
    listed["Names"], listed["State"] = ["/other/alias", "/after"], "paused"

    snapshot, *_ = await taking.take()

    assert snapshot.holders[WHOLE.uuid][0].container == "after"
    assert engine.inspections() == ["a"]
    assert [asked[0] for asked in engine.asked].count("containers") == 2
    listed["State"] = "exited"
    assert (await taking.take()).snapshot.holders == {}


async def test_a_removed_container_is_forgotten(engine):
    engine.add("a")
    taking = snapshots(engine)
    await taking.take()
    del engine.containers["a"]

    assert (await taking.take()).snapshot.holders == {}
    assert taking._claims == {}


async def test_a_container_that_is_gone_before_it_is_looked_at_holds_nothing(engine):
    engine.add("a")
    engine.containers["a"] = (engine.containers["a"][0], None)

    assert (await snapshots(engine).take()).snapshot.holders == {}


@pytest.mark.parametrize("method", ["containers", "info", "inspect_container"])
async def test_a_silent_engine_is_no_empty_machine(engine, method):
    engine.add("a")
    engine.silent.add(method)

    with pytest.raises(requests.exceptions.ReadTimeout):
        await snapshots(engine).take()


@pytest.mark.parametrize("answer", [api_error(500), {"Config": None}])
async def test_one_container_that_cannot_be_looked_at_holds_everything_and_is_named(engine, answer):
    engine.add("a", name="broken")
    engine.answers["a"] = answer
    taking = snapshots(engine)

    snapshot = (await taking.take()).snapshot

    assert snapshot.free == ()
    assert snapshot.warnings == ("Nothing is known of the container broken.",)
    # It is asked for again, as it may be mended.
    del engine.answers["a"]
    assert WHOLE.uuid in (await taking.take()).snapshot.holders
    assert IDLE in (await taking.take()).snapshot.free


async def test_a_driver_that_hangs_is_waited_for_once_and_then_is_a_problem(engine, monkeypatch):
    monkeypatch.setattr(snapshot_module, "NVML_PATIENCE_S", 0.2)
    goes_on = threading.Event()
    taking = Snapshots(engine, lambda: _read_when(goes_on), LoneThread("test").run, "h1")

    for _ in range(3):
        snapshot, *_ = await taking.take()
        assert snapshot.inventory.problem == snapshot_module.DRIVER_HANGS
        assert snapshot.free == ()

    goes_on.set()
    while (await taking.take()).snapshot.inventory.problem:
        await asyncio.sleep(0.01)


async def test_a_snapshot_that_has_its_reading_does_not_wait_for_a_driver_that_hangs_now(
    engine, monkeypatch
):
    goes_on, thread = threading.Event(), LoneThread("test")
    taking = Snapshots(engine, lambda: Reading(INVENTORY), thread.run, "h1")
    with_claims = taking._with_claims

    async def hangs_meanwhile(containers):
        thread.submit(goes_on.wait)
        return await with_claims(containers)

    monkeypatch.setattr(taking, "_with_claims", hangs_meanwhile)
    try:
        taken = await asyncio.wait_for(taking.take(), 10)
    finally:
        goes_on.set()
    assert taken.snapshot.free


def _read_when(goes_on):
    goes_on.wait()
    return Reading(INVENTORY)


async def test_new_containers_are_looked_at_a_few_at_once(engine):
    for number in range(40):
        engine.add(str(number))

    await snapshots(engine).take()

    assert sorted(engine.inspections()) == sorted(map(str, range(40)))
    assert 1 < engine.most_under_way <= 4


async def test_snapshots_at_the_same_time_do_not_take_each_others_answers(engine):
    taking = snapshots(engine)
    for number in range(9):
        engine.add(str(number), ids=("0",))
        found = await asyncio.gather(*(taking.take() for _ in range(3)))
        assert all(len(one.snapshot.holders[WHOLE.uuid]) == number + 1 for one in found)


@pytest.mark.parametrize(
    ("hub_id", "name", "labels", "ours"),
    [
        ("h1", "p._.alice", OURS, True),
        ("h1", "anything", OURS, False),
        ("h1", "p._.alice", {**OURS, "ds01.user": "bob"}, False),
        ("h2", "p._.alice", OURS, False),
        ("", "p._.alice", {**OURS, "ds01.hub": ""}, False),
        ("h1", "p._.alice", {"ds01.hub": "h1"}, False),
        ("h1", "p._.alice", None, False),
    ],
)
async def test_ours_is_what_this_hub_created(engine, hub_id, name, labels, ours):
    own_words = labels and {**labels, "ds01.gpu.uuids": IDLE.uuid, "ds01.start": "s1"}
    engine.add("a", name=name, state="created", labels=own_words)

    snapshot, own, _ = await snapshots(engine, hub_id=hub_id).take()

    assert (IDLE.uuid in snapshot.holders) is ours
    assert WHOLE.uuid in snapshot.holders
    assert [(c.container_id, c.state, c.labels["ds01.start"]) for c in own] == (
        [("a", "created", "s1")] if ours else []
    )


async def test_a_watcher_is_known_by_a_pattern_of_its_name(engine):
    engine.add("a", name="dcgm-exporter-3", ids=("all",))
    engine.add("b", name="dcgm-exporter._.alice", labels={**OURS, "ds01.project": "dcgm-exporter"})

    snapshot, *_ = await snapshots(engine, watchers=["dcgm-exporter*"]).take()

    assert set(snapshot.holders) == {WHOLE.uuid}
    assert engine.inspections() == ["b"]


async def test_a_problem_with_the_gpus_is_told(engine):
    broken = Reading(Inventory(problem="the driver is not loaded"))

    assert (await snapshots(engine, broken).take()).snapshot.inventory.problem


async def test_a_process_that_has_ended_is_asked_for_once_more(engine):
    gone = GpuProcess(2**22 + 1, IDLE.uuid)
    ended = snapshots(engine, Reading(INVENTORY, (gone,)), Reading(INVENTORY))

    assert (await ended.take()).snapshot.holders == {}


async def test_a_process_that_nvml_keeps_and_proc_does_not_have_holds_its_device(engine):
    hidden = Reading(INVENTORY, (GpuProcess(2**22 + 1, IDLE.uuid),))

    (holder,) = (await snapshots(engine, hidden).take()).snapshot.holders[IDLE.uuid]
    assert holder.detail == f"process {2**22 + 1} (not in /proc)"


async def test_processes_that_cannot_be_told_take_their_device(engine):
    reading = Reading(INVENTORY, unasked={FIRST.uuid: "no permission"})

    snapshot, *_ = await snapshots(engine, reading).take()
    assert set(snapshot.holders) == {FIRST.uuid, PARTED.uuid}


def test_a_process_of_the_machine_is_told_by_its_name():
    (process,) = locate([GpuProcess(os.getpid(), IDLE.uuid)])

    assert process.name
    assert str(process) == f"process {os.getpid()} ({process.name})"


@pytest.mark.parametrize(
    "path",
    [
        "0::/system.slice/docker-{id}.scope",
        "0::/ds01.slice/ds01-alice.slice/docker-{id}.scope/init",
        "12:pids:/docker/{id}\n11:memory:/docker/{id}",
    ],
)
def test_a_containers_process_is_told_by_its_cgroup(tmp_path, path):
    folder = tmp_path / "77"
    folder.mkdir()
    container_id = "0123456789abcdef" * 4
    (folder / "cgroup").write_text(path.format(id=container_id))
    (folder / "comm").write_text("bad\x1bname\n")

    (process,) = locate([GpuProcess(77, IDLE.uuid)], tmp_path)

    assert process.cgroups[0] == container_id
    assert process.name == "bad?name"
