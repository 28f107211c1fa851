"""What goes with a server when it is stopped, and keeping files of it in the workspace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from .. import inside
from ..changes import Changes
from ..columns import printable
from ..engine import UNREACHABLE, Docker
from ..errors import Refused
from ..images import shelf
from ..images.installed import read_installed
from ..policy import Lifecycle
from ..servers import running_server
from ..storage.records import Uses

#: Seconds for one look at packages, or at files.
_LOOK_S = 12.0
#: Seconds for a copy, and for all that is done to keep files: a GPU is held for as long.
_COPY_S = 40.0
_KEEP_S = 60.0
#: Files that are named, and characters of a name.
_MOST_NAMED = 100
_LONGEST_NAME = 300
_COMMAND = "ds01_launch.leaving"
_ABOUT = "which files would go with it"

#: Gives what has changed in a container, by its inspection.
Changed = Callable[[Mapping[str, Any]], Awaitable[Changes]]


@dataclass(frozen=True)
class LeftFile:
    """A file outside the workspace and the home; its path is for people, and not for programs."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Files:
    """Files that go with a server.

    Attributes
    ----------
    named
        The newest of them, at most a hundred.
    number, size_bytes
        How many there are, and what they come to.
    is_complete
        Whether all were looked at: there may be more.
    """

    named: tuple[LeftFile, ...] = ()
    number: int = 0
    size_bytes: int = 0
    is_complete: bool = True


@dataclass(frozen=True)
class Rescued:
    """What was kept of a server's files.

    Attributes
    ----------
    place
        Directory in the workspace, such as ``rescued/2026-06-01-120000``.
    number, size_bytes
        How many files are there, and what they come to.
    missed
        The others.
    problem
        Why the first of those was not kept; empty if it is not known.
    """

    place: str
    number: int
    size_bytes: int
    missed: Files
    problem: str = ""


@dataclass(frozen=True)
class Leaving:
    """What would go with a server that is stopped now.

    Attributes
    ----------
    packages
        As `read_installed` gives them; None if it is not known.
    files
        None if it is not known.
    image_is_own
        Whether its image is its owner's, who can put packages into it.
    most_bytes
        How much of the files can be kept; 0 for nothing.
    """

    packages: tuple[Mapping[str, Any], ...] | None
    files: Files | None
    image_is_own: bool
    most_bytes: int


class Leavings:
    """Looks what would go with a server, and keeps files of it, for its owner.

    Parameters
    ----------
    docker_call
        The engine.
    hub_id
        Servers of other Hubs are none here.
    changed
        Gives what has changed in a container.
    """

    def __init__(self, docker_call: Docker, hub_id: str, changed: Changed) -> None:
        self._docker = docker_call
        self._hub_id = hub_id
        self._changed = changed

    async def look(self, user: str, project: str, most_bytes: int) -> Leaving:
        """Return what would go with a user's server.

        Parameters
        ----------
        most_bytes
            How much the policy lets be kept.

        Raises
        ------
        Refused
            404 if there is no such server.
        """
        found = await running_server(self._docker, self._hub_id, user, project)
        image = found["Config"]["Labels"].get("ds01.image", "")
        # One after the other, as a server answers one question at a time.
        packages = await _known(read_installed(self._docker, found))
        files = await _known(find_files(self._docker, self._changed, found))
        return Leaving(
            packages=None if packages is None else tuple(packages),
            files=files,
            image_is_own=image.startswith(shelf.repository(user, "")),
            most_bytes=most_bytes,
        )

    async def keep(self, user: str, project: str, most_bytes: int, now: datetime) -> Rescued:
        """Keep the files of a user's server in its workspace.

        Raises
        ------
        Refused
            404 if there is no such server, 409 if the policy lets nothing be kept, 503 if it is not
            known whether files were kept.
        """
        if not most_bytes:
            raise Refused(
                "The lab's policy lets no files be kept this way. Copy them to /workspace.",
                reason="rescue",
                status_code=409,
            )
        found = await running_server(self._docker, self._hub_id, user, project)
        return await keep_files(self._docker, self._changed, found, most_bytes, now)


