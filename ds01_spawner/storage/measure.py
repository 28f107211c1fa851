"""Has directories counted by a program that gives way to everything else on the machine."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import walk

#: Source: ionice(1): class 3 has the disk while nobody else wants it.
_GIVES_WAY = ("nice", "-n", "19", "ionice", "-c", "3")
#: A program that tells of no progress for so many seconds hangs.
_SILENT_S = 60.0
#: Seconds that it has to end when it is killed.
_ENDS_IN_S = 5.0
#: A disk that hangs holds up so many programs at most; then nothing more is begun.
_MOST_STUCK = 8


class NotMeasured(Exception):
    """Nothing is known; the text says why."""


@dataclass(frozen=True)
class Place:
    """A directory: `name` is a relative path below `base`, in which no link is followed.

    `base` is one that no user can replace.
    """

    base: Path
    name: str = ""


@dataclass(frozen=True)
class Measured:
    """What places take: `bytes` on the disk, at least that if something could not be counted.

    `problem` says why then; it is empty if everything was.
    """

    bytes: int
    problem: str = ""


class Measure:
    """Measures places, each time by a program of its own.

    - It has the lowest priority for CPU and disk, and a time after which it is ended.
    - One that hangs in a disk cannot be ended: it is left alone, and nobody waits for it.

    Parameters
    ----------
    seconds
        Time for one measurement. It ends by itself then, or earlier if it hangs.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stuck: list[Process] = []

    async def __call__(self, places: Sequence[Place]) -> Measured:
        """Return what places take together; a file with a name in several counts once.

        Raises
        ------
        NotMeasured
            If nothing could be counted.
        """
        self._stuck = [process for process in self._stuck if process.returncode is None]
        if len(self._stuck) >= _MOST_STUCK:
            raise NotMeasured("too many measurements hang in a disk that does not answer")
        arguments = [part for place in places for part in (str(place.base), place.name)]
        process = await asyncio.create_subprocess_exec(
            *(*_GIVES_WAY, sys.executable, "-I", "-S", walk.__file__, str(self._seconds)),
            *arguments,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
            # Ctrl-C at the service is not meant for it.
            start_new_session=True,
        )
        lines: list[bytes] = []
        try:
            with suppress(asyncio.TimeoutError):
                await _follow(process, lines)
        finally:
            await self._end(process)
        return _measured(lines[-1] if lines else b"")

    async def _end(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        try:
            await asyncio.wait_for(process.wait(), _ENDS_IN_S)
        except asyncio.TimeoutError:
            self._stuck.append(process)


async def _follow(process: Process, lines: list[bytes]) -> None:
    """Keep the latest line that a program prints, until its end, or until it hangs."""
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), _SILENT_S):
        lines[:] = [line]


def _measured(line: bytes) -> Measured:
    try:
        found = walk.Count(**json.loads(line))
    except (ValueError, TypeError):
        raise NotMeasured("the disk did not answer, or the program that counts failed") from None
    if found.unread and not found.bytes:
        raise NotMeasured("nothing of it could be read")
    if not found.is_finished:
        return Measured(found.bytes, "not counted to its end: too many files, or a disk that hangs")
    if found.unread:
        return Measured(found.bytes, f"{found.unread} of its directories or files not readable")
    if found.gone:
        return Measured(found.bytes, f"{found.gone} of its directories moved or deleted meanwhile")
    return Measured(found.bytes)
