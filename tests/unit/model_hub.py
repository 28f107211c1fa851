"""A modelled Hub: the real code for granting, starting and undoing, in a process that can die."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ds01_spawner import engine, start
from ds01_spawner.accounts import Account
from ds01_spawner.admission.grants import Grants
from ds01_spawner.admission.lock import GrantLock
from ds01_spawner.containers import Hardening, Image
from ds01_spawner.gpus.devices import Reading
from ds01_spawner.gpus.request import GpuRequest
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.names import container_name, server_of
from ds01_spawner.policy import GIB, Limits
from ds01_spawner.workspaces import Directory

from .model_engine import IMAGE, Client, Made, SteppedLoop

if TYPE_CHECKING:
    from .model_world import World

ACCOUNT = Account("user", 2000, 2000, (), Path("/homes/user"), Path("/workspaces/user"), False)
WORKSPACE = Directory(Path("/workspaces/user/project"), 0, 0)
#: As many servers as a test makes: what is counted here is GPUs.
_MOST = Limits(8, 8 * GIB, 8 * GIB, GIB, 100, servers=99)
LIMITS = {
    "ann": replace(_MOST, gpu_equivalents=1.0, gpus_per_server=2),
    "ben": replace(_MOST, gpu_equivalents=0.75, gpus_per_server=2),
    "cem": replace(_MOST, gpu_equivalents=None, full_gpu=False),
    "dia": replace(_MOST, gpu_equivalents=None, gpus_per_server=4),
}


class KillableLock(GrantLock):
    """The lock of a process that can die: then it is let go, and nothing else happens."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.holds = 0
        self._held: Any = None

    @property
    def is_held(self) -> bool:
        return self._held is not None

    @asynccontextmanager
    async def hold(self):
        async with super().hold() as held:
            self.holds += 1
            self._held = held
            try:
                yield held
            finally:
                self._held = None

    def die(self) -> None:
        if self._held is not None:
            fcntl.flock(self._held._file, fcntl.LOCK_UN)
            self._held = None


class Remembered:
    """A store that forgets."""

    def __init__(self) -> None:
        self.endings: list[Any] = []

    def add_ending(self, ending: Any) -> None:
        self.endings.append(ending)

    def gpu_uses(self, _sizes: Any) -> list[Any]:
        return []


class Unread:
    """Records that nobody reads: what is counted here are grants."""

    def note_use(self, image_id: str) -> None:
        pass


class Server:
    """As much of a spawner as a start needs."""

    start_timeout, port, network_name, ca_bundle_path, container_log_bytes = 100, 8888, "n", None, 1
    portal_url = ""
    log = logging.getLogger("model")

    def __init__(self, hub: Hub, user: str, project: str, request: GpuRequest | None) -> None:
        self.hub, self.project, self.name = hub, project, server_of(project)
        self.grants, self.docker, self.store = hub.grants, hub.client, hub.store
        self.image_records, self.handler = Unread(), None
        self.user = SimpleNamespace(name=user)
        self.options = SimpleNamespace(
            gpus=request, cpus=1.0, memory=GIB, image="python", safe_start=False, profile=str
        )
        self.object_name, self.object_id = container_name(user, project), ""
        self._log_name = f"{user}:{project}"

    def tell(self, event: Any) -> None:
        """Forget what happens: what is counted here are grants."""

    def limits(self) -> Limits:
        return LIMITS[self.user.name]

    async def slices(self) -> None:
        return None

    async def leave_slice(self) -> None:
        return None

    def hardening(self) -> Hardening:
        return Hardening()

    def get_env(self) -> dict[str, str]:
        return {}

    def ownership_labels(self) -> dict[str, str]:
        return {
            "ds01.hub": self.hub.hub_id,
            "ds01.user": self.user.name,
            "ds01.project": self.project,
            "ds01.server": self.name,
        }

    def is_mine(self, inspected: dict[str, Any]) -> bool:
        labels = inspected["Config"]["Labels"]
        return all(labels.get(key) == value for key, value in self.ownership_labels().items())

    async def in_thread(self, call: Any, *args: Any) -> Any:
        return call(*args)


class ShortStart(start.Start):
    """A start with those of its steps that have to do with containers."""

    _spawner: Any

    async def _steps(self) -> tuple[str, int]:
        await self._remove_leftover()
        image = Image(IMAGE, {}, {})
        self._creating = asyncio.ensure_future(self._create(image, ACCOUNT, WORKSPACE))
        self._spawner.object_id = await asyncio.shield(self._creating)
        await self._docker("start", self._spawner.object_id)
        return "", 0


class Attempt:
    """Somebody's server: its start, and what came of it."""

    def __init__(self, hub: Hub, user: str, project: str, request: GpuRequest | None) -> None:
        self.hub, self.request = hub, request
        self.server = Server(hub, user, project, request)
        self.start = ShortStart(self.server)
        self.task = hub.loop.create_task(self.start.run())
        self.seen = self.stopping = False

    def stop(self) -> None:
        """Stop what is up, until it is gone."""
        self.stopping = True

        async def stop() -> None:
            while True:
                try:
                    await engine.remove(self.hub.client, self.server.object_id)
                    break
                except Exception:  # noqa: BLE001
                    await asyncio.sleep(10)
            del self.hub.attempts[self.key]

        self.hub.loop.create_task(stop())

    @property
    def key(self) -> tuple[str, str]:
        return self.server.user.name, self.server.project

    @property
    def is_up(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def is_over(self) -> bool:
        """Whether it neither is up nor will be, and has undone everything."""
        undone = self.start.undone
        return self.task.done() and not self.is_up and (undone is None or undone.done())


class Hub:
    """One process: its loop, its grants, and its servers."""

    def __init__(self, world: World, hub_id: str) -> None:
        self.world, self.hub_id = world, hub_id
        self.loop = SteppedLoop(world.clock)
        self.loop.set_exception_handler(lambda *_: None)
        self.client = Client(world.engine, hub_id)
        self.client.mark = lambda: self.lock.holds if self.lock.is_held else None
        self.lock = KillableLock(world.lock_file)
        self.store = Remembered()
        #: What it was told last: of NVML, of own containers, of others'.
        self.reading = Reading(world.machine.inventory())
        self.listed_at = 0
        self.listed: list[Made] = []
        #: Whether one of those could not be asked what it has.
        self.in_the_dark = False
        self.attempts: dict[tuple[str, str], Attempt] = {}
        snapshots = Snapshots(self.client, self._read, self.client.in_thread, hub_id)
        self.grants = Grants(self.client, snapshots, self.lock, self.store)
        self.recovery = self.loop.create_task(self.grants.recover())

    def _read(self) -> Reading:
        self.reading = self.world.machine.read()
        return self.reading

    def begin(self, user: str, project: str, request: GpuRequest | None) -> None:
        former = self.attempts.get((user, project))
        if self.recovery.done() and (former is None or former.is_over):
            self.attempts[user, project] = Attempt(self, user, project, request)

    def shut_down(self) -> None:
        """Cancel everything, as a Hub does that was told to end."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_idle()
