"""What cgroups use now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .files import descendants, is_gone, read_bytes, read_counter
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


@dataclass(frozen=True)
class Work:
    """What a container has done since it was started; see `Usage`."""

    cpu_seconds: float
    oom_kills: int


class ContainerWork:
    """Reads again and again what one container has done, from no more files than that takes.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.
    """

    def __init__(self, pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> None:
        self.pid = pid
        self._proc, self._root = proc, root
        self._place_file = str(proc / str(pid) / "cgroup")
        self._place = b""
        self._cpu = self._kills = ""
        #: The cgroup in v1's memory hierarchy, where kills are counted in each cgroup for itself.
        self._memory_v1: Path | None = None

    def read(self) -> Work | None:
        """Return what it has done; None when it is gone or the kernel does not say."""
        try:
            # Asked each time: the process may have ended, and its number be another's.
            place = read_bytes(self._place_file)
            if place != self._place:
                self._place = b""
                self._find()
                self._place = place
            kills = _counter(self._kills, b"oom_kill")
            if self._memory_v1 is None:
                return Work(_counter(self._cpu, b"usage_usec") / 1e6, kills)
            for below in descendants(self._memory_v1):
                kills += _kills_in_one_that_may_go(below)
            return Work(int(read_bytes(self._cpu)) / 1e9, kills)
        except (OSError, ValueError, KeyError):
            return None

    def _find(self) -> None:
        cgroups = cgroups_of(self.pid, self._proc)
        if "memory" not in cgroups:
            directory = self._root / cgroups[""].lstrip("/")
            self._cpu, self._kills = str(directory / "cpu.stat"), str(directory / "memory.events")
            self._memory_v1 = None
            return
        v1 = hierarchies(self._root)
        self._memory_v1 = v1["memory"] / cgroups["memory"].lstrip("/")
        self._kills = str(self._memory_v1 / "memory.oom_control")
        self._cpu = str(v1["cpuacct"] / cgroups["cpuacct"].lstrip("/") / "cpuacct.usage")


def _counter(file: str, key: bytes) -> int:
    """See `files.read_counter`."""
    for line in read_bytes(file).splitlines():
        name, _, value = line.partition(b" ")
        if name == key:
            return int(value)
    raise ValueError(f"no {key!r} in {file}")


def processes_of(pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> list[int]:
    """Return the processes of a container, as this machine numbers them.

    Parameters
    ----------
    pid
        The container's first process.

    Raises
    ------
    OSError, ValueError, LookupError
        If it is gone, or the kernel does not say.
    """
    cgroups = cgroups_of(pid, proc)
    if "pids" in cgroups:
        directory = hierarchies(root)["pids"] / cgroups["pids"].lstrip("/")
    else:
        directory = root / cgroups[""].lstrip("/")
    # Not seen from here is not empty: only those below it may go meanwhile.
    found = _processes_in(directory)
    for each in descendants(directory):
        try:
            found |= _processes_in(each)
        except OSError as error:
            if not is_gone(error):
                raise
    return sorted(found)


def _processes_in(directory: Path) -> set[int]:
    """Return the processes in this very cgroup; the kernel may list one twice."""
    return set(map(int, (directory / "cgroup.procs").read_text().split()))


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
