"""The one place where a GPU is granted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .. import engine
from ..clock import utc_now
from ..errors import Refused
from ..gpus.attachment import DRIVER_CAPABILITIES, AttachmentError, Backend, choose_backend
from ..gpus.demand import RecentDemand
from ..gpus.devices import Device, Inventory, Snapshot, State
from ..gpus.occupancy import GPUS, GRANTED, Container
from ..gpus.placement import Choice, choose
from ..gpus.request import GpuRequest, suffices
from ..gpus.snapshot import Snapshots, Taken
from ..policy import Limits
from . import forecast, quota
from .holdings import Holding, gpus_in_use, holdings
from .leftovers import Leftovers, Servers
from .lock import GrantLock, Pending
from .offers import offers
from .settle import settle

if TYPE_CHECKING:
    from ..store import Store

_LOG = logging.getLogger(__name__)

#: A page may show how things stood so many seconds ago; a grant never does.
_PAGE_AGE_S = 1.0
#: Somebody who asks for the same again within so many seconds has no further need.
_SAME_REQUEST_S = 600.0


_Look = tuple[Snapshot, tuple[Container, ...]]


class Abandoned(Exception):
    """Nobody waits for this grant any more."""


@dataclass(frozen=True)
class Applicant:
    """Who asks for a server, and what for.

    Attributes
    ----------
    user, server
        The Hub's names of them.
    limits
        The user's.
    cpus, memory_bytes
        What the server may use.
    still_wants
        Tells whether the start still goes on.
    """

    user: str
    server: str
    limits: Limits
    cpus: float
    memory_bytes: int
    still_wants: Callable[[], bool]


class Grants:
    """Grants GPUs, one server at a time.

    - Creating a container is the commit: one that exists with its devices holds them, one that
      does not exist holds nothing. There is no other book.
    - A device is chosen and its container created under one lock, which all Hubs on the machine
      share, and which is let go only when the engine has answered.
    - What cannot be asked is not free: if Docker or NVML does not answer, nothing is granted.

    Parameters
    ----------
    docker_call
        Calls the engine in another thread.
    snapshots
        Where it is read who holds what.
    lock
        Shared with every other Hub on the machine.
    store
        Where it is kept how servers ended and how long GPUs were held.
    backend
        A back end that is forced; empty lets the engine decide.
    driver_capabilities
        Parts of NVIDIA's driver that servers see.
    servers
        Gives the servers that the Hub has now, as `Leftovers` wants to know them.
    counts_sums
        Whether the sum over a user's servers is counted here, as no slice holds it.
    """

    def __init__(
        self,
        docker_call: engine.Docker,
        snapshots: Snapshots,
        lock: GrantLock,
        store: Store,
        backend: str = "",
        driver_capabilities: str = DRIVER_CAPABILITIES,
        servers: Callable[[], Servers] | None = None,
        counts_sums: bool = False,
    ) -> None:
        self._docker = docker_call
        self._counts_sums = counts_sums
        self._snapshots = snapshots
        self._lock = lock
        self._store = store
        self._forced_backend = backend
        self._driver_capabilities = driver_capabilities
        self._leftovers = Leftovers(docker_call, store, servers)
        self._demand = RecentDemand()
        self._asked_at: dict[tuple[str, GpuRequest], float] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._page: tuple[float, asyncio.Task[_Look]] | None = None

    @property
    def starts(self) -> set[str]:
        """The label ``ds01.start`` of each start under way in this process."""
        return self._leftovers.starts

    async def without(self) -> Backend:
        """Return what keeps every GPU out of a container."""
        return choose_backend(await self._docker("info"), Inventory())

    async def holdings(self, user: str) -> tuple[Holding, ...]:
        """Return what a user's servers hold now.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        return holdings(user, await self._snapshots.own())

    def left(self, limits: Limits, held: Sequence[Holding], server: str) -> Limits:
        """Return what is left for one more server; all of it, where slices hold the sum."""
        return quota.left(limits, held, server) if self._counts_sums else limits

    async def check(self, applicant: Applicant) -> None:
        """Refuse a start that the user's quota rules out, whatever GPU it asks for.

        Raises
        ------
        Refused
            403, with what would free enough.
        """
        self._refuse_beyond_quota(applicant, await self.holdings(applicant.user))

    async def create(self, applicant: Applicant, create: Callable[[], Awaitable[str]]) -> str:
        """Create a container without a GPU, counted with the user's others; return its id.

        Run it in a task of its own that nobody cancels, as `grant`.

        Raises
        ------
        Refused
            403, if the user's quota rules it out.
        Abandoned
            If the applicant has gone away meanwhile.
        """
        # One of each user at a time: two would each not see the other.
        async with self._turn(applicant.user):
            if not applicant.still_wants():
                raise Abandoned
            await self.check(applicant)
            return await create()

    async def stand(self, user: str) -> tuple[Snapshot, Mapping[str, float]]:
        """Return how things stand or stood a moment ago, for a page.

        Returns
        -------
        (Snapshot, mapping of str to float)
            And what the user holds: server name -> GPU equivalents.

        Raises
        ------
        Refused
            If the engine cannot attach GPUs.
        Exception
            Whatever the engine raises when it gives no answer.
        """
        now = asyncio.get_running_loop().time()
        if self._page is None or _is_over(*self._page, now):
            self._page = now, asyncio.ensure_future(self._look())
        snapshot, own = await asyncio.shield(self._page[1])
        return snapshot, gpus_in_use(holdings(user, own))

    async def grant(
        self,
        request: GpuRequest,
        applicant: Applicant,
        pending: Pending,
        create: Callable[[Backend, tuple[Device, ...]], Awaitable[str]],
    ) -> tuple[str, str]:
        """Choose devices and create the container that holds them.

        Run it in a task of its own that nobody cancels: the lock must be held until the engine
        has answered.

        Parameters
        ----------
        pending
            What `create` asks the engine for.
        create
            Creates the container, with these devices attached in this way, and returns its id.

        Returns
        -------
        (str, str)
            The container's id, and why these devices were chosen.

        Raises
        ------
        Refused
            If nothing that fits is free, or nothing may be granted now.
        Abandoned
            If the applicant has gone away meanwhile.
        """
        # One of each user at a time, so that nobody fills the line.
        async with self._turn(applicant.user), self._lock.hold() as held:
            await settle(self._docker, held)
            if not applicant.still_wants():
                raise Abandoned
            taken = await self._snapshots.take()
            if await self._leftovers.bury(taken.own):
                taken = await self._snapshots.take()
            self._refuse_beyond_quota(applicant, holdings(applicant.user, taken.own))
            snapshot, backend = self._attachable(taken)
            devices, reason = await self._choose(request, applicant, snapshot, taken.own)
            held.write(pending)
            # Whatever goes wrong, the engine may still be creating; the next holder settles that.
            made = await create(backend, devices)
            held.clear()
        return made, reason

    async def recover(self) -> None:
        """Put in order what a Hub that was killed has left, before the first start."""
        async with self._lock.hold() as held:
            await settle(self._docker, held)
            taken = await self._snapshots.take()
            await self._leftovers.bury(taken.own)

    def _refuse_beyond_quota(self, applicant: Applicant, held: Sequence[Holding]) -> None:
        limits, server = applicant.limits, applicant.server
        problem = quota.too_many(limits, held, server)
        if not problem and self._counts_sums:
            problem = quota.beyond_the_sum(
                applicant.cpus, applicant.memory_bytes, limits, held, server
            )
        if problem:
            raise Refused(problem, reason="quota", status_code=403)

    def _turn(self, user: str) -> asyncio.Lock:
        """Return the lock of one user's requests; it is gone when nobody waits for it."""
        return self._turns.setdefault(user, asyncio.Lock())

    def _note_demand(self, user: str, request: GpuRequest) -> None:
        """Count a request that could be granted here, and one that is repeated only once."""
        now = asyncio.get_running_loop().time()
        self._asked_at = {
            asked: at for asked, at in self._asked_at.items() if now - at < _SAME_REQUEST_S
        }
        if (user, request) not in self._asked_at:
            self._demand.saw(request)
        self._asked_at[user, request] = now

    # -- the choice --------------------------------------------------------------------------

    async def _choose(
        self,
        request: GpuRequest,
        applicant: Applicant,
        snapshot: Snapshot,
        own: Sequence[Container],
    ) -> tuple[tuple[Device, ...], str]:
        inventory = snapshot.inventory
        left_out = (d.detail for d in inventory.devices if d.state is State.UNATTACHABLE)
        for warning in (*snapshot.warnings, *left_out):
            _LOG.warning("%s", warning)
        limits, used = applicant.limits, gpus_in_use(holdings(applicant.user, own))
        working = [d for d in inventory.devices if suffices(d, request) and works(d)]
        _refuse_what_never_fits(request, snapshot, working, limits, used)
        if len(working) >= request.count:
            self._note_demand(applicant.user, request)
        # What is said of a refusal speaks of what this user may have; without enough that works,
        # of what there is of the kind.
        theirs = replace(
            inventory,
            devices=quota.allowed(request, inventory.devices, limits, used)
            if len(working) >= request.count
            else quota.of_kind(request, inventory.devices, limits),
        )
        may_have = quota.allowed(request, snapshot.free, limits, used)
        choice = choose(request, may_have, theirs, self._demand)
        if choice.devices:
            return choice.devices, choice.reason
        raise await self._nothing_free(
            request,
            replace(snapshot, inventory=theirs),
            choice,
            quota.larger(request, snapshot.free, limits, used),
            quota.beyond(request, snapshot.free, limits, used),
        )

    def _attachable(self, taken: Taken) -> tuple[Snapshot, Backend]:
        """Return the snapshot as far as this engine can attach what is in it, and how it does.

        Raises
        ------
        Refused
            If nothing can be read, or attached.
        """
        inventory = taken.snapshot.inventory
        if inventory.problem:
            _LOG.error("No GPU can be granted: %s", inventory.problem)
            raise Refused(
                "The GPUs cannot be read at the moment, so none can be given. Please tell an "
                "admin, or start without a GPU.",
                reason="gpu",
                status_code=503,
            )
        try:
            backend = choose_backend(
                taken.info, inventory, self._forced_backend, self._driver_capabilities
            )
        except AttachmentError as error:
            _LOG.error("No GPU can be attached: %s", error)
            raise Refused(
                "GPUs cannot be attached to servers at the moment. Please tell an admin; the "
                "Hub's log says what is missing. Without a GPU your server can start.",
                reason="gpu",
                status_code=503,
            ) from error
        return replace(taken.snapshot, inventory=backend.attachable(inventory)), backend

    async def _nothing_free(
        self,
        request: GpuRequest,
        snapshot: Snapshot,
        choice: Choice,
        larger: Device | None,
        beyond: str,
    ) -> Refused:
        """Return the refusal, with when to try again: the place for a waiting line to step in."""
        parts = [choice.reason, beyond]
        try:
            parts.append(await self._outlook(request, snapshot))
        except Exception:  # noqa: BLE001
            # No forecast is no reason for another answer.
            _LOG.exception("The history of uses cannot be read")
        if snapshot.warnings:
            parts.append("Some may be held back by something that an admin has to look at.")
        instead = [str(choice.alternative)] if choice.alternative else []
        instead += ["a whole GPU"] if larger else []
        later = "try again later, or start without a GPU."
        if instead:
            parts.append(f"Free now would be {', or '.join(instead)}: choose that, or {later}")
        else:
            parts.append(f"{later[:1].upper()}{later[1:]}")
        return Refused(
            " ".join(filter(None, parts)),
            reason="no-gpu",
            status_code=409,
            record=f"Nothing that would do for {request} was free.",
        )

    async def _outlook(self, request: GpuRequest, snapshot: Snapshot) -> str:
        held = [d for d in snapshot.inventory.devices if suffices(d, request) and works(d)]
        sizes = {size_of(device) for device in held}
        earlier = await asyncio.to_thread(self._store.gpu_uses, sizes)
        since = [
            snapshot.holders[device.uuid][0].since
            for device in held
            if device.uuid in snapshot.holders
        ]
        free = sum(device in snapshot.free for device in held)
        return forecast.outlook(since, earlier, utc_now(), max(1, request.count - free))

    # -- looking -----------------------------------------------------------------------------

    async def _look(self) -> _Look:
        taken = await self._snapshots.take()
        snapshot = taken.snapshot
        if not snapshot.inventory.problem:
            snapshot, _ = self._attachable(taken)
        return snapshot, taken.own


