"""Volumes that an image declares (``VOLUME`` in its Dockerfile): where they may be, and are.

Docker makes an anonymous volume at each such place, and nothing that is said at a container's
creation keeps it from that. It would also copy the image's files into each volume while it makes
the container, which takes minutes for many files; so each gets a volume of ours, which is empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from . import runtime
from .containers import WORKSPACE, Mount
from .errors import Refused

_ESCAPE = re.compile(r"\\([0-7]{3})")

#: More than any notebook image has use for.
_MOST = 16

#: A volume anywhere in these breaks the container or the server in it.
_NEEDED = ("/dev", "/etc", "/proc", "/run", "/sys", "/var/run", runtime.TEMPORARY)
#: A volume at exactly these hides every program of the image.
_PROGRAMS = ("/", "/bin", "/lib", "/lib64", "/sbin", "/usr")


def check(image: str, volumes: Iterable[str], home: str, folders: Collection[str] = ()) -> None:
    """Refuse an image with a volume where it would hide a user's files or what a server needs.

    Exactly at one of our own mounts a volume is harmless, as ours is mounted in its place.

    Parameters
    ----------
    image
        Its name in the catalogue, for the message.
    volumes
        Places in the container, as in `containers.Image`.
    home
        ``$HOME`` inside the container.
    folders
        Where shared folders are.

    Raises
    ------
    Refused
        Naming the image and the place.
    """
    volumes = list(volumes)
    if len(volumes) > _MOST:
        _refuse(image, f"{len(volumes)} volumes, and {_MOST} are the most", "fewer of them")
    for place in volumes:
        if why := _objection(place, home, folders):
            _refuse(image, f"a volume at {place!r:.80}, {why}", "it")


def places(volumes: Iterable[str], home: str) -> list[str]:
    """Return where a new volume is needed: all these places but those of our own mounts."""
    return [place for place in volumes if place not in (WORKSPACE, home, runtime.MOUNT)]


def astray(volumes: Iterable[str], pid: int) -> list[str]:
    """Return those of these places at which a container has no volume.

    The engine follows links of the image: with ``/a`` leading to ``/workspace``, a volume at
    ``/a/b`` hides the user's ``/workspace/b``.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.

    Raises
    ------
    OSError
        If the container cannot be looked into.
    """
    lines = Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "replace").strip("\n").split("\n")
    # Source: proc(5), /proc/pid/mountinfo: the fifth field, with octal escapes.
    points = (line.split(" ")[4] for line in lines)
    mounted = {_ESCAPE.sub(lambda found: chr(int(found[1], 8)), point) for point in points}
    return [place for place in volumes if place not in mounted]


def mounts(volumes: Iterable[str], home: str) -> tuple[Mount, ...]:
    """Return an empty volume for each of `places`; they go with the container."""
    return tuple(Mount("", place) for place in places(volumes, home))


def _objection(place: str, home: str, folders: Collection[str]) -> str:
    """Return why there can be no volume at this place; empty if there can."""
    if not place.startswith("/"):
        return "which is no absolute path"
    if _is_below(place, WORKSPACE) or _is_below(place, home):
        return "which would hide your files there, and lose what you save"
    if any(_is_below(place, folder) for folder in folders):
        return "which would hide files of a shared folder"
    if _is_below(place, runtime.MOUNT):
        return "where the notebook server is"
    if place in (*_PROGRAMS, *_NEEDED) or any(_is_below(place, needed) for needed in _NEEDED):
        return "which would hide what a server needs"
    return ""


def _is_below(place: str, directory: str) -> bool:
    return place.startswith(f"{directory}/")


def _refuse(image: str, what: str, without: str) -> None:
    raise Refused(
        f"The image {image} declares {what}. Choose another image, and ask the author of this one "
        f"to build it without {without} (VOLUME in its Dockerfile).",
        reason="image",
    )
