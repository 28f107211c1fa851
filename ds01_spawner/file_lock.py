"""A lock that processes on one machine share, awaited without a thread."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

#: How often a lock that somebody else holds is tried again, in seconds.
_RETRY_S = 0.02


@asynccontextmanager
async def hold_file(path: Path) -> AsyncIterator[int]:
    """Wait for the lock on a file and hold it; a process that dies lets go of it.

    Parameters
    ----------
    path
        Made when missing, with its directory. It stays, as others may wait for it.

    Returns
    -------
    int
        The open file, for reading and writing.

    Raises
    ------
    OSError
        If the file cannot be opened, also because it is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while not _try(file):
            await asyncio.sleep(_RETRY_S)
        yield file
    finally:
        os.close(file)


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
