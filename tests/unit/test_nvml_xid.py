"""What the driver reports while it happens: each Xid reaches the devices that it is about."""

import queue
import time
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.gpus import xid
from ds01_spawner.gpus.devices import State
from ds01_spawner.gpus.nvml import Nvml

from .nvidia import by_index

PATIENCE_S = 20


class Watch:
    """A watch that runs, and what it reported."""

    def __init__(self):
        self.reports = queue.Queue()
        self.watch = xid.XidWatch(lambda *report: self.reports.put(report))

    def __enter__(self):
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.watch.stop()
        assert not self.watch._thread.is_alive()

    def until_watching(self):
        assert self.watch.wait_until_watching(PATIENCE_S)
        return self

    def next(self):
        uuid, number, _ = self.reports.get(timeout=PATIENCE_S)
        return uuid, number


def test_an_xid_is_reported_for_its_gpu_with_the_time(pretend):
    machine = pretend("a100-80gb:3")
    with Watch() as watch:
        watch.until_watching()
        machine.emit_xid(1, 79)
        uuid, number, at = watch.reports.get(timeout=PATIENCE_S)

    assert (uuid, number) == (machine.gpu(1), 79)
    assert abs(datetime.now(timezone.utc) - at) < timedelta(minutes=1)


def test_each_xid_is_reported_once_in_its_order(pretend):
    machine = pretend("a100-80gb:2")
    with Watch() as watch:
        watch.until_watching()
        for number in (48, 63, 79):
            machine.emit_xid(0, number)
        machine.emit_xid(1, 94)

        expected = [*((machine.gpu(0), number) for number in (48, 63, 79)), (machine.gpu(1), 94)]
        assert [watch.next() for _ in range(4)] == expected
        assert watch.reports.empty()


def test_an_xid_of_a_programs_own_making_is_left_out(pretend):
    machine = pretend("a100-80gb")
    with Watch() as watch:
        watch.until_watching()
        for number in (13, 31, 43, 45, 68, 109, 48):
            machine.emit_xid(0, number)

        assert watch.next() == (machine.gpu(0), 48)
        assert watch.reports.empty()


def test_an_xid_of_a_mig_device_is_reported_for_this_device_only(pretend):
    machine = pretend("a100-80gb:2,mig=3g.40gb/1c.2c+2x2g.20gb@1")
    with Watch() as watch:
        watch.until_watching()
        for uuid in machine.mig(1):
            machine.emit_xid(uuid, 94)
        assert [watch.next()[0] for _ in range(4)] == list(machine.mig(1))

        machine.emit_xid(1, 79)
        assert watch.next() == (machine.gpu(1), 79)


def test_an_xid_of_a_gpu_instance_is_reported_for_all_in_it(pretend):
    machine = pretend("a100-80gb,mig=3g.40gb/1c.2c+2x2g.20gb")
    in_it = [one for one in machine.state.gpus[0].mig if one.instance_slices == 3]
    assert len(in_it) == 2
    with Watch() as watch:
        watch.until_watching()
        machine.emit_xid(in_it[0].uuid, 94, of_whole_instance=True)

        assert {watch.next(), watch.next()} == {(one.uuid, 94) for one in in_it}
        assert watch.reports.empty()


@pytest.mark.parametrize("error", [15, 999])
def test_an_xid_whose_mig_device_cannot_be_found_is_the_gpus(pretend, error):
    machine = pretend("a100-80gb,mig=2x3g.40gb")
    machine.fail("nvmlDeviceGetMaxMigDeviceCount", error, 0)
    with Watch() as watch:
        watch.until_watching()
        machine.emit_xid(machine.mig(0)[0], 94)

        assert watch.next() == (machine.gpu(0), 94)


def test_a_gpu_that_cannot_be_watched_keeps_no_other_from_being_watched(pretend, monkeypatch):
    monkeypatch.setattr(xid, "_LOOK_AGAIN_S", 0.05)
    machine = pretend("a100-80gb:3")
    machine.fail("nvmlDeviceGetHandleByIndex_v2", 15, 0)
    machine.fail("nvmlDeviceRegisterEvents", 3, 1)
    with Watch() as watch:
        watch.until_watching()
        machine.emit_xid(2, 48)
        assert watch.next() == (machine.gpu(2), 48)

        machine.mend("", 0)
        reported = None
        give_up = time.monotonic() + PATIENCE_S
        # Events from before it is watched are not told: repeat until one comes.
        while reported is None and time.monotonic() < give_up:
            machine.emit_xid(0, 79)
            try:
                reported = watch.reports.get(timeout=0.2)
            except queue.Empty:
                continue
    assert reported is not None
    assert reported[:2] == (machine.gpu(0), 79)


def test_a_driver_that_is_not_there_is_waited_for(pretend, monkeypatch, caplog):
    monkeypatch.setattr(xid, "_RETRY_S", 0.05)
    machine = pretend("a100-80gb")
    machine.fail("nvmlInitWithFlags", 9)
    with Watch() as watch:
        assert not watch.watch.wait_until_watching(0.5)
        machine.mend()
        watch.until_watching()
        machine.fail("nvmlEventSetWait_v2", 999)
        machine.fail("nvmlInitWithFlags", 18)
        give_up = time.monotonic() + PATIENCE_S
        while "different versions" not in caplog.text:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        machine.mend()
        watch.until_watching()
        machine.emit_xid(0, 79)
        assert watch.next() == (machine.gpu(0), 79)

    # Said once, not at every try.
    assert caplog.text.count("modprobe nvidia") == 1


def test_a_report_that_cannot_be_noted_does_not_end_the_watch(pretend, caplog):
    machine = pretend("a100-80gb")
    reports = queue.Queue()

    def note(uuid, number, at):
        reports.put(number)
        if number == 48:
            raise RuntimeError("the disk is full")

    watch = xid.XidWatch(note)
    watch.start()
    try:
        assert watch.wait_until_watching(PATIENCE_S)
        machine.emit_xid(0, 48)
        machine.emit_xid(0, 79)
        assert [reports.get(timeout=PATIENCE_S) for _ in range(2)] == [48, 79]
    finally:
        watch.stop()
    assert "the disk is full" in caplog.text


def test_a_reported_device_is_not_offered_any_more(pretend):
    machine = pretend("a100-80gb:2,mig=2x3g.40gb@1")
    faults = {}
    reported = queue.Queue()
    nvml = Nvml(faults=lambda: dict(faults))

    def note(uuid, number, at):
        faults[uuid] = f"Xid {number}"
        reported.put(uuid)

    watch = xid.XidWatch(note)
    watch.start()
    try:
        assert watch.wait_until_watching(PATIENCE_S)
        machine.emit_xid(machine.mig(1)[0], 94)
        assert reported.get(timeout=PATIENCE_S) == machine.mig(1)[0]
    finally:
        watch.stop()

    devices = by_index(nvml.read())
    assert (devices["1:0"].state, devices["1:0"].detail) == (State.UNHEALTHY, "Xid 94")
    assert [index for index in devices if devices[index].state is State.OK] == ["0", "1:1"]