def most_to_keep(lifecycle: Lifecycle, uses: Uses, user: str) -> int:
    """Return how much of what goes with a server may be kept: what the user's files leave of it."""
    used, limit = uses.of_user(user), lifecycle.workspace_bytes
    if used is None or limit is None:
        return lifecycle.rescue_bytes
    return min(lifecycle.rescue_bytes, max(0, limit - used))


async def find_files(docker_call: Docker, changed: Changed, container: Mapping[str, Any]) -> Files:
    """Return the files that would go with a server.

    Parameters
    ----------
    container
        The inspection of a server that runs.

    Raises
    ------
    Refused
        As `inside.ask`.
    """
    arguments = _arguments(await changed(container), container)
    if not arguments:
        return Files()
    command = [_COMMAND, "list", *arguments]
    return await inside.ask(docker_call, container, command, _read_files, about=_ABOUT)


async def keep_files(
    docker_call: Docker,
    changed: Changed,
    container: Mapping[str, Any],
    most_bytes: int,
    now: datetime,
) -> Rescued:
    """Copy the files that would go with a server into its workspace, the smallest first.

    A process of the user's own in the container does it, so that there is nothing which it could be
    led to by links or names that is not its user's already.

    Parameters
    ----------
    container
        The inspection of a server that runs.
    most_bytes
        Of all that is kept.
    now
        Names the directory.

    Raises
    ------
    Refused
        503 if it takes too long, and as `inside.ask`: some files may have been kept.
    """
    place = f"{now:%Y-%m-%d-%H%M%S}"
    try:
        return await asyncio.wait_for(
            _keep_files(docker_call, changed, container, most_bytes, place), _KEEP_S
        )
    except asyncio.TimeoutError as error:
        raise Refused(
            "The files could not all be kept: it takes too long. Copy to /workspace what you need.",
            reason="rescue",
            status_code=503,
        ) from error


async def _keep_files(
    docker_call: Docker,
    changed: Changed,
    container: Mapping[str, Any],
    most_bytes: int,
    place: str,
) -> Rescued:
    arguments = _arguments(await changed(container), container)
    command = [_COMMAND, "keep", place, str(most_bytes), str(_COPY_S), *arguments]
    read = partial(_read_rescued, f"rescued/{place}")
    return await inside.ask(
        *(docker_call, container, command, read),
        about=_ABOUT,
        patience_s=_KEEP_S,
        # Several of a user's servers may be stopped at once, and then none of them can wait.
        turn_of=container["Id"],
    )


def _arguments(changes: Changes, container: Mapping[str, Any]) -> list[str]:
    """Return what has changed as ``ds01_launch.leaving`` takes it."""
    # An image's own volumes are new with each server, and go with it.
    volumes = (
        mount["Destination"]
        for mount in container.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("RW")
    )
    return [
        *(f"A{path}" for path in changes.directories),
        *(f"C{path}" for path in changes.files),
        *(f"V{path}" for path in volumes),
        *(() if changes.is_complete else ("!",)),
    ]


async def _known(asked: Awaitable[Any]) -> Any:
    """Return an answer, None if there is none in time: that is not the same as nothing."""
    try:
        return await asyncio.wait_for(asked, _LOOK_S)
    except (Refused, OSError, asyncio.TimeoutError, *UNREACHABLE):
        return None


# -- what a server says, which its owner may have written ------------------------------------------


def _read_files(answer: Any) -> Files:
    named = tuple(
        LeftFile(printable(str(path)[:_LONGEST_NAME]), _count(size))
        for path, size in answer["files"][:_MOST_NAMED]
    )
    number = _count(answer["number"])
    if number < len(named):
        raise ValueError("more files are named than there are")
    return Files(named, number, _count(answer["bytes"]), bool(answer["is_complete"]))


def _read_rescued(place: str, answer: Any) -> Rescued:
    return Rescued(
        place=place,
        number=_count(answer["number"]),
        size_bytes=_count(answer["bytes"]),
        missed=_read_files(answer["missed"]),
        problem=printable(str(answer["problem"])[:80]),
    )


def _count(number: Any) -> int:
    if not (isinstance(number, int) and 0 <= number < 2**63):
        raise ValueError(f"{number!r:.40} is no number of things")
    return number
