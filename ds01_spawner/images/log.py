"""What a build has said, on disk, and as it comes."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .output import Line

#: What is kept of a build's output at most: lines, and bytes of their file.
MOST_LINES = 50_000
MOST_BYTES = 8 * 1024**2
#: Lines that are kept of the end of an output of which not all is.
LAST_LINES = 40
#: Lines that are passed on before others have their turn.
_AT_ONCE = 500


@dataclass(frozen=True)
class Said:
    """A line with its place in the log, counted from 1, and seconds since the build began."""

    at: int
    seconds: float
    line: Line


class Excerpt:
    """Passes on what is kept of a build's output: its beginning, and its last lines.

    - A line is passed on as it comes, while there is room.
    - In the place of the first that has none comes one line that says so.
    - In the end come the last of the lines that had none.

    Parameters
    ----------
    say
        Called with each line that is kept.
    most_lines, most_bytes
        The room; bytes as in the log's file.
    """

    def __init__(
        self,
        say: Callable[[Line], None],
        most_lines: int = MOST_LINES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._say = say
        self._lines_left = most_lines
        self._bytes_left = most_bytes
        self._is_full = False
        self._last: deque[Line] = deque(maxlen=LAST_LINES)

    def say(self, line: Line) -> None:
        """Pass on a line, or keep it for the end."""
        if self._is_full:
            self._last.append(line)
            return
        self._lines_left -= 1
        self._bytes_left -= len(_entry(0.0, line))
        if self._lines_left >= 0 and self._bytes_left >= 0:
            self._say(line)
            return
        self._is_full = True
        self._last.append(line)
        self._say(
            Line(
                "This is more output than is kept. The rest is left out, except for its last "
                f"{LAST_LINES} lines, which follow when the build is over."
            )
        )

    def end(self) -> None:
        """Pass on the last lines."""
        while self._last:
            self._say(self._last.popleft())


class BuildLog:
    """The log of one build, written while it runs.

    - Whoever watches sees all lines so far, then each new one, then the end.
    - A log whose build is over is read from its file.

    Parameters
    ----------
    path
        The file; for root's eyes, as a build may print anything of its owner's.
    """

    def __init__(self, path: Path) -> None:
        self._began = time.monotonic()
        self._said: list[Said] = []
        self._changed = asyncio.Event()
        self._over = False
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(number, "w", encoding="utf-8", buffering=1)

    def say(self, line: Line) -> None:
        """Add a line.

        Raises
        ------
        OSError
            If it cannot be written; whoever watches sees it with the next, or at the end.
        """
        seconds = round(time.monotonic() - self._began, 1)
        said = Said(len(self._said) + 1, seconds, line)
        self._said.append(said)
        self._file.write(_entry(seconds, line))
        self._tell()

    def end(self) -> None:
        """Say that nothing comes any more."""
        self._over = True
        # First, as a full disk may refuse to close what could not be written.
        self._tell()
        with suppress(OSError):
            self._file.close()

    async def watch(self, after: int = 0) -> AsyncIterator[Said]:
        """Yield all lines behind one, until the build is over."""
        at = max(0, after)
        while True:
            # Taken first: what is said while we yield must wake us.
            changed = self._changed
            for said in self._said[at:]:
                yield said
                at = said.at
                await _give_way(at)
            if self._over and at >= len(self._said):
                return
            await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def read_log(path: Path) -> list[Said]:
    """Return what a log file has; nothing if there is none. Blocks, for a second if it is full."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for at, text in enumerate(lines, 1):
        try:
            entry = json.loads(text)
        except ValueError:
            # The last line of a portal that was killed.
            break
        seconds = entry.pop("seconds")
        found.append(Said(at, seconds, Line(**entry)))
    return found


async def replay(path: Path, after: int = 0) -> AsyncIterator[Said]:
    """Yield what a log file has behind a line, and let others have their turn meanwhile."""
    for said in (await asyncio.to_thread(read_log, path))[max(0, after) :]:
        yield said
        await _give_way(said.at)


async def _give_way(at: int) -> None:
    if at % _AT_ONCE == 0:
        await asyncio.sleep(0)


def _entry(seconds: float, line: Line) -> str:
    return json.dumps({"seconds": seconds, **asdict(line)}) + "\n"
