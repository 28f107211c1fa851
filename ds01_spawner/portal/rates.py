"""How much of a CPU something uses, from the kernel's counters at two moments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..cgroups.usage import Usage

#: A counter read so many seconds ago still says what is used now.
_RECENT_S = 15.0
#: Seconds between two readings, at least.
_GAP_S = 0.5

#: Reads the counters now; None if they cannot be read. Blocks.
Reader = Callable[[], Usage | None]


@dataclass(frozen=True)
class Measured:
    """What something uses now: `cpus` in cores, `memory_bytes`, `tasks` (processes and threads)."""

    cpus: float
    memory_bytes: int
    tasks: int


@dataclass(frozen=True)
class _Reading:
    at: float
    usage: Usage


class Rates:
    """Measures, and keeps the readings of the last seconds to compare with.

    - A first look takes half a second; a page that refreshes itself waits for none.
    - What cannot be read is None, never zero.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[_Reading]] = {}

    async def measure(self, readers: Mapping[str, Reader]) -> dict[str, Measured | None]:
        """Return what each of these uses.

        Parameters
        ----------
        readers
            A name that nothing else ever has -> its counters.
        """
        first = await asyncio.to_thread(_read, readers)
        new = {name for name, reading in first.items() if reading and not self._older(name)}
        self._keep(first)
        second = dict(first)
        if new:
            await asyncio.sleep(_GAP_S)
            second |= await asyncio.to_thread(_read, {name: readers[name] for name in new})
        return {name: self._measured(name, reading) for name, reading in second.items()}

    def _older(self, name: str) -> _Reading | None:
        """Return the oldest reading that is recent, and long enough ago to compare with."""
        now = time.monotonic()
        kept = self._kept.get(name, ())
        return next((r for r in kept if _GAP_S <= now - r.at <= _RECENT_S), None)

    def _keep(self, readings: Mapping[str, _Reading | None]) -> None:
        oldest = time.monotonic() - _RECENT_S
        for name, reading in readings.items():
            if reading:
                self._kept.setdefault(name, []).append(reading)
        recent = {name: [r for r in kept if r.at >= oldest] for name, kept in self._kept.items()}
        self._kept = {name: kept for name, kept in recent.items() if kept}

    def _measured(self, name: str, reading: _Reading | None) -> Measured | None:
        before = self._older(name)
        if reading is None or before is None or reading.at <= before.at:
            return None
        spent = reading.usage.cpu_seconds - before.usage.cpu_seconds
        if spent < 0:
            # Another cgroup of the same name.
            return None
        return Measured(
            spent / (reading.at - before.at), reading.usage.memory_bytes, reading.usage.tasks
        )


def _read(readers: Mapping[str, Reader]) -> dict[str, _Reading | None]:
    found: dict[str, _Reading | None] = {}
    for name, read in readers.items():
        usage = read()
        found[name] = None if usage is None else _Reading(time.monotonic(), usage)
    return found
