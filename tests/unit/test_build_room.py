"""Where the steps of image builds run: held to limits, or ended."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ds01_spawner.cgroups import files, moved_steps
from ds01_spawner.cgroups.builds import (
    StepsInPlace,
    choose_build_room,
    written,
)
from ds01_spawner.cgroups.files_v1 import FilesV1
from ds01_spawner.cgroups.files_v2 import FilesV2
from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.moved_steps import BUILDS, MovedSteps

from .kernel import Kernel

LIMITS = SliceLimits(cpus=1.5, memory_bytes=1 << 30, tasks=100)
STEP = "system.slice:docker:jt2a727h2yd1x8bmhendlekrp"


class BuildKernel(Kernel):
    """A kernel that also moves, freezes and kills.

    Attributes
    ----------
    ignores
        Names of files whose writing has no effect.
    """

    def __init__(self, root, version, monkeypatch) -> None:
        self.ignores: set[str] = set()
        super().__init__(root, version, monkeypatch)

    def write(self, file: Path, value: str) -> None:
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(file))
        if file.name in self.refuses:
            # Before anything has an effect.
            super().write(file, value)
        if file.name in self.ignores:
            return
        if file.name == "cgroup.procs":
            for other in self.root.rglob("cgroup.procs"):
                if value in (pids := other.read_text().split()):
                    pids.remove(value)
                    replace(other, "\n".join(pids))
            value = "\n".join([*file.read_text().split(), value])
        if file.name == "cgroup.kill":
            replace(file.parent / "cgroup.procs", "")
        super().write(file, value)
        if file.name == "cgroup.freeze":
            replace(file.parent / "cgroup.events", f"populated 1\nfrozen {value}\n")

    def step(self, *pids: int, name: str = STEP, above: str = "system.slice") -> Path:
        """Make the cgroup of a step, as the engine's runc does."""
        made = self.root / above / name
        made.parent.mkdir(exist_ok=True)
        made.mkdir()
        replace(made / "cgroup.procs", "\n".join(map(str, pids)))
        return made

    def _fill(self, path: Path) -> None:
        super()._fill(path)
        if self.version == 2:
            for name, text in {
                "cgroup.freeze": "0\n",
                "cgroup.events": "populated 0\nfrozen 0\n",
                "cgroup.kill": "",
            }.items():
                replace(path / name, text)


def replace(file: Path, text: str) -> None:
    """Change a file so that no reader sees a part."""
    new = file.with_name(f".{file.name}")
    new.write_text(text)
    new.replace(file)


def eventually(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def pids_in(cgroup: Path) -> list[str]:
    return (cgroup / "cgroup.procs").read_text().split()


def mover_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "builds"]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return BuildKernel(tmp_path / "cg", 2, monkeypatch)


@pytest.fixture
def bundles(tmp_path):
    return tmp_path / "docker" / "buildkit" / "executor"


