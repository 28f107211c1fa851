"""Asks the policy, Docker and the kernel what somebody may have and has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import docker
from docker.utils import kwargs_from_env

from .. import engine, shared_folders
from ..cgroups.limits import SliceError
from ..cgroups.slices import Slices, choose_slices, slice_name
from ..cgroups.usage import Usage, container_usage
from ..changes import changes_of
from ..clock import utc_now
from ..gpus.snapshot import is_of_a_hub, listed_name
from ..lifecycle.keeping import Keeping
from ..lifecycle.leaving import Leavings
from ..lifecycle.records import Kept
from ..live import NeverRead
from ..policy import this_machine
from ..settings import DS01Settings
from ..storage import room
from ..storage.records import Kind, Use, largest
from ..storage.room import Disk
from .lately import Lately
from .people import Person
from .rates import Measured, Rates, Reader
from .standing import Server, Standing, standing, total_of
from .wishes import Wishes

#: Seconds for which an answer is given again; a page that refreshes itself asks less often.
_AGE_S = 1.0
_ENGINE_TIMEOUT_S = 15
_DISK_PATIENCE_S = 5
#: How many users, and how many servers, an admin is shown who fill the disks.
_LARGEST = 5


@dataclass(frozen=True)
class Holder:
    """A user with servers, as the admin's table has them: what these may use together."""

    name: str
    servers: int
    gpus: float
    cpus: float
    memory_bytes: int


