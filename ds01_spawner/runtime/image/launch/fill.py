"""Copy the runtime that this runs from into an empty volume."""

import os
import shutil
import sys
from pathlib import Path

from .places import MOUNT

#: In a volume: written when everything else is.
MARK = ".complete"


def main() -> None:
    """Copy into the directory that is given, and mark it as complete."""
    target = Path(sys.argv[1])
    if (target / MARK).exists():
        return  # somebody else was faster, and servers may use it already
    for left in target.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    shutil.copytree(MOUNT, target, symlinks=True, dirs_exist_ok=True, copy_function=Copier().copy)
    target.chmod(0o755)
    os.sync()
    (target / MARK).touch()
    os.sync()


class Copier:
    """Copies files, and keeps those linked that are: the kernel packs share most of theirs."""

    def __init__(self) -> None:
        self._copied: dict[int, str] = {}

    def copy(self, source: str, target: str) -> None:
        """Copy a file, or link to the copy that there is."""
        inode = os.stat(source).st_ino
        if inode in self._copied:
            os.link(self._copied[inode], target)
        else:
            shutil.copy2(source, target)
            self._copied[inode] = target


if __name__ == "__main__":
    main()