def _refuse_what_never_fits(
    request: GpuRequest,
    snapshot: Snapshot,
    working: Sequence[Device],
    limits: Limits,
    used: Mapping[str, float],
) -> None:
    """Refuse what waiting would not help: too large for this machine, or for this user.

    Raises
    ------
    Refused
        400 for a size that this machine does not have, 403 for one above the limits.
    """
    if misfit := quota.misfit(request, working, limits):
        status = 400 if limits.full_gpu else 403
        raise Refused(misfit, reason="gpu-size", status_code=status)
    leaves = [offer.label for offer in offers(snapshot, limits, used) if offer.within]
    if too_much := quota.refusal(request, working, limits, used, leaves[-1] if leaves else ""):
        raise Refused(too_much, reason="quota", status_code=403)
    of_kind = quota.of_kind(request, snapshot.inventory.devices, limits)
    # Broken ones count: they may be mended.
    here = [d for d in of_kind if suffices(d, request) and d.state is not State.PARTITIONED]
    if len(here) < request.count:
        reason = choose(request, (), replace(snapshot.inventory, devices=of_kind)).reason
        sizes = ", ".join(offer.value for offer in offers(snapshot, limits))
        there_is = f" What there is: {sizes}." if sizes else ""
        raise Refused(f"{reason}{there_is}", reason="gpu-size")


def grant_labels(devices: Sequence[Device]) -> dict[str, str]:
    """Return the labels that say what a server holds; empty values without a grant."""
    return {
        GRANTED: ",".join(device.uuid for device in devices),
        GPUS: ",".join(device.gpu for device in devices),
        "ds01.gpu.slots": str(len(devices)),
        "ds01.gpu.allocated": f"{sum(device.weight for device in devices):.12g}",
        "ds01.gpu.size": size_of(devices[0]) if devices else "",
    }


def works(device: Device) -> bool:
    """Tell whether a device could be given if nobody held it."""
    return device.state is State.OK


def size_of(device: Device) -> str:
    """Return what devices of this kind are called in the history of uses."""
    return device.profile or "full"


def _is_over(asked_at: float, look: asyncio.Task[Any], now: float) -> bool:
    """Tell whether a look is old or has failed; one under way is waited for, however slow."""
    if not look.done():
        return False
    return now - asked_at > _PAGE_AGE_S or look.cancelled() or look.exception() is not None
