"""Files of a project that a build copies, brought together where only we can change them.

The project's folder belongs to its user, who may put a link in any place while we read as root. So
every step down is taken from the folder before, no link is followed, and only the user's own files
are read. ``.dockerignore`` has no effect: what is copied is what COPY names. It is not brought
along, as BuildKit would heed it, and could be told to leave out what we put beside the files.

A folder may have millions of files, and a Dockerfile a thousand spellings of one name. So a name
without ``*`` is opened and not looked for, what is looked through is counted, and there is a time
by which all of it must be done.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .dockerfile import DockerfileError
from .steps import OURS

_DEEPEST = 30
_TOO_DEEP = f"COPY: folders are nested more than {_DEEPEST} deep."
#: Names that are looked at altogether, to find those that ``*`` stands for.
_MOST_NAMES = 200_000
#: Seconds; what a build may copy takes a few, also from a slow disk.
_LONGEST_S = 120.0
_PATTERN = re.compile(r"[*?[]")
#: Source: BuildKit looks for both, the second beside a Dockerfile of that name.
_IGNORED = (".dockerignore", "Dockerfile.dockerignore")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def collect(
    folder: Path,
    sources: Iterable[str],
    target: Path,
    *,
    uid: int,
    largest_bytes: int,
    most_files: int,
    seconds: float = _LONGEST_S,
) -> None:
    """Copy what a Dockerfile names into an empty directory; blocks.

    Parameters
    ----------
    sources
        Paths relative to the folder, with ``*`` and ``?`` as in a shell.
    uid
        Whose files these must be; others' are refused, links are left out.
    largest_bytes, most_files
        Altogether.
    seconds
        When all of it must be done.

    Raises
    ------
    DockerfileError
        If there is no such file, or too much, or it takes too long.
    """
    # The same path in another spelling is the same path.
    paths = {_parts(source): source for source in sources}
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    copy = _Copy(root, uid, largest_bytes, most_files, _MOST_NAMES, time.monotonic() + seconds)
    try:
        for parts, source in paths.items():
            if parts and parts[0] in _IGNORED:
                raise DockerfileError([f"COPY: {parts[0]} has no effect here, and is not copied."])
            if not copy.matching(root, parts, target):
                raise DockerfileError(
                    [f"COPY: there is no {source!r:.80} in the project's folder."]
                )
    finally:
        os.close(root)


def _parts(source: str) -> tuple[str, ...]:
    """Return the steps of a path.

    Raises
    ------
    DockerfileError
        If it leads out of the folder, or too deep.
    """
    parts = tuple(part for part in source.split("/") if part not in ("", "."))
    if ".." in parts:
        raise DockerfileError([f"COPY: {source!r:.80} must be below the project's folder."])
    if len(parts) > _DEEPEST:
        raise DockerfileError([_TOO_DEEP])
    return parts


@dataclass
class _Copy:
    """One copy, with what is left of its limits; the `deadline` is on the monotonic clock."""

    root: int
    uid: int
    bytes_left: int
    files_left: int
    names_left: int
    deadline: float

    def matching(self, parent: int, parts: tuple[str, ...], target: Path) -> bool:
        """Copy what a path leads to from an open directory; tell whether there is anything."""
        if not parts:
            self._children(parent, target, 0)
            return True
        first, rest = parts[0], parts[1:]
        names = self._names(parent) if _PATTERN.search(first) else [first]
        found = False
        for name in names:
            self._check_time()
            if fnmatch.fnmatchcase(name, first) and not self._is_kept_out(parent, name):
                found |= self._one(parent, name, rest, target)
        return found

    def _is_kept_out(self, parent: int, name: str) -> bool:
        """Tell whether a name is ours, or would steer the build."""
        return name == OURS or (parent == self.root and name in _IGNORED)

    def _one(self, parent: int, name: str, rest: tuple[str, ...], target: Path) -> bool:
        file = self._open(parent, name)
        if file is None:
            return False
        try:
            kind = os.fstat(file).st_mode
            if stat.S_ISDIR(kind):
                below = target / name
                below.mkdir(exist_ok=True)
                return self.matching(file, rest, below)
            if rest:
                return False
            self._copy_file(file, target / name)
            return True
        finally:
            os.close(file)

    def _children(self, directory: int, target: Path, depth: int) -> None:
        if depth > _DEEPEST:
            raise DockerfileError([_TOO_DEEP])
        for name in self._names(directory):
            # A build has no use for the history.
            if depth == 0 and (name == ".git" or self._is_kept_out(directory, name)):
                continue
            file = self._open(directory, name)
            if file is None:
                continue
            try:
                if stat.S_ISDIR(os.fstat(file).st_mode):
                    (target / name).mkdir(exist_ok=True)
                    self._children(file, target / name, depth + 1)
                else:
                    self._copy_file(file, target / name)
            finally:
                os.close(file)

    def _names(self, directory: int) -> list[str]:
        """Return the names in a directory, sorted; not all of millions are read."""
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self.names_left -= 1
                if self.names_left < 0:
                    raise DockerfileError(
                        [
                            f"COPY: more than {_MOST_NAMES:,} names are too many to look through; "
                            "copy from a folder with fewer files."
                        ]
                    )
                self._check_time()
                names.append(entry.name)
        return sorted(names)

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise DockerfileError(
                ["COPY: bringing the project's files together takes too long; name fewer of them."]
            )

    def _open(self, parent: int, name: str) -> int | None:
        """Open a file or a directory of the user's; None for a link, a pipe and the like."""
        self._check_time()
        self.files_left -= 1
        if self.files_left < 0:
            raise DockerfileError(["COPY: these are too many files; name the ones that you need."])
        try:
            file = os.open(name, _FLAGS, dir_fd=parent)
        except OSError:
            return None
        found = os.fstat(file)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            os.close(file)
            return None
        # A hard link could be to anybody's file.
        if found.st_uid != self.uid:
            os.close(file)
            raise DockerfileError([f"COPY: {name!r:.80} is not yours."])
        return file

    def _copy_file(self, file: int, target: Path) -> None:
        if target.exists():
            return
        mode = 0o755 if os.fstat(file).st_mode & 0o100 else 0o644
        with target.open("xb") as copied:
            os.fchmod(copied.fileno(), mode)
            while block := os.read(file, 1 << 20):
                self._check_time()
                self.bytes_left -= len(block)
                if self.bytes_left < 0:
                    raise DockerfileError(["COPY: this is too much; images are for software."])
                copied.write(block)
