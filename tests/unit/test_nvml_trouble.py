"""What is wrong: each trouble has a state of its own, and one broken GPU hides no other."""

import contextlib
import itertools
import subprocess

import pynvml
import pytest

from ds01_spawner.gpus.devices import Inventory, Reading, State
from ds01_spawner.gpus.nvml import Nvml

from .nvidia import by_index, run_python

LOST, RESET_REQUIRED, NOT_SUPPORTED = 15, 16, 3

# -- a GPU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("health", "state", "says"),
    [
        ({"remap_failure": True}, State.UNHEALTHY, "have the GPU replaced"),
        ({"remap_pending": True}, State.RESET_REQUIRED, "spare rows at the next reset"),
        ({"recovery_action": 1}, State.RESET_REQUIRED, "nvidia-smi --gpu-reset"),
        ({"recovery_action": 2}, State.UNHEALTHY, "reboot of the machine"),
        ({"recovery_action": 3}, State.UNHEALTHY, "NVLink"),
        ({"recovery_action": 4}, State.RESET_REQUIRED, "out of use"),
        ({"recovery_action": 5}, State.UNHEALTHY, "IMEX"),
        ({"recovery_action": 6}, State.RESET_REQUIRED, "bus"),
        ({"recovery_action": 7}, State.UNHEALTHY, "reboot of the machine"),
        ({"recovery_action": 99}, State.UNHEALTHY, "recovery action 99"),
    ],
)
def test_bad_health_has_a_state_and_says_what_to_do(pretend, health, state, says):
    machine = pretend("a100-80gb:3,mig=2x3g.40gb@1")
    machine.set_health(0, **health)
    machine.set_health(1, **health)

    devices = by_index(Nvml().read())

    for index in ("0", "1", "1:0", "1:1"):
        assert devices[index].state is state, index
        assert says in devices[index].detail
    assert devices["2"].state is State.OK
    machine.set_health(0)
    assert by_index(Nvml().read())["0"].state is State.OK


def test_pages_to_be_retired_ask_for_a_reset(pretend):
    machine = pretend("v100-32gb:2")
    machine.set_health(0, retired_pending=True)

    devices = by_index(Nvml().read())

    assert (devices["0"].state, devices["1"].state) == (State.RESET_REQUIRED, State.OK)
    assert "memory" in devices["0"].detail


def test_of_several_troubles_the_worst_counts_and_all_are_told(pretend):
    machine = pretend("a100-80gb")
    machine.set_health(0, remap_failure=True, recovery_action=1)
    machine.set_mig_mode(0, False, True)

    (device,) = Nvml().read().inventory.devices

    assert device.state is State.RESET_REQUIRED
    for part in ("asks for a reset", "have the GPU replaced", "MIG mode is to be switched on"):
        assert part in device.detail


def test_mig_mode_that_is_about_to_be_switched_holds_back_the_gpu_and_its_devices(pretend):
    machine = pretend("a100-80gb:3,mig=7x1g.10gb@1")
    machine.set_mig_mode(0, False, True)
    machine.set_mig_mode(1, True, False)

    reading = Nvml().read()

    assert [one.index for one in reading.inventory.devices if one.state is State.OK] == ["2"]
    assert {one.state for one in reading.inventory.devices} == {State.OK, State.MIG_PENDING}
    assert "switched on" in by_index(reading)["0"].detail
    assert "switched off" in by_index(reading)["1:0"].detail


CALLS = (
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetFieldValues",
    "field-230",
)


#: What an older driver says that does not know a number, which is nothing wrong.
UNKNOWN_NUMBER = [("field-230", 2), ("nvmlDeviceGetGpuInstanceProfileInfo", 2)]
ERRORS = (1, 2, 4, 9, 13, LOST, RESET_REQUIRED, 17, 18, 20, 28, 999)


@pytest.mark.parametrize(
    ("call", "error"),
    [pair for pair in itertools.product(CALLS, ERRORS) if pair not in UNKNOWN_NUMBER],
)
def test_a_gpu_that_gives_an_error_is_not_offered_and_hides_nothing(pretend, call, error):
    machine = pretend("a100-80gb:3,mig=2x3g.40gb@1")
    machine.fail(call, error, 1)

    reading = Nvml().read()

    devices = by_index(reading)
    states = {LOST: State.LOST, RESET_REQUIRED: State.RESET_REQUIRED}
    assert devices["1"].state is states.get(error, State.UNKNOWN)
    if error not in states:
        assert f"NVML error {error}" in devices["1"].detail
    assert devices["0"].state is devices["2"].state is State.OK
    assert [one.index for one in reading.inventory.devices if one.state is State.OK] == ["0", "2"]
    assert reading.inventory.problem == ""


