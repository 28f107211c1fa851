"""Whose files are measured next, and the task that does it, one after the other, all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ..clock import utc_now
from ..engine import UNREACHABLE, Docker
from ..lone_thread import LoneThread
from . import places
from .measure import Measured, NotMeasured, Place
from .records import Kind, StorageRecords, Use

_LOG = logging.getLogger(__name__)

#: How often something is measured at most: what a server writes to and its owner's files, files of
#: others, and what somebody waits for.
RUNNING, OTHERS, WANTED = timedelta(minutes=5), timedelta(hours=6), timedelta(minutes=1)
#: What takes long to measure is measured less often: so many times as long lies between.
_REST, _REST_IF_WANTED = 20, 4
_GONE_AFTER = timedelta(hours=1)
#: At the same time, so that one large tree does not keep all others waiting.
_AT_ONCE = 2
#: Seconds for finding out where a user's files lie.
_ACCOUNT_S = 60.0
_PAUSE_S = 1.0
_IDLE_S = 10.0

Key = tuple[Kind, str]


@dataclass(frozen=True)
class Running:
    """A container that runs: its id, whose it is, and Docker's inspection of it."""

    container_id: str
    user: str
    project: str
    inspected: Mapping[str, Any]


class Rounds:
    """Measures users and containers, who waits longest first.

    - Each is measured by itself: what cannot be read, or hangs, keeps no other waiting.
    - What was measured stands in the records; after a restart it goes on from there.

    Parameters
    ----------
    records
        Where it is kept.
    measure
        Measures places.
    docker_call
        The engine.
    places_of
        Gives the places of a user's files; nothing for somebody who has none. Blocks.
    users
        Gives the names of all who ever had a server.
    running
        Gives the containers that run.
    """

    def __init__(
        self,
        records: StorageRecords,
        measure: Callable[[Sequence[Place]], Awaitable[Measured]],
        docker_call: Docker,
        places_of: Callable[[str], tuple[Place, ...]],
        users: Callable[[], Collection[str]],
        running: Callable[[], Collection[Running]],
    ) -> None:
        self._records = records
        self._measure = measure
        self._docker = docker_call
        self._places_of = places_of
        self._users = users
        self._running = running
        self._under_way: set[Key] = set()
        # A directory of accounts that hangs holds up nothing else of the service.
        self._accounts = LoneThread("accounts")

    async def run(self) -> None:
        """Measure for ever."""
        await asyncio.gather(*(self._lane() for _ in range(_AT_ONCE)))

    async def _lane(self) -> None:
        while True:
            try:
                is_done = await self.one(utc_now())
            except Exception:  # noqa: BLE001
                # What is not measured keeps nobody from anything.
                _LOG.exception("A measurement failed")
                is_done = False
            await asyncio.sleep(_PAUSE_S if is_done else _IDLE_S)

    async def one(self, now: datetime) -> bool:
        """Measure what is due, if anything is; tell whether anything was."""
        running = {each.container_id: each for each in self._running()}
        known = self._records.all()
        self._records.forget(use for use in known if _is_gone(use, running, now))
        subjects = subjects_of(known, self._users(), running.values())
        owners = {each.user for each in running.values()}
        free = (use for use in subjects if (use.kind, use.name) not in self._under_way)
        use = next_due(free, owners, now)
        if use is None:
            return False
        key = use.kind, use.name
        self._under_way.add(key)
        try:
            await self._try(use, running.get(use.name), now)
        finally:
            self._under_way.discard(key)
        return True

    async def _try(self, use: Use, running: Running | None, now: datetime) -> None:
        use = replace(use, tried_at=now, is_wanted=False)
        self._records.keep(use)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            measured = await self._measured(use, running)
        except NotMeasured as error:
            _LOG.warning("The files of %s are not measured: %s", _name(use), error)
            use = replace(use, problem=f"Not measured: {error}.")
        else:
            problem = f"At least that: {measured.problem}." if measured.problem else ""
            use = replace(use, bytes=measured.bytes, at=now, problem=problem)
        took = timedelta(seconds=loop.time() - begun)
        self._records.note(replace(use, took=took))

    async def _measured(self, use: Use, running: Running | None) -> Measured:
        if use.kind is Kind.USER:
            try:
                asked = self._accounts.run(self._places_of, use.user)
                where = await asyncio.wait_for(asked, _ACCOUNT_S)
            except Exception as error:
                raise NotMeasured(f"the account gives no answer ({error!r})") from error
            return await self._measure(where)
        assert running is not None
        where, by_engine = places.of_container(running.inspected), 0
        if places.engine_counts(running.inspected):
            by_engine = await self._layer_bytes(use.name)
        measured = await self._measure(where) if where else Measured(0)
        return replace(measured, bytes=measured.bytes + by_engine)

    async def _layer_bytes(self, container_id: str) -> int:
        """Ask the engine, which then looks at each file without giving way to anybody."""
        with suppress(KeyError, IndexError, *UNREACHABLE):
            found = await self._docker("containers", size=True, filters={"id": container_id})
            return int(found[0]["SizeRw"])
        raise NotMeasured("the engine does not tell the size of the container")


def subjects_of(
    known: Iterable[Use], users: Iterable[str], running: Iterable[Running]
) -> list[Use]:
    """Return all that there is to measure, with what is known of it."""
    found = {(use.kind, use.name): use for use in known}
    running = list(running)
    new = [Use(Kind.USER, user, user) for user in (*users, *(each.user for each in running))]
    new += [Use(Kind.CONTAINER, e.container_id, e.user, e.project) for e in running]
    containers = {each.container_id for each in running}
    subjects = {(use.kind, use.name): use for use in new} | found
    return [u for u in subjects.values() if u.kind is Kind.USER or u.name in containers]


def next_due(uses: Iterable[Use], owners: Collection[str], now: datetime) -> Use | None:
    """Return what is to be measured next; None if nothing is due.

    What somebody waits for comes first, then what never was measured, then what was longest ago.

    Parameters
    ----------
    owners
        The users who have servers.
    """
    due = [use for use in uses if _due_at(use, owners) <= now]
    return min(due, key=lambda use: (not use.is_wanted, use.tried_at or _NEVER), default=None)


def _is_gone(use: Use, running: Collection[str], now: datetime) -> bool:
    # Not at once: after a start of the service, or of the Hub, it takes a while to find them.
    is_old = use.tried_at is None or now - use.tried_at > _GONE_AFTER
    return use.kind is Kind.CONTAINER and use.name not in running and is_old


_NEVER = datetime.min.replace(tzinfo=timezone.utc)


def _due_at(use: Use, owners: Collection[str]) -> datetime:
    if use.tried_at is None:
        return _NEVER
    if use.is_wanted:
        return use.tried_at + max(WANTED, _REST_IF_WANTED * use.took)
    often = use.kind is Kind.CONTAINER or use.user in owners
    return use.tried_at + max(RUNNING if often else OTHERS, _REST * use.took)


def _name(use: Use) -> str:
    return f"{use.user}/{use.project}" if use.project else use.user
