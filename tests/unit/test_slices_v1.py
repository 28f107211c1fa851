"""Slices in the hierarchies of cgroup v1."""

import errno
import shutil

import pytest

from ds01_spawner.cgroups import files
from ds01_spawner.cgroups.files_v1 import FilesV1
from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.usage import Usage

from .kernel import V1, Kernel

NAME = "ds01-alice.slice"
LIMITS = SliceLimits(cpus=1.5, memory_bytes=1 << 30, tasks=100)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return Kernel(tmp_path / "cg", 1, monkeypatch)


@pytest.fixture
def slices(kernel):
    return FilesV1(kernel.root)


def in_(kernel, controller, file):
    return (kernel.root / controller / "ds01.slice" / NAME / file).read_text()


def test_limits_are_written_where_the_kernel_reads_them(kernel, slices):
    slices.set(NAME, LIMITS)

    assert in_(kernel, "memory", "memory.limit_in_bytes") == str(1 << 30)
    assert in_(kernel, "cpu", "cpu.cfs_quota_us") == "150000"
    assert in_(kernel, "pids", "pids.max") == "100"
    assert slices.limits(NAME) == LIMITS
    assert slices.parent(NAME) == "/ds01.slice/ds01-alice.slice"


def test_a_limit_that_is_not_given_is_taken_away(slices):
    slices.set(NAME, LIMITS)
    slices.set(NAME, SliceLimits())

    assert slices.limits(NAME) == SliceLimits()


def test_there_is_no_memory_high(slices):
    slices.set(NAME, SliceLimits(memory_high_bytes=1 << 20))

    assert slices.limits(NAME) == SliceLimits()
    assert not slices.knows_memory_high


def test_a_slice_that_was_never_made_has_nothing(slices):
    assert slices.limits(NAME) is None
    assert slices.usage(NAME) is None
    assert slices.names() == []
    assert slices.remove_if_empty(NAME)


def test_two_controllers_may_share_a_hierarchy(kernel, slices):
    for name in ("cpu", "cpuacct"):
        shutil.rmtree(kernel.root / name)
        (kernel.root / name).symlink_to("cpu,cpuacct")
    (kernel.root / "cpu,cpuacct").mkdir()

    slices.set(NAME, LIMITS)

    assert slices.limits(NAME) == LIMITS
    assert slices.usage(NAME) == Usage(0, 0, 0, 0)
    assert slices.remove_if_empty(NAME)
    assert not (kernel.root / "cpu,cpuacct" / "ds01.slice" / NAME).exists()


def test_an_old_kernel_is_told_to_count_what_is_below(kernel, slices):
    parent = kernel.root / "memory" / "ds01.slice"
    parent.mkdir()
    (parent / "memory.use_hierarchy").write_text("0")

    slices.set(NAME, LIMITS)

    assert (parent / "memory.use_hierarchy").read_text() == "1"


def test_memory_in_use_cannot_be_taken_and_all_else_is_set(kernel, slices):
    kernel.refuses["memory.limit_in_bytes"] = errno.EBUSY

    with pytest.raises(SliceError, match=r"more is in use\. The old limit stays until a server"):
        slices.set(NAME, LIMITS)

    assert slices.limits(NAME) == SliceLimits(cpus=1.5, tasks=100)


def test_all_that_goes_wrong_is_said_at_once(kernel, slices):
    kernel.refuses.update({"memory.limit_in_bytes": errno.EBUSY, "pids.max": errno.EINVAL})

    with pytest.raises(SliceError, match=r"more is in use.*pids.*Invalid argument"):
        slices.set(NAME, LIMITS)


def test_containers_above_a_lowered_quota_are_lowered_first(kernel, slices):
    slices.set(NAME, SliceLimits(cpus=4))
    fast, slow = (kernel.root / "cpu" / "ds01.slice" / NAME / name for name in ("fast", "slow"))
    for directory, quota in ((fast, "200000"), (slow, "20000")):
        directory.mkdir()
        files.write(directory / "cpu.cfs_quota_us", quota)
    inside = fast / "inside"
    inside.mkdir()
    (inside / "cpu.cfs_period_us").write_text("50000")
    files.write(inside / "cpu.cfs_quota_us", "100000")

    slices.set(NAME, SliceLimits(cpus=0.333333))

    assert slices.limits(NAME).cpus == 0.33333
    assert (fast / "cpu.cfs_quota_us").read_text() == "33333"
    assert (inside / "cpu.cfs_quota_us").read_text() == "16666"
    assert (slow / "cpu.cfs_quota_us").read_text() == "20000"


