"""What cgroups use now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .files import descendants, is_gone, read_counter
from .hierarchies import CGROUP_ROOT, PROC, cgroups_of, hierarchies


@dataclass(frozen=True)
class Usage:
    """What a cgroup uses, with all below it.

    Attributes
    ----------
    cpu_seconds
        CPU time since the cgroup was made.
    memory_bytes
        Memory without the file cache that the kernel can drop, as ``docker stats`` counts.
    tasks
        Processes and threads.
    oom_kills
        Processes that the kernel has killed because memory ran out. Of a slice on cgroup v1: in
        the containers that exist, as v1 has no sum.
    """

    cpu_seconds: float
    memory_bytes: int
    tasks: int
    oom_kills: int


def container_usage(pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> Usage | None:
    """Return what a container uses.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.

    Returns
    -------
    Usage or None
        None when the process is gone or the kernel does not say.
    """
    try:
        cgroups = cgroups_of(pid, proc)
        if "memory" not in cgroups:
            return usage_v2(root / cgroups[""].lstrip("/"))
        v1 = hierarchies(root)
        return usage_v1(
            *(v1[name] / cgroups[name].lstrip("/") for name in ("memory", "cpuacct", "pids"))
        )
    except (OSError, ValueError, KeyError):
        return None


def usage_v1(memory: Path, cpuacct: Path, pids: Path) -> Usage:
    """Read the usage from a cgroup's directories in three hierarchies.

    Raises
    ------
    OSError, ValueError
        If the kernel does not say.
    """
    used = int((memory / "memory.usage_in_bytes").read_text())
    cache = read_counter(memory / "memory.stat", "total_inactive_file")
    below = list(descendants(memory))
    return Usage(
        cpu_seconds=int((cpuacct / "cpuacct.usage").read_text()) / 1e9,
        memory_bytes=max(0, used - cache),
        tasks=int((pids / "pids.current").read_text()),
        oom_kills=oom_kills_v1(memory) + sum(_kills_in_one_that_may_go(m) for m in below),
    )


def usage_v2(directory: Path) -> Usage:
    """Read the usage from a cgroup's directory.

    Raises
    ------
    OSError, ValueError
        If the kernel does not say.
    """
    used = int((directory / "memory.current").read_text())
    cache = read_counter(directory / "memory.stat", "inactive_file")
    return Usage(
        cpu_seconds=read_counter(directory / "cpu.stat", "usage_usec") / 1e6,
        memory_bytes=max(0, used - cache),
        tasks=int((directory / "pids.current").read_text()),
        oom_kills=oom_kills_v2(directory),
    )


def oom_kills_v1(memory: Path) -> int:
    """Return the kills in this very cgroup, without those below it."""
    return read_counter(memory / "memory.oom_control", "oom_kill")


def _kills_in_one_that_may_go(memory: Path) -> int:
    try:
        return oom_kills_v1(memory)
    except OSError as error:
        if is_gone(error):
            return 0
        raise


def oom_kills_v2(directory: Path) -> int:
    """Return the kills in this cgroup and all below it."""
    return read_counter(directory / "memory.events", "oom_kill")
