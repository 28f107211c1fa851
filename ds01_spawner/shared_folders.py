"""The shared folders of a server, as they are on this machine."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .policy import Folder
from .workspaces import Directory

_LOG = logging.getLogger(__name__)

#: Seconds that a folder's disk may take to answer: one that hangs stops nobody's start.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class SharedFolder:
    """A folder that is there: its entry in the list, the directory, and its group's number."""

    folder: Folder
    directory: Directory
    gid: int


async def found(folders: Iterable[Folder]) -> tuple[SharedFolder, ...]:
    """Return the folders that are there; the log says what is wrong with the others."""
    looks = [(folder, asyncio.ensure_future(_look_in_time(folder))) for folder in folders]
    here = []
    for folder, look in looks:
        try:
            here.append(await look)
        except OSError as error:
            _LOG.warning("The shared folder %s is left out: %s", folder.name, error)
    return tuple(here)


async def problems(folders: Iterable[Folder]) -> tuple[str, ...]:
    """Say, for an admin, what is wrong with those folders that cannot be shared."""
    looks = await asyncio.gather(*map(_look_in_time, folders), return_exceptions=True)
    return tuple(
        f"Shared folder {folder.name}: {look}"
        for folder, look in zip(folders, looks, strict=True)
        if isinstance(look, BaseException)
    )


async def _look_in_time(folder: Folder) -> SharedFolder:
    try:
        return await asyncio.wait_for(asyncio.to_thread(_look, folder), _PATIENCE_S)
    except asyncio.TimeoutError:
        raise OSError(f"the disk of {folder.path} does not answer") from None


def _look(folder: Folder) -> SharedFolder:
    path = Path(folder.path)
    try:
        seen = path.stat()
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(seen.st_mode):
        raise OSError(f"{path} is no directory")
    return SharedFolder(folder, Directory(path, seen.st_dev, seen.st_ino), seen.st_gid)
