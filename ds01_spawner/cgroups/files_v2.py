"""Slices in the files of cgroup v2, for an engine with the cgroupfs driver.

Memory that is limited to less than what is in use is reclaimed, and where that does not suffice the
kernel kills in the slice.
"""

from __future__ import annotations

from pathlib import Path

from . import files
from .hierarchies import CGROUP_ROOT, PARENT, slices_in
from .limits import SliceError, SliceLimits
from .usage import Usage, usage_v2

_PERIOD_US = 100_000


class FilesV2:
    """See `slices.Slices`.

    Parameters
    ----------
    root
        Where cgroup v2 is mounted.
    above
        Name of the cgroup that the slices are in.
    """

    knows_memory_high = True

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
        directory = self._directory(name)
        _delegate(self._root)
        files.make(directory.parent)
        _delegate(directory.parent)
        files.make(directory)
        problems = []
        for file, value in _values(limits).items():
            try:
                with files.explained(f"{file} of the slice {name} cannot be set to {value!r}"):
                    files.write(directory / file, value)
            except SliceError as error:
                problems.append(str(error))
        if problems:
            raise SliceError(" ".join(problems))

    def limits(self, name: str) -> SliceLimits | None:
        """Return the limits that the kernel has, None if there is no such slice."""
        directory = self._directory(name)
        if not files.exists(directory):
            return None
        # A file that is not there belongs to a controller that is not on: nothing is limited.
        quota, period = (files.read(directory / "cpu.max") or "max 100000").split()
        return SliceLimits(
            cpus=None if quota == "max" else int(quota) / int(period),
            memory_bytes=_number(directory / "memory.max"),
            memory_high_bytes=_number(directory / "memory.high"),
            tasks=_number(directory / "pids.max"),
        )

    def usage(self, name: str) -> Usage | None:
        """Return what all containers of the slice use, None if there is no such slice."""
        directory = self._directory(name)
        if not files.exists(directory):
            return None
        try:
            return usage_v2(directory)
        except (OSError, ValueError) as error:
            raise SliceError(f"The usage of the slice {name} cannot be read: {error}") from error

    def remove_if_empty(self, name: str) -> bool:
        """Remove the slice unless a container is under it; tell whether it is gone."""
        return not self.is_occupied(name) and files.remove(self._directory(name))

    def names(self) -> list[str]:
        """Return the names of the slices that exist."""
        return sorted(slices_in(self._root))

    def is_occupied(self, name: str) -> bool:
        """Tell whether a container is under the slice."""
        return files.is_occupied(self._directory(name))

    def _directory(self, name: str) -> Path:
        return self._root / self._above / name


def _values(limits: SliceLimits) -> dict[str, str]:
    cpus = limits.cpus
    quota = "max" if cpus is None else str(round(cpus * _PERIOD_US))
    return {
        # What slows down first: where memory is lowered, the kernel then reclaims before it kills.
        "memory.high": _text(limits.memory_high_bytes),
        "memory.max": _text(limits.memory_bytes),
        "cpu.max": f"{quota} {_PERIOD_US}",
        "pids.max": _text(limits.tasks),
    }


def _text(limit: int | None) -> str:
    return "max" if limit is None else str(limit)


def _number(file: Path) -> int | None:
    text = files.read(file)
    return None if text in (None, "max") else int(text)


def _delegate(directory: Path) -> None:
    """Let the cgroups in a cgroup be limited."""
    with files.explained(f"The cgroups in {directory} cannot be limited"):
        on = (directory / "cgroup.subtree_control").read_text().split()
        if missing := [f"+{each}" for each in ("cpu", "memory", "pids") if each not in on]:
            files.write(directory / "cgroup.subtree_control", " ".join(missing))
