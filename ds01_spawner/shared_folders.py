"""The shared folders of a server, as they are on this machine."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .policy import Folder
from .policy.storage import is_the_systems
from .workspaces import Directory

#: Seconds that a folder's disk may take to answer: one that hangs stops nobody's start.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class SharedFolder:
    """A folder that is there: its entry in the list, the directory, and its group's number."""

    folder: Folder
    directory: Directory
    gid: int


@dataclass(frozen=True)
class Found:
    """The folders that are there, and what is wrong with each of the others, by its name."""

    here: tuple[SharedFolder, ...]
    missing: Mapping[str, str]


async def look(folders: Iterable[Folder]) -> Found:
    """Look which of these folders are there."""
    folders = tuple(folders)
    looks = await asyncio.gather(*map(_look_in_time, folders), return_exceptions=True)
    for failed in looks:
        if isinstance(failed, BaseException) and not isinstance(failed, OSError):
            raise failed
    return Found(
        here=tuple(found for found in looks if isinstance(found, SharedFolder)),
        missing={
            folder.name: str(error)
            for folder, error in zip(folders, looks, strict=True)
            if isinstance(error, OSError)
        },
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
    if is_the_systems(os.path.realpath(path)):
        raise OSError(f"{path} leads to {os.path.realpath(path)}, which belongs to the system")
    return SharedFolder(folder, Directory(path, seen.st_dev, seen.st_ino), seen.st_gid)
