"""What servers do, from counters of the kernel's and the driver's: nothing unread is idleness."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ds01_spawner.gpus.devices import GpuProcess, Inventory, Reading, State
from ds01_spawner.lifecycle import gpus
from ds01_spawner.lifecycle.gpus import MachineGpus
from ds01_spawner.lifecycle.history import History, Idle, Kernels, Sample
from ds01_spawner.lifecycle.meters import GpuLoad, Meters, Watched, network_bytes, read_gpus

from .machine import FIRST, INVENTORY, SECOND, WHOLE

BEGAN = datetime(2026, 6, 1, 8, 0, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
BOX = "c0ffee" * 10
NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo: {lo} 5 0 0 0 0 0 0 {lo} 5 0 0 0 0 0 0
  eth0: {received} 7 0 0 0 0 0 0 {sent} 7 0 0 0 0 0 0
"""


class Machine:
    """The kernel's files for one container, and a clock."""

    def __init__(self, directory: Path):
        self.proc, self.root = directory / "proc", directory / "cgroup"
        self.box = self.root / "docker" / BOX
        self.box.mkdir(parents=True)
        self.seconds = 0.0
        self.meters = Meters(self.proc, self.root, lambda: self.seconds)
        self.set()
        self.process(7)

    def process(self, pid, container=BOX):
        """Have a process, in this container."""
        (self.proc / str(pid) / "net").mkdir(parents=True, exist_ok=True)
        (self.proc / str(pid) / "cgroup").write_text(f"0::/docker/{container}\n")
        self.network(pid)

    def network(self, pid, lo=0, received=0, sent=0):
        text = NET_DEV.format(lo=lo, received=received, sent=sent)
        (self.proc / str(pid) / "net" / "dev").write_text(text)

    def set(self, cpu_s=0.0, kills=0):
        for name, text in {
            "memory.current": "1000",
            "memory.stat": "inactive_file 10",
            "memory.events": f"oom_kill {kills}",
            "cpu.stat": f"usage_usec {round(cpu_s * 1e6)}",
            "pids.current": "3",
        }.items():
            (self.box / name).write_text(text)

    def look(self, pid=7, after=60.0, cpus=2.0, gpu=(), percent=()):
        self.seconds += after
        watched = Watched(BOX, pid, cpus, tuple(gpu))
        return self.meters.sample(watched, dict(percent), BEGAN)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# -- CPU and network -------------------------------------------------------------------------------


def test_the_first_look_tells_nothing_and_the_next_the_time_between(machine):
    machine.set(cpu_s=1000)
    assert machine.look() is None
    machine.set(cpu_s=1030)
    # Half a minute of CPU time in a minute: a quarter of two cores.
    assert machine.look() == Sample(BEGAN, 25.0, network_bytes=0, cores=0.5)


def test_time_that_a_look_was_late_counts_as_it_was(machine):
    machine.look()
    machine.set(cpu_s=30)
    assert machine.look(after=30).cpu_percent == 50
    machine.set(cpu_s=30 + 180)
    assert machine.look(after=90).cpu_percent == 100


def test_a_server_without_a_limit_is_measured_against_one_core(machine):
    machine.look(cpus=1.0)
    machine.set(cpu_s=120)
    assert machine.look(cpus=1.0).cpu_percent == 200


@pytest.mark.parametrize("file", ["cpu.stat", "memory.events"])
@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_counters_that_cannot_be_read_are_not_zero(machine, file, text):
    machine.look()
    if text is None:
        (machine.box / file).unlink()
    else:
        (machine.box / file).write_text(text)
    assert machine.look().cpu_percent is None


def test_after_a_look_in_vain_nothing_is_told_of_the_time_before(machine):
    machine.look()
    (machine.box / "cpu.stat").unlink()
    assert machine.look().cpu_percent is None
    machine.set(cpu_s=90)
    assert machine.look() is None
    machine.set(cpu_s=90)
    assert machine.look().cpu_percent == 0


def test_a_process_that_is_gone_is_not_idle(machine):
    machine.look()
    assert machine.look(pid=8).cpu_percent is None


def test_a_number_that_another_container_has_by_now_tells_nothing(machine):
    machine.look()
    machine.process(7, container="decade" * 10)
    other = machine.root / "docker" / ("decade" * 10)
    other.mkdir()
    for file in machine.box.iterdir():
        (other / file.name).write_text(file.read_text())
    assert machine.look().cpu_percent is None
    assert not machine.meters.is_process_of(BOX, 7)
    assert not machine.meters.is_process_of(BOX, 99)


@pytest.mark.parametrize("counter_s", [2, 1050])
def test_a_container_that_was_started_again_is_not_measured_against_its_last_life(
    machine, counter_s
):
    machine.set(cpu_s=1000)
    machine.look()
    machine.process(9)
    machine.set(cpu_s=counter_s)
    assert machine.look(pid=9).cpu_percent is None
    machine.set(cpu_s=counter_s + 12)
    assert machine.look(pid=9).cpu_percent == 10


def test_counters_that_run_backwards_are_not_idleness(machine):
    machine.set(cpu_s=1000)
    machine.look()
    machine.set(cpu_s=10)
    assert machine.look().cpu_percent is None


def test_two_looks_at_the_same_moment_tell_nothing(machine):
    machine.look()
    assert machine.look(after=0).cpu_percent is None


def test_what_a_container_sends_to_itself_is_no_traffic(machine):
    machine.network(7, lo=5000, received=100, sent=50)
    assert network_bytes(7, machine.proc) == 150
    machine.look()
    machine.network(7, lo=9000, received=1100, sent=550)
    assert machine.look().network_bytes == 1500


