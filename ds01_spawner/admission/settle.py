"""What a Hub that died left with the engine: a create that may still be under way."""

from __future__ import annotations

import asyncio
from typing import Any

import docker.errors

from .. import engine
from ..errors import Refused
from .lock import HeldLock, Pending

#: Seconds that an engine may take for a create whose Hub has died.
_PATIENCE_S = 60.0


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
    if await engine.inspect(docker_call, pending.name) is not None:
        return True
    try:
        probe = await docker_call("create_container_from_config", _probe(pending), pending.name)
    except docker.errors.ImageNotFound:
        return await _is_settled_without_image(docker_call, pending)
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        return False
    await engine.remove(docker_call, probe["Id"])
    return True


async def _is_settled_without_image(docker_call: engine.Docker, pending: Pending) -> bool:
    """Try the name with any other image: its own has been removed."""
    images = await docker_call("images", quiet=True)
    if not images:
        return True
    return await _is_settled(docker_call, Pending(pending.name, images[0]))


def _probe(pending: Pending) -> dict[str, Any]:
    return {
        "Image": pending.image,
        "Cmd": ["true"],
        "Labels": {engine.PROBE_LABEL: "true"},
        "HostConfig": {"NetworkMode": "none"},
    }
