"""The disks that users' files and containers lie on, and what is left of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..images.disk import is_almost_full

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
