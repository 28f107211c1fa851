"""What is on a disk, and what is left of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: What an entry takes at least, of the room for files if not for bytes.
_LEAST_BYTES = 4096
_LOWEST_FREE_FILES = 0.05


def free_bytes(disk: Path) -> int:
    """Return what is left on a disk."""
    return shutil.disk_usage(disk).free


def is_almost_full(disk: Path, lowest_free_bytes: int) -> bool:
    """Tell whether there is less free room, or too little room for more files."""
    found = os.statvfs(disk)
    # Some file systems make room for files as they need it, and say 0.
    few = found.f_files and found.f_favail < found.f_files * _LOWEST_FREE_FILES
    return found.f_bavail * found.f_frsize < lowest_free_bytes or bool(few)


def bytes_below(directory: Path, enough: int | None = None) -> int:
    """Return what the files below a directory take on the disk; blocks.

    An empty file and a directory take room too. What goes meanwhile is not counted.

    Parameters
    ----------
    enough
        Beyond this many bytes no more is counted.
    """
    total, waiting = 0, [str(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    blocks = entry.stat(follow_symlinks=False).st_blocks * 512
                    total += max(blocks, _LEAST_BYTES)
        except OSError:
            continue
        if enough is not None and total > enough:
            break
    return total
