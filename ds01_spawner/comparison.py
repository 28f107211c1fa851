"""What a container that has been started really has, compared with what was meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import image_volumes
from .cgroups.hierarchies import slice_of
from .errors import Refused
from .gpus import verification
from .gpus.devices import Device
from .shared_folders import SharedFolder
from .workspaces import Directory, is_mounted_at

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meant:
    """What a server was meant to have.

    Attributes
    ----------
    server, image
        Their names, for the log and for messages.
    volumes
        Places of new volumes, as `image_volumes.places` gives them.
    places
        Directories of the user's, each with its place in the container.
    folders
        Shared folders.
    devices
        What was granted in GPUs.
    slice_name
        The user's slice; empty where there is none.
    """

    server: str
    image: str
    volumes: Sequence[str]
    places: Sequence[tuple[Directory, str]]
    folders: Sequence[SharedFolder]
    devices: Sequence[Device]
    slice_name: str


def compare(meant: Meant, pid: int) -> None:
    """Check that a container has what was meant, and no other GPU; blocks.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.

    Raises
    ------
    Refused
        With what is not as it was meant.
    OSError
        If the container cannot be looked into, as one that has just ended.
    """
    _compare_slice(meant, pid)
    if astray := image_volumes.astray(meant.volumes, pid):
        raise Refused(
            f"The image {meant.image} has a volume at {astray[0]!r:.80}, which a link in the image "
            "leads elsewhere. Choose another image, and tell an admin.",
            reason="image",
        )
    for directory, target in meant.places:
        if not is_mounted_at(directory, target, pid):
            raise Refused(
                f"{directory.path} was replaced while your server started, so the server was "
                "stopped. Start it again.",
                reason="mount",
                status_code=409,
            )
    for shared in meant.folders:
        if not is_mounted_at(shared.directory, shared.folder.target, pid):
            raise Refused(
                f"The shared folder {shared.folder.name} is not at {shared.folder.target} in your "
                "server, so it was stopped. Start it again, or with another image.",
                reason="mount",
                status_code=409,
            )
    if problem := verification.problem(pid, meant.devices):
        _LOG.error("Stopping %s: %s", meant.server, problem)
        raise Refused(
            "Your server did not get exactly the GPUs that it was given, so it was stopped. "
            "Please tell an admin; the Hub's log has the details.",
            reason="gpu",
            status_code=500,
        )


def not_limited(server: str, why: object) -> Refused:
    """Return what a user is told where nothing holds the sum of their servers; log why."""
    _LOG.error("%s cannot be limited together with its user's others: %s", server, why)
    return Refused(
        "The limits over all of your servers cannot be set at the moment, so nothing is started. "
        "Please tell an admin; the Hub's log has the reason.",
        reason="slice",
        status_code=503,
    )


def _compare_slice(meant: Meant, pid: int) -> None:
    """Check that a container is under its user's slice, whatever the engine made of the name."""
    if not meant.slice_name or (found := slice_of(pid)) == meant.slice_name:
        return
    if not Path(f"/proc/{pid}").exists():
        raise ProcessLookupError(f"process {pid} has ended")
    raise not_limited(meant.server, f"it is under {found or 'none'}, not {meant.slice_name}")
