"""The lock around a grant, and what is known of a create that nobody saw the end of."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import Refused
from ..file_lock import hold_file

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pending:
    """A container that the engine was asked to create, with its answer still to come.

    Attributes
    ----------
    name
        The container's name, which the engine reserves at the beginning of its create.
    image
        Id of its image.
    """

    name: str
    image: str


class HeldLock:
    """The lock while it is held: the place to write down what is asked of the engine."""

    def __init__(self, file: int) -> None:
        self._file = file

    def pending(self) -> Pending | None:
        """Return what the last holder asked for without seeing an answer.

        Raises
        ------
        Refused
            503 if the file says something else: nobody knows then what is under way.
        """
        text = os.pread(self._file, 4096, 0)
        try:
            found = json.loads(text) if text.strip() else None
        except ValueError:
            # Half a line: its writer died over it, so it never came to ask the engine.
            return None
        try:
            return None if found is None else Pending(**found)
        except TypeError:
            _LOG.error(
                "The lock file of the GPUs was written by another version of DS01: %.200r. See "
                "that no create of it is under way, and remove the file.",
                text,
            )
            raise Refused(
                "No GPU can be given at the moment. Please tell an admin; the Hub's log says what "
                "is in the way.",
                reason="gpu",
                status_code=503,
            ) from None

    def write(self, pending: Pending) -> None:
        """Write down, safe from a crash, what the engine is asked for next."""
        self._replace(json.dumps(asdict(pending)).encode())

    def clear(self) -> None:
        """Note that the engine has answered."""
        self._replace(b"")

    def _replace(self, text: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)
        os.fsync(self._file)


class GrantLock:
    """One grant at a time, among all tasks of this process and all Hubs on this machine.

    - A process that dies lets go of the lock; what it had asked of the engine stays in the file.
    - Whoever waits can be cancelled at any moment and then holds nothing.

    Parameters
    ----------
    path
        A file that all Hubs on the machine share, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Waiting tasks come first in this process's own line, so only one of them tries the file.
        self._line = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[HeldLock]:
        """Wait for the lock and hold it."""
        async with self._line, hold_file(self._path) as file:
            yield HeldLock(file)
