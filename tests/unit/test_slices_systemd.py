"""Slices that systemd makes, with a stand-in for the command that asks it."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from ds01_spawner.cgroups import systemd
from ds01_spawner.cgroups.files_v1 import FilesV1
from ds01_spawner.cgroups.files_v2 import FilesV2
from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.systemd import SystemdSlices

from .kernel import Kernel

NAME = "ds01-alice.slice"
LIMITS = SliceLimits(cpus=1.5, memory_bytes=1 << 30, memory_high_bytes=1 << 29, tasks=100)
NOTHING = str(2**64 - 1)


class Manager:
    """What was asked of systemd, and how it behaves."""

    def __init__(self, here) -> None:
        self.here = here
        self.does("work")

    def does(self, mode: str) -> None:
        (self.here / "mode").write_text(mode)

    @property
    def calls(self) -> list[list[str]]:
        """Return the words of each call from its method on."""
        lines = (self.here / "calls").read_text().splitlines()
        return [json.loads(line)[6:] for line in lines]


@pytest.fixture
def manager(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "busctl"
    script.parent.mkdir()
    words = (sys.executable, Path(__file__).with_name("busctl.py"), tmp_path)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
    script.chmod(0o755)
    (tmp_path / "cg").mkdir()
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return Manager(tmp_path)


@pytest.fixture
def slices(manager):
    return SystemdSlices(FilesV2(manager.here / "cg"))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(systemd, "_PATIENCE_S", 2.0)


def test_a_new_slice_is_a_transient_unit_with_its_limits(manager, slices):
    slices.set(NAME, LIMITS)

    ((method, signature, name, mode, *words),) = manager.calls
    assert (method, signature) == ("StartTransientUnit", "ssa(sv)a(sa(sv))")
    assert (name, mode, words[0], words[-1]) == (NAME, "fail", "7", "0")
    properties = {words[at]: words[at + 2] for at in range(1, len(words) - 1, 3)}
    assert properties == {
        "MemoryAccounting": "true",
        "CPUAccounting": "true",
        "TasksAccounting": "true",
        "MemoryMax": str(1 << 30),
        "MemoryHigh": str(1 << 29),
        "CPUQuotaPerSecUSec": "1500000",
        "TasksMax": "100",
    }
    assert slices.limits(NAME) == LIMITS


def test_no_limit_is_said_to_systemd_and_not_left_out(manager, slices):
    slices.set(NAME, SliceLimits())

    assert manager.calls[0].count(NOTHING) == 4
    assert slices.limits(NAME) == SliceLimits()


def test_a_slice_that_is_there_is_changed_until_the_next_boot_only(manager, slices):
    slices.set(NAME, LIMITS)
    slices.set(NAME, SliceLimits(cpus=0.5))

    changed, started = manager.calls[1:]
    assert changed[:5] == ["SetUnitProperties", "sba(sv)", NAME, "true", "7"]
    assert started == ["StartUnit", "ss", NAME, "replace"]
    assert slices.limits(NAME) == SliceLimits(cpus=0.5)


def test_a_name_that_systemd_knows_from_before_is_changed_and_started(manager, slices):
    (manager.here / "known").touch()

    slices.set(NAME, LIMITS)

    methods = [call[0] for call in manager.calls]
    assert methods == ["StartTransientUnit", "SetUnitProperties", "StartUnit"]
    assert slices.limits(NAME) == LIMITS


def test_docker_is_given_the_name(slices):
    assert slices.parent(NAME) == NAME


def test_what_systemd_says_against_it_is_told(manager, slices):
    slices.set(NAME, LIMITS)
    manager.does("SetUnitProperties")

    with pytest.raises(SliceError, match=r"SetUnitProperties is refused.*root"):
        slices.set(NAME, SliceLimits(tasks=5))


def test_limits_that_do_not_reach_the_kernel_are_an_error(manager, slices, impatient):
    slices.set(NAME, LIMITS)
    manager.does("idle")

    with pytest.raises(SliceError, match=r"tasks is 100 and should be 5\. See `journalctl"):
        slices.set(NAME, SliceLimits(1.5, 1 << 30, 1 << 29, tasks=5))


def test_a_slice_that_systemd_does_not_make_is_an_error(manager, slices, impatient):
    manager.does("idle")
    with pytest.raises(SliceError, match="there is no such slice"):
        slices.set(NAME, LIMITS)


def test_without_the_command_it_says_what_is_missing(slices, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SliceError, match="busctl"):
        slices.set(NAME, LIMITS)


def test_a_slice_with_a_container_is_never_stopped(manager, slices):
    slices.set(NAME, LIMITS)
    (manager.here / "cg" / "ds01.slice" / NAME / "docker-1.scope").mkdir()

    assert not slices.remove_if_empty(NAME)
    assert [call[0] for call in manager.calls] == ["StartTransientUnit"]


def test_an_empty_slice_is_stopped(manager, slices):
    slices.set(NAME, LIMITS)

    assert slices.names() == [NAME]
    assert slices.remove_if_empty(NAME)
    assert manager.calls[-1] == ["StopUnit", "ss", NAME, "replace"]
    assert slices.limits(NAME) is None
    assert slices.names() == []
    asked = len(manager.calls)
    assert slices.remove_if_empty(NAME)
    assert len(manager.calls) == asked


def test_a_slice_that_does_not_go_is_not_taken_for_gone(manager, slices, impatient):
    slices.set(NAME, LIMITS)
    manager.does("idle")

    assert not slices.remove_if_empty(NAME)


def test_on_v1_containers_are_lowered_before_systemd_lowers_the_slice(
    manager, monkeypatch, impatient
):
    kernel = Kernel(manager.here / "v1", 1, monkeypatch)
    slices = SystemdSlices(FilesV1(kernel.root))
    FilesV1(kernel.root).set(NAME, SliceLimits(cpus=2))
    container = kernel.container(NAME)[1]
    (container / "cpu.cfs_quota_us").write_text("150000")
    manager.does("idle")

    with pytest.raises(SliceError, match="cpus is 2 and should be 1"):
        slices.set(NAME, SliceLimits(cpus=1))

    assert (container / "cpu.cfs_quota_us").read_text() == "100000"


def test_devices_are_closed_for_as_long_as_the_slice_is_there(slices, manager):
    slices.close_devices(NAME)

    asked = ["sba(sv)", NAME, "true", "1", "DevicePolicy", "s", "closed"]
    assert manager.calls == [["SetUnitProperties", *asked]]