@pytest.mark.parametrize("text", ["", "a\nb\n eth0: x\n", "a\nb\n eth0: 1 2\n", "a\nb\n eth0:\n"])
def test_traffic_that_cannot_be_read_is_not_known(machine, text):
    machine.look()
    (machine.proc / "7" / "net" / "dev").write_text(text)
    found = machine.look()
    assert found.cpu_percent == 0
    assert not found.network_bytes


def test_an_interface_that_begins_anew_has_moved_nothing(machine):
    machine.network(7, received=1000)
    machine.look()
    machine.network(7, received=10)
    assert machine.look().network_bytes == 0


def test_containers_that_are_gone_are_forgotten(machine):
    machine.set(kills=2)
    machine.look()
    assert machine.meters.oom_kills == {BOX: 2}
    machine.meters.forget_others(frozenset())
    assert machine.meters.oom_kills == {}
    assert machine.look() is None


def test_a_core_of_a_hundred_that_works_is_no_kernel_that_waits(machine):
    # Of a hundred cores, one that is fully busy is less than the threshold.
    machine.look(cpus=100)
    history, executing = History.begun(BEGAN), Kernels(executing_since=BEGAN)
    for minute in range(1, 181):
        machine.set(cpu_s=60 * minute)
        sample = machine.look(cpus=100)
        assert sample.cpu_percent == 1
        at = BEGAN + minute * MINUTE
        history = history.with_sample(Sample(at, 1.0, cores=sample.cores), Idle(), 3 * MINUTE)
    assert history.stalled_since(executing, 60 * MINUTE, at) is None
    assert history.busy_until == BEGAN


# -- GPUs ------------------------------------------------------------------------------------------


class Nvml:
    """A driver that says what it is told to."""

    def __init__(self, shares=(), inventory=INVENTORY, used=(), unasked=()):
        self.shares = dict(shares)
        processes = tuple(GpuProcess(1, uuid) for uuid in used)
        self.reading = Reading(inventory, processes, dict(unasked))

    def utilisation(self):
        return self.shares

    def read(self):
        return self.reading


def test_a_part_of_a_gpu_that_does_not_tell_is_busy_while_a_process_is_on_it():
    found = read_gpus(Nvml({WHOLE.uuid: 0.25}, used=[FIRST.uuid])).percent
    assert found[WHOLE.uuid] == 25
    assert found[FIRST.uuid] == 100
    assert found[SECOND.uuid] == 0


def test_a_part_that_tells_is_as_busy_as_it_says_whatever_is_on_it():
    assert read_gpus(Nvml({FIRST.uuid: 0.5}, used=[FIRST.uuid])).percent[FIRST.uuid] == 50


def test_a_part_whose_processes_cannot_be_read_is_not_idle():
    assert SECOND.uuid not in read_gpus(Nvml(unasked={SECOND.uuid: "lost"})).percent


def test_a_whole_gpu_that_does_not_tell_is_not_idle():
    assert WHOLE.uuid not in read_gpus(Nvml()).percent


def test_the_weight_is_that_of_the_devices_that_can_be_given():
    well = (device for device in INVENTORY.devices if device.state is State.OK)
    assert read_gpus(Nvml()).weight == sum(device.weight for device in well) > 1
    lost = replace(WHOLE, state=State.LOST)
    assert read_gpus(Nvml(inventory=Inventory((lost, FIRST)))).weight == FIRST.weight


def test_a_driver_that_says_nothing_leaves_all_unknown(machine):
    found = read_gpus(Nvml(inventory=Inventory(problem="gone")))
    assert found == GpuLoad()
    machine.look(gpu=[WHOLE.uuid])
    sample = machine.look(gpu=[WHOLE.uuid], percent=found.percent)
    assert (sample.gpu_percent, sample.gpu_known) == (None, False)


def test_of_several_devices_the_busiest_counts_and_all_must_be_known(machine):
    uuids = [WHOLE.uuid, FIRST.uuid]
    machine.look(gpu=uuids)
    both = machine.look(gpu=uuids, percent={WHOLE.uuid: 3.0, FIRST.uuid: 70.0})
    assert (both.gpu_percent, both.gpu_known) == (70, True)
    one = machine.look(gpu=uuids, percent={WHOLE.uuid: 3.0})
    assert (one.gpu_percent, one.gpu_known) == (3, False)


def test_a_driver_that_hangs_is_waited_for_once_and_asked_again_when_it_answers(monkeypatch):
    monkeypatch.setattr(gpus, "_PATIENCE_S", 0.2)
    answers, asked = threading.Event(), []

    class Hanging(Nvml):
        def utilisation(self):
            asked.append(1)
            answers.wait(30)
            return super().utilisation()

    async def scene():
        loop = asyncio.get_running_loop()
        machine = MachineGpus(Hanging({WHOLE.uuid: 0.5}))
        assert await machine.load() == GpuLoad()
        began = loop.time()
        assert await machine.load() == GpuLoad()
        assert loop.time() - began < 0.1
        answers.set()
        for _ in range(100):
            if (found := await machine.load()).percent:
                break
            await asyncio.sleep(0.05)
        assert found.percent[WHOLE.uuid] == 50
        assert len(asked) == 2

    asyncio.run(scene())


def test_a_driver_whose_library_fails_says_nothing_and_ends_no_look(caplog):
    class Failing(Nvml):
        def utilisation(self):
            raise RuntimeError("database is locked")

        def read(self):
            raise RuntimeError("database is locked")

    async def scene():
        machine = MachineGpus(Failing())
        return await machine.load()

    assert asyncio.run(scene()) == GpuLoad()
    assert "The GPUs could not be asked" in caplog.text
