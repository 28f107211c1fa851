"""A project's ``recipe.yaml`` and ``Dockerfile``, in the folder that its owner can change at will.

Read and written by root: no link is followed, and only regular files of the owner's are read.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from ..errors import Refused
from ..workspaces import Directory

RECIPE, DOCKERFILE = "recipe.yaml", "Dockerfile"

LARGEST_BYTES = 64 * 1024


def read(folder: Directory, name: str, uid: int) -> str | None:
    """Return a file's text, None if there is no such file.

    Raises
    ------
    Refused
        If it is something else than a small text file of the owner's.
    """
    with _opened(folder) as parent:
        try:
            # Non-blocking: a pipe in its place would hold up everybody.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError:
            raise _unusable(name, "is a link or no file") from None
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
                raise _unusable(name, "is no file of yours")
            content = _content(file)
        finally:
            os.close(file)
    if len(content) > LARGEST_BYTES:
        raise _unusable(name, f"is larger than {LARGEST_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable(name, "is not UTF-8 text") from None


def write(folder: Directory, name: str, text: str, uid: int, gid: int) -> None:
    """Put a file of the owner's in place, whole or not at all."""
    new = f".{name}.{secrets.token_hex(4)}"
    with _opened(folder) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(new, flags, 0o644, dir_fd=parent)
        try:
            left = text.encode()
            while left:
                left = left[os.write(file, left) :]
            os.fchown(file, uid, gid)
            os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            os.unlink(new, dir_fd=parent)
            if isinstance(error, IsADirectoryError):
                raise _unusable(name, "is a folder") from error
            raise
        finally:
            os.close(file)


def set_aside(folder: Directory, name: str) -> str:
    """Give a file a name that is free, if it is still there, and return the name."""
    with _opened(folder) as parent:
        for number in count(1):
            new = f"{name}.edited" + (f"-{number}" if number > 1 else "")
            try:
                os.stat(new, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                break
        with suppress(FileNotFoundError):
            os.rename(name, new, src_dir_fd=parent, dst_dir_fd=parent)
    return new


def _content(file: int) -> bytes:
    """Read a little more than is allowed, so that too much shows."""
    content = b""
    while len(content) <= LARGEST_BYTES and (block := os.read(file, LARGEST_BYTES + 1)):
        content += block
    return content


@contextmanager
def _opened(folder: Directory) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        parent = os.open(folder.path, flags)
    except OSError:
        raise _unusable(folder.path.name, "is no folder any more") from None
    try:
        found = os.fstat(parent)
        if (found.st_dev, found.st_ino) != (folder.device, folder.inode):
            raise _unusable(folder.path.name, "was replaced at this moment")
        yield parent
    finally:
        os.close(parent)


def _unusable(name: str, why: str) -> Refused:
    return Refused(
        f"{name} in the project's folder {why}. Rename or remove it, then try again.",
        reason="image",
        status_code=409,
    )
