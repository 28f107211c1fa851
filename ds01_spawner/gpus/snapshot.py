"""What is free and who holds what at one moment: asks Docker and NVML, every time."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import docker.errors

from .. import engine
from ..lone_thread import LoneThread
from ..names import container_name
from .capabilities import read_capabilities
from .claims import Claims, Runtimes
from .devices import Inventory, Reading, Snapshot
from .nodes import CAPABILITIES
from .notation import Names
from .occupancy import Container, Process, occupancy
from .processes import locate

_LOG = logging.getLogger(__name__)

#: Inspections under way at once: the engine's threads are everybody's.
_INSPECTIONS = 4
#: Seconds for NVML's answer; without persistence mode a driver takes seconds to begin with a GPU.
NVML_PATIENCE_S = 30.0
DRIVER_HANGS = (
    "NVIDIA's driver does not answer, as when a GPU hangs: 'dmesg | grep NVRM' says more, and a "
    "reboot helps."
)


class Taken(NamedTuple):
    """A snapshot and what else was seen.

    Attributes
    ----------
    own
        The containers that this Hub created, in whatever state they are.
    info
        The engine's description of itself.
    """

    snapshot: Snapshot
    own: tuple[Container, ...]
    info: Mapping[str, Any]


class Snapshots:
    """Takes snapshots.

    - Each one asks Docker for all containers and NVML for all devices and processes.
    - What never changes in a container is asked once for each container's id.
    - It is whole, or `take` raises: an engine that gives no answer is no empty machine.
    - A driver that hangs is waited for once; after that, nothing can be read until it answers.

    Parameters
    ----------
    docker_call
        Calls the engine.
    read
        Asks NVML; blocks.
    in_thread
        Runs a blocking call beside the loop, in a thread that nobody else needs: a call to a
        driver that hangs may never end.
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
        self._hanging: asyncio.Future[Any] | None = None

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
            self._read_in_time(),
        )
        containers = await self._with_claims(
            [read_listed(entry, self._hub_id, self._watchers) for entry in listed]
        )
        own = tuple(container for container in containers if container.ours)
        if reading.inventory.problem:
            # Nothing is known of any device, so nobody can be said to hold one.
            return Taken(Snapshot(reading.inventory), own, info)
        # Not in the driver's thread, which may hang by now.
        snapshot = await asyncio.to_thread(
            self._judge, reading, located, containers, Runtimes.from_info(info)
        )
        return Taken(snapshot, own, info)

    async def own(self) -> tuple[Container, ...]:
        """Return this Hub's containers, without what they claim of GPUs; asks the engine once.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        return await own_containers(self._docker, self._hub_id)

    async def _read_in_time(self) -> tuple[Reading, list[Process]]:
        """Ask NVML; a driver that hangs is a problem like any other."""
        if self._hanging is None or self._hanging.done():
            asked = asyncio.ensure_future(self._in_thread(self._read_devices))
            # Not cancelled when the time is up: until its thread is free, nobody else is to wait.
            done, _ = await asyncio.wait({asked}, timeout=NVML_PATIENCE_S)
            if done:
                return asked.result()
            self._hanging = asked
        return Reading(Inventory(problem=DRIVER_HANGS)), []

    async def _with_claims(self, containers: list[Container]) -> list[Container]:
        """Return the containers with what those that count claim, without those that are gone."""
        # Another snapshot may be under way: each has its own answers, and the last one's are kept.
        claims = await self._inspected([c.container_id for c in containers if c.counts])
        self._claims = {id_: claim for id_, claim in claims.items() if claim is not None}
        return [
            replace(container, claims=claims.get(container.container_id))
            for container in containers
            if container.container_id in claims or not container.counts
        ]

    async def _inspected(self, ids: Collection[str]) -> dict[str, Claims | None]:
        """Return the claims of those containers that exist; asks for new ones, a few at once.

        None for one that the engine or we cannot make sense of; it is asked for again next time.
        """
        claims: dict[str, Claims | None] = {
            id_: self._claims[id_] for id_ in ids if id_ in self._claims
        }
        unknown = iter([id_ for id_ in ids if id_ not in claims])

        async def work() -> None:
            for container_id in unknown:
                try:
                    found = await engine.inspect(self._docker, container_id)
                except docker.errors.APIError as error:
                    # The engine has just listed it, and chokes on this one.
                    _LOG.warning("The container %s cannot be inspected: %s", container_id, error)
                    claims[container_id] = None
                    continue
                if found is not None:
                    claims[container_id] = _claims(found)

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


def _claims(inspected: Mapping[str, Any]) -> Claims | None:
    try:
        return Claims.from_inspect(inspected, os.path.realpath)
    except Exception:  # noqa: BLE001
        # Whatever is odd about one container, it must not keep all others from being read.
        _LOG.exception("The container %s cannot be understood", inspected.get("Id"))
        return None


def take_now(
    api: Any,
    read: Callable[[], Reading],
    hub_id: str,
    watchers: Collection[str] = (),
    capabilities: Path = CAPABILITIES,
) -> Taken:
    """Take one snapshot without a loop around; `api` is the engine's low-level client."""

    async def docker_call(method: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(api, method), *args, **kwargs)

    in_thread = LoneThread("nvml").run
    snapshots = Snapshots(docker_call, read, in_thread, hub_id, watchers, capabilities)
    return asyncio.run(snapshots.take())


async def own_containers(docker_call: engine.Docker, hub_id: str) -> tuple[Container, ...]:
    """Return a Hub's containers, also those that do not run, without what they claim of GPUs.

    Raises
    ------
    Exception
        Whatever the engine raises when it gives no answer.
    """
    label = f"ds01.hub={hub_id}"
    listed = await docker_call("containers", all=True, filters={"label": label})
    found = (read_listed(entry, hub_id) for entry in listed)
    return tuple(container for container in found if container.ours)


def read_listed(
    listed: Mapping[str, Any], hub_id: str, watchers: Collection[str] = ()
) -> Container:
    """Read an entry of the engine's list, which has the name and the state of now.

    Parameters
    ----------
    hub_id
        Which Hub's containers are ours; with an empty one, none is.
    watchers
        See `Snapshots`.
    """
    labels = listed.get("Labels") or {}
    name = listed_name(listed)
    of_a_hub = is_of_a_hub(name, labels)
    return Container(
        container_id=listed["Id"],
        name=name,
        state=listed["State"],
        created=datetime.fromtimestamp(listed["Created"], timezone.utc),
        labels=labels,
        of_a_hub=of_a_hub,
        # With no Hub to compare with, none is ours.
        ours=of_a_hub and labels["ds01.hub"] == hub_id,
        watcher=any(fnmatch.fnmatchcase(name, pattern) for pattern in watchers),
    )


def is_of_a_hub(name: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a Hub created a container: an image can label one, but not name it so."""
    hub, user, project = (labels.get(f"ds01.{key}") for key in ("hub", "user", "project"))
    return bool(hub and user and project) and name == container_name(str(user), str(project))


def listed_name(listed: Mapping[str, Any]) -> str:
    """Return a listed container's name; links to it are listed as ``/other/alias``."""
    own = [name[1:] for name in listed.get("Names") or [] if "/" not in name[1:]]
    return own[0] if own else str(listed["Id"])[:12]
