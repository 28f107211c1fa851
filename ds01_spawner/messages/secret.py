"""Secrets in files that nobody else may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LARGEST = 4096


class SecretError(Exception):
    """A file holds no secret that could be used; the text says why and what to do."""


def read_secret(file: Path) -> str:
    """Return the one line in a file, without spaces around it.

    Raises
    ------
    SecretError
        If it cannot be read, somebody else may read or change it, or there is no such line.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SecretError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise SecretError(f"{file} is no file.")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise SecretError(f"{file} must be for nobody but root: chown root, chmod 600.")
        said = os.read(opened, _LARGEST + 1)
    except OSError as error:
        raise SecretError(f"{file} cannot be read: {error.strerror}.") from error
    finally:
        os.close(opened)
    try:
        secret = said.decode().strip()
    except UnicodeDecodeError:
        raise SecretError(f"{file} is not in UTF-8.") from None
    if not secret or len(said) > _LARGEST or not secret.isprintable():
        raise SecretError(f"{file} must have one line, the secret.")
    return secret