@pytest.fixture
def told(bundles):
    """Return a function that tells runc of a step in a cgroup."""

    def tell(cgroup: str) -> None:
        (bundles / "a1").mkdir(parents=True)
        (bundles / "a1" / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": cgroup}}))

    return tell


class Filter:
    """The filter of devices that systemd puts on a slice.

    Attributes
    ----------
    is_closed
        Whether it is there.
    works
        Whether it comes when asked for.
    """

    def __init__(self) -> None:
        self.is_closed, self.works, self.asked = False, True, []

    def close(self, name: str) -> None:
        self.asked.append(name)
        self.is_closed = self.works

    def may_open(self, cgroup: Path) -> bool:
        assert cgroup.is_dir()
        return not self.is_closed


@pytest.fixture
def devices():
    return Filter()


@pytest.fixture
def moving(kernel, bundles, devices):
    return MovedSteps(
        FilesV2(kernel.root),
        bundles,
        kernel.root,
        close_devices=devices.close,
        may_open=devices.may_open,
    )


@pytest.fixture
def leaf(kernel):
    return kernel.root / "ds01.slice" / BUILDS / "steps"


@pytest.fixture(params=[1, 2])
def in_place(request, tmp_path, monkeypatch, bundles):
    kernel = BuildKernel(tmp_path / "cg", request.param, monkeypatch)
    slices = {1: FilesV1, 2: FilesV2}[request.param](kernel.root, "docker")
    return kernel, StepsInPlace(slices, bundles, kernel.root)


# -- which room ------------------------------------------------------------------------------


@pytest.fixture
def choose(tmp_path, monkeypatch):
    def make(version, driver):
        kernel = BuildKernel(tmp_path / "cg", version, monkeypatch)
        proc = tmp_path / "proc" / "self"
        (proc / "ns").mkdir(parents=True)
        (proc / "mountinfo").write_text("")
        (proc / "ns" / "cgroup").symlink_to(f"cgroup:[{0xEFFFFFFB}]")
        info = {
            "Name": os.uname().nodename,
            "KernelVersion": os.uname().release,
            "CgroupDriver": driver,
            "CgroupVersion": str(version),
            "DockerRootDir": str(tmp_path / "docker"),
        }
        return choose_build_room(info, root=kernel.root, proc=tmp_path / "proc")

    return make


@pytest.mark.parametrize(
    ("version", "driver", "kind", "parent"),
    [
        (1, "cgroupfs", StepsInPlace, "/docker/buildkit"),
        (2, "cgroupfs", StepsInPlace, "/docker/buildkit"),
        (2, "systemd", MovedSteps, BUILDS),
    ],
)
def test_the_engines_driver_decides_where_steps_are_held(choose, version, driver, kind, parent):
    room = choose(version, driver)

    assert isinstance(room, kind)
    assert room.parent() == parent


def test_builds_that_cannot_be_limited_are_refused(choose):
    with pytest.raises(SliceError, match="systemd driver on cgroup v1"):
        choose(1, "systemd")


# -- steps in place --------------------------------------------------------------------------


def test_the_cgroup_of_all_steps_gets_the_limits_and_keeps_them(in_place):
    kernel, room = in_place
    with room.hold(LIMITS) as check:
        check(False)

    pids = kernel.root / ("pids" if kernel.version == 1 else "") / "docker" / "buildkit"
    assert (pids / "pids.max").read_text() == "100"


def test_limits_that_the_kernel_does_not_keep_are_an_error(in_place):
    kernel, room = in_place
    kernel.ignores.add("pids.max")

    with pytest.raises(SliceError, match="tasks is unlimited and should be 100"), room.hold(LIMITS):
        pass


def test_limits_that_somebody_changes_end_a_build(in_place, caplog):
    kernel, room = in_place
    with room.hold(LIMITS) as check:
        (file,) = kernel.root.glob("**/docker/buildkit/pids.max")
        file.write_text("max")
        with pytest.raises(SliceError, match="limits of image builds do not hold"):
            check(False)

    assert "tasks is unlimited and should be 100" in caplog.text


def test_a_step_that_has_run_must_have_computed_in_its_place(in_place, caplog):
    kernel, room = in_place
    with room.hold(LIMITS) as check:
        with pytest.raises(SliceError):
            check(True)
        assert "A step has run, and not in /docker/buildkit" in caplog.text

        for file in kernel.root.glob("**/docker/buildkit/cpuacct.usage"):
            file.write_text("1000000")
        for file in kernel.root.glob("**/docker/buildkit/cpu.stat"):
            file.write_text("usage_usec 1000\n")
        check(True)
    # What an earlier build has computed says nothing of this one.
    with room.hold(LIMITS) as check, pytest.raises(SliceError):
        check(True)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/docker/buildkit/a1", False),
        ("/elsewhere/buildkit/a1", True),
        ("/docker/buildkit/../a1", True),
        ("", True),
    ],
)
def test_a_step_that_the_engine_puts_elsewhere_ends_a_build(in_place, told, caplog, path, wrong):
    _, room = in_place
    told(path)
    with room.hold(LIMITS) as check:
        if wrong:
            with pytest.raises(SliceError):
                check(False)
            assert f"runs a step in the cgroup {path!r}" in caplog.text
        else:
            check(False)


