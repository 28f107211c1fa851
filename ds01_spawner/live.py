"""What a file says now, or said while it could be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: What changes when a file is written anew or may be read: its name, time, size and number.
_State = tuple[str, int, int, int]


class NeverRead(Exception):
    """There is no reading to go on with; the text says why."""


class Live(Generic[T]):
    """A reading that follows its files.

    - Files that have changed are read again at the next look.
    - Files with a mistake change nothing: the last good reading holds, and the log says what is
      wrong, once for each change.

    Parameters
    ----------
    what
        What is read, for the log: ``the catalogue``.
    files
        Gives the files that it is made of, which may come and go.
    read
        Reads them.
    mistakes
        What `read` raises for files that cannot be used.

    Attributes
    ----------
    problem
        Why the files are not in force as they are now; empty if they are.
    """

    def __init__(
        self,
        what: str,
        files: Callable[[], Iterable[Path]],
        read: Callable[[], T],
        mistakes: type[Exception],
    ) -> None:
        self.problem = ""
        self._what = what
        self._files = files
        self._read = read
        self._mistakes = mistakes
        self._seen: tuple[_State, ...] | None = None
        self._good: T | None = None

    def current(self) -> T:
        """Return the reading.

        Raises
        ------
        NeverRead
            If the files could not be read even once.
        """
        seen = self._look()
        # What failed is tried again: the reason may have been the disk, and not the file.
        if seen != self._seen or self.problem:
            self._seen = seen
            self._try()
        if self._good is None:
            raise NeverRead(self.problem)
        return self._good

    def _try(self) -> None:
        try:
            self._good, self.problem = self._read(), ""
        except (OSError, self._mistakes) as error:
            if str(error) != self.problem:
                _LOG.error("%s cannot be read, the last good one holds: %s", self._what, error)
            self.problem = str(error)

    def _look(self) -> tuple[_State, ...]:
        return tuple(_state(path) for path in self._files())


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_ctime_ns, found.st_size, found.st_ino
