"""The Docker engine as a start needs it: each call's failures told apart, none taken for "free"."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import docker.errors
import requests.exceptions

from .errors import Refused

#: Everything by which the engine says nothing: down, restarting, overloaded.
UNREACHABLE = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    docker.errors.DockerException,
)

#: How long an answer is awaited from an engine that restarts.
PATIENCE_S = 60.0


class Docker(Protocol):
    """Calls a method of the low-level client in another thread."""

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


def is_not_found(error: BaseException) -> bool:
    """Tell whether the engine knows no such thing, which is an answer and not a failure."""
    return isinstance(error, docker.errors.NotFound)


def is_silent(error: BaseException) -> bool:
    """Tell whether the engine gave no usable answer: nothing may be concluded from it."""
    if isinstance(error, docker.errors.APIError):
        return bool(error.is_server_error())
    return isinstance(error, UNREACHABLE)


async def inspect(docker_call: Docker, container: str) -> dict[str, Any] | None:
    """Return a container's inspection, None if there is no such container.

    Raises
    ------
    Exception
        Whatever the engine's silence looks like; see `is_silent`.
    """
    try:
        found: dict[str, Any] = await docker_call("inspect_container", container)
    except docker.errors.NotFound:
        return None
    return found


async def create(docker_call: Docker, name: str, body: dict[str, Any], start: str) -> str:
    """Create a container and return its id, also when the engine's answer was lost on the way.

    Parameters
    ----------
    start
        The value of the label ``ds01.start`` in `body`, which no other container has.
    """
    try:
        created = await docker_call("create_container_from_config", body, name)
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        raise Refused(
            f"A container named {name!r} exists on this machine and is not this Hub's. "
            "Please tell an admin: it must be removed or renamed first.",
            reason="name",
            status_code=409,
        ) from error
    except UNREACHABLE:
        found = await patiently(lambda: inspect(docker_call, name))
        if found is None or found["Config"]["Labels"].get("ds01.start") != start:
            raise
        return str(found["Id"])
    return str(created["Id"])


async def remove(docker_call: Docker, container: str) -> None:
    """Remove a container with its anonymous volumes, running or not; one that is gone is fine."""

    async def attempt() -> None:
        try:
            await docker_call("remove_container", container, v=True, force=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # Somebody else is removing it: it is going, which is what was wanted.
            if error.status_code != 409:
                raise

    await patiently(attempt)


async def patiently(attempt: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
    """Repeat an attempt while the engine is silent, for as long as an engine takes to restart."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    pause = 0.1
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not is_silent(error) or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


async def pull(
    client: Any,
    reference: str,
    in_thread: Callable[..., Awaitable[Any]],
    on_progress: Callable[[int, int], None],
) -> None:
    """Fetch an image, telling `on_progress` the bytes that are here and the bytes known of.

    A cancelled pull ends at the engine too, as its connection is closed.

    Raises
    ------
    Refused
        503 if the image cannot be had.
    """
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def fetch() -> None:
        layers: dict[str, tuple[int, int]] = {}
        stream = client.pull(reference, stream=True, decode=True)
        try:
            for event in stream:
                if cancelled.is_set():
                    return
                if "error" in event:
                    raise docker.errors.DockerException(event["error"])
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and detail.get("total"):
                    layers[event["id"]] = (detail["current"], detail["total"])
                    here, total = map(sum, zip(*layers.values(), strict=True))
                    loop.call_soon_threadsafe(on_progress, here, total)
        finally:
            stream.close()

    try:
        await in_thread(fetch)
    except UNREACHABLE as error:
        raise Refused(
            f"The image {reference} is not on this machine and cannot be fetched. "
            "Choose another image, or tell an admin.",
            reason="image",
            status_code=503,
        ) from error
    finally:
        cancelled.set()
