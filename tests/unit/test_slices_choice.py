"""Which slices an engine's containers can be put under, and where a process is."""

import os

import pytest

from ds01_spawner.cgroups.files_v1 import FilesV1
from ds01_spawner.cgroups.files_v2 import FilesV2
from ds01_spawner.cgroups.hierarchies import slice_of
from ds01_spawner.cgroups.limits import SliceError, SliceLimits, differences
from ds01_spawner.cgroups.slices import choose_slices
from ds01_spawner.cgroups.systemd import SystemdSlices
from ds01_spawner.cgroups.usage import Usage, container_usage

from .kernel import Kernel

MOUNTS = """\
23 1 0:20 / /sys rw - sysfs sysfs rw
31 23 0:28 / {root} rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
32 31 0:29 {part} {root}/cpu rw,relatime shared:10 - cgroup cgroup rw,cpu
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes a machine and gives the slices for an engine's answer."""

    def choose(version=1, part="/", namespace=0xEFFFFFFB, **more):
        kernel = Kernel(tmp_path / "cg", version, monkeypatch)
        proc = tmp_path / "proc" / "self"
        (proc / "ns").mkdir(parents=True)
        (proc / "mountinfo").write_text(MOUNTS.format(root=kernel.root, part=part))
        (proc / "ns" / "cgroup").symlink_to(f"cgroup:[{namespace}]")
        here = os.uname()
        info = {
            "Name": here.nodename,
            "KernelVersion": here.release,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": str(version),
            "SecurityOptions": ["name=seccomp,profile=default"],
        }
        return choose_slices({**info, **more}, root=kernel.root, proc=tmp_path / "proc")

    return choose


@pytest.mark.parametrize(
    ("version", "driver", "kind", "parent"),
    [
        (1, "cgroupfs", FilesV1, "/ds01.slice/x.slice"),
        (2, "cgroupfs", FilesV2, "/ds01.slice/x.slice"),
        (1, "systemd", SystemdSlices, "x.slice"),
        (2, "systemd", SystemdSlices, "x.slice"),
    ],
)
def test_the_engine_decides(machine, version, driver, kind, parent):
    slices = machine(version, CgroupDriver=driver)

    assert isinstance(slices, kind)
    assert slices.parent("x.slice") == parent
    assert slices.knows_memory_high == (version == 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, "runs rootless"),
        ({"Name": "elsewhere"}, "on the machine 'elsewhere'"),
        ({"KernelVersion": "3.10"}, "Run both on one machine"),
        ({"CgroupDriver": "none"}, "cgroup driver 'none'"),
        ({"CgroupVersion": "2"}, "version '2', and version 1 is mounted"),
        ({"CgroupVersion": None}, "use Docker 20.10 or newer"),
        ({"part": "/docker/c0ffee"}, "a part of the machine's cgroups"),
        ({"namespace": 4026532000}, "Run it on the machine itself"),
    ],
)
def test_an_engine_whose_containers_cannot_be_held_is_refused(machine, more, says):
    with pytest.raises(SliceError, match=says):
        machine(**more)


def test_the_kernels_rounding_is_no_difference():
    wanted = SliceLimits(1 / 3, 1_000_000, 500_001, 7)
    found = SliceLimits(0.33333, 999_424, 499_712, 7)
    assert differences(wanted, found, memory_high=True) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (SliceLimits(0.51, 1 << 20, 1 << 20, 7), "cpus is 0.51 and should be 0.5"),
        (SliceLimits(0.5, None, 1 << 20, 7), "memory.max is unlimited and should be 1048576"),
        (SliceLimits(0.5, 1 << 20, 1 << 21, 7), "memory.high is 2097152 and should be 1048576"),
        (SliceLimits(0.5, 1 << 20, 1 << 20, 8), "tasks is 8 and should be 7"),
    ],
)
def test_any_other_difference_is_told(found, says):
    wanted = SliceLimits(0.5, 1 << 20, 1 << 20, 7)
    assert differences(wanted, found, memory_high=True) == [says]


# -- processes -------------------------------------------------------------------------------

V1_LINES = "9:name=systemd:/a\n5:memory:{0}\n4:pids:{0}\n3:cpuacct,cpu:{0}\n0::/a\n"


@pytest.fixture
def process(tmp_path):
    """Return a function that makes the process 7, with what the kernel says of its cgroups."""

    def make(text):
        (tmp_path / "proc" / "7").mkdir(parents=True)
        (tmp_path / "proc" / "7" / "cgroup").write_text(text)
        return tmp_path / "proc"

    return make


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (V1_LINES.format(r"/ds01.slice/ds01-a\x3ab.slice/c0ffee"), r"ds01-a\x3ab.slice"),
        ("0::/ds01.slice/ds01-a.slice/docker-c0ffee.scope\n", "ds01-a.slice"),
        (V1_LINES.format("/docker/c0ffee"), None),
        ("0::/ds01.slice/docker-c0ffee.scope\n", None),
        ("0::/x/ds01.slice/ds01-a.slice/c0ffee\n", None),
        ("nonsense\n", None),
    ],
)
def test_the_slice_of_a_process(process, text, name):
    assert slice_of(7, proc=process(text)) == name


def test_a_container_under_a_slice_has_its_own_usage(process, tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "cg", 1, monkeypatch)
    proc = process(V1_LINES.format("/ds01.slice/ds01-a.slice/c0ffee"))
    memory, _, cpuacct, pids, *_ = kernel.container("ds01-a.slice")
    (memory / "memory.usage_in_bytes").write_text("4096")
    (cpuacct / "cpuacct.usage").write_text("1500000000")
    (pids / "pids.current").write_text("3")

    assert container_usage(7, proc=proc, root=kernel.root) == Usage(1.5, 4096, 3, 0)


def test_a_container_on_v2_has_its_own_usage(process, tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "cg", 2, monkeypatch)
    proc = process("0::/ds01.slice/ds01-a.slice/c0ffee\n")
    (directory,) = kernel.container("ds01-a.slice")
    (directory / "pids.current").write_text("3")

    assert container_usage(7, proc=proc, root=kernel.root) == Usage(0, 0, 3, 0)


def test_a_process_that_is_gone_uses_nothing_that_is_known(process, tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "cg", 2, monkeypatch)
    proc = process("0::/gone\n")

    assert container_usage(8, proc=proc, root=kernel.root) is None
    assert container_usage(7, proc=proc, root=kernel.root) is None
    assert slice_of(8, proc=proc) is None