def test_a_bundle_that_is_being_written_waits_for_the_next_look(in_place, bundles):
    _, room = in_place
    (bundles / "a1").mkdir(parents=True)
    (bundles / "a1" / "config.json").write_text('{"linux": {"cgro')
    with room.hold(LIMITS) as check:
        check(False)


def test_processes_are_those_of_all_steps(in_place):
    kernel, room = in_place
    assert room.processes() == []
    with room.hold(LIMITS):
        above = kernel.root / ("pids" if kernel.version == 1 else "") / "docker" / "buildkit"
        (above / "a1").mkdir()
        (above / "a1" / "cgroup.procs").write_text("7\n8\n")
        assert room.processes() == [7, 8]


def test_processes_that_cannot_be_read_are_not_none(in_place, monkeypatch):
    _, room = in_place

    def refuse(directory):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(files, "children", refuse)
    with pytest.raises(OSError, match="Too many"):
        room.processes()


# -- where steps write -----------------------------------------------------------------------

MOUNTS = r"""
1 2 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/a/b\040c\134d/diff,workdir=/w
3 1 0:61 / /proc rw - proc proc rw
4 1 0:62 / /x rw - overlay overlay rw,lowerdir=/l,upperdir=/and/this,workdir=/w
5 1 0:63 / /y{feed}z rw - tmpfs tmpfs rw
6 1 8:1 /docker/overlay2/c4che/diff /opt/cache rw,relatime - ext4 /dev/sda1 rw
7 1 8:1 /docker/overlay2/c0ntext/diff /opt/build ro,relatime - ext4 /dev/sda1 rw
8 1 8:1 /docker/buildkit/executor/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
9 1 0:64 / /opt/read ro,relatime - overlay overlay ro,lowerdir=/l:/m
""".strip()


def test_steps_write_into_their_overlays_and_into_caches(tmp_path):
    for pid in (7, 8):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "mountinfo").write_text(MOUNTS.format(feed="\f") + "\n")

    # 9 is over. The engine's disk is mounted elsewhere than its root says.
    assert written([7, 8, 9], Path("/srv/docker"), tmp_path) == [
        Path(r"/a/b c\d/diff"),
        Path("/and/this"),
        Path("/srv/docker/overlay2/c4che/diff"),
    ]


def test_mounts_that_cannot_be_read_are_not_nothing_written(tmp_path):
    (tmp_path / "7" / "mountinfo").mkdir(parents=True)

    with pytest.raises(IsADirectoryError):
        written([7], tmp_path, tmp_path)


# -- steps that are moved --------------------------------------------------------------------


def test_what_begins_is_moved_and_nothing_else(kernel, moving, leaf):
    others = [
        kernel.step(name="docker.service"),
        kernel.step(name="x.slice", above=""),
        kernel.step(name="docker-c0ffee.scope"),
        kernel.step(name=f"{STEP}.more"),
    ]
    for at, other in enumerate(others):
        replace(other / "cgroup.procs", str(50 + at))
    with moving.hold(LIMITS) as check:
        beside = kernel.step(11, 12)
        at_the_top = kernel.step(13, name="other.slice:docker:b2", above="")
        eventually(lambda: sorted(pids_in(leaf)) == ["11", "12", "13"])
        check(True)
        assert sorted(moving.processes()) == [11, 12, 13]

    assert [pids_in(step) for step in (beside, at_the_top)] == [[], []]
    assert [pids_in(other) for other in others] == [["50"], ["51"], ["52"], ["53"]]
    # Its limits hold for what is in the slice.
    assert (leaf.parent / "pids.max").read_text() == "100"


def test_a_step_is_frozen_while_it_is_moved(kernel, moving, leaf):
    with moving.hold(LIMITS):
        step = kernel.step(11)
        eventually(lambda: pids_in(leaf) and (step / "cgroup.freeze").read_text() == "0")

    places = [(file.parent.name, file.name, value) for file, value in kernel.written]
    begun = places.index((STEP, "cgroup.freeze", "1"))
    assert begun < places.index(("steps", "cgroup.procs", "11"))
    assert places.index(("steps", "cgroup.procs", "11")) < places.index(
        (STEP, "cgroup.freeze", "0")
    )


