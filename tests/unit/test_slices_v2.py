"""Slices in the files of cgroup v2."""

import errno

import pytest

from ds01_spawner.cgroups import files
from ds01_spawner.cgroups.files_v2 import FilesV2
from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.usage import Usage

from .kernel import Kernel

NAME = "ds01-alice.slice"
LIMITS = SliceLimits(cpus=1.5, memory_bytes=1 << 30, memory_high_bytes=1 << 29, tasks=100)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return Kernel(tmp_path / "cg", 2, monkeypatch)


@pytest.fixture
def slices(kernel):
    return FilesV2(kernel.root)


@pytest.fixture
def directory(kernel):
    return kernel.root / "ds01.slice" / NAME


def test_limits_are_written_where_the_kernel_reads_them(slices, directory):
    slices.set(NAME, LIMITS)

    assert (directory / "memory.max").read_text() == str(1 << 30)
    assert (directory / "memory.high").read_text() == str(1 << 29)
    assert (directory / "cpu.max").read_text() == "150000 100000"
    assert (directory / "pids.max").read_text() == "100"
    assert slices.limits(NAME) == LIMITS
    assert slices.parent(NAME) == "/ds01.slice/ds01-alice.slice"


def test_controllers_are_switched_on_on_the_way_and_only_once(kernel, slices):
    slices.set(NAME, LIMITS)
    slices.set("ds01-bob.slice", LIMITS)

    on = [(file.parent, value) for file, value in kernel.written if "subtree" in file.name]
    assert on == [
        (kernel.root, "+cpu +memory +pids"),
        (kernel.root / "ds01.slice", "+cpu +memory +pids"),
    ]


def test_a_limit_that_is_not_given_is_taken_away(slices):
    slices.set(NAME, LIMITS)
    slices.set(NAME, SliceLimits())

    assert slices.limits(NAME) == SliceLimits()


def test_memory_is_made_to_shrink_before_it_is_cut(kernel, slices):
    slices.set(NAME, LIMITS)

    order = [file.name for file, _ in kernel.written]
    assert order.index("memory.high") < order.index("memory.max")


def test_a_controller_that_is_off_limits_nothing(slices, directory):
    slices.set(NAME, LIMITS)
    for name in ("memory.max", "memory.high", "cpu.max", "pids.max"):
        (directory / name).unlink()

    assert slices.limits(NAME) == SliceLimits()


def test_a_refused_limit_is_named_and_all_others_are_set(kernel, slices):
    kernel.refuses["cpu.max"] = errno.EINVAL

    with pytest.raises(SliceError, match=r"^cpu\.max .* '150000 100000': Invalid argument"):
        slices.set(NAME, LIMITS)

    assert slices.limits(NAME) == SliceLimits(None, 1 << 30, 1 << 29, 100)


def test_no_right_to_delegate_says_what_to_do(kernel, slices):
    kernel.refuses["cgroup.subtree_control"] = errno.EACCES
    with pytest.raises(SliceError, match="must run as root"):
        slices.set(NAME, LIMITS)


def test_an_empty_slice_goes_and_one_with_a_container_stays(kernel, slices, directory):
    slices.set(NAME, LIMITS)
    (container,) = kernel.container(NAME)

    assert not slices.remove_if_empty(NAME)
    assert slices.limits(NAME) == LIMITS
    container.rmdir()
    assert slices.remove_if_empty(NAME)
    assert not directory.exists()
    assert slices.remove_if_empty(NAME)


def test_a_container_that_comes_during_the_removal_keeps_it(kernel, slices, monkeypatch):
    slices.set(NAME, LIMITS)
    remove = files.remove
    monkeypatch.setattr(files, "remove", lambda path: kernel.container(NAME) and remove(path))

    assert not slices.remove_if_empty(NAME)
    assert slices.limits(NAME) == LIMITS


def test_names_are_of_our_slices(kernel, slices):
    slices.set(NAME, LIMITS)
    (kernel.root / "ds01.slice" / "docker-1.scope").mkdir()
    (kernel.root / "system.slice").mkdir()

    assert slices.names() == [NAME]


def test_usage_is_without_the_cache_that_can_go(slices, directory):
    assert slices.usage(NAME) is None
    slices.set(NAME, LIMITS)
    (directory / "memory.current").write_text("1000\n")
    (directory / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    (directory / "memory.events").write_text("oom 9\noom_kill 2\noom_group_kill 0\n")
    (directory / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (directory / "pids.current").write_text("5\n")

    assert slices.usage(NAME) == Usage(2.5, 700, 5, 2)


def test_usage_that_cannot_be_read_is_an_error_and_not_nothing(slices, directory):
    slices.set(NAME, LIMITS)
    (directory / "memory.current").unlink()

    with pytest.raises(SliceError, match="usage"):
        slices.usage(NAME)
