"""This server's memory, as the kernel counts it for the container that this runs in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: A container sees its own cgroup here, as if there were no other.
CGROUP = Path("/sys/fs/cgroup")
#: cgroup v1 writes "no limit" as a number larger than any machine's memory.
_NO_LIMIT_BYTES = 1 << 60
#: The kernel hands memory out in batches, so a container that is full may lack some pages.
_NEARLY_BYTES = 1 << 20


@dataclass(frozen=True)
class Memory:
    """One look.

    Attributes
    ----------
    used_bytes
        Without the file cache that the kernel can drop, as ``docker stats`` counts.
    limit_bytes
        None if there is none.
    kills
        Processes that the kernel has ended because memory ran out, whoever's limit it was.
    hits
        A number that moves with `kills` where this container had reached its own limit.
    """

    used_bytes: int
    limit_bytes: int | None
    kills: int
    hits: int


def look(root: Path = CGROUP) -> Memory | None:
    """Return how it is now, None if the kernel does not say."""
    try:
        # v1 first, as hybrid machines have an empty v2 beside it.
        return _look_v1(root / "memory") if (root / "memory").is_dir() else _look_v2(root)
    except (OSError, ValueError, KeyError):
        return None


def _look_v1(root: Path) -> Memory:
    limit = int((root / "memory.limit_in_bytes").read_text())
    cache = _counters(root / "memory.stat")["total_inactive_file"]
    peak = int((root / "memory.max_usage_in_bytes").read_text())
    kills = _counters(root / "memory.oom_control")["oom_kill"]
    return Memory(
        used_bytes=max(0, int((root / "memory.usage_in_bytes").read_text()) - cache),
        limit_bytes=limit if limit < _NO_LIMIT_BYTES else None,
        kills=kills,
        # Not every kernel counts in memory.failcnt; one that was never full was not the reason.
        hits=kills if peak >= limit - _NEARLY_BYTES else 0,
    )


def _look_v2(root: Path) -> Memory:
    limit = (root / "memory.max").read_text().strip()
    cache = _counters(root / "memory.stat")["inactive_file"]
    events = _counters(root / "memory.events")
    return Memory(
        used_bytes=max(0, int((root / "memory.current").read_text()) - cache),
        limit_bytes=None if limit == "max" else int(limit),
        kills=events["oom_kill"],
        hits=events["oom"],
    )


def _counters(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


class Watch:
    """Looks at the memory, and remembers whose limit it was when it ran out.

    Parameters
    ----------
    root
        Where the cgroup lies.
    """

    def __init__(self, root: Path = CGROUP) -> None:
        self._root = root
        self._last = look(root)
        self._is_shared = False

    @property
    def is_shared(self) -> bool:
        """Whether it was the limit of all the user's servers together, at the last kill."""
        return self._is_shared

    def look(self) -> Memory | None:
        """Return how it is now, None if the kernel does not say."""
        now, last = look(self._root), self._last
        if now is not None:
            if last is not None and now.kills > last.kills:
                self._is_shared = now.hits == last.hits
            self._last = now
        return now
