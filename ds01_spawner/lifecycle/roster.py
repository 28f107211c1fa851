"""Which servers run: what the Hub and the engine say of them, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .. import engine
from ..engine import Docker
from ..gpus.occupancy import Container
from ..gpus.snapshot import own_containers
from ..names import project_of
from ..storage.rounds import Running
from .hub import Hub, HubServer
from .meters import Meters
from .server import Server, server_of

_LOG = logging.getLogger(__name__)

#: Containers that are inspected at the same time.
_AT_ONCE = 20


class Roster:
    """The servers of a Hub that run; each container is inspected once.

    Parameters
    ----------
    hub
        Lists servers.
    docker_call
        The engine.
    hub_id
        Which containers are this Hub's.
    meters
        Know whether a container still has the process that it was inspected with.
    """

    def __init__(self, hub: Hub, docker_call: Docker, hub_id: str, meters: Meters) -> None:
        self._hub = hub
        self._docker = docker_call
        self._hub_id = hub_id
        self._meters = meters
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._inspected: dict[str, dict[str, Any]] = {}
        self._found: dict[str, Server] = {}

    async def listed(self) -> tuple[list[HubServer], list[Container]]:
        """Return the servers that the Hub has, and the containers of this Hub, all of both.

        Raises
        ------
        HubSilent
            If the Hub does not say which servers it has.
        Exception
            Whatever the engine raises when it gives no answer.
        """
        known, own = await asyncio.gather(
            self._hub.servers(), own_containers(self._docker, self._hub_id)
        )
        return known, list(own)

    async def servers(self, known: Iterable[HubServer], own: Iterable[Container]) -> list[Server]:
        """Return the servers that are ready and have a container that runs.

        Parameters
        ----------
        known, own
            What `listed` returns.

        Raises
        ------
        Exception
            What the engine raises, if it does for all of them; one alone is left out.
        """
        by_name = {(server.user, server.name): server for server in known if server.is_ready}
        pairs = []
        for container in own:
            labels = container.labels
            server = by_name.get((labels.get("ds01.user", ""), labels.get("ds01.server", "")))
            # A name and labels that do not go together are somebody's own.
            fits = labels.get("ds01.project") == project_of(labels.get("ds01.server", ""))
            if server is not None and fits and "ds01.server" in labels:
                pairs.append((server, container.container_id))

        async def one(server: HubServer, container_id: str) -> Server | None:
            async with self._limit:
                inspected = await self._inspect(container_id)
                return self._server(server, inspected) if inspected else None

        found = await asyncio.gather(*(one(*pair) for pair in pairs), return_exceptions=True)
        failed = [error for error in found if isinstance(error, BaseException)]
        if len(failed) > 1 and len(failed) == len(pairs) and all(map(engine.is_silent, failed)):
            # It is the engine, and not one container.
            raise failed[0]
        for (server, _), error in zip(pairs, found, strict=True):
            if isinstance(error, BaseException):
                _LOG.error("The server %s/%s was left out: %r", server.user, server.name, error)
        servers = [server for server in found if isinstance(server, Server)]
        self._found = {server.watched.container_id: server for server in servers}
        return servers

    def inspected(self) -> list[dict[str, Any]]:
        """Return the inspections of the containers that are known."""
        return list(self._inspected.values())

    def running(self) -> list[Running]:
        """Return the servers that were found the last time, as what writes to the disk."""
        return [
            Running(key, server.hub.user, server.project, self._inspected[key])
            for key, server in self._found.items()
            if key in self._inspected
        ]

    def forget_others(self, ids: frozenset[str]) -> None:
        """Forget all containers but these."""
        self._inspected = {key: value for key, value in self._inspected.items() if key in ids}

    def _server(self, hub: HubServer, inspected: Mapping[str, Any]) -> Server:
        before = self._found.get(inspected["Id"])
        return replace(before, hub=hub) if before else server_of(hub, inspected)

    async def _inspect(self, container_id: str) -> dict[str, Any] | None:
        """Inspect a container once: what matters here changes only when it is started again."""
        found = self._inspected.get(container_id)
        if found is None or not self._meters.is_process_of(container_id, found["State"]["Pid"]):
            self._inspected.pop(container_id, None)
            self._found.pop(container_id, None)
            found = await engine.inspect(self._docker, container_id)
            if found is None or not found["State"]["Pid"]:
                return None
            self._inspected[container_id] = found
        return found