@dataclass(frozen=True)
class Overview:
    """What an admin should know.

    Attributes
    ----------
    problems
        Why the policy's files are not in force as they are now, and shared folders not there.
    warnings
        What else there is to say of the policy.
    enforced
        What holds the sum over a user's servers: ``slice`` or ``admission``.
    holders
        The users who have servers.
    kept
        The servers that are kept although they may be idle.
    disks
        Those with users' files and containers; none if they do not say how much room they have.
    largest
        Who takes most of them: users, then servers.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    enforced: str
    holders: tuple[Holder, ...]
    kept: tuple[Kept, ...]
    disks: tuple[Disk, ...]
    largest: tuple[Use, ...]


class Look:
    """Asks for each answer anew, at most once a second for the same.

    Parameters
    ----------
    settings
        The spawner's settings.

    Attributes
    ----------
    keeping
        Tells of the life of servers, and keeps them.
    leavings
        Tells what would go with servers, and keeps files of it.
    wishes
        Tells who wants e-mail.
    """

    def __init__(self, settings: DS01Settings) -> None:
        self._settings = settings
        client = docker.APIClient(version="auto", **kwargs_from_env(), timeout=_ENGINE_TIMEOUT_S)
        self._docker = engine.Caller(client, ThreadPoolExecutor(8, thread_name_prefix="engine"))
        self.keeping = Keeping(
            self._docker, settings.hub_id, settings.life_records, settings.storage_records
        )
        self.leavings = Leavings(self._docker, settings.hub_id, changes_of)
        self.wishes = Wishes(settings)
        self._rates = Rates()
        self._slices: Slices | None = None
        self._lately: Lately[Standing] = Lately(_AGE_S)

    @property
    def enforced(self) -> str:
        """What holds the sum over a user's servers."""
        return "slice" if self._settings.aggregate_limits == "slices" else "admission"

    async def standing(self, person: Person) -> Standing:
        """Return what a user may have and has.

        Raises
        ------
        Refused
            If there is no policy.
        Exception
            Whatever the engine raises when it gives no answer.
        """
        return await self._lately.get(person.name, lambda: self._standing(person))

    async def overview(self) -> Overview:
        """Return what an admin should know.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        policy = self._settings.policy
        try:
            warnings, folders = policy.current().warnings, policy.folders()
        except NeverRead:
            # Among the problems.
            warnings, folders = (), ()
        missing = (await shared_folders.look(folders)).missing
        listed = await self._containers()
        left_out = (f"The shared folder {name}: {why}" for name, why in missing.items())
        return Overview(
            problems=(*policy.problems, *left_out),
            warnings=warnings,
            enforced=self.enforced,
            holders=_holders(listed),
            kept=tuple(self._kept(listed)),
            disks=await self._disks(),
            largest=_largest(self._settings.storage_records.all(), listed),
        )

    async def kept(self) -> list[Kept]:
        """Return the servers that are kept.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        return self._kept(await self._containers())

    def _kept(self, listed: Iterable[Mapping[str, Any]]) -> list[Kept]:
        running = {each["Id"] for each in listed if each["State"] == "running"}
        return self.keeping.all_kept(running, utc_now())

    async def _disks(self) -> tuple[Disk, ...]:
        try:
            return tuple(await room.disks(self._settings, self._docker, _DISK_PATIENCE_S))
        except room.DiskError:
            return ()

    async def _standing(self, person: Person) -> Standing:
        share = self._settings.share_of(person.name, person.groups)
        limits = share.resolved.limits.within(this_machine())
        listed = await self._containers(person.name)
        found = await asyncio.gather(*map(self._server, listed))
        servers = {each["Id"]: (server, read) for each, server, read in filter(None, found)}
        readers = {id_: read for id_, (_, read) in servers.items() if read is not None}
        slices = await self._slices_here()
        of_slice = f"slice of {person.name}"
        if slices is not None and readers:
            readers[of_slice] = partial(_slice_usage, slices, slice_name(person.name))
        measured = await self._rates.measure(readers)
        uses = self._settings.storage_records.uses(utc_now(), person.name)
        shown = [
            replace(server, now=measured.get(id_), disk_bytes=uses.of_container(id_))
            for id_, (server, _) in servers.items()
        ]
        total: Measured | None = total_of(measured[id_] for id_ in servers if id_ in measured)
        if of_slice in readers:
            total = measured[of_slice]
        by_name = sorted(shown, key=lambda s: s.name)
        return standing(share, limits, by_name, total, self.enforced, uses)

    async def _slices_here(self) -> Slices | None:
        if self._slices is None and self.enforced == "slice":
            try:
                self._slices = choose_slices(await self._docker("info"))
            except SliceError:
                # The Hub does not run then; what containers use is still told.
                return None
        return self._slices

    async def _containers(self, user: str = "") -> list[Mapping[str, Any]]:
        """Return this Hub's containers, of one user or of all, as the engine lists them."""
        labels = [f"ds01.hub={self._settings.hub_id}"]
        labels += [f"ds01.user={user}"] if user else []
        found = await self._docker("containers", all=True, filters={"label": labels})
        # Anybody's container can have any label; a name of ours it cannot have as well.
        return [each for each in found if is_of_a_hub(listed_name(each), each["Labels"] or {})]

    async def _server(
        self, listed: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Server, Reader | None] | None:
        """Return a server and what reads its counters; None if it has just gone."""
        inspected = await engine.inspect(self._docker, listed["Id"])
        if inspected is None:
            return None
        labels, host = listed["Labels"], inspected["HostConfig"]
        server = Server(
            name=labels.get("ds01.server", ""),
            state=inspected["State"]["Status"],
            started=labels.get("ds01.created_at", ""),
            gpu_uuids=tuple(filter(None, labels.get("ds01.gpu.uuids", "").split(","))),
            gpu_size=labels.get("ds01.gpu.size", ""),
            gpu_weight=float(labels.get("ds01.gpu.allocated") or 0),
            cpus=host["NanoCpus"] / 1e9,
            memory_bytes=host["Memory"],
            pids=host["PidsLimit"] or 0,
        )
        pid = int(inspected["State"]["Pid"])
        return listed, server, partial(container_usage, pid) if pid else None


def _slice_usage(slices: Slices, name: str) -> Usage | None:
    try:
        return slices.usage(name)
    except SliceError:
        return None


def _largest(uses: Collection[Use], listed: Iterable[Mapping[str, Any]]) -> tuple[Use, ...]:
    there = {each["Id"] for each in listed}
    left = [use for use in uses if use.kind is Kind.USER or use.name in there]
    users, servers = (largest(left, kind, _LARGEST) for kind in (Kind.USER, Kind.CONTAINER))
    return (*users, *servers)


def _holders(listed: Iterable[Mapping[str, Any]]) -> tuple[Holder, ...]:
    found: dict[str, Holder] = {}
    for labels in (each["Labels"] for each in listed):
        user = labels["ds01.user"]
        so_far = found.get(user, Holder(user, 0, 0.0, 0.0, 0))
        found[user] = Holder(
            user,
            so_far.servers + 1,
            so_far.gpus + float(labels.get("ds01.gpu.allocated") or 0),
            so_far.cpus + float(labels.get("ds01.cpus") or 0),
            so_far.memory_bytes + int(labels.get("ds01.memory") or 0),
        )
    return tuple(found[user] for user in sorted(found))
