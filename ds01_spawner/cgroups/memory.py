"""Out-of-memory kills, counted by the kernel for each container.

Usually only the kernel's process dies and the notebook server lives on; Docker's ``OOMKilled``
is then false, and this counter is the only witness.
"""

from __future__ import annotations

from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def oom_kills(pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> int | None:
    """Return how many processes the kernel killed for memory in the cgroup of a process.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.

    Returns
    -------
    int or None
        None when the process is gone or the kernel does not say.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        return _read_counter(_counter_file(lines, root))
    except (OSError, ValueError):
        return None


def _counter_file(lines: list[str], root: Path) -> Path:
    """Find the file with ``oom_kill``; v1 first, as hybrid machines have an empty v2 beside it."""
    unified: Path | None = None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "memory.oom_control"
        if controllers == "":
            unified = root / path.lstrip("/") / "memory.events"
    if unified is None:
        raise ValueError("no memory cgroup")
    return unified


def _read_counter(file: Path) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    raise ValueError(f"no oom_kill in {file}")
