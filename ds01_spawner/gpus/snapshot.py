"""What is free and who holds what at one moment: asks Docker and NVML, every time."""

from __future__ import annotations

import asyncio
import fnmatch
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import engine
from ..names import container_name
from .capabilities import read_capabilities
from .claims import Claims, Runtimes
from .devices import Reading, Snapshot
from .nodes import CAPABILITIES
from .notation import Names
from .occupancy import Container, Process, occupancy
from .processes import locate

#: Inspections under way at once: the engine's threads are everybody's.
_INSPECTIONS = 4


class Taken(NamedTuple):
    """A snapshot, and the containers that this Hub created, in whatever state they are."""

    snapshot: Snapshot
    own: tuple[Container, ...]


class Snapshots:
    """Takes snapshots.

    - Each one asks Docker for all containers and NVML for all devices and processes.
    - What never changes in a container is asked once for each container's id.
    - It is whole, or `take` raises: an engine that gives no answer is no empty machine.

    Parameters
    ----------
    docker_call
        Calls the engine.
    read
        Asks NVML; blocks.
    in_thread
        Runs a blocking call beside the loop.
    hub_id
        Which Hub's containers are ours; with an empty one, none is.
    watchers
        Names, or patterns of names such as ``dcgm-exporter*``, of containers that only watch
        GPUs: what they were given stays free. Containers of a Hub are never watchers.
    capabilities_root
        Where the driver lists its capability nodes.
    """

    def __init__(
        self,
        docker_call: engine.Docker,
        read: Callable[[], Reading],
        in_thread: Callable[..., Awaitable[Any]],
        hub_id: str,
        watchers: Collection[str] = (),
        capabilities_root: Path = CAPABILITIES,
    ) -> None:
        self._docker = docker_call
        self._read = read
        self._in_thread = in_thread
        self._hub_id = hub_id
        self._watchers = tuple(watchers)
        self._capabilities_root = capabilities_root
        self._claims: dict[str, Claims] = {}

    async def take(self) -> Taken:
        """Return what is so now.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        listed, info, (reading, located) = await asyncio.gather(
            self._docker("containers", all=True),
            self._docker("info"),
            self._in_thread(self._read_devices),
        )
        containers = await self._with_claims(list(map(self._container, listed)))
        snapshot = await self._in_thread(
            self._judge, reading, located, containers, Runtimes.from_info(info)
        )
        return Taken(snapshot, tuple(container for container in containers if container.ours))

    def _container(self, listed: Mapping[str, Any]) -> Container:
        """Read an entry of the engine's list, which has the name and the state of now."""
        labels = listed.get("Labels") or {}
        name = _name(listed)
        return Container(
            container_id=listed["Id"],
            name=name,
            state=listed["State"],
            created=datetime.fromtimestamp(listed["Created"], timezone.utc),
            labels=labels,
            ours=self._is_ours(name, labels),
            watcher=any(fnmatch.fnmatchcase(name, pattern) for pattern in self._watchers),
        )

    def _is_ours(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether this Hub created a container: anybody can label one, but not name it so."""
        if not self._hub_id or labels.get("ds01.hub") != self._hub_id:
            return False
        user, project = labels.get("ds01.user"), labels.get("ds01.project")
        return bool(user and project) and name == container_name(str(user), str(project))

    async def _with_claims(self, containers: list[Container]) -> list[Container]:
        """Return the containers with what those that count claim, without those that are gone."""
        # Another snapshot may be under way: each has its own answers, and the last one's are kept.
        claims = await self._inspected([c.container_id for c in containers if c.counts])
        self._claims = claims
        return [
            replace(container, claims=claims.get(container.container_id))
            for container in containers
            if container.container_id in claims or not container.counts
        ]

    async def _inspected(self, ids: Collection[str]) -> dict[str, Claims]:
        """Return the claims of those containers that exist; asks for new ones, a few at once."""
        claims = {id_: self._claims[id_] for id_ in ids if id_ in self._claims}
        unknown = iter([id_ for id_ in ids if id_ not in claims])

        async def work() -> None:
            for container_id in unknown:
                found = await engine.inspect(self._docker, container_id)
                if found is not None:
                    claims[container_id] = Claims.from_inspect(found, os.path.realpath)

        await asyncio.gather(*(work() for _ in range(_INSPECTIONS)))
        return claims

    # -- in a thread -------------------------------------------------------------------------

    def _read_devices(self) -> tuple[Reading, list[Process]]:
        """Ask NVML, and once more if a process has ended since: it may have left its device.

        One that NVML still lists then, and that /proc does not have, is outside our sight, such
        as in another machine's or container's numbers; it holds its device.
        """
        reading = self._read()
        located = locate(reading.processes)
        if not all(process.name for process in located):
            reading = self._read()
            located = locate(reading.processes)
        return reading, located

    def _judge(
        self,
        reading: Reading,
        located: list[Process],
        containers: list[Container],
        runtimes: Runtimes,
    ) -> Snapshot:
        nodes = lru_cache(maxsize=1)(partial(read_capabilities, self._capabilities_root))
        holders, warnings = occupancy(
            reading.inventory,
            containers,
            located,
            reading.unasked,
            runtimes=runtimes,
            names=Names(reading.inventory, nodes),
        )
        return Snapshot(reading.inventory, holders, warnings)


def take_now(
    api: Any,
    read: Callable[[], Reading],
    hub_id: str,
    watchers: Collection[str] = (),
    capabilities: Path = CAPABILITIES,
) -> Snapshot:
    """Take one snapshot without a loop around; `api` is the engine's low-level client."""

    async def docker_call(method: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(api, method), *args, **kwargs)

    snapshots = Snapshots(docker_call, read, asyncio.to_thread, hub_id, watchers, capabilities)
    return asyncio.run(snapshots.take()).snapshot


def _name(listed: Mapping[str, Any]) -> str:
    """Return a listed container's name; links to it are listed as ``/other/alias``."""
    own = [name[1:] for name in listed.get("Names") or [] if "/" not in name[1:]]
    return own[0] if own else str(listed["Id"])[:12]
