"""A container that has more or less than its grant is noticed, however it is hidden."""

import os
import stat

import pytest

from ds01_spawner.gpus import verification
from ds01_spawner.gpus.devices import Device
from ds01_spawner.gpus.verification import problem

PID = 4242
NULL = os.makedev(1, 3)
#: As the kernel writes it with NVIDIA's driver loaded, shortened.
DEVICES = """Character devices:
  1 mem
195 nvidia-frontend
235 nvidia-caps
236 nvidia-nvlink
511 nvidia-uvm

Block devices:
195 nvidia
"""
#: The same of a newer driver, which gives the GPUs' number three names.
NEWER_DEVICES = DEVICES.replace(
    "195 nvidia-frontend\n", "195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n"
)
GPU = Device("GPU-5c89852c", "0", "A100", 80 << 30, 7, 1.0, minor=0)
MIG = Device(
    "MIG-3bd5c5b6",
    "1:0",
    "A100",
    10 << 30,
    1,
    1 / 7,
    profile="1g.10gb",
    parent="GPU-11aa22bb",
    minor=1,
    gpu_instance=7,
    compute_instance=0,
)
CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-nvlink")


class Container:
    """A directory in the place of ``/proc``, with the root of one process."""

    def __init__(self, path):
        self.proc = path / "proc"
        self.dev = self.proc / str(PID) / "root" / "dev"
        self.dev.mkdir(parents=True)
        (self.proc / "devices").write_text(DEVICES)
        self.capabilities = path / "capabilities"
        instance = self.capabilities / "gpu1" / "mig" / "gi7"
        (instance / "ci0").mkdir(parents=True)
        (instance / "access").write_text("DeviceFileMinor: 66\nDeviceFileMode: 292\n")
        (instance / "ci0" / "access").write_text("DeviceFileMinor: 67\nDeviceFileMode: 292\n")

    def has(self, *names, number=NULL):
        for name in names:
            path = self.dev / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o666, number)

    def problem(self, *granted, pid=PID):
        return problem(pid, granted, capabilities=self.capabilities, proc=self.proc)


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path)
    made.has("null", "zero", "tty", *CONTROL, "nvidia-caps-imex-channels/channel0")
    return made


def test_a_container_without_a_grant_and_without_gpus_is_right(container):
    assert container.problem() == ""


def test_a_gpu_is_its_node(container):
    container.has("nvidia0")
    assert container.problem(GPU) == ""


def test_a_mig_device_is_its_gpus_node_and_its_two_capabilities(container):
    container.has("nvidia1", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67")
    assert container.problem(MIG) == ""
    assert container.problem(MIG, GPU) == "it lacks /dev/nvidia0 of GPU-5c89852c, which was granted"


def test_a_gpu_that_was_not_granted_is_named(container):
    container.has("nvidia0", "nvidia1")
    assert container.problem() == "it has /dev/nvidia0, /dev/nvidia1, which was not granted"
    assert container.problem(GPU) == "it has /dev/nvidia1, which was not granted"


def test_another_gpu_than_granted_is_both_too_much_and_too_little(container):
    container.has("nvidia1")
    found = container.problem(GPU)
    assert "it has /dev/nvidia1" in found
    assert "it lacks /dev/nvidia0 of GPU-5c89852c" in found


def test_another_mig_device_of_the_same_gpu_is_noticed(container):
    container.has("nvidia1", "nvidia-caps/nvidia-cap75", "nvidia-caps/nvidia-cap76")
    found = container.problem(MIG)
    assert "it has /dev/nvidia-caps/nvidia-cap75, /dev/nvidia-caps/nvidia-cap76" in found
    assert "it lacks /dev/nvidia-caps/nvidia-cap66 of MIG-3bd5c5b6" in found


def test_the_right_to_partition_gpus_is_too_much(container):
    container.has("nvidia0", "nvidia-caps/nvidia-cap1")
    assert "it has /dev/nvidia-caps/nvidia-cap1" in container.problem(GPU)


@pytest.mark.parametrize("devices", [DEVICES, NEWER_DEVICES], ids=["older", "newer"])
def test_a_gpu_under_another_name_and_in_a_subdirectory_is_found_by_its_number(container, devices):
    (container.proc / "devices").write_text(devices)
    container.has("innocent", number=os.makedev(195, 3))
    container.has("deep/down/cap", number=os.makedev(235, 12))
    found = container.problem()
    assert "/dev/nvidia3 (as '/dev/innocent')" in found
    assert "/dev/nvidia-caps/nvidia-cap12 (as '/dev/deep/down/cap')" in found


@pytest.mark.parametrize("devices", [DEVICES, NEWER_DEVICES], ids=["older", "newer"])
def test_a_name_does_not_hide_which_gpu_it_really_is(container, devices):
    (container.proc / "devices").write_text(devices)
    container.has("nvidia0", number=os.makedev(195, 1))
    assert "/dev/nvidia1" in container.problem(GPU)
    assert "it lacks /dev/nvidia0" in container.problem(GPU)


def test_control_nodes_belong_to_no_gpu_by_number_either(container):
    container.has("a", number=os.makedev(195, 255))
    container.has("b", number=os.makedev(195, 254))
    container.has("c", number=os.makedev(511, 0))
    assert container.problem() == ""


def test_a_node_behind_a_link_and_a_plain_file_of_that_name_are_none(container, tmp_path):
    # The link leads to where the host has a node: nothing of the container's.
    host = tmp_path / "host"
    host.mkdir()
    os.mknod(host / "nvidia0", stat.S_IFCHR | 0o666, NULL)
    (container.dev / "nvidia0").symlink_to(host / "nvidia0")
    (container.dev / "nvidia-caps").symlink_to(host)
    (container.dev / "nvidia1").write_text("")
    assert container.problem() == ""
    assert "it lacks /dev/nvidia0" in container.problem(GPU)


def test_a_dev_that_is_a_link_is_not_followed(container, tmp_path):
    container.dev.rename(tmp_path / "elsewhere")
    container.dev.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="dev"):
        container.problem()


def test_a_dev_filled_with_files_is_no_answer(container, monkeypatch):
    monkeypatch.setattr(verification, "MOST_ENTRIES", 20)
    for number in range(21):
        (container.dev / f"file{number}").write_text("")
    with pytest.raises(OSError, match="more than 20"):
        container.problem()


def test_a_container_that_has_ended_is_no_answer(container):
    for pid in (0, -1, PID + 1):
        with pytest.raises(OSError):  # noqa: PT011  # any, as the contract says
            container.problem(pid=pid)


def test_a_device_whose_nodes_are_not_known_is_no_answer(container):
    unknown = Device("GPU-unknown", "2", "A100", 1, 7, 1.0)
    with pytest.raises(OSError, match="GPU-unknown"):
        container.problem(unknown)
    (container.capabilities / "gpu1" / "mig" / "gi7" / "access").write_text("nonsense\n")
    with pytest.raises(OSError, match="DeviceFileMinor"):
        container.problem(MIG)


def test_no_driver_and_no_gpu_are_right(container):
    (container.proc / "devices").write_text("Character devices:\n  1 mem\n\nBlock devices:\n")
    assert container.problem() == ""


def test_nothing_stays_open(container):
    container.has("nvidia0", "deep/down/below")
    before = len(os.listdir("/proc/self/fd"))
    container.problem(GPU)
    with pytest.raises(OSError):  # noqa: PT011
        container.problem(pid=PID + 1)
    assert len(os.listdir("/proc/self/fd")) == before
