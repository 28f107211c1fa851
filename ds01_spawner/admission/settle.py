"""What a Hub that died left with the engine: a create that may still be under way."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import docker.errors

from .. import engine
from ..errors import Refused
from .lock import HeldLock, Pending

_LOG = logging.getLogger(__name__)

#: Seconds that an engine may take for a create whose Hub has died.
_PATIENCE_S = 60.0
#: Images of which a container is tried to be made, until one can be.
_MOST_IMAGES = 10


async def settle(docker_call: engine.Docker, held: HeldLock) -> None:
    """Wait until what the lock's last holder asked for is either listed or will never be.

    The engine lists a container at the end of its create and reserves the name at the beginning.
    So a name that is not listed is tried: if it is taken, the create is still under way.

    Raises
    ------
    Refused
        503 if the engine does not finish in time. Nothing is known then, so nothing is granted.
    """
    pending = held.pending()
    if pending is None:
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_S
    while not await _is_settled(docker_call, pending):
        if loop.time() > deadline:
            raise Refused(
                "The container engine is still busy with an earlier start, so no GPU can be given "
                "at the moment. Try again in a minute; if it stays so, tell an admin.",
                reason="engine",
                status_code=503,
            )
        await asyncio.sleep(0.1)
    held.clear()


async def _is_settled(docker_call: engine.Docker, pending: Pending) -> bool:
    found = await engine.inspect(docker_call, pending.name)
    if found is not None:
        if engine.is_probe(found):
            # The answer to it was lost; only who holds the lock makes one.
            await engine.remove(docker_call, found["Id"])
        return True
    return await _is_name_free(docker_call, pending)


async def _is_name_free(docker_call: engine.Docker, pending: Pending) -> bool:
    """Try the name with an image of the machine, with others if no container can be made of it.

    The image that was asked for comes last: it may be the reason why its create never ended.
    """
    for image in [*await _images(docker_call), pending.image]:
        try:
            probe = await docker_call("create_container_from_config", _probe(image), pending.name)
        except docker.errors.APIError as error:
            if error.status_code == 409:
                return False
            _LOG.warning("No container can be made of %s to try a name: %s", image, error)
        else:
            await engine.remove(docker_call, probe["Id"])
            return True
    raise docker.errors.DockerException("No image is there of which a container can be made")


async def _images(docker_call: engine.Docker) -> list[str]:
    """Return the machine's own images first, the catalogue's ``ds01/…``, and not too many."""
    found = await docker_call("images")
    own = [image["Id"] for image in found if _is_own(image)]
    others = [image["Id"] for image in found if not _is_own(image)]
    return (own + others)[:_MOST_IMAGES]


def _is_own(image: dict[str, Any]) -> bool:
    return any(tag.startswith("ds01/") for tag in image["RepoTags"] or ())


def _probe(image: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Cmd": ["true"],
        "Labels": {engine.PROBE_LABEL: "true"},
        "HostConfig": {"NetworkMode": "none"},
    }
