"""The service that follows all servers of a Hub, and stops those whose time is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from .. import engine
from ..engine import UNREACHABLE, Docker
from ..errors import Refused
from ..gpus.occupancy import Container
from ..gpus.snapshot import own_containers
from ..names import project_of
from ..policy import Lifecycle
from ..storage import words as storage_words
from ..storage.records import Uses
from ..storage.rounds import Running
from . import words
from .decide import NOTICE, Ask, Decision, Keep, Reason, Rules, Stop, Unknown, Warn
from .history import Idle, Kernels, Sample
from .hub import Hub, HubServer, HubSilent
from .keeping import file_touched, kept_until
from .life import Circumstances, Life
from .meters import Meters, Watched
from .records import NONE_FREE, Course, Event, LifeRecords
from .sweep import Sweep

_LOG = logging.getLogger(__name__)

#: Who does what the service does.
ACTOR = "ds01-culler"
#: A start that found no GPU says for so long that many want one.
_REFUSALS_COUNT = timedelta(minutes=10)
#: A server that does not tell of its kernels is reported after so long.
_SILENCE = timedelta(minutes=30)
#: Servers that are asked, or stopped, or containers that are inspected, at the same time.
_AT_ONCE = 20
_FORGET_EVERY = timedelta(hours=24)


@dataclass(frozen=True)
class Server:
    """A server that runs: the Hub's and Docker's view of it together.

    Attributes
    ----------
    address
        Where its notebook server answers, with a slash at the end; empty if that is not known.
    token
        Its own, which its owner has as well: what answers may be any program of theirs.
    gpu_weight
        What it holds, in GPU equivalents.
    protected
        Whether our label protects it.
    """

    hub: HubServer
    watched: Watched
    address: str
    token: str = field(default="", repr=False)
    gpu_weight: float = 0.0
    protected: bool = False

    @property
    def project(self) -> str:
        """The project that it works on."""
        return project_of(self.hub.name)


class Gpus(Protocol):
    """Asks the machine's GPUs."""

    async def percent(self) -> Mapping[str, float]:
        """Return what `meters.read_gpus` does; nothing if the driver does not answer in time."""

    async def weight(self) -> float:
        """Return how many GPU equivalents the machine has; 0 if that is not known."""


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
        cycle: timedelta,
        notice: timedelta = NOTICE,
        meters: Meters | None = None,
        uses: Callable[[datetime], Uses] = lambda _: Uses(),
    ) -> None:
        self._hub = hub
        self._docker = docker_call
        self._hub_id = hub_id
        self._gpus = gpus
        self._rules_of = rules_of
        self._ask = ask
        self._records = records
        self._sweep = sweep
        self._installed = installed
        self._cycle = cycle
        self._notice = notice
        self._meters = meters or Meters()
        self._uses = uses
        self._lives: dict[str, Life] = {}
        self._courses = {course.container_id: course for course in records.courses()}
        self._inspected: dict[str, dict[str, Any]] = {}
        self._found: dict[str, Server] = {}
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._silent_since: dict[str, datetime] = {}
        self._silence_told: set[str] = set()
        #: Users and containers that fill the disk, as far as that was told.
        self._filling: set[str] = set()
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._forgot = datetime.min.replace(tzinfo=timezone.utc)

    async def run(self) -> None:
        """Look at all servers for ever."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self.look(datetime.now(timezone.utc))
            except HubSilent as error:
                _LOG.warning("Nothing is stopped: %s", error)
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
        (servers, ids), gpu_percent = await asyncio.gather(self._servers(), self._gpus.percent())
        self._forget_others(ids)
        keeps, uses = self._records.keeps(now), self._uses(now)
        demand = await self._demand(servers, now)
        # All in one thread: one for each would take longer than to look.
        touches = await asyncio.to_thread(_touches, list(self._inspected.values()), now)

        async def one(server: Server) -> Course:
            key = server.watched.container_id
            return await self._one(
                server, gpu_percent, keeps.get(key), touches.get(key), demand, uses, now
            )

        found = await asyncio.gather(*map(one, servers), return_exceptions=True)
        for server, course in zip(servers, found, strict=True):
            if isinstance(course, Refused):
                _LOG.error("The server %s was left out: %s", _name(server), course)
            elif isinstance(course, BaseException):
                _LOG.error("The server %s was left out", _name(server), exc_info=course)
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
        self._inspected = {key: value for key, value in self._inspected.items() if key in ids}
        self._silent_since = {k: at for k, at in self._silent_since.items() if k in ids}
        self._silence_told &= ids
        self._meters.forget_others(ids)

    def running(self) -> list[Running]:
        """Return the servers that the latest look has found, as what writes to the disk."""
        return [
            Running(key, server.hub.user, server.project, self._inspected[key])
            for key, server in self._found.items()
            if key in self._inspected
        ]

    async def wait(self) -> None:
        """Wait until the stops that were begun are done."""
        await asyncio.gather(*self._stopping.values(), return_exceptions=True)

    # -- what there is -------------------------------------------------------------------------

    async def _servers(self) -> tuple[list[Server], frozenset[str]]:
        """Return the servers to look at, and the ids of all containers of this Hub."""
        known, own = await asyncio.gather(
            self._hub.servers(), own_containers(self._docker, self._hub_id)
        )
        await self._remove_leftovers(known, own)
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
        return servers, frozenset(container.container_id for container in own)

    def _server(self, hub: HubServer, inspected: Mapping[str, Any]) -> Server:
        before = self._found.get(inspected["Id"])
        return replace(before, hub=hub) if before else _server(hub, inspected)

    async def _remove_leftovers(
        self, known: Collection[HubServer], own: Collection[Container]
    ) -> None:
        names = [(server.user, server.name) for server in known]
        try:
            never_started = self._rules_of("", ()).never_started
            swept = await self._sweep.look(own, names, never_started, datetime.now(timezone.utc))
        except Exception:  # noqa: BLE001
            # Nobody's container keeps no server from being looked at.
            _LOG.exception("What no server owns was not removed")
            return
        for container in swept:
            labels = container.labels
            why = f"Its container ({container.state}) was left behind and belonged to no server."
            user, project = labels.get("ds01.user", ""), labels.get("ds01.project", "")
            self._records.tell(Event("swept", user, project, ACTOR, why))

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

    async def _demand(self, servers: list[Server], now: datetime) -> Callable[[Lifecycle], bool]:
        """Return whether more people want GPUs than there are, by the policy's own measure."""
        weight = await self._gpus.weight()
        used = sum(server.gpu_weight for server in servers)
        share = used / weight if weight else 0.0
        refused = self._records.has_happened(NONE_FREE, now - _REFUSALS_COUNT)
        return lambda lifecycle: refused or share >= lifecycle.high_demand_share

    # -- one server ----------------------------------------------------------------------------

    async def _one(
        self,
        server: Server,
        gpu_percent: Mapping[str, float],
        keep_until: datetime | None,
        touched: datetime | Exception | None,
        demand: Callable[[Lifecycle], bool],
        uses: Uses,
        now: datetime,
    ) -> Course:
        key = server.watched.container_id
        life = self._life(server, now)
        sample = self._meters.sample(server.watched, gpu_percent, now)
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
            protected=server.protected,
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
            self._stop(server, decision, circumstances.rules, numbers, now)
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
            self._tell(server, "silent", why, {})
            _LOG.warning("The server %s does not tell of its kernels", _name(server))

    def _note_filling(self, server: Server, uses: Uses, lifecycle: Lifecycle) -> None:
        """Keep, once, that a limit on the disk is almost reached."""
        key, user = server.watched.container_id, server.hub.user
        for of, why in (
            (key, storage_words.of_server(uses, key, lifecycle)),
            (user, storage_words.of_user(uses, user, lifecycle)),
        ):
            if why and of not in self._filling:
                self._tell(server, "disk", why, {})
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
        try:
            self._tell(server, "warned", words.warned(warning.why, warning.stop_at, now), numbers)
        except Exception:
            # Nobody was warned.
            life.forget_warning(warning)
            raise

    def _stop(
        self,
        server: Server,
        stop: Stop,
        rules: Rules,
        numbers: Mapping[str, Any],
        now: datetime,
    ) -> None:
        key = server.watched.container_id
        # The others are looked at again before it is their turn.
        if key in self._stopping or len(self._stopping) >= _AT_ONCE:
            return
        why = words.stopped(stop, rules, now)
        task = asyncio.ensure_future(self._stop_now(server, why, numbers))
        self._stopping[key] = task
        task.add_done_callback(lambda _: self._stopping.pop(key, None))

    async def _stop_now(self, server: Server, why: str, numbers: Mapping[str, Any]) -> None:
        key = server.watched.container_id
        is_stopped = False
        try:
            # The Hub knows a server by its name: it may have been started anew since the look.
            running = await engine.inspect(self._docker, key)
            if running is None or not running["State"]["Running"]:
                return
            why += words.lost(await self._installed(running))
            # Before the Hub is asked: its spawner reads it.
            self._records.note_stop(key, why)
            is_stopped = await self._hub.stop(server.hub)
            if is_stopped:
                _LOG.info("Stopped %s: %s", _name(server), why)
                self._tell(server, "stopped", f"Stopped {why}.", numbers)
        except (HubSilent, *UNREACHABLE) as error:
            _LOG.warning("%s is not stopped now: %s", _name(server), error)
        except Exception:  # noqa: BLE001
            _LOG.exception("The stop of %s failed", _name(server))
        finally:
            if not is_stopped:
                self._forget_stop(server)

    def _forget_stop(self, server: Server) -> None:
        try:
            self._records.forget_stop(server.watched.container_id)
        except SQLAlchemyError as error:
            # Only a stop by this service reads it, which writes another one before.
            _LOG.warning("Why %s was to be stopped is not forgotten: %s", _name(server), error)

    def _tell(self, server: Server, kind: str, why: str, numbers: Mapping[str, Any]) -> None:
        self._records.tell(Event(kind, server.hub.user, server.project, ACTOR, why, numbers))


