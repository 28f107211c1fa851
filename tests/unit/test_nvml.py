"""What there is: GPUs and MIG devices, read by the real pynvml from the stand-in library."""

import time
from concurrent.futures import ThreadPoolExecutor

import pynvml
import pytest

from ds01_spawner.gpus.devices import GpuProcess, Inventory, State
from ds01_spawner.gpus.nvml import Nvml

from .nvidia import by_index

GIB = 2**30


def test_gpus_and_mig_devices_are_listed_with_all_that_is_known_of_them(pretend):
    machine = pretend("a100-80gb:2,mig=3g.40gb+2x2g.20gb@1;rtx-4090")

    inventory = Nvml().read().inventory
    devices = by_index(Nvml().read())

    assert inventory.problem == ""
    assert inventory.driver == machine.state.driver
    assert [device.uuid for device in inventory.devices] == list(machine.uuids)
    assert list(devices) == ["0", "1", "1:0", "1:1", "1:2", "2"]
    whole, cut, part, small, game = (devices[index] for index in ("0", "1", "1:0", "1:1", "2"))
    assert (whole.kind, whole.model, whole.state) == ("gpu", "A100-SXM4-80GB", State.OK)
    assert (whole.memory_bytes, whole.slices, whole.weight) == (80 * GIB, 7, 1.0)
    assert (whole.minor, whole.gpu_instance, whole.profile) == (0, None, "")
    assert (cut.kind, cut.state, cut.slices, cut.weight) == ("gpu", State.PARTITIONED, 7, 1.0)
    assert (part.kind, part.state, part.profile) == ("mig", State.OK, "3g.40gb")
    assert (part.parent, part.minor, part.model) == (cut.uuid, 1, "A100-SXM4-80GB")
    assert (part.slices, part.weight) == (3, pytest.approx(3 / 7))
    assert (part.gpu_instance, part.compute_instance) == (2, 0)
    assert 39 * GIB < part.memory_bytes < 40 * GIB
    assert (small.profile, small.slices, small.weight) == ("2g.20gb", 2, pytest.approx(2 / 7))
    assert (game.model, game.slices, game.weight) == ("GeForce RTX 4090", 1, 1.0)
    assert (game.state, game.minor) == (State.OK, 2)


@pytest.mark.parametrize(
    ("spec", "slices"), [("a30,mig=2g.12gb", 4), ("a30", 4), ("h200-141gb", 7), ("v100-32gb", 1)]
)
def test_a_gpu_has_the_slices_of_its_kind_in_mig_mode_and_without(pretend, spec, slices):
    pretend(spec)

    assert Nvml().read().inventory.devices[0].slices == slices


@pytest.mark.parametrize(
    ("spec", "profile"),
    [
        ("a100-80gb,mig=1g.10gb", "1g.10gb"),
        ("a100-80gb,mig=1g.20gb", "1g.20gb"),
        ("a100-40gb,mig=4g.20gb", "4g.20gb"),
        ("a30,mig=2g.12gb", "2g.12gb"),
        ("h100-80gb,mig=7g.80gb", "7g.80gb"),
        ("h200-141gb,mig=2g.35gb", "2g.35gb"),
        ("h200-141gb,mig=3g.71gb/1c", "1c.3g.71gb"),
    ],
)
def test_a_profile_that_the_name_does_not_tell_is_put_together(pretend, spec, profile):
    machine = pretend(spec)
    assert by_index(Nvml().read())["0:0"].profile == profile

    machine.state.gpus[0].mig[0].name = "NVIDIA GPU"
    machine.write()

    assert by_index(Nvml().read())["0:0"].profile == profile


def test_compute_instances_of_one_gpu_instance_are_devices_of_their_own(pretend):
    pretend("a100-80gb,mig=3g.40gb/1c.2c")

    devices = by_index(Nvml().read())

    assert [devices[index].profile for index in ("0:0", "0:1")] == ["1c.3g.40gb", "2c.3g.40gb"]
    assert [devices[index].slices for index in ("0:0", "0:1")] == [1, 2]
    assert [devices[index].compute_instance for index in ("0:0", "0:1")] == [0, 1]


def test_a_gap_in_the_indexes_hides_nothing(pretend):
    machine = pretend("a100-80gb,mig=3x2g.20gb")
    nvml = Nvml()
    nvml.read()
    machine.remove_mig(machine.mig(0)[0])

    assert list(by_index(nvml.read())) == ["0", "0:1", "0:2"]
    assert [device.uuid for device in nvml.read().inventory.devices] == list(machine.uuids)


def test_a_gpu_partitioned_anew_is_read_anew(pretend):
    machine = pretend("a100-80gb:2,mig=2x3g.40gb@0")
    nvml = Nvml()
    before = nvml.read().inventory
    machine.partition(0, "7x1g.10gb")
    after = nvml.read().inventory

    assert [device.uuid for device in after.devices] == list(machine.uuids)
    assert not {one.uuid for one in before.devices if one.parent} & {
        one.uuid for one in after.devices
    }
    machine.partition(0, "")
    assert [(one.index, one.state) for one in nvml.read().inventory.devices] == [
        ("0", State.OK),
        ("1", State.OK),
    ]


