"""The processes in a container: what a terminal executes, and what is to end before the server."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ..cgroups.hierarchies import CGROUP_ROOT, PROC, cgroups_of
from ..cgroups.usage import processes_of
from ..clock import utc_now

_LOOK_S = 0.2

#: What cannot be told of processes looks like one of these.
UNREADABLE = (OSError, ValueError, LookupError)

_SHELLS = frozenset(("ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "xonsh", "zsh"))

#: A Python that was built for old kernels, such as conda's, cannot hold on to a process.
_CAN_PIN = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


@dataclass(frozen=True)
class Process:
    """What ``/proc/<pid>/stat`` says, and ``status`` of signals. Source: proc(5).

    Attributes
    ----------
    terminal
        0 without one.
    foreground
        The group of processes that its terminal is given to; not above 0 without one.
    ignores_end
        Whether it ignores SIGTERM, as an interactive shell does.
    handles_end
        Whether it does something of its own at SIGTERM, such as writing a checkpoint.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    terminal: int
    foreground: int
    started_ticks: int
    name: str
    ignores_end: bool
    handles_end: bool

    @property
    def leads_terminal(self) -> bool:
        """Whether it leads what runs in a terminal."""
        return bool(self.terminal) and self.pid == self.session

    @property
    def is_idle_shell(self) -> bool:
        """Whether it leads a terminal and executes nothing there."""
        # A program may be started in a terminal without a shell, as by a notebook's "!".
        is_shell = self.ignores_end or self.name in _SHELLS
        return self.leads_terminal and is_shell and self.foreground_group == self.group

    @property
    def foreground_group(self) -> int:
        """The group of processes that executes in its terminal: its own if nothing else does."""
        return self.foreground if self.foreground > 0 else self.group

    @property
    def job(self) -> tuple[int, int] | None:
        """The terminal, and the group of processes that it executes there, if it leads one."""
        if not self.leads_terminal or self.is_idle_shell:
            return None
        return self.terminal, self.foreground_group


def executing_since(processes: Iterable[Process], boot: datetime) -> datetime | None:
    """Return since when a terminal has executed something, of several the latest.

    A shell that waits for its user is in its terminal's foreground itself; while it executes a
    command, the command is.

    Parameters
    ----------
    boot
        When the machine was started.

    Returns
    -------
    datetime or None
        None if none does.
    """
    found = list(processes)
    jobs = {process.job for process in found} - {None}
    began: dict[tuple[int, int], int] = {}
    for process in found:
        job = process.terminal, process.group
        if job in jobs:
            began[job] = min(process.started_ticks, began.get(job, process.started_ticks))
    if not began:
        return None
    return boot + timedelta(seconds=max(began.values()) / os.sysconf("SC_CLK_TCK"))


def executing_in(
    container_id: str, pid: int, proc: Path = PROC, root: Path = CGROUP_ROOT
) -> datetime | None:
    """Return the same of the container with this id and this first process.

    Raises
    ------
    OSError, ValueError, LookupError
        If it is gone, or the kernel does not say.
    """
    seconds = float((proc / "uptime").read_text().split()[0])
    boot = utc_now() - timedelta(seconds=seconds)
    found = read_all(processes_of(pid, proc=proc, root=root), proc)
    # Seen afterwards: until then the number was this container's, and so is what was read.
    if not is_in(container_id, pid, proc):
        raise ProcessLookupError(f"{pid} is no process of the container {container_id}")
    return executing_since(found, boot)


def is_in(container_id: str, pid: int, proc: Path = PROC) -> bool:
    """Tell whether a process is in a container.

    Raises
    ------
    OSError, ValueError
        If the process is gone, or the kernel says something unknown.
    """
    return any(container_id in place for place in cgroups_of(pid, proc).values())


def work_of(first: int, processes: Iterable[Process]) -> list[Process]:
    """Return what is to end before a container does: what handles SIGTERM, but for the server.

    The others lose nothing when they end with the container, and may be needed until then: by
    ``python train.py | tee log``, a training whose output nobody reads any more fails before its
    checkpoint is written.

    Parameters
    ----------
    first
        The container's first process, which only waits for the others: its eldest child is the
        server.
    """
    found = list(processes)
    children = [process for process in found if process.parent == first]
    server = min(children, key=lambda child: child.started_ticks, default=None)
    stays = {first, server.pid if server else 0}
    return [
        process
        for process in found
        if process.pid not in stays
        and process.handles_end
        and not process.is_idle_shell
        and process.state != "Z"
    ]


