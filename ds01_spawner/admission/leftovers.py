"""What starts and stops that came to no end have left with the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import endings, engine
from ..gpus.occupancy import Container
from . import forecast

if TYPE_CHECKING:
    from ..store import Store

_LOG = logging.getLogger(__name__)

#: What is in one of these states has never run, or is half removed.
_NEVER_STARTED = ("created", "dead")
#: Seconds that a server has to end which should have been stopped before.
_GRACE_S = 10


@dataclass(frozen=True)
class Servers:
    """The servers that the Hub has, or is about to have.

    Attributes
    ----------
    containers
        Ids of their containers, as far as the Hub knows them.
    names
        User and server name of each.
    """

    containers: frozenset[str]
    names: frozenset[tuple[str, str]]

    def include(self, container: Container) -> bool:
        """Tell whether a container of this Hub is one of them."""
        named = container.labels.get("ds01.user", ""), container.labels.get("ds01.server", "")
        return container.container_id in self.containers or named in self.names


class Leftovers:
    """Removes containers of this Hub that are nobody's server.

    - One that never ran is left by a start that is over.
    - One that ran is left by a stop that was interrupted, or that the engine did not answer: the
      Hub has given up its server, and would never look at it again. If it still runs it is stopped
      in the background, and is gone for the next grant.

    Parameters
    ----------
    docker_call
        Calls the engine in another thread.
    store
        Where it is kept how servers ended.
    servers
        Gives the servers that the Hub has now; None if that is not known, and nothing that has
        run is touched then.

    Attributes
    ----------
    starts
        The label ``ds01.start`` of each start under way in this process: what they have created
        and not started yet is not a leftover.
    """

    def __init__(
        self,
        docker_call: engine.Docker,
        store: Store,
        servers: Callable[[], Servers] | None = None,
    ) -> None:
        self.starts: set[str] = set()
        self._docker = docker_call
        self._store = store
        self._servers = servers
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def bury(self, own: Sequence[Container]) -> bool:
        """Remove what is left over of these; tell if anything is gone that was there."""
        servers = self._servers() if self._servers else None
        gone = False
        for container in own:
            if container.labels.get("ds01.start") in self.starts:
                continue
            if container.state in _NEVER_STARTED:
                gone |= await self._remove(container, _NEVER_STARTED)
            elif servers is None or servers.include(container) or container.state == "removing":
                continue
            elif container.state == "exited":
                gone |= await self._remove(container, ("exited",))
            else:
                self._stop(container)
        return gone

    async def _remove(self, container: Container, states: tuple[str, ...]) -> bool:
        """Remove a leftover that is still in one of these states; tell if it is gone."""
        try:
            # Much may have happened since the engine listed it: a start may have succeeded.
            found = await engine.inspect(self._docker, container.container_id)
            if found is None:
                return True
            if found["State"]["Status"] not in states:
                return False
            _LOG.warning("Removing %s (%s), left behind earlier", container.name, container.state)
            await engine.remove_once(self._docker, container.container_id)
        except engine.UNREACHABLE:
            # It keeps what it holds, and the next grant tries again.
            _LOG.exception("The engine cannot remove %s", container.name)
            return False
        if container.state != "dead":
            await self._remember(container, found)
        return True

    def _stop(self, container: Container) -> None:
        """Stop a server that the Hub has given up, beside everything else."""
        if container.container_id not in self._stopping:
            _LOG.warning("Stopping %s, which is no server of this Hub any more", container.name)
            task = asyncio.ensure_future(self._stop_and_remove(container))
            self._stopping[container.container_id] = task
            task.add_done_callback(lambda _: self._stopping.pop(container.container_id, None))

    async def _stop_and_remove(self, container: Container) -> None:
        try:
            await engine.stop(self._docker, container.container_id, _GRACE_S)
            await self._remove(container, ("exited", "dead"))
        except engine.UNREACHABLE:
            _LOG.exception("%s cannot be stopped; the next grant tries again", container.name)

    async def _remember(self, container: Container, found: dict[str, Any]) -> None:
        user, project = container.labels["ds01.user"], container.labels["ds01.project"]
        # Somebody asked for its stop, unless memory had run out before.
        stopped_by = None if found["State"].get("OOMKilled") else "you or an admin"
        try:
            ending = endings.explain(user, project, found, stopped_by=stopped_by)
            await asyncio.to_thread(self._store.add_ending, ending)
            if use := forecast.use_of(found):
                await asyncio.to_thread(self._store.add_gpu_use, *use)
        except Exception:  # noqa: BLE001
            _LOG.exception("The end of %s cannot be recorded", container.name)