def test_no_right_to_make_cgroups_says_what_to_do(kernel, slices, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(kernel, "mkdir", refused)
    with pytest.raises(SliceError, match=r"cannot be made.*must run as root"):
        slices.set(NAME, LIMITS)


@pytest.mark.parametrize("controller", ["memory", "cpu", "cpuacct", "pids"])
def test_a_controller_that_is_not_mounted_is_named(kernel, slices, controller):
    (kernel.root / controller).rename(kernel.root.parent / "elsewhere")
    with pytest.raises(SliceError, match=f"controller '{controller}' is not mounted"):
        slices.set(NAME, LIMITS)


def test_a_link_is_no_slice(kernel, slices, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "memory.limit_in_bytes").write_text("1")
    (kernel.root / "memory" / "ds01.slice").mkdir()
    (kernel.root / "memory" / "ds01.slice" / NAME).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SliceError, match="cannot be made"):
        slices.set(NAME, LIMITS)

    assert (tmp_path / "elsewhere" / "memory.limit_in_bytes").read_text() == "1"


# -- removal ---------------------------------------------------------------------------------


def test_an_empty_slice_goes_from_every_hierarchy(kernel, slices):
    slices.set(NAME, LIMITS)
    for container in kernel.container(NAME):
        container.rmdir()

    assert slices.remove_if_empty(NAME)
    assert not list(kernel.root.glob(f"*/ds01.slice/{NAME}"))


@pytest.mark.parametrize("hierarchy", list(V1))
def test_a_container_in_any_hierarchy_keeps_it(kernel, slices, hierarchy):
    slices.set(NAME, LIMITS)
    kernel.container(NAME, (hierarchy,))

    assert not slices.remove_if_empty(NAME)
    assert slices.limits(NAME) == LIMITS


def test_a_process_keeps_it(kernel, slices):
    slices.set(NAME, LIMITS)
    (kernel.root / "pids" / "ds01.slice" / NAME / "cgroup.procs").write_text("7\n")

    assert not slices.remove_if_empty(NAME)
    assert slices.limits(NAME) == LIMITS


def test_a_container_that_comes_during_the_removal_gets_the_limits_back(
    kernel, slices, monkeypatch
):
    slices.set(NAME, LIMITS)
    removed = []

    def remove(directory):
        if len(removed) == 2:
            kernel.container(NAME, ("pids",))
        removed.append(directory)
        return original(directory)

    original = files.remove
    monkeypatch.setattr(files, "remove", remove)

    assert not slices.remove_if_empty(NAME)
    assert len(removed) > 2
    assert slices.limits(NAME) == LIMITS


def test_names_are_of_our_slices_also_of_the_rest_of_one(kernel, slices):
    slices.set(NAME, LIMITS)
    for name in ("ds01-half.slice", "somebody.slice", "ds01-x.scope"):
        (kernel.root / "freezer" / "ds01.slice").mkdir(exist_ok=True)
        (kernel.root / "freezer" / "ds01.slice" / name).mkdir()

    assert slices.names() == [NAME, "ds01-half.slice"]
    assert slices.remove_if_empty("ds01-half.slice")
    assert slices.names() == [NAME]


# -- usage -----------------------------------------------------------------------------------


def test_usage_is_of_all_containers_without_the_cache_that_can_go(kernel, slices):
    slices.set(NAME, LIMITS)
    kernel.container(NAME)
    base = {each: kernel.root / each / "ds01.slice" / NAME for each in V1}
    (base["memory"] / "memory.usage_in_bytes").write_text("1000\n")
    (base["memory"] / "memory.stat").write_text("inactive_file 0\ntotal_inactive_file 300\n")
    (base["memory"] / "c0ffee" / "memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
    (base["cpuacct"] / "cpuacct.usage").write_text("2500000000\n")
    (base["pids"] / "pids.current").write_text("5\n")

    assert slices.usage(NAME) == Usage(2.5, 700, 5, 2)


def test_usage_that_cannot_be_read_is_an_error_and_not_nothing(kernel, slices):
    slices.set(NAME, LIMITS)
    (kernel.root / "memory" / "ds01.slice" / NAME / "memory.stat").write_text("")

    with pytest.raises(SliceError, match="usage"):
        slices.usage(NAME)