def test_what_is_below_a_step_is_moved_too(kernel, moving, leaf):
    with moving.hold(LIMITS):
        inner = kernel.step() / "inner"
        inner.mkdir()
        replace(inner / "cgroup.procs", "11")
        eventually(lambda: pids_in(leaf) == ["11"])


def test_a_step_that_begins_just_before_the_end_is_moved(kernel, moving, leaf, monkeypatch):
    monkeypatch.setattr(moved_steps, "_LOOK_S", 3600)
    with moving.hold(LIMITS):
        kernel.step(11)

    assert pids_in(leaf) == ["11"]


def test_two_builds_share_one_mover_which_ends_with_the_last(kernel, moving, leaf):
    with moving.hold(LIMITS):
        with moving.hold(LIMITS):
            assert len(mover_threads()) == 1
        kernel.step(11)
        eventually(lambda: pids_in(leaf) == ["11"])
    assert mover_threads() == []

    with moving.hold(LIMITS):
        assert len(mover_threads()) == 1
    assert mover_threads() == []


def test_steps_are_held_from_devices_before_the_first_is_moved(moving, devices):
    with moving.hold(LIMITS):
        assert devices.is_closed
        # Done again, the filter would be gone for a moment.
        with moving.hold(LIMITS):
            pass

    assert devices.asked == [BUILDS]


def test_a_slice_that_devices_stay_open_to_is_an_error_and_nothing_is_moved(
    kernel, moving, devices, monkeypatch
):
    devices.works = False
    monkeypatch.setattr(moved_steps, "_CLOSE_S", 0.05)
    kernel.step(7)

    with pytest.raises(SliceError, match="DevicePolicy"), moving.hold(LIMITS):
        pass

    assert not mover_threads()


def test_limits_that_hold_are_not_set_again(kernel, moving):
    with moving.hold(LIMITS):
        before = len(kernel.written)
        with moving.hold(LIMITS):
            assert kernel.written[before:] == []


def test_a_slice_without_its_limits_is_an_error_and_nothing_is_moved(kernel, moving):
    kernel.ignores.add("memory.max")

    with pytest.raises(SliceError, match=r"memory\.max is unlimited"), moving.hold(LIMITS):
        pass
    assert mover_threads() == []


def test_limits_of_the_slice_that_somebody_changes_end_a_build(moving, leaf):
    with moving.hold(LIMITS) as check:
        (leaf.parent / "cpu.max").write_text("max 100000")
        with pytest.raises(SliceError):
            check(False)


def test_a_step_that_has_run_and_was_never_seen_ends_a_build(kernel, moving, leaf, caplog):
    with moving.hold(LIMITS) as check:
        check(False)
        with pytest.raises(SliceError):
            check(True)
    assert "not where steps are looked for" in caplog.text


@pytest.mark.parametrize(
    ("path", "wrong"), [("system.slice:docker:a1", False), ("/docker/buildkit/a1", True)]
)
def test_a_step_that_would_not_be_found_ends_a_build(moving, told, path, wrong):
    told(path)
    with moving.hold(LIMITS) as check:
        if wrong:
            with pytest.raises(SliceError):
                check(False)
        else:
            check(False)


def fails(check) -> bool:
    try:
        check(False)
    except SliceError:
        return True
    return False


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.ENOMEM])
def test_a_step_that_cannot_be_moved_is_killed_and_ends_the_build(
    kernel, moving, leaf, caplog, number
):
    with moving.hold(LIMITS) as check:
        kernel.refuses["cgroup.procs"] = number
        step = kernel.step(11)
        eventually(lambda: fails(check))
        eventually(lambda: pids_in(step) == [])

    assert (step / "cgroup.kill", "1") in kernel.written
    assert pids_in(leaf) == []
    assert os.strerror(number) in caplog.text


def test_a_step_that_does_not_freeze_in_time_is_killed_and_ends_the_build(
    kernel, moving, leaf, monkeypatch
):
    monkeypatch.setattr(moved_steps, "_FREEZE_S", 0.05)
    kernel.ignores.add("cgroup.freeze")
    with moving.hold(LIMITS) as check:
        step = kernel.step(11)
        eventually(lambda: fails(check))
        eventually(lambda: pids_in(step) == [])

    assert pids_in(leaf) == []


