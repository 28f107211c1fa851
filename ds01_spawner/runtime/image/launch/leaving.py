"""What would go with a server: files that its user wrote beside the workspace and the home.

They are found, or copied into the workspace, by the user's own rights and in the container itself:
nothing here can read or write what its user could not.
"""

import errno
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from .places import MOUNT, TEMPORARY

WORKSPACE = Path("/workspace")
#: Below the workspace: where files are kept.
RESCUED = "rescued"

#: What lies here is the system's, comes again by itself, or is told of as packages.
_PLACES = frozenset(
    [
        *("/dev", "/proc", "/run", "/sys", "/var/cache", "/var/lib/apt", "/var/log", "/var/run"),
        *map(str, (MOUNT, TEMPORARY)),
    ]
)
#: Directories of these names, anywhere, hold what programs keep for themselves, and packages.
_CACHES = frozenset(
    [
        *("__pycache__", ".cache", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"),
        *(".ruff_cache", "dist-packages", "site-packages"),
    ]
)
#: Directories whose names begin so, of programs that work in a place for temporary files.
_TEMPORARY_PLACES = ("/tmp", "/var/tmp")
_WORKING = (
    *("ds01-server-", "ds01-temporary-", "hsperfdata_", "ipykernel_", "matplotlib-"),
    *("node-compile-cache", "npm-", "torchinductor_"),
    *("pip-build-", "pip-ephem-", "pip-install-", "pip-metadata-", "pip-modern-metadata-"),
    *("pip-req-", "pip-standalone-", "pip-unpack-", "pip-wheel-"),
)
#: In the root of an environment of Python's or conda's: all below it are packages.
_ENVIRONMENT_MARKS = ("conda-meta", "pyvenv.cfg")

#: Entries that are looked at, files that are named, and characters of a name.
_MOST_ENTRIES = 200_000
_MOST_NAMED = 100
_LONGEST_NAME = 300
_AT_ONCE = 1 << 20
#: Seconds for a look; after that, and a little, nothing is waited for.
_LOOK_S = 8.0
_SPARE_S = 5


@dataclass(frozen=True)
class File:
    """A file with something in it; `modified` in seconds since 1970."""

    path: str
    size: int
    modified: float


@dataclass
class Found:
    """Files, and whether they are all."""

    files: list[File] = field(default_factory=list)
    is_complete: bool = True


def main(arguments: Sequence[str]) -> int:
    """Print as JSON what is found (``list``), or was kept (``keep <folder> <bytes> <seconds>``).

    After that come paths, each with a letter before it: A for a directory that is new, with all
    below it; C for a file that is new or has changed; V for a volume that goes with the server.
    ``!`` says that there are more.
    """
    command, *rest = arguments
    if command == "keep":
        folder, size, seconds, *paths = rest
        # Ends this process, also in the middle of a system call: nobody waits for longer.
        signal.alarm(int(float(seconds)) + _SPARE_S)
        deadline = time.monotonic() + float(seconds)
        print(json.dumps(keep(found(paths, deadline), folder, int(size), deadline)))
    else:
        signal.alarm(int(_LOOK_S) + _SPARE_S)
        print(json.dumps(told(found(rest, time.monotonic() + _LOOK_S))))
    return 0


def told(what: Found) -> dict[str, Any]:
    """Return what is said of files: the newest by name and size, and what all come to."""
    newest = sorted(what.files, key=lambda file: -file.modified)
    return {
        "files": [[file.path[:_LONGEST_NAME], file.size] for file in newest[:_MOST_NAMED]],
        "number": len(newest),
        "bytes": sum(file.size for file in newest),
        "is_complete": what.is_complete,
    }


# -- finding --------------------------------------------------------------------------------------


def found(paths: Sequence[str], deadline: float, root: Path = Path("/")) -> Found:
    """Return the user's own files among what has changed.

    Parameters
    ----------
    paths
        As `main` takes them.
    deadline
        By the monotonic clock; what is not found by then is left out.
    """
    what, mounts = Found(), _mounts()
    for looked_at, path in enumerate(_entries(paths, root, mounts, what)):
        if looked_at >= _MOST_ENTRIES or time.monotonic() > deadline:
            what.is_complete = False
            break
        if _at(root, path) not in mounts and (file := _own_file(path, root)):
            what.files.append(file)
    return what


def _mounts() -> frozenset[str]:
    """Return where something is mounted, which does not go."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    # Source: proc(5), /proc/pid/mountinfo: the fifth field, with octal escapes.
    return frozenset(
        re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4])
        for line in lines
    )


def _entries(
    paths: Sequence[str], root: Path, mounts: frozenset[str], what: Found
) -> Iterator[str]:
    """Yield all paths, and those below new directories, without what is left out."""
    for letter, path in ((text[:1], text[1:]) for text in paths):
        if letter not in ("A", "C", "V"):
            what.is_complete = False
            continue
        try:
            path = _by_its_name(path, root)
        except OSError:
            what.is_complete = False
            continue
        above = [str(each) for each in reversed(Path(path).parents)][1:]
        if any(_is_left_out(each, root) for each in above):
            continue
        # A volume is mounted itself, and goes all the same.
        others = mounts - {_at(root, path)} if letter == "V" else mounts
        if any(_at(root, each) in others for each in above):
            continue
        yield path
        if letter != "C":
            yield from _below(path, root, others, what)


def _below(path: str, root: Path, mounts: frozenset[str], what: Found) -> Iterator[str]:
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        try:
            here = os.lstat(_at(root, directory))
            is_left_out = _at(root, directory) in mounts or _is_left_out(directory, root)
            if not stat.S_ISDIR(here.st_mode) or is_left_out:
                continue
            with os.scandir(_at(root, directory)) as entries:
                for entry in entries:
                    below = f"{directory.rstrip('/')}/{entry.name}"
                    yield below
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(below)
        except (FileNotFoundError, PermissionError):
            # It has gone meanwhile, or is not the user's.
            continue
        except OSError:
            what.is_complete = False


def _is_left_out(directory: str, root: Path) -> bool:
    parent, _, name = directory.rpartition("/")
    return (
        directory in _PLACES
        or name in _CACHES
        or (parent in _TEMPORARY_PLACES and name.startswith(_WORKING))
        or any(os.path.lexists(_at(root, f"{directory}/{mark}")) for mark in _ENVIRONMENT_MARKS)
    )


def _own_file(path: str, root: Path) -> File | None:
    """Return a file of the user's with something in it; what others made came with the server."""
    try:
        status = os.lstat(_at(root, path))
    except OSError:
        return None
    is_own = status.st_uid == os.getuid()
    if not (is_own and stat.S_ISREG(status.st_mode) and status.st_size):
        return None
    return File(path, status.st_size, status.st_mtime)


def _by_its_name(path: str, root: Path) -> str:
    """Return the path that Docker means: a byte that is no text comes as U+FFFD from there."""
    if "\ufffd" not in path or os.path.lexists(_at(root, path)):
        return path
    right = ""
    for name in path.strip("/").split("/"):
        here = os.listdir(_at(root, right)) if "\ufffd" in name else ()
        right += "/" + next((each for each in here if _as_text(each) == name), name)
    return right


def _as_text(name: str) -> str:
    return "".join("\ufffd" if "\udc80" <= letter <= "\udcff" else letter for letter in name)


def _at(root: Path, path: str) -> str:
    return f"{str(root).rstrip('/')}{path}"


# -- keeping --------------------------------------------------------------------------------------


def keep(
    what: Found,
    folder: str,
    most_bytes: int,
    deadline: float,
    *,
    workspace: Path = WORKSPACE,
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Copy files to ``rescued/<folder>`` in the workspace, the smallest first, and say which.

    Parameters
    ----------
    most_bytes
        Of all that is kept.
    deadline
        By the monotonic clock; what is not copied by then is not kept.

    Returns
    -------
    dict
        ``number`` and ``bytes`` of what was kept, ``missed`` as `told`, and ``problem``: why the
        first of those was not kept.
    """
    place = workspace / RESCUED / folder
    missed = Found(is_complete=what.is_complete)
    number, size, problem = 0, 0, ""
    for file in sorted(what.files, key=lambda file: file.size):
        try:
            size += _copy(file, place, most_bytes - size, deadline, root)
            number += 1
        except OSError as error:
            missed.files.append(file)
            problem = problem or error.strerror or ""
    return {"number": number, "bytes": size, "missed": told(missed), "problem": problem}


def _copy(file: File, place: Path, room: int, deadline: float, root: Path) -> int:
    """Copy one file and return its size.

    Raises
    ------
    OSError
        If it is not kept; its `strerror` says why.
    """
    if file.size > room:
        raise OSError(errno.EFBIG, "too large")
    # A link there would lead the copy away, into what goes with the server as well.
    if any(each.is_symlink() for each in (place, place.parent)):
        raise OSError(errno.ELOOP, f"{RESCUED} is a link")
    target = _at(place, file.path)
    # A pipe that has taken its place would never be opened.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(_at(root, file.path), flags), "rb", buffering=0) as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file any more")
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(target, new, 0o600)
        try:
            with open(copy, "wb", buffering=0) as written:
                return _copied(source, written, room, deadline)
        except OSError:
            _remove(Path(target), place.parent)
            raise


def _copied(source: FileIO, copy: FileIO, room: int, deadline: float) -> int:
    size = 0
    while chunk := source.read(_AT_ONCE):
        size += len(chunk)
        if size > room:
            raise OSError(errno.EFBIG, "too large")
        if time.monotonic() > deadline:
            raise OSError(errno.ETIME, "there was no more time")
        while chunk:
            chunk = chunk[copy.write(chunk) :]
    status = os.fstat(source.fileno())
    # Without the bits that make a program somebody else's.
    os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode) & 0o777)
    os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return size


def _remove(target: Path, last: Path) -> None:
    """Remove half a copy, and directories that are empty without it, up to the last one."""
    with suppress(OSError):
        target.unlink()
        while target != last:
            target = target.parent
            target.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
