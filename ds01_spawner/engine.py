"""The Docker engine as a start needs it: each call's failures told apart, none taken for "free"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

import docker
import docker.errors
import requests.exceptions

from .errors import Refused

#: Everything by which the engine says nothing: down, restarting, overloaded, or ended in the middle
#: of an answer.
UNREACHABLE = (requests.exceptions.RequestException, docker.errors.DockerException)

#: Seconds for which an answer is awaited from an engine that restarts.
PATIENCE_S = 60.0
#: Seconds for which a container that could not be removed is tried again in the background.
LONG_PATIENCE_S = 3600.0

#: On a container that only tries whether its name is free; see `admission.settle`.
PROBE_LABEL = "ds01.probe"

_removals: set[asyncio.Task[None]] = set()


class Docker(Protocol):
    """Calls a method of the low-level client in another thread."""

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


class Caller:
    """A `Docker` over a client and an executor."""

    def __init__(self, client: docker.APIClient, executor: Executor) -> None:
        self._client = client
        self._executor = executor

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client in another thread."""
        return await self.in_thread(partial(getattr(self._client, method), *args, **kwargs))

    async def in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run any other blocking call in one of the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)


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

    The engine reserves a name when it begins to create, and lists the container when it is done.
    So an answer that was lost is asked for by the same request again: it tells an id, or that the
    name is taken, sooner or later by this very container.

    Parameters
    ----------
    start
        The value of the label ``ds01.start`` in `body`, which no other container has.

    Raises
    ------
    Refused
        409 if somebody else's container has the name, 503 if one is on its way out.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            return str((await docker_call("create_container_from_config", body, name))["Id"])
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            found = await patiently(lambda: inspect(docker_call, name))
            if found is not None and (found["Config"]["Labels"] or {}).get("ds01.start") == start:
                return str(found["Id"])
            if found is not None and found["State"]["Status"] == "removing":
                # It may take long, and others may wait for this create to end.
                raise _still_going(name) from error
            if found is not None and not is_probe(found):
                raise Refused(
                    f"A container named {name!r} exists on this machine and is not this Hub's. "
                    "Please tell an admin: it must be removed or renamed first.",
                    reason="name",
                    status_code=409,
                ) from error
            if loop.time() > deadline:
                raise
        except UNREACHABLE:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(0.5)


def is_probe(inspected: dict[str, Any]) -> bool:
    """Tell whether a container only tries a name; one that a dead Hub left is in nobody's way."""
    labels = inspected["Config"]["Labels"] or {}
    return labels.get(PROBE_LABEL) == "true" and inspected["State"]["Status"] == "created"


async def stop(docker_call: Docker, container: str, grace_s: int) -> None:
    """Stop a container, by force after `grace_s` seconds; one that is gone is fine.

    The engine's own stop would keep one of our threads for the whole time, so that many stops at
    once would hold up everybody.
    """
    loop = asyncio.get_running_loop()
    for signal, patience_s in (("SIGTERM", grace_s), ("SIGKILL", PATIENCE_S)):
        if not await _signal(docker_call, container, signal):
            return
        deadline = loop.time() + patience_s
        while loop.time() < deadline:
            found = await patiently(lambda: inspect(docker_call, container))
            if found is None or not found["State"]["Running"]:
                return
            await asyncio.sleep(0.2)
    raise docker.errors.DockerException(f"The container {container} does not end")


async def _signal(docker_call: Docker, container: str, signal: str) -> bool:
    """Send a signal; return False if the container does not run any more."""
    try:
        await patiently(lambda: docker_call("kill", container, signal=signal))
    except docker.errors.APIError as error:
        # 409: it is not running.
        if error.status_code in (404, 409):
            return False
        raise
    return True


async def remove(docker_call: Docker, container: str) -> None:
    """Remove a container with its anonymous volumes, running or not; one that is gone is fine.

    An engine that stays silent for longer is asked on in the background.

    Raises
    ------
    Exception
        If the container is not removed yet.
    """
    attempt = partial(remove_once, docker_call, container)
    try:
        await patiently(attempt)
    except UNREACHABLE:
        later = asyncio.ensure_future(patiently(attempt, LONG_PATIENCE_S))
        _removals.add(later)
        later.add_done_callback(_forget_removal)
        raise


async def wait_until_gone(docker_call: Docker, container: str) -> None:
    """Wait for the end of a removal that the engine has begun: files by the million take long.

    Raises
    ------
    Refused
        503 if it takes too long.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + PATIENCE_S, 0.05
    while await patiently(lambda: inspect(docker_call, container)) is not None:
        if loop.time() > deadline:
            raise _still_going(container)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


def _still_going(container: str) -> Refused:
    """Return what the user is told whose last container is not gone yet."""
    return Refused(
        "What your last server left is still being removed. Try again in a minute; if it stays so, "
        f"tell an admin (container {container!r}).",
        reason="engine",
        status_code=503,
    )


async def remove_once(docker_call: Docker, container: str) -> None:
    """Ask the engine once to remove a container; one that is gone or going is fine."""
    try:
        await docker_call("remove_container", container, v=True, force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        # Somebody else is removing it: it is going, which is what was wanted.
        if error.status_code != 409:
            raise


def _forget_removal(task: asyncio.Task[None]) -> None:
    _removals.discard(task)
    if not task.cancelled():
        task.exception()


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
