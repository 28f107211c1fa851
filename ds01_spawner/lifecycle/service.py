"""The service that follows all servers of a Hub, and stops those whose time is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from ..clock import utc_now
from ..engine import UNREACHABLE, Docker
from ..errors import Refused
from ..gpus.occupancy import Container
from ..messages.message import Message
from ..policy import Lifecycle
from ..settings import CULLER
from ..storage import words as storage_words
from ..storage.records import Uses
from ..storage.rounds import Running
from . import events, words
from .decide import NOTICE, Ask, Decision, Keep, Reason, Stop, Unknown, Warn
from .events import Event
from .history import Kernels, Sample
from .hub import Hub, HubServer, HubSilent
from .keeping import file_touched, kept_until
from .life import Circumstances, Life
from .meters import GpuLoad, Meters
from .records import PROTECTED, Course, LifeRecords
from .roster import Roster
from .rules import rules_from
from .server import Server
from .stops import Messages, Stops
from .sweep import Sweep

_LOG = logging.getLogger(__name__)

#: A start that found no GPU says for so long that many want one.
_REFUSALS_COUNT = timedelta(minutes=10)
#: A server that does not tell of its kernels is reported after so long.
_SILENCE = timedelta(minutes=30)
#: Servers that are asked at the same time.
_AT_ONCE = 20
_FORGET_EVERY = timedelta(hours=24)


class Gpus(Protocol):
    """Asks the machine's GPUs."""

    async def load(self) -> GpuLoad:
        """Return what they do; nothing is known of a driver that does not answer in time."""


