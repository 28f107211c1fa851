"""Where a process belongs, from /proc of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..columns import printable
from .devices import GpuProcess
from .occupancy import Process

#: Every engine puts a container's id into the name of its cgroup.
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def locate(processes: Iterable[GpuProcess], proc: Path = Path("/proc")) -> list[Process]:
    """Return the processes with their names and their containers' ids.

    One that /proc does not have has neither: it has ended, or is out of sight.
    """
    return [_locate(process, proc / str(process.pid)) for process in processes]


def _locate(process: GpuProcess, folder: Path) -> Process:
    try:
        cgroups = (folder / "cgroup").read_text("utf-8", "replace")
        name = (folder / "comm").read_text("utf-8", "replace").rstrip("\n")
    except OSError:
        return Process(process.pid, "", process.uuid)
    return Process(
        process.pid, printable(name) or "?", process.uuid, tuple(_CONTAINER.findall(cgroups))
    )
