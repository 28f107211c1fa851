"""Counts what directories take on their disks; a program of its own, of the standard library alone.

``python walk.py SECONDS BASE PLACE [BASE PLACE …]`` counts each PLACE, a relative path below its
BASE, and prints a line of JSON each second and at its end. Whoever ends it has the latest line.

- Blocks count, not sizes: a sparse file takes what is written of it, a file with several names
  counts once, and directories count as well. Each takes 4 KiB at least: a disk has so many of them
  and no more, and whoever makes empty ones without end would take nothing.
- No link below a base is followed, and no other file system entered.
- Names may be any bytes, and trees of any depth. What goes meanwhile is not counted, and it is said
  of how many directories: they may have been moved to where nobody looks any more.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEAST_BYTES = 4096
_EVERY_S = 1.0
#: Entries of one directory between two looks at the clock.
_ENTRIES = 1000
#: So many files with several names are remembered; of more, each name counts its share.
_MOST_LINKED = 1_000_000
#: Above what such a tree takes, and below what would hurt the machine.
_MEMORY_BYTES = 2 * 1024**3


class TooLate(Exception):
    """There is no time to count the rest."""


@dataclass
class Count:
    """What was counted.

    Attributes
    ----------
    bytes
        On the disk.
    unread
        Entries that could not be read; what is in them is not counted.
    gone
        Directories that were there and had gone when it was their turn.
    is_finished
        Whether everything was looked at.
    """

    bytes: int = 0
    unread: int = 0
    gone: int = 0
    is_finished: bool = False


class Walk:
    """Counts places, all together.

    Parameters
    ----------
    seconds
        Time for all of them.
    """

    def __init__(self, seconds: float) -> None:
        self.count = Count()
        self._end = time.monotonic() + seconds
        self._told_at = time.monotonic()
        #: Of files with several names: how many of these were not met yet.
        self._names_left: dict[tuple[int, int], int] = {}

    def add(self, base: str, place: str) -> None:
        """Count a place; one that does not exist takes nothing.

        Raises
        ------
        TooLate
            When the time is over.
        """
        try:
            # Bases are the machine's own: there a link is an admin's.
            fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self.count.unread += 1
            return
        for name in filter(None, place.split("/")):
            below = self._open(fd, name)
            os.close(fd)
            if below is None:
                return
            fd = below
        self._add_tree(fd)

    def tell(self) -> None:
        """Print what is counted so far."""
        print(json.dumps(asdict(self.count)), flush=True)

    def _add_tree(self, fd: int) -> None:
        """Count a directory and what is below it, and close it."""
        device = os.fstat(fd).st_dev
        # Opened one from the other: a path could be longer than the system takes, or lead elsewhere
        # by now.
        waiting = [(fd, self._add_directory(fd, device))]
        while waiting:
            fd, names = waiting[-1]
            if not names:
                waiting.pop()
                os.close(fd)
                continue
            below = self._open(fd, names.pop(), was_there=True)
            if below is None:
                continue
            if os.fstat(below).st_dev != device:
                os.close(below)
                continue
            waiting.append((below, self._add_directory(below, device)))

    def _open(self, parent: int, name: str, *, was_there: bool = False) -> int | None:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            # Or something else is in its place.
            self.count.gone += was_there
            return None
        except OSError:
            self.count.unread += 1
            return None

    def _add_directory(self, fd: int, device: int) -> list[str]:
        """Count a directory without those in it, and return their names."""
        self.count.bytes += max(os.fstat(fd).st_blocks * 512, _LEAST_BYTES)
        self._look_at_clock()
        names: list[str] = []
        try:
            with os.scandir(fd) as entries:
                for number, entry in enumerate(entries, 1):
                    if number % _ENTRIES == 0:
                        self._look_at_clock()
                    self._add_entry(entry, device, names)
        except FileNotFoundError:
            pass
        except OSError:
            self.count.unread += 1
        return names

    def _add_entry(self, entry: os.DirEntry[str], device: int, names: list[str]) -> None:
        try:
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
                return
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            self.count.unread += 1
            return
        if found.st_dev == device:
            self.count.bytes += self._taken(found)

    def _taken(self, found: os.stat_result) -> int:
        taken = max(found.st_blocks * 512, _LEAST_BYTES)
        if found.st_nlink < 2:
            return taken
        key = found.st_dev, found.st_ino
        left = self._names_left.pop(key, None)
        if left is not None:
            if left > 1:
                self._names_left[key] = left - 1
            return 0
        if len(self._names_left) >= _MOST_LINKED:
            return taken // found.st_nlink
        self._names_left[key] = found.st_nlink - 1
        return taken

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now > self._end:
            raise TooLate
        if now - self._told_at >= _EVERY_S:
            self._told_at = now
            self.tell()


def main(arguments: Sequence[str]) -> int:
    """Count what the arguments say."""
    # A directory is open for each level of a tree.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    walk, places = Walk(float(arguments[0])), arguments[1:]
    try:
        for base, place in zip(places[::2], places[1::2], strict=True):
            walk.add(base, place)
        walk.count.is_finished = True
    except (TooLate, MemoryError):
        pass
    walk.tell()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