class Service:
    """Looks at all servers once in each cycle.

    - A Hub that does not answer, or an engine that does not, ends the cycle: nothing is stopped.
    - A server that fails alone is left out of one cycle; what is known of it is kept.
    - All are measured before one has answered: who takes long to answer makes no other look idle.

    Parameters
    ----------
    hub
        Lists and stops servers.
    docker_call
        The engine.
    hub_id
        Which containers are this Hub's.
    gpus
        Asks the GPUs.
    rules_of
        Gives a user's rules, by name and groups. Raises `Refused` without a policy.
    ask
        Asks a server for its kernels, by its address.
    records
        Keeps what is known and done.
    sweep
        Removes what no server owns.
    installed
        Names the packages that were installed in a container, by its inspection.
    messages
        Takes what owners are told of warnings and stops.
    cycle
        Time between two looks.
    notice
        See `decide.Rules`.
    meters
        Read what servers do; None reads this machine's kernel.
    uses
        Gives what users and containers take on the disk, as far as it is known.
    """

    def __init__(
        self,
        hub: Hub,
        docker_call: Docker,
        hub_id: str,
        gpus: Gpus,
        rules_of: Callable[[str, Iterable[str]], Lifecycle],
        ask: Callable[[Server], Awaitable[Kernels | None]],
        records: LifeRecords,
        sweep: Sweep,
        installed: Callable[[Mapping[str, Any]], Awaitable[Sequence[str]]],
        messages: Messages,
        cycle: timedelta,
        notice: timedelta = NOTICE,
        meters: Meters | None = None,
        uses: Callable[[datetime], Uses] = lambda _: Uses(),
    ) -> None:
        self._gpus = gpus
        self._rules_of = rules_of
        self._ask = ask
        self._records = records
        self._sweep = sweep
        self._messages = messages
        self._cycle = cycle
        self._notice = notice
        self._meters = meters or Meters()
        self._roster = Roster(hub, docker_call, hub_id, self._meters)
        self._stops = Stops(hub, docker_call, records, installed, messages)
        self._uses = uses
        self._lives: dict[str, Life] = {}
        self._courses = {course.container_id: course for course in records.courses()}
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._silent_since: dict[str, datetime] = {}
        self._silence_told: set[str] = set()
        self._oom_kills: dict[str, int] = {}
        #: Users and containers that fill the disk, as far as that was told.
        self._filling: set[str] = set()
        self._forgot = datetime.min.replace(tzinfo=timezone.utc)

    async def run(self) -> None:
        """Look at all servers for ever."""
        loop = asyncio.get_running_loop()
        # The Hub and its service are started together.
        silence = logging.INFO
        while True:
            begun = loop.time()
            try:
                await self.look(utc_now())
                silence = logging.WARNING
            except HubSilent as error:
                _LOG.log(silence, "Nothing is stopped: %s", error)
            except UNREACHABLE as error:
                _LOG.warning("Nothing is stopped, as the engine does not answer: %s", error)
            except Exception:  # noqa: BLE001
                # The next cycle may do better, and one that is left out stops nobody.
                _LOG.exception("A look at the servers failed")
            await asyncio.sleep(max(0.0, begun + self._cycle.total_seconds() - loop.time()))

    async def look(self, now: datetime) -> None:
        """Look at all servers once.

        Raises
        ------
        HubSilent
            If the Hub does not say which servers it has.
        Exception
            Whatever the engine raises when it gives no answer.
        """
        (known, own), gpus = await asyncio.gather(self._roster.listed(), self._gpus.load())
        await self._remove_leftovers(known, own)
        servers = await self._roster.servers(known, own)
        self._forget_others(frozenset(container.container_id for container in own))
        keeps, protected = self._records.keeps(now), self._records.keeps(now, PROTECTED)
        uses = self._uses(now)
        demand = self._demand(servers, gpus.weight, now)
        # All in one thread: one for each would take longer than to look.
        touches = await asyncio.to_thread(_touches, self._roster.inspected(), now)

        async def one(server: Server) -> Course:
            key = server.watched.container_id
            keep_until, is_protected = keeps.get(key), key in protected
            return await self._one(
                *(server, gpus.percent, keep_until, touches.get(key), is_protected),
                *(demand, uses, now),
            )

        found = await asyncio.gather(*map(one, servers), return_exceptions=True)
        for server, course in zip(servers, found, strict=True):
            if isinstance(course, Refused):
                _LOG.error("The server %s was left out: %s", server.label, course)
            elif isinstance(course, BaseException):
                _LOG.error("The server %s was left out", server.label, exc_info=course)
            else:
                self._courses[course.container_id] = course
        self._records.keep_courses(self._courses.values())
        if now - self._forgot > _FORGET_EVERY:
            self._forgot = now
            self._records.forget_old(now)

    def _forget_others(self, ids: frozenset[str]) -> None:
        """Forget containers that do not run any more.

        One that runs and was not looked at, as while its Hub starts, is remembered: a gap that is
        too long counts as time of which nothing is known.
        """
        self._lives = {key: life for key, life in self._lives.items() if key in ids}
        self._courses = {key: course for key, course in self._courses.items() if key in ids}
        self._silent_since = {k: at for k, at in self._silent_since.items() if k in ids}
        self._silence_told &= ids
        self._filling &= ids | {course.user for course in self._courses.values()}
        self._oom_kills = {key: kills for key, kills in self._oom_kills.items() if key in ids}
        self._roster.forget_others(ids)
        self._meters.forget_others(ids)

    def running(self) -> list[Running]:
        """Return the servers that the latest look has found, as what writes to the disk."""
        return self._roster.running()

    async def wait(self) -> None:
        """Wait until the stops that were begun are done."""
        await self._stops.wait()

    # -- beside the servers --------------------------------------------------------------------

    async def _remove_leftovers(
        self, known: Collection[HubServer], own: Collection[Container]
    ) -> None:
        names = [(server.user, server.name) for server in known]
        try:
            never_started = self._rules_of("", ()).never_started
            swept = await self._sweep.look(own, names, never_started, utc_now())
        except Exception:  # noqa: BLE001
            # Nobody's container keeps no server from being looked at.
            _LOG.exception("What no server owns was not removed")
            return
        for container in swept:
            labels = container.labels
            why = f"Its container ({container.state}) was left behind and belonged to no server."
            user, project = labels.get("ds01.user", ""), labels.get("ds01.project", "")
            self._records.tell(Event(events.SWEPT, user, project, CULLER, why))

    def _demand(
        self, servers: list[Server], weight: float, now: datetime
    ) -> Callable[[Lifecycle], bool]:
        """Return whether more people want GPUs than there are, by the policy's own measure."""
        used = sum(server.gpu_weight for server in servers)
        share = used / weight if weight else 0.0
        refused = self._records.has_happened(events.NONE_FREE, now - _REFUSALS_COUNT)
        return lambda lifecycle: refused or share >= lifecycle.high_demand_share

    # -- one server ----------------------------------------------------------------------------

    async def _one(
        self,
        server: Server,
        gpu_percent: Mapping[str, float],
        keep_until: datetime | None,
        touched: datetime | Exception | None,
        is_protected: bool,
        demand: Callable[[Lifecycle], bool],
        uses: Uses,
        now: datetime,
    ) -> Course:
        key = server.watched.container_id
        life = self._life(server, now)
        sample = self._meters.sample(server.watched, gpu_percent, now)
        self._note_memory(server)
        lifecycle = self._rules_of(server.hub.user, server.hub.groups)
        if sample is None:
            return self._course(server, life, self._courses.get(key), keep_until)
        if isinstance(touched, Exception):
            raise touched
        keep_until = kept_until(keep_until, touched, life.busy_until, lifecycle)
        circumstances = Circumstances(
            rules=rules_from(lifecycle, self._notice),
            has_gpu=bool(server.watched.gpu_uuids),
            high_demand=demand(lifecycle),
            protected=is_protected,
            keep_until=keep_until,
            container_bytes=uses.of_container(key),
            workspace_bytes=uses.of_user(server.hub.user),
        )
        self._note_filling(server, uses, lifecycle)
        decision = life.look(sample, circumstances)
        if isinstance(decision, Ask):
            async with self._limit:
                kernels = await self._ask(server)
            self._note_silence(server, kernels is None, now)
            decision = life.answered(kernels)
        if isinstance(decision, Warn):
            numbers = _numbers(sample, life, circumstances)
            self._warn(server, life, decision, numbers, now)
        elif isinstance(decision, Stop):
            numbers = _numbers(sample, life, circumstances)
            why = words.stopped(decision, circumstances.rules, now)
            self._stops.begin(server, why, numbers)
        course = self._course(server, life, self._courses.get(key), keep_until, decision)
        return replace(course, cpu_percent=sample.cpu_percent, gpu_percent=sample.gpu_percent)

    def _life(self, server: Server, now: datetime) -> Life:
        key = server.watched.container_id
        if key not in self._lives:
            before = self._courses.get(key)
            memory = before.memory if before else None
            self._lives[key] = Life(server.hub.started, now, self._cycle, memory)
        return self._lives[key]

    def _course(
        self,
        server: Server,
        life: Life,
        before: Course | None,
        keep_until: datetime | None,
        decision: Decision | None = None,
    ) -> Course:
        stop_at = before.stop_at if before else None
        why = before.why if before else ""
        if isinstance(decision, Keep):
            stop_at, why = decision.stop_at, decision.why.value if decision.why else ""
        elif isinstance(decision, Warn):
            stop_at, why = decision.stop_at, decision.why.value
        elif isinstance(decision, Unknown):
            stop_at, why = None, ""
        memory = life.memory
        return Course(
            container_id=server.watched.container_id,
            user=server.hub.user,
            project=server.project,
            memory=memory,
            stop_at=stop_at,
            why=why,
            is_warned=bool(why and memory.warned_of(Reason(why))),
            keep_until=keep_until,
        )

    def _note_memory(self, server: Server) -> None:
        """Tell that memory ran out since the last look; usually the server runs on."""
        key = server.watched.container_id
        kills = self._meters.oom_kills.get(key)
        if kills is None:
            return
        before, self._oom_kills[key] = self._oom_kills.get(key, kills), kills
        if kills > before:
            why = "Memory ran out, and the system ended what runs in it, or a part of that."
            self._tell(server, events.OUT_OF_MEMORY, why, {"kills": kills - before})

    def _note_silence(self, server: Server, is_silent: bool, now: datetime) -> None:
        key = server.watched.container_id
        if not is_silent:
            self._silent_since.pop(key, None)
            self._silence_told.discard(key)
            return
        since = self._silent_since.setdefault(key, now)
        if now - since >= _SILENCE and key not in self._silence_told:
            self._silence_told.add(key)
            why = "It does not tell what runs in it, and is kept for that reason."
            self._tell(server, events.SILENT, why, {})
            _LOG.warning("The server %s does not tell of its kernels", server.label)

    def _note_filling(self, server: Server, uses: Uses, lifecycle: Lifecycle) -> None:
        """Keep, once, that a limit on the disk is almost reached."""
        key, user = server.watched.container_id, server.hub.user
        for of, why in (
            (key, storage_words.of_server(uses, key, lifecycle)),
            (user, storage_words.of_user(uses, user, lifecycle)),
        ):
            if why and of not in self._filling:
                self._tell(server, events.DISK, why, {})
            (self._filling.add if why else self._filling.discard)(of)

    # -- what is done --------------------------------------------------------------------------

    def _warn(
        self,
        server: Server,
        life: Life,
        warning: Warn,
        numbers: Mapping[str, Any],
        now: datetime,
    ) -> None:
        why = words.warned(warning.why, warning.stop_at, now)
        try:
            self._tell(server, events.WARNED, why, numbers)
        except Exception:
            # Nobody was warned.
            life.forget_warning(warning)
            raise
        # The same after a restart, as long as the server was not busy or kept meanwhile.
        begun = (life.busy_until, life.kept_until)
        key = f"{server.watched.container_id} {warning.why.value} {warning.stage} {begun}"
        self._messages.put(
            Message(
                *(key, "warned", server.hub.user, server.project, why, now),
                reason=warning.why.value,
                stop_at=warning.stop_at,
            )
        )

    def _tell(self, server: Server, kind: str, why: str, numbers: Mapping[str, Any]) -> None:
        self._records.tell(Event(kind, server.hub.user, server.project, CULLER, why, numbers))


def _touches(
    inspected: Iterable[Mapping[str, Any]], now: datetime
) -> dict[str, datetime | Exception | None]:
    """Return what `file_touched` gives or raises for each container, by its id; blocks."""
    found: dict[str, datetime | Exception | None] = {}
    for each in inspected:
        try:
            found[each["Id"]] = file_touched(each, now)
        except Exception as error:  # noqa: BLE001
            # It leaves out this server alone.
            found[each["Id"]] = error
    return found


def _numbers(sample: Sample, life: Life, given: Circumstances) -> dict[str, Any]:
    """Return what a decision rests on, for who asks later."""
    return {
        "cpu_percent": sample.cpu_percent,
        "gpu_percent": sample.gpu_percent,
        "network_bytes": sample.network_bytes,
        "busy_until": life.busy_until.isoformat(timespec="seconds"),
        "high_demand": given.high_demand,
        "container_bytes": given.container_bytes,
        "workspace_bytes": given.workspace_bytes,
    }