def test_a_step_that_freezes_late_is_moved_and_no_other_waits_for_it(kernel, moving, leaf):
    kernel.ignores.add("cgroup.freeze")
    with moving.hold(LIMITS) as check:
        slow, fast = kernel.step(11), kernel.step(12, name="system.slice:docker:fast")
        replace(fast / "cgroup.events", "populated 1\nfrozen 1\n")
        eventually(lambda: pids_in(leaf) == ["12"])
        replace(slow / "cgroup.events", "populated 1\nfrozen 1\n")
        eventually(lambda: pids_in(leaf) == ["12", "11"])
        check(True)


def test_a_slice_that_has_gone_ends_the_build_and_the_step_stays_frozen_until_then(
    kernel, moving, leaf, monkeypatch
):
    monkeypatch.setattr(moved_steps, "_FREEZE_S", 0.3)
    with moving.hold(LIMITS) as check:
        leaf.rmdir()
        step = kernel.step(11)
        eventually(lambda: (step / "cgroup.freeze").read_text() == "1")
        eventually(lambda: fails(check))
        eventually(lambda: pids_in(step) == [])


def test_without_cgroup_kill_the_processes_are_killed_one_by_one(kernel, moving):
    process = subprocess.Popen(["sleep", "100"])
    try:
        with moving.hold(LIMITS):
            kernel.refuses["cgroup.kill"] = errno.ENOENT
            kernel.refuses["cgroup.procs"] = errno.EBUSY
            kernel.step(process.pid)
            assert process.wait(20) == -9
    finally:
        process.kill()
        process.wait()


def test_a_step_that_is_over_while_it_is_moved_is_no_failure(kernel, moving):
    with moving.hold(LIMITS) as check:
        step = kernel.step(11)
        # Its files go before its directory, and are looked at meanwhile.
        for name in ("cgroup.events", "cgroup.freeze", "cgroup.procs"):
            (step / name).unlink()
            looks = moving._seen
            eventually(lambda before=looks: moving._seen > before + 3)
        step.rmdir()
        check(True)


def test_steps_that_cannot_be_looked_for_end_the_build(moving, monkeypatch, caplog):
    children = files.children

    def refuse(directory):
        if threading.current_thread().name == "builds":
            raise OSError(errno.EMFILE, "Too many open files")
        return children(directory)

    with moving.hold(LIMITS) as check:
        monkeypatch.setattr(files, "children", refuse)
        eventually(lambda: fails(check))
    assert "Too many open files" in caplog.text


def test_processes_that_are_not_to_be_seen_are_killed_and_not_we(kernel, moving):
    with moving.hold(LIMITS) as check:
        kernel.refuses["cgroup.procs"] = errno.EINVAL
        step = kernel.step(0)
        eventually(lambda: fails(check))
        eventually(lambda: pids_in(step) == [])
    assert not any(file.name == "cgroup.procs" for file, _ in kernel.written)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mover_that_has_died_ends_the_build_and_what_runs_is_killed(
    kernel, moving, leaf, monkeypatch, caplog
):
    def die(self, deadlines):
        raise SystemExit

    with moving.hold(LIMITS) as check:
        monkeypatch.setattr(MovedSteps, "_look", die)
        eventually(lambda: mover_threads() == [])
        step = kernel.step(11)
        assert fails(check)
        assert pids_in(step) == []
        late = kernel.step(12, name="system.slice:docker:late")
    assert pids_in(late) == []
    assert "has died" in caplog.text


def test_a_build_that_begins_later_is_not_blamed(kernel, moving, leaf):
    with moving.hold(LIMITS) as first:
        kernel.refuses["cgroup.procs"] = errno.EBUSY
        kernel.step(11)
        eventually(lambda: fails(first))
        eventually(lambda: moving.processes() == [])
        del kernel.refuses["cgroup.procs"]
        with moving.hold(LIMITS) as second:
            second(False)
            assert fails(first)