def test_a_uuid_that_comes_back_with_another_profile_is_not_taken_for_the_old_one(pretend):
    machine = pretend("a100-80gb,mig=3g.40gb")
    nvml = Nvml()
    old = nvml.read().inventory.devices[1]
    machine.partition(0, "4g.40gb")
    machine.state.gpus[0].mig[0].uuid = old.uuid
    machine.write()
    new = nvml.read().inventory.devices[1]

    assert (old.uuid, old.slices, old.profile) == (new.uuid, 3, "3g.40gb")
    assert (new.slices, new.profile) == (4, "4g.40gb")


def test_mig_mode_without_a_mig_device_offers_nothing(pretend):
    machine = pretend("a100-80gb")
    machine.set_mig_mode(0, True, True)

    (device,) = Nvml().read().inventory.devices

    assert device.state is State.PARTITIONED
    assert "no MIG device" in device.detail


# -- NVLink ---------------------------------------------------------------------------------------


def links_of(machine):
    index = {machine.gpu(number): number for number in range(len(machine.state.gpus))}
    links = Nvml().read().inventory.links
    return {tuple(sorted(index[uuid] for uuid in pair)): number for pair, number in links.items()}


def test_gpus_are_linked_in_pairs_or_through_a_switch(pretend):
    assert links_of(pretend("a100-80gb:4,nvlink=pairs")) == {(0, 1): 12, (2, 3): 12}
    assert links_of(pretend("v100-32gb:3,nvlink=all")) == {(0, 1): 3, (0, 2): 3, (1, 2): 3}
    assert links_of(pretend("rtx-4090:2;h100-80gb:3,nvlink=switch")) == {
        (2, 3): 18,
        (2, 4): 18,
        (3, 4): 18,
    }
    assert links_of(pretend("a100-80gb:2")) == {}


def test_a_link_that_is_down_does_not_count(pretend):
    machine = pretend("a30:2,nvlink=pairs")
    for gpu in machine.state.gpus:
        gpu.links = [
            (255, bus) if number < 3 else (kind, bus)
            for number, (kind, bus) in enumerate(gpu.links)
        ]
    machine.write()

    assert links_of(machine) == {(0, 1): 1}


def test_a_driver_that_does_not_tell_what_is_at_the_other_end_still_tells_gpus(pretend):
    machine = pretend("a30:2,nvlink=pairs")
    machine.fail("nvmlDeviceGetNvLinkRemoteDeviceType", 13)

    assert links_of(machine) == {(0, 1): 4}


def test_links_that_cannot_be_asked_are_none_and_harm_nothing(pretend):
    machine = pretend("a30:4,nvlink=pairs")
    machine.fail("nvmlDeviceGetNvLinkState", 999, 0)

    # Seen from its other end it is still there, but leads to nobody who is known.
    assert links_of(machine) == {(2, 3): 4}
    assert {device.state for device in Nvml().read().inventory.devices} == {State.OK}


# -- processes ------------------------------------------------------------------------------------


def test_processes_of_all_kinds_are_on_their_devices(pretend):
    machine = pretend("a100-80gb:2,mig=2x3g.40gb@1")
    part = machine.mig(1)[1]
    machine.add_process(0, 101, GIB)
    machine.add_process(0, 102, 5, kind="graphics")
    machine.add_process(0, 103, None, kind="mps")
    machine.add_process(part, 104, 7)

    reading = Nvml().read()

    assert reading.processes == (
        GpuProcess(101, machine.gpu(0), GIB),
        GpuProcess(102, machine.gpu(0), 5),
        GpuProcess(103, machine.gpu(0), None),
        GpuProcess(104, part, 7),
    )
    assert reading.unasked == {}
    machine.remove_process(101)
    assert [process.pid for process in Nvml().read().processes] == [102, 103, 104]


def test_a_process_that_computes_and_draws_is_one(pretend):
    machine = pretend("rtx-4090")
    machine.add_process(0, 7, 100)
    machine.add_process(0, 7, 100, kind="graphics")

    assert Nvml().read().processes == (GpuProcess(7, machine.gpu(0), 100),)


PROCESS_CALLS = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)


@pytest.mark.parametrize("call", PROCESS_CALLS[1:])
def test_a_kind_of_process_that_a_device_does_not_have_is_none(pretend, call):
    machine = pretend("rtx-4090")
    machine.fail(call, pynvml.NVML_ERROR_NOT_SUPPORTED, 0)

    reading = Nvml().read()

    assert reading.processes == ()
    assert reading.unasked == {}


def test_a_device_that_cannot_list_what_computes_on_it_is_not_idle(pretend):
    machine = pretend("rtx-4090")
    machine.fail(PROCESS_CALLS[0], pynvml.NVML_ERROR_NOT_SUPPORTED, 0)

    assert list(Nvml().read().unasked) == [machine.gpu(0)]


