"""Slices in the hierarchies of cgroup v1, for an engine with the cgroupfs driver.

- v1 has no ``memory.high``: that limit is not set, and is None when read.
- A cgroup cannot have a larger share of CPU than the one above it: the kernel refuses it both ways.
  So a container must not ask for more CPUs than its slice has, or it does not start; and containers
  that run with more are lowered before their slice is. Raising the slice leaves them there.
- Memory cannot be limited to less than what is in use: nothing is killed, the old limit stays.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import files
from .hierarchies import CGROUP_ROOT, PARENT, hierarchies, slices_in
from .limits import SliceError, SliceLimits
from .usage import Usage, usage_v1

_QUOTA, _PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"

#: What v1 shows for no limit, less than a page of the largest kind below 2**63.
_UNLIMITED = 2**63 - 2**16


class FilesV1:
    """See `slices.Slices`.

    Parameters
    ----------
    root
        Where the hierarchies are mounted.
    above
        Name of the cgroup that the slices are in.
    """

    knows_memory_high = False

    def __init__(self, root: Path = CGROUP_ROOT, above: str = PARENT) -> None:
        self._root = root
        self._above = above

    def parent(self, name: str) -> str:
        """Return what Docker is given as a container's parent."""
        return f"/{self._above}/{name}"

    def set(self, name: str, limits: SliceLimits) -> None:
        """Make the slice, or change its limits.

        Raises
        ------
        SliceError
            If a limit cannot be set; the others are.
        """
        memory, cpu, _, pids = (
            self._make(controller, name) for controller in ("memory", "cpu", "cpuacct", "pids")
        )
        problems = [
            _problem_of(_set_memory, memory, limits.memory_bytes),
            _problem_of(_set_cpus, cpu, limits.cpus),
            _problem_of(_set_tasks, pids, limits.tasks),
        ]
        if any(problems):
            raise SliceError(" ".join(filter(None, problems)))

    def limits(self, name: str) -> SliceLimits | None:
        """Return the limits that the kernel has, None if there is no such slice."""
        memory, cpu, pids = (self._directory(c, name) for c in ("memory", "cpu", "pids"))
        if not any(map(files.exists, (memory, cpu, pids))):
            return None
        used = int(files.read(memory / "memory.limit_in_bytes") or _UNLIMITED)
        quota, period = _bandwidth(cpu)
        tasks = files.read(pids / "pids.max")
        return SliceLimits(
            cpus=None if quota < 0 else quota / period,
            memory_bytes=None if used >= _UNLIMITED else used,
            tasks=None if tasks in (None, "max") else int(tasks),
        )

    def usage(self, name: str) -> Usage | None:
        """Return what all containers of the slice use, None if there is no such slice."""
        places = [self._directory(c, name) for c in ("memory", "cpuacct", "pids")]
        if not any(map(files.exists, places)):
            return None
        try:
            return usage_v1(*places)
        except (OSError, ValueError) as error:
            raise SliceError(f"The usage of the slice {name} cannot be read: {error}") from error

    def remove_if_empty(self, name: str) -> bool:
        """Remove the slice unless a container is under it; tell whether it is gone."""
        if self.is_occupied(name):
            return False
        before = self.limits(name)
        if all(map(files.remove, self._directories(name))):
            return True
        # A container came up in between; what is left would let it have more.
        if before is not None:
            self.set(name, before)
        return False

    def names(self) -> list[str]:
        """Return the names of the slices that exist, also of those that only a part is left of."""
        found = hierarchies(self._root).values()
        return sorted({name for directory in found for name in slices_in(directory)})

    def is_occupied(self, name: str) -> bool:
        """Tell whether a container is under the slice, in any hierarchy."""
        return any(map(files.is_occupied, self._directories(name)))

    def lower_containers(self, name: str, cpus: float) -> None:
        """Lower the CPU quota of each container of the slice that has more than that."""
        cpu = self._directory("cpu", name)
        _, period = _bandwidth(cpu)
        with files.explained(f"The CPUs of the containers under {name} cannot be lowered"):
            _lower_below(cpu, _quota(cpus, period), period)

    def _directory(self, controller: str, name: str) -> Path:
        """Return the slice's directory in a hierarchy, there or not."""
        try:
            return hierarchies(self._root)[controller] / self._above / name
        except KeyError:
            raise SliceError(
                f"The cgroup controller {controller!r} is not mounted under {self._root}, so what "
                "a user's servers use together cannot be limited. Mount it, or switch the machine "
                "to cgroup v2."
            ) from None

    def _directories(self, name: str) -> list[Path]:
        """Return the slice's directories, also where the engine has made them for itself."""
        roots = sorted(set(hierarchies(self._root).values()))
        return [place for root in roots if files.exists(place := root / self._above / name)]

    def _make(self, controller: str, name: str) -> Path:
        directory = self._directory(controller, name)
        for each in (directory.parent, directory):
            files.make(each)
            if controller == "memory":
                _count_what_is_below(each)
        return directory


def _problem_of(
    setting: Callable[[Path, float | None], None], directory: Path, limit: float | None
) -> str:
    """Set a limit and return what went wrong."""
    try:
        with files.explained(f"A limit of the slice {directory} cannot be set to {limit}"):
            setting(directory, limit)
    except SliceError as error:
        return str(error)
    return ""


def _count_what_is_below(memory: Path) -> None:
    """See that a limit counts for the sum of all below, which old kernels let one choose."""
    file = memory / "memory.use_hierarchy"
    if files.read(file) == "0":
        with files.explained(f"{file} cannot be switched on"):
            files.write(file, "1")


def _set_memory(memory: Path, memory_bytes: float | None) -> None:
    try:
        files.write(
            memory / "memory.limit_in_bytes", str(-1 if memory_bytes is None else memory_bytes)
        )
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise SliceError(
            f"The memory of {memory.name} cannot be limited to {memory_bytes} bytes: more is in "
            "use. The old limit stays until a server of this user is stopped."
        ) from error


def _set_cpus(cpu: Path, cpus: float | None) -> None:
    _, period = _bandwidth(cpu)
    quota = -1 if cpus is None else _quota(cpus, period)
    if cpus is not None:
        _lower_below(cpu, quota, period)
    files.write(cpu / _QUOTA, str(quota))


def _set_tasks(pids: Path, tasks: float | None) -> None:
    files.write(pids / "pids.max", "max" if tasks is None else str(tasks))


def _quota(cpus: float, period: int) -> int:
    return round(cpus * period)


def _bandwidth(cpu: Path) -> tuple[int, int]:
    """Return quota (-1: unlimited) and period in microseconds."""
    return int(files.read(cpu / _QUOTA) or -1), int(files.read(cpu / _PERIOD) or 100_000)


def _lower_below(cpu: Path, quota: int, period: int) -> None:
    # From the bottom up, as the rule holds between any two levels.
    for below in files.descendants(cpu):
        its_quota, its_period = _bandwidth(below)
        if its_quota * period > quota * its_period:
            # It may have ended meanwhile.
            with suppress(FileNotFoundError):
                files.write(below / _QUOTA, str(quota * its_period // period))
