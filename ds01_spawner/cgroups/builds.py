"""Where the steps of image builds run: one cgroup for all of them, with limits.

BuildKit heeds no limit that a build names. Where its steps run depends on the engine's driver:

- cgroupfs: below ``/docker/buildkit``, which is given limits before a build.
- systemd: each in a directory of its own beside the engine's, which nothing holds together. There
  each step is frozen as soon as it appears, and its processes are moved into a slice of ours. The
  engine's filter of devices stays behind, so the slice has its own.

An engine that puts steps elsewhere, and a step that cannot be moved, end the build.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from .files_v1 import FilesV1
from .files_v2 import FilesV2
from .hierarchies import CGROUP_ROOT, PROC, hierarchies, is_unified
from .limits import SliceError, SliceLimits
from .moved_steps import MovedSteps
from .slices import choose_slices
from .steps import Check, for_the_owner, processes_below, refuse_elsewhere, verify
from .systemd import SystemdSlices

#: Where BuildKit's steps are under the cgroupfs driver, in every hierarchy.
# Source: moby, builder/builder-next/executor_unix.go; BuildKit, runcexecutor.
_ABOVE, _NAME = "docker", "buildkit"
_IN_PLACE = re.compile(r"/docker/buildkit/[a-z0-9]+")
#: A directory for each step that runs, with what runc is told of it, in the engine's own.
# Source: BuildKit, executor/runcexecutor.
_BUNDLES = Path("buildkit", "executor")
_UPPER = re.compile(r"(?:^|,)upperdir=([^,]+)")
#: What is mounted of the engine's directory, which may be a file system of its own.
_CACHE = re.compile(r"(?:/.*)?/(overlay2/[a-z0-9]+/diff)")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class BuildRoom(Protocol):
    """Where the steps of all builds run, within limits."""

    def hold(self, limits: SliceLimits) -> AbstractContextManager[Check]:
        """Return a context in which every step's processes are under these limits.

        Its value tells whether they are.

        Raises
        ------
        SliceError
            On entry, if the limits cannot be had.
        """

    def parent(self) -> str:
        """Return what Docker is given as ``HostConfig.CgroupParent`` of what belongs to a build."""

    def processes(self) -> list[int]:
        """Return the processes of steps that run now, as the host numbers them."""


def choose_build_room(
    info: Mapping[str, Any], *, root: Path = CGROUP_ROOT, proc: Path = PROC
) -> BuildRoom:
    """Return where an engine's builds run.

    Parameters
    ----------
    info
        The engine's answer to ``GET /info``.

    Raises
    ------
    SliceError
        If they cannot be limited here.
    """
    slices = choose_slices(info, root=root, proc=proc)
    bundles = Path(info["DockerRootDir"]) / _BUNDLES
    if isinstance(slices, SystemdSlices):
        if not is_unified(root):
            raise SliceError(
                "Image builds cannot be limited with the systemd driver on cgroup v1. Switch the "
                "machine to cgroup v2."
            )
        return MovedSteps(slices, bundles, root, close_devices=slices.close_devices)
    kernel = FilesV2(root, _ABOVE) if is_unified(root) else FilesV1(root, _ABOVE)
    return StepsInPlace(kernel, bundles, root)


def written(processes: list[int], engine: Path, proc: Path = PROC) -> list[Path]:
    """Return the directories in which steps write.

    These are the upper ones of their overlays, and the caches that are mounted.

    Parameters
    ----------
    engine
        The engine's own directory.

    Raises
    ------
    OSError
        If the kernel does not say, of a process that is still there.
    """
    found = set()
    for pid in processes:
        for line in _mounts(pid, proc):
            # Source: proc(5): root, mount point and options from the fourth field on; the file
            # system's own options last.
            fields = line.split(" ")
            if upper := _UPPER.search(fields[-1]):
                found.add(Path(_ESCAPE.sub(lambda code: chr(int(code[1], 8)), upper[1])))
            elif "rw" in fields[5].split(",") and (cache := _CACHE.fullmatch(fields[3])):
                found.add(engine / cache[1])
    return sorted(found)


def _mounts(pid: int, proc: Path) -> list[str]:
    try:
        text = (proc / str(pid) / "mountinfo").read_text("utf-8", "surrogateescape")
    except OSError as error:
        # Over, or ended and not yet waited for.
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            return []
        raise
    # Not by lines as Python knows them: a path may have a form feed.
    return text.rstrip("\n").split("\n") if text else []


class StepsInPlace:
    """Steps under the cgroupfs driver: their common cgroup is given limits.

    Parameters
    ----------
    kernel
        The cgroups in the engine's own.
    bundles
        What runc is told of each step that runs.
    """

    def __init__(self, kernel: FilesV1 | FilesV2, bundles: Path, root: Path = CGROUP_ROOT) -> None:
        self._kernel = kernel
        self._bundles = bundles
        self._root = root

    @contextmanager
    def hold(self, limits: SliceLimits) -> Iterator[Check]:
        """Set the limits; they stay when it is over, as another build may run."""
        self._kernel.set(_NAME, limits)
        verify(self._kernel, _NAME, limits)
        yield partial(self._check, limits, self._cpu_seconds())

    def parent(self) -> str:
        """Return the cgroup of the steps."""
        return self._kernel.parent(_NAME)

    def processes(self) -> list[int]:
        """Return the processes of steps that run now."""
        root = self._root
        above = root if is_unified(root) else hierarchies(root)["pids"]
        return processes_below(above / _ABOVE / _NAME)

    def _check(self, limits: SliceLimits, before: float, ran: bool) -> None:
        with for_the_owner():
            verify(self._kernel, _NAME, limits)
            refuse_elsewhere(self._bundles, _IN_PLACE)
            # Counts what is over, too.
            if ran and self._cpu_seconds() <= before:
                raise SliceError(f"A step has run, and not in {self.parent()}.")

    def _cpu_seconds(self) -> float:
        usage = self._kernel.usage(_NAME)
        if usage is None:
            raise SliceError(f"The cgroup {self.parent()} is gone.")
        return usage.cpu_seconds