def rules_from(lifecycle: Lifecycle, notice: timedelta = NOTICE) -> Rules:
    """Return what `decide` needs of a user's policy."""
    return Rules(
        idle_timeout=lifecycle.idle_timeout,
        max_runtime=lifecycle.max_runtime,
        idle=Idle(
            gpu_percent=lifecycle.gpu_idle_percent,
            cpu_percent=lifecycle.cpu_idle_percent,
            network_bytes=lifecycle.network_idle_bytes,
            stalled_network_bytes=lifecycle.stalled_network_bytes,
            checks=lifecycle.idle_checks,
        ),
        grace=lifecycle.grace,
        stalled_after=lifecycle.stalled_kernel,
        high_demand_factor=lifecycle.high_demand_factor,
        notice=notice,
        container_bytes=lifecycle.container_bytes,
        workspace_bytes=lifecycle.workspace_bytes,
    )


def _server(hub: HubServer, inspected: Mapping[str, Any]) -> Server:
    labels = inspected["Config"]["Labels"]
    networks = inspected["NetworkSettings"]["Networks"].values()
    ip = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")
    # What JupyterHub tells a server of where to listen.
    variables = dict(line.partition("=")[::2] for line in inspected["Config"]["Env"])
    told = urlsplit(variables.get("JUPYTERHUB_SERVICE_URL", ""))
    return Server(
        hub=hub,
        watched=Watched(
            container_id=inspected["Id"],
            pid=int(inspected["State"]["Pid"]),
            cpus=inspected["HostConfig"]["NanoCpus"] / 1e9 or 1.0,
            gpu_uuids=tuple(filter(None, labels.get("ds01.gpu.uuids", "").split(","))),
        ),
        address=f"http://{ip}:{told.port}{told.path}" if ip and told.port else "",
        token=variables.get("JUPYTERHUB_API_TOKEN", ""),
        gpu_weight=float(labels.get("ds01.gpu.allocated") or 0),
        protected=labels.get("ds01.protected") == "true",
    )


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


def _name(server: Server) -> str:
    return f"{server.hub.user}/{server.project}"