class Ends:
    """In which order processes are asked to end.

    Where the leader of a terminal ends, or who holds its other side, such as tmux or a notebook
    that executes ``!python train.py``, the system hangs up on what runs in it, and kills it in
    the middle of its last checkpoint. So these wait for the others.

    Parameters
    ----------
    processes
        All processes of the container.
    """

    def __init__(self, processes: Iterable[Process]) -> None:
        self._leaders = {p.pid: p for p in processes if p.leads_terminal}

    def next_of(self, work: Iterable[Process]) -> list[Process]:
        """Return what can be asked to end, of what has not ended yet."""
        work = list(work)
        pids = {process.pid for process in work}
        waiting = {
            above for process in work for above in self._above(process) if above != process.pid
        }
        # Whatever holds the other: nobody waits for ever.
        return [process for process in work if process.pid in pids - waiting] or work

    def _above(self, process: Process) -> Iterable[int]:
        leader = self._leaders.get(process.session)
        return (leader.pid, leader.parent) if leader else ()


async def end_work(
    container_id: str,
    first: int,
    grace: timedelta,
    *,
    proc: Path = PROC,
    root: Path = CGROUP_ROOT,
) -> bool:
    """Ask what computes in a container to end, and wait for it.

    JupyterLab itself gives its kernels a few seconds when it is stopped; a training that writes a
    checkpoint needs more.

    - Nothing is done to a process of another cgroup, also if a number is used again meanwhile.
    - Nothing keeps a server from being stopped: what cannot be read or asked is left out.
    - What is begun meanwhile is not asked.

    Parameters
    ----------
    container_id
        Docker's id.
    first
        The container's first process, as this machine numbers it.
    grace
        The longest that is waited.

    Returns
    -------
    bool
        Whether all of it has ended.
    """
    deadline = time.monotonic() + grace.total_seconds()
    found = await asyncio.to_thread(_processes, container_id, first, proc, root)
    work, ends = work_of(first, found), Ends(found)
    asked: set[int] = set()
    while work:
        ready = [process for process in ends.next_of(work) if process.pid not in asked]
        refused = await asyncio.to_thread(_ask_all, ready, container_id, proc)
        asked |= {process.pid for process in ready}
        work = await asyncio.to_thread(_left, [p for p in work if p not in refused], proc)
        if work and time.monotonic() >= deadline:
            return False
        if work:
            await asyncio.sleep(_LOOK_S)
    return True


def read_all(pids: Iterable[int], proc: Path = PROC) -> list[Process]:
    """Return the processes that are still there.

    Raises
    ------
    OSError, ValueError, LookupError
        If the kernel does not tell of one that is: it may execute something.
    """
    return [process for pid in pids if (process := _read(pid, proc))]


def _processes(container_id: str, first: int, proc: Path, root: Path) -> list[Process]:
    """Return the processes of a container, none if it has ended."""
    try:
        if not is_in(container_id, first, proc):
            return []
        return read_all(processes_of(first, proc=proc, root=root), proc)
    except UNREADABLE:
        return []


def _left(processes: Iterable[Process], proc: Path) -> list[Process]:
    return [process for process in processes if _is_the_same(process, proc)]


def _ask_all(processes: Iterable[Process], container_id: str, proc: Path) -> list[Process]:
    """Send SIGTERM to processes of a container; return those to which it could not be sent."""
    return [process for process in processes if not _ask(process, container_id, proc)]


def _ask(process: Process, container_id: str, proc: Path) -> bool:
    try:
        pin = os.pidfd_open(process.pid) if _CAN_PIN else None
        try:
            # In this order: what is read while it is held is true of what gets the signal, or that
            # has ended, and nobody gets it.
            if not (_is_the_same(process, proc) and is_in(container_id, process.pid, proc)):
                return False
            if pin is None:
                os.kill(process.pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(pin, signal.SIGTERM)
            return True
        finally:
            if pin is not None:
                os.close(pin)
    except UNREADABLE:
        # It has ended, or this Hub may not send it anything.
        return False


def _is_the_same(process: Process, proc: Path) -> bool:
    try:
        found = _read(process.pid, proc)
    except UNREADABLE:
        # What cannot be read is not waited for, and gets no signal.
        return False
    return found is not None and found.started_ticks == process.started_ticks and found.state != "Z"


def _read(pid: int, proc: Path) -> Process | None:
    try:
        text = (proc / str(pid) / "stat").read_text("utf-8", "replace")
        status = (proc / str(pid) / "status").read_text("utf-8", "replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    # The name may have anything in it, also a parenthesis.
    before, _, after = text.rpartition(")")
    state, *fields = after.split()
    parent, group, session, terminal, foreground = map(int, fields[:5])
    return Process(
        *(pid, state, parent, group, session, terminal, foreground),
        started_ticks=int(fields[18]),
        name=before.partition("(")[2],
        ignores_end=_is_end_in("SigIgn", status),
        # What blocks it looks for it at times of its own.
        handles_end=_is_end_in("SigCgt", status) or _is_end_in("SigBlk", status),
    )


def _is_end_in(mask: str, status: str) -> bool:
    """Tell whether SIGTERM is in a set of signals of ``/proc/<pid>/status``."""
    # From the end: the name at its beginning may have anything in it.
    value = status.rpartition(f"\n{mask}:")[2].split(maxsplit=1)
    return bool(value and int(value[0], 16) >> (signal.SIGTERM - 1) & 1)
