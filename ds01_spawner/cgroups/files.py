"""Directories and files through which the kernel shows cgroups, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .limits import SliceError

_AT_ONCE = 64 * 1024


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the kernel's refusal into a `SliceError` that begins with `what` could not be done."""
    try:
        yield
    except OSError as error:
        advice = ""
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = ": the Hub must run as root, with a writable /sys/fs/cgroup"
        raise SliceError(f"{what}: {error.strerror}{advice}.") from error


def make(directory: Path) -> None:
    """Make a cgroup unless it is there.

    Raises
    ------
    SliceError
        If it cannot be made, or is something else than a directory.
    """
    with explained(f"The cgroup {directory} cannot be made"):
        try:
            directory.mkdir()
        except FileExistsError:
            if not exists(directory):
                raise


def exists(directory: Path) -> bool:
    """Tell whether there is a directory; a link to one is none."""
    try:
        return stat.S_ISDIR(directory.lstat().st_mode)
    except FileNotFoundError:
        return False


def is_occupied(directory: Path) -> bool:
    """Tell whether a cgroup has a process or another cgroup in it; one that is gone has not."""
    with explained(f"The cgroup {directory} cannot be read"):
        try:
            return bool(children(directory) or (directory / "cgroup.procs").read_text())
        except OSError as error:
            if is_gone(error):
                return False
            raise


def children(directory: Path) -> list[Path]:
    """Return the cgroups in a cgroup, none if there is no such cgroup."""
    try:
        found = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    return [Path(entry) for entry in found if entry.is_dir(follow_symlinks=False)]


def descendants(directory: Path) -> Iterator[Path]:
    """Give all cgroups below a cgroup, each after those below it."""
    for child in children(directory):
        yield from descendants(child)
        yield child


def remove(directory: Path) -> bool:
    """Remove a cgroup if it is empty; tell whether it is gone."""
    with explained(f"The cgroup {directory} cannot be removed"):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
    return True


def write(file: Path, value: str) -> None:
    """Write a value into a file that the kernel has made.

    Raises
    ------
    OSError
        As the kernel refuses it.
    """
    number = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(number, value.encode())
    finally:
        os.close(number)


def read(file: Path) -> str | None:
    """Return what a file says, None if the cgroup is gone or has no such file."""
    with explained(f"{file} cannot be read"):
        try:
            return file.read_text().strip()
        except OSError as error:
            if is_gone(error):
                return None
            raise


def read_bytes(file: str) -> bytes:
    """Return what a file of the kernel's says; several times as fast as `Path.read_text`.

    Raises
    ------
    OSError
        As the kernel refuses it.
    """
    number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        # The kernel may give a page at a time.
        while part := os.read(number, _AT_ONCE):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(number)


def read_counter(file: Path, key: str) -> int:
    """Return a number from a file of lines ``key number``.

    Raises
    ------
    OSError, ValueError
        If there is none.
    """
    for line in file.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    raise ValueError(f"no {key} in {file}")


def is_gone(error: OSError) -> bool:
    """Tell whether a cgroup was removed before, or while it was read."""
    return error.errno in (errno.ENOENT, errno.ENODEV)
