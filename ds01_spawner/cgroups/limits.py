"""What one user's slice may use."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

#: Largest difference, in CPUs, between a quota and what the kernel keeps of it: one microsecond of
#: a period of 100 ms, and the last digit of a decimal fraction.
_CPU_STEP = 1.1e-5


class SliceError(Exception):
    """A slice cannot be had as it should be; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class SliceLimits:
    """Limits of all of a user's containers together; None means no limit.

    Attributes
    ----------
    cpus
        CPU time per time.
    memory_bytes, memory_high_bytes
        Memory above which the kernel kills, and above which it slows down and reclaims.
    tasks
        Processes and threads.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_high_bytes: int | None = None
    tasks: int | None = None


def differences(wanted: SliceLimits, found: SliceLimits, *, memory_high: bool) -> list[str]:
    """Return one text for each limit that is not as wanted, but for the kernel's own rounding.

    The kernel keeps memory in whole pages and CPU time in whole microseconds of a period.

    Parameters
    ----------
    memory_high
        Whether the kernel knows that limit.
    """
    if not memory_high:
        wanted = replace(wanted, memory_high_bytes=None)
    pairs = (
        ("cpus", wanted.cpus, found.cpus, _CPU_STEP),
        ("memory.max", wanted.memory_bytes, found.memory_bytes, mmap.PAGESIZE - 1),
        ("memory.high", wanted.memory_high_bytes, found.memory_high_bytes, mmap.PAGESIZE - 1),
        ("tasks", wanted.tasks, found.tasks, 0),
    )
    return [
        f"{what} is {_in_words(is_)} and should be {_in_words(should)}"
        for what, should, is_, tolerance in pairs
        if not _same(should, is_, tolerance)
    ]


def _same(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= tolerance


def _in_words(limit: float | None) -> str:
    return "unlimited" if limit is None else f"{limit:.12g}"
