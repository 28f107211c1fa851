"""Makes the user known inside a container: passwd and group entries, and a place for packages.

An image does not know the user's number; ``whoami`` would fail and HOME would be ``/``. Before
the start, entries are added to what the image has.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import docker.errors

from . import runtime
from .accounts import Account
from .containers import home_in_container

#: An image's passwd file larger than this is not read; ours then stands alone.
_LARGEST_FILE = 1024 * 1024


def introduce(client: Any, container: str, account: Account, volumes: Iterable[str]) -> None:
    """Put what `identity_archive` makes into a created container; blocks.

    Raises
    ------
    docker.errors.APIError
        If the engine cannot do it.
    """
    passwd, group = (read_image_file(client, container, f"/etc/{n}") for n in ("passwd", "group"))
    archive = identity_archive(*with_user(passwd, group, account), account, volumes)
    client.put_archive(container, "/", archive)


def read_image_file(client: Any, container: str, path: str) -> str:
    """Return a small text file of a created container; empty if there is none.

    Raises
    ------
    docker.errors.APIError
        If the engine cannot say.
    """
    try:
        chunks, _ = client.get_archive(container, path)
    except docker.errors.NotFound:
        return ""
    # Closed, so that the engine's connection is free again when the rest is not wanted.
    with closing(chunks):
        data = _at_most(chunks, _LARGEST_FILE + 10 * tarfile.BLOCKSIZE)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.next()
            if member is None or not member.isfile() or member.size > _LARGEST_FILE:
                return ""
            file = archive.extractfile(member)
            return file.read().decode("utf-8", "replace") if file else ""
    except tarfile.TarError:
        return ""


def with_user(passwd: str, group: str, account: Account) -> tuple[str, str]:
    """Return passwd and group with the user's entries first, and no other entry for them."""
    home = home_in_container(account)
    user = f"{account.login}:x:{account.uid}:{account.gid}::{home}:/bin/sh"
    team = f"{account.login}:x:{account.gid}:"
    return (
        _replace(passwd, user, account.login, account.uid),
        _replace(group, team, account.login, account.gid),
    )


def identity_archive(
    passwd: str, group: str, account: Account, volumes: Iterable[str] = ()
) -> bytes:
    """Return a tar for the container's root: both files and the place for temporary packages.

    Parameters
    ----------
    volumes
        Places of new volumes, which belong to root at first and must be of use to the user.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (("etc/passwd", passwd), ("etc/group", group)):
            data = text.encode()
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(data), 0o644
            archive.addfile(file, io.BytesIO(data))
        for volume in volumes:
            root = tarfile.TarInfo(volume.lstrip("/"))
            root.type, root.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(root)
        place = tarfile.TarInfo(runtime.TEMPORARY.lstrip("/"))
        place.type, place.mode = tarfile.DIRTYPE, 0o755
        place.uid, place.gid = account.uid, account.gid
        archive.addfile(place)
    return buffer.getvalue()


def _replace(text: str, entry: str, name: str, number: int) -> str:
    others = [
        line
        for line in text.splitlines()
        if line.split(":")[0] != name and line.split(":")[2:3] != [str(number)]
    ]
    return "\n".join([entry, *others, ""])


def _at_most(chunks: Iterable[bytes], size: int) -> bytes:
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > size:
            break
    return data
