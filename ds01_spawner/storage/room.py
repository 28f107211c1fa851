"""The disks that users' files and containers lie on, and what is left of them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import Docker
from ..images.disk import is_almost_full
from ..lone_thread import LoneThread

if TYPE_CHECKING:
    from ..settings import DS01Settings

#: Where a machine with accounts has their homes.
_HOMES = Path("/home")


@dataclass(frozen=True)
class Disk:
    """A file system with files of users or of containers.

    Attributes
    ----------
    path
        A directory on it.
    free_bytes, total_bytes
        What is left of it for ordinary users, and how large it is.
    is_low
        Whether no server may start: too little room is left, or room for too few files.
    """

    path: Path
    free_bytes: int
    total_bytes: int
    is_low: bool


class DiskError(Exception):
    """A disk does not say what is left of it; the text says why."""


@lru_cache
def _thread() -> LoneThread:
    """Return a thread that a disk which hangs may have: no other call waits behind it."""
    return LoneThread("disks")


async def disks(settings: DS01Settings, docker_call: Docker, patience_s: float) -> list[Disk]:
    """Return what `look` does.

    Parameters
    ----------
    settings
        Say where users' files lie, and how much room servers need.
    docker_call
        The engine, which says where its own lie.
    patience_s
        Seconds in which the disks have to answer.

    Raises
    ------
    DiskError
        If one does not say, or not in time: that is not the same as room.
    """
    root = (await docker_call("info")).get("DockerRootDir", "")
    found = _thread().run(
        *(look, settings.data_dir, settings.accounts_from, root),
        settings.lowest_free_disk_for_servers,
    )
    try:
        return list(await asyncio.wait_for(found, patience_s))
    except (OSError, asyncio.TimeoutError) as error:
        raise DiskError(f"A disk does not say what is left of it: {error!r}") from error


def look(data_dir: str, accounts_from: str, docker_root: str, lowest_free_bytes: int) -> list[Disk]:
    """Return the disks that matter as they are now, each once: users', then containers'; blocks.

    Parameters
    ----------
    data_dir, accounts_from
        The settings of these names.
    docker_root
        Where the engine keeps containers, as it says itself.
    lowest_free_bytes
        With less than this a disk is low.

    Raises
    ------
    OSError
        If one does not say: that is not the same as room.
    """
    files = _HOMES if accounts_from == "system" and _HOMES.is_dir() else Path(data_dir)
    found: dict[int, Disk] = {}
    paths = [files]
    if docker_root and Path(docker_root).exists():
        # An engine may also have its disk elsewhere.
        paths.append(Path(docker_root))
    for path in paths:
        left = os.statvfs(path)
        disk = Disk(
            path,
            left.f_bavail * left.f_frsize,
            left.f_blocks * left.f_frsize,
            is_almost_full(path, lowest_free_bytes),
        )
        found.setdefault(os.stat(path).st_dev, disk)
    return list(found.values())