@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetRetiredPagesPendingStatus",
        "nvmlDeviceGetFieldValues",
        "field-230",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetGpuInstanceProfileInfo",
    ],
)
def test_what_a_gpu_does_not_have_is_nothing_wrong(pretend, call):
    machine = pretend("a100-80gb")
    machine.fail(call, NOT_SUPPORTED, 0)

    (device,) = Nvml().read().inventory.devices

    assert (device.state, device.detail) == (State.OK, "")


def test_a_driver_older_than_the_recovery_action_is_nothing_wrong(pretend):
    machine = pretend("a100-80gb")
    machine.fail("field-230", pynvml.NVML_ERROR_INVALID_ARGUMENT, 0)

    assert Nvml().read().inventory.devices[0].state is State.OK


def test_a_lost_gpu_keeps_its_mig_devices_lost(pretend):
    machine = pretend("a100-80gb:2,mig=2x3g.40gb@1")
    nvml = Nvml()
    nvml.read()
    machine.lose(1)

    reading = nvml.read()

    assert [one.uuid for one in reading.inventory.devices] == list(machine.uuids)
    assert [one.state for one in reading.inventory.devices] == [State.OK] + 3 * [State.LOST]
    assert "reboot" in reading.inventory.devices[1].detail
    assert reading.inventory.devices[2].detail == reading.inventory.devices[1].detail
    assert set(reading.unasked) == set(machine.mig(1))
    assert nvml.read() == reading
    machine.mend("*", 1)
    assert [one.state for one in nvml.read().inventory.devices] == [
        State.OK,
        State.PARTITIONED,
        State.OK,
        State.OK,
    ]


@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"])
def test_a_gpu_that_cannot_say_who_it_is_any_more_keeps_its_uuid(pretend, call):
    machine = pretend("a100-80gb:3,mig=2x3g.40gb@1")
    nvml = Nvml()
    nvml.read()
    machine.fail(call, LOST, 1)

    for _ in range(2):
        reading = nvml.read()
        assert [one.uuid for one in reading.inventory.devices] == list(machine.uuids)
        assert [one.index for one in reading.inventory.devices if one.state is State.OK] == [
            "0",
            "2",
        ]
        assert reading.inventory.devices[2].state is State.LOST


def test_a_gpu_that_never_said_who_it_is_is_listed_all_the_same(pretend):
    machine = pretend("a100-80gb:3")
    machine.fail("nvmlDeviceGetHandleByIndex_v2", 999, 1)

    reading = Nvml().read()

    assert [one.uuid for one in reading.inventory.devices] == [
        machine.gpu(0),
        "unreadable-1",
        machine.gpu(2),
    ]
    assert by_index(reading)["1"].state is State.UNKNOWN
    assert set(reading.unasked) == {"unreadable-1"}


def test_an_unreadable_gpu_is_not_taken_for_one_that_answers_elsewhere(pretend):
    machine = pretend("a100-80gb:2")
    nvml = Nvml()
    nvml.read()
    first, second = machine.state.gpus
    machine.state.gpus = [second, first]
    machine.fail("nvmlDeviceGetHandleByIndex_v2", LOST, 0)
    machine.state.gpus = [second, first]
    machine.write()

    # What was GPU 0 answers as GPU 1; what was GPU 1 may be the one that does not answer.
    assert [one.uuid for one in nvml.read().inventory.devices] == ["unreadable-0", first.uuid]


@pytest.mark.parametrize("error", [2, LOST, 999])
@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetAttributes_v2",
        "nvmlDeviceGetGpuInstanceId",
        "nvmlDeviceGetComputeInstanceId",
    ],
)
def test_a_mig_device_that_gives_an_error_hides_no_other(pretend, call, error):
    machine = pretend("a100-80gb,mig=3x2g.20gb")
    machine.fail(call, error, machine.mig(0)[1])

    devices = by_index(Nvml().read())

    assert [devices[index].state is State.OK for index in ("0:0", "0:1", "0:2")] == [
        True,
        False,
        True,
    ]
    assert devices["0:1"].parent == machine.gpu(0)
    assert devices["0:1"].uuid == "unreadable-0:1"