@pytest.mark.parametrize("error", [4, 7, 13, 15, 999])
@pytest.mark.parametrize("call", PROCESS_CALLS)
def test_processes_that_cannot_be_told_are_not_taken_for_none(pretend, call, error):
    machine = pretend("a100-80gb:3,mig=2x3g.40gb@1")
    broken, sound = machine.mig(1)
    for device in (0, broken):
        machine.fail(call, error, device)
    machine.add_process(sound, 8)
    machine.add_process(2, 9)

    reading = Nvml().read()

    assert set(reading.unasked) == {machine.gpu(0), broken}
    assert all(reading.unasked.values())
    assert [process.pid for process in reading.processes] == [8, 9]


# -- utilisation ----------------------------------------------------------------------------------


def test_whole_gpus_tell_how_busy_they_are(pretend):
    machine = pretend("a100-80gb:2;rtx-4090")
    machine.set_utilisation(0, 0.42)
    machine.set_utilisation(2, 1.0)

    assert Nvml().utilisation() == {
        machine.gpu(0): pytest.approx(0.42),
        machine.gpu(1): 0.0,
        machine.gpu(2): 1.0,
    }


def test_mig_devices_tell_from_hopper_on_and_others_are_left_out(pretend):
    machine = pretend("h100-80gb,mig=2x3g.40gb;a100-80gb,mig=7g.80gb")
    busy, idle = machine.mig(0)
    machine.set_utilisation(busy, 0.5)
    nvml = Nvml()

    assert nvml.utilisation() == {busy: pytest.approx(0.5), idle: 0.0}

    machine.set_utilisation(idle, 0.25)
    assert nvml.utilisation() == {busy: pytest.approx(0.5), idle: pytest.approx(0.25)}


def test_a_partition_made_between_two_samples_is_measured_too(pretend):
    machine = pretend("h100-80gb,mig=2x3g.40gb")
    nvml = Nvml()
    nvml.utilisation()
    machine.partition(0, "7g.80gb")
    machine.set_utilisation(machine.mig(0)[0], 0.75)

    assert nvml.utilisation() == {machine.mig(0)[0]: pytest.approx(0.75)}


def test_a_device_that_cannot_tell_how_busy_it_is_is_left_out(pretend):
    machine = pretend("rtx-4090:2;h100-80gb,mig=2x3g.40gb")
    machine.fail("nvmlDeviceGetUtilizationRates", 999, 0)
    machine.fail("nvmlGpmMigSampleGet", 999, machine.mig(2)[0])

    assert set(Nvml().utilisation()) == {machine.gpu(1), machine.mig(2)[1]}
    machine.fail("nvmlInitWithFlags", 9)
    assert Nvml().utilisation() == {}


def test_a_reading_does_not_wait_for_samples_of_utilisation(pretend):
    pretend("h100-80gb,mig=2x3g.40gb")
    nvml = Nvml()
    nvml.read()
    readings = 0
    with ThreadPoolExecutor(1) as thread:
        measuring = thread.submit(nvml.utilisation)
        while not measuring.done():
            nvml.read()
            readings += 1

    # A wait would let through one or two.
    assert readings > 5
    assert len(measuring.result()) == 2


# -- many -----------------------------------------------------------------------------------------


def test_threads_read_at_the_same_time(pretend):
    pretend("a100-80gb:8,mig=7x1g.10gb")
    nvml = Nvml()
    with ThreadPoolExecutor(8) as threads:
        readings = list(threads.map(lambda _: nvml.read(), range(40)))

    assert all(reading == readings[0] for reading in readings)
    assert len(readings[0].inventory.devices) == 64


def test_a_reading_while_gpus_are_partitioned_never_offers_what_is_gone(pretend):
    machine = pretend("a100-80gb:2,mig=7x1g.10gb@0")
    nvml = Nvml()
    possible = set(machine.uuids)
    with ThreadPoolExecutor(2) as threads:
        readings = threads.submit(lambda: [nvml.read() for _ in range(300)])
        while not readings.done():
            for partition in ("2x3g.40gb", "7x1g.10gb"):
                machine.partition(0, partition)
                possible |= set(machine.uuids)

    for reading in readings.result():
        assert reading.inventory.problem == ""
        offered = {one.uuid for one in reading.inventory.devices if one.state is State.OK}
        assert machine.gpu(1) in offered
        assert offered <= possible


def test_a_large_machine_is_read_in_well_under_60_ms(pretend):
    machine = pretend("a100-80gb:64,mig=7x1g.10gb")
    nvml = Nvml()
    assert len(nvml.read().inventory.devices) == len(machine.uuids) == 64 * 8
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        nvml.read()
        seconds.append(time.perf_counter() - began)

    # The quickest: the machine that tests may be busy with something else.
    assert min(seconds) < 0.06


def test_nothing_is_remembered_of_a_machine_that_has_changed(pretend):
    pretend("a100-80gb:4")
    nvml = Nvml()
    nvml.read()
    machine = pretend("rtx-4090")

    assert nvml.read().inventory.devices == Nvml().read().inventory.devices
    assert [one.uuid for one in nvml.read().inventory.devices] == [machine.gpu(0)]
    assert nvml.read().inventory != Inventory()