def test_what_is_known_from_elsewhere_against_a_device_counts(pretend):
    machine = pretend("a100-80gb:3,mig=2x3g.40gb@0,mig=2x3g.40gb@1")
    part = machine.mig(1)[0]
    nvml = Nvml(faults=lambda: {machine.gpu(0): "Xid 79", part: "Xid 94", "GPU-gone": "Xid 48"})

    devices = by_index(nvml.read())

    assert [devices[index].state for index in ("0", "0:0", "0:1")] == 3 * [State.UNHEALTHY]
    assert devices["0:1"].detail == "Xid 79"
    assert (devices["1:0"].state, devices["1:0"].detail) == (State.UNHEALTHY, "Xid 94")
    assert (devices["1"].state, devices["1:1"].state) == (State.PARTITIONED, State.OK)
    assert devices["2"].state is State.OK


# -- the driver -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (4, "run it as root"),
        (6, "finds no GPU"),
        (9, "modprobe nvidia"),
        (13, "too old"),
        (18, "different versions"),
        (999, "NVML error 999"),
    ],
)
@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_does_not_work_is_explained_and_nothing_is_offered(
    pretend, call, error, says
):
    machine = pretend("a100-80gb:2")
    machine.fail(call, error)
    nvml = Nvml()

    reading = nvml.read()

    assert says in reading.inventory.problem
    assert reading == Reading(Inventory(problem=reading.inventory.problem))
    machine.mend(call)
    assert len(nvml.read().inventory.devices) == 2


def test_a_driver_that_was_reloaded_is_read_again(pretend):
    pretend("a100-80gb:2")
    nvml = Nvml()
    before = nvml.read()
    # As if it had never been opened, however often that was done in this process.
    with contextlib.suppress(pynvml.NVMLError_Uninitialized):
        while True:
            pynvml.nvmlShutdown()

    assert nvml.read() == before


def test_a_driver_that_goes_away_gives_a_reason_until_it_is_back(pretend):
    machine = pretend("a100-80gb:2")
    nvml = Nvml()
    before = nvml.read()
    machine.fail("nvmlDeviceGetCount_v2", 1)
    machine.fail("nvmlInitWithFlags", 18)

    assert "reboot" in nvml.read().inventory.problem
    assert nvml.read().inventory.devices == ()
    machine.mend()
    assert nvml.read() == before


def test_an_answer_that_nobody_understands_is_a_problem_and_never_an_empty_machine(pretend):
    machine = pretend("a100-80gb:2")
    machine.state.driver = "\udcff"
    text = machine.state.text().encode(errors="surrogateescape")
    (machine.directory / "state").write_bytes(text)

    reading = Nvml().read()

    assert "could not be read" in reading.inventory.problem
    assert reading.inventory.devices == ()


def test_the_driver_can_be_let_go_of_and_is_opened_again(pretend):
    pretend("a100-80gb")
    nvml = Nvml()
    before = nvml.read()
    nvml.close()
    nvml.close()

    assert nvml.read() == before


READ = "from ds01_spawner.gpus.nvml import Nvml; print(repr(Nvml().read()))"


def test_a_machine_without_nvidias_library_has_no_gpu_and_no_problem():
    without = "import ctypes.util; print(ctypes.util.find_library('nvidia-ml'))"
    if run_python(without).strip() != "None":
        pytest.skip("this machine has NVIDIA's library")

    assert run_python(READ).strip() == repr(Reading(Inventory()))


def test_a_library_that_cannot_be_loaded_is_a_problem(tmp_path):
    (tmp_path / "libnvidia-ml.so.1").write_text("this is no library")

    assert "NVIDIA's library cannot be loaded" in run_python(READ, tmp_path)


def test_a_library_that_lacks_functions_is_a_problem(tmp_path):
    library = tmp_path / "libnvidia-ml.so.1"
    source = "int nvmlInitWithFlags(unsigned f) { return f; } int nvmlShutdown(void) { return 0; }"
    compile_it = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(compile_it, input=source, text=True, check=True, timeout=60)

    assert "too old for DS01" in run_python(READ, tmp_path)


def test_a_loaded_driver_without_its_library_is_a_problem(tmp_path):
    (tmp_path / "version").write_text("")
    script = (
        "import pathlib, pynvml; from ds01_spawner.gpus.library import problem;"
        f"print(problem(pynvml.NVMLError(12), pathlib.Path({str(tmp_path)!r}) / 'version'))"
    )
    assert "libnvidia-ml1" in run_python(script)


def test_pretended_gpus_whose_directory_is_gone_are_a_problem(tmp_path):
    said = run_python(READ, DS01_PRETEND_GPUS=str(tmp_path / "gone"))

    assert "cannot be loaded" in said
