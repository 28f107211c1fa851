"""What the Hub's own pages are told about servers, beyond what JupyterHub tells them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.user import User

from . import pretend
from .clock import utc_now
from .endings import Ending
from .errors import Refused
from .lifecycle.told import Told, told_to_owner
from .live import NeverRead
from .names import DEFAULT_PROJECT, project_of, server_of
from .policy import Lifecycle, format_bytes
from .storage import words as storage_words
from .storage.records import Uses

if TYPE_CHECKING:
    from .spawner import DS01Spawner

_LOG = logging.getLogger(__name__)

#: How long the home page waits for a disk, a network's for example, that does not answer.
_DISK_PATIENCE_S = 3

_STATES = {"spawn": "starting", "stop": "stopping"}


def template_path() -> str:
    """Return the directory of our templates, for ``JupyterHub.template_paths``."""
    return str(Path(__file__).parent / "templates")


@dataclass(frozen=True)
class Project:
    """One project on the home page.

    Attributes
    ----------
    name, server_name
        The project, and the Hub's name of its server (empty for the unnamed one).
    state
        ``running``, ``starting``, ``stopping`` or ``stopped``.
    profile
        Image and size as chosen last; empty if never started.
    last_activity
        When the server was last used, in UTC.
    ending
        How it ended the last time.
    memory_kills, memory
        How many processes of the running server were killed for memory, and the limit that they
        ran into.
    has_server
        Whether the Hub knows a server for it; otherwise it is only a folder with files.
    folder
        Name of its folder on the machine where that is another one; empty otherwise.
    notice
        That its server will be stopped soon, and why, or fills the disk; empty if neither is so.
    can_be_kept
        Whether "Keep it running" would put that off.
    keep_until
        Until when it is kept, in UTC; None if it is not.
    """

    name: str
    server_name: str
    state: str = "stopped"
    profile: str = ""
    last_activity: datetime | None = None
    ending: Ending | None = None
    memory_kills: int = 0
    memory: str = ""
    has_server: bool = False
    folder: str = ""
    notice: str = ""
    can_be_kept: bool = False
    keep_until: datetime | None = None

    @property
    def last_used(self) -> float:
        """When there was last something to see of it, in seconds since 1970; 0 for never."""
        at = self.last_activity or (self.ending.at if self.ending else None)
        return at.timestamp() if at else 0


@dataclass(frozen=True)
class _Records:
    """What is read from disks and the kernel for one home page, beside the Hub's loop."""

    endings: dict[str, Ending]
    folders: dict[str, str]
    memory_kills: dict[str, int]
    notices: dict[str, Told]


@dataclass(frozen=True)
class PageInfo:
    """Answers to templates, as the variable ``ds01``.

    Holds no settings: JupyterHub copies configuration values, and a user's spawner has them all.

    Attributes
    ----------
    viewer
        Who looks at the page; None before a login.
    """

    viewer: User | None = None

    def __call__(self, viewer: User | None) -> PageInfo:
        """Return the answers for a viewer; JupyterHub calls this for every page."""
        return PageInfo(viewer)

    @property
    def gpus_are_pretended(self) -> bool:
        """Whether the GPUs are only there for a demonstration."""
        return pretend.directory() is not None

    @property
    def policy_problems(self) -> tuple[str, ...]:
        """Why the policy's files are not in force as they are, a line each; for admins only."""
        if self.viewer is None or not self.viewer.admin:
            return ()
        policy = self.viewer.spawner.policy
        with suppress(NeverRead):
            policy.current()
            policy.folders()
        problems: tuple[str, ...] = policy.problems
        return problems

    def project(self, server_name: str) -> str:
        """Return the project that a server works on."""
        return project_of(server_name)

    def profile(self, spawner: Any) -> str:
        """Return image and size of a server, as chosen last."""
        return str(_stored(spawner).get("profile", ""))

    async def ending(self, user: User, server_name: str) -> Ending | None:
        """Return how a server ended the last time, in words for the viewer."""
        spawner = user.spawner
        found: Ending | None = await spawner.in_thread(
            spawner.store.last_ending, user.name, project_of(server_name)
        )
        return seen_by(self.viewer.name, found) if found and self.viewer else found

    async def files(self, user: User) -> str:
        """Return what a user should know of the room that their files take; empty if nothing."""
        spawner = user.spawner
        uses = await spawner.in_thread(_uses, spawner, user.name)
        return storage_words.of_user(uses, user.name, _lifecycle(spawner))

    async def projects(self, user: User) -> list[Project]:
        """Return a user's projects: what is active first, then what was used last.

        A project is whatever the Hub has a server for or the user has a folder of.
        """
        spawner = user.spawner
        running = [server for server in user.all_spawners() if server.ready]
        existing, records = await asyncio.gather(
            self._existing(spawner),
            spawner.in_thread(_read_records, spawner, user.name, running, _lifecycle(spawner)),
        )
        # Asked again: servers can come and go during the reading.
        # A server that somebody named "default" cannot be started; the unnamed one is that project.
        servers = (s for s in user.all_spawners() if s.name != DEFAULT_PROJECT)
        known = {server.name: server for server in servers}
        names = {server_of(project) for project in existing} | {server_of(DEFAULT_PROJECT), *known}
        projects = [self._project(name, known.get(name), records) for name in names]
        return sorted(projects, key=lambda p: (p.state == "stopped", -p.last_used, p.name))

    def _project(self, server_name: str, spawner: Any | None, records: _Records) -> Project:
        name = project_of(server_name)
        ending, folder = records.endings.get(name), records.folders.get(name, "")
        told = records.notices.get(name) if spawner and spawner.ready else None
        if spawner is None:
            return Project(name, server_name, ending=ending, folder=folder)
        return Project(
            name,
            server_name,
            state=_state(spawner),
            profile=self.profile(spawner),
            last_activity=_in_utc(spawner.last_activity),
            ending=ending,
            memory_kills=records.memory_kills.get(server_name, 0),
            memory=_memory(_stored(spawner)),
            has_server=True,
            folder=folder,
            notice=told.notice if told else "",
            can_be_kept=bool(told and told.can_be_kept),
            keep_until=told.keep_until if told else None,
        )

    async def _existing(self, spawner: DS01Spawner) -> list[str]:
        """Return the projects that have a folder; none if the disk does not say."""
        reading = spawner.in_thread(_existing_projects, spawner)
        try:
            existing: list[str] = await asyncio.wait_for(reading, _DISK_PATIENCE_S)
        except (OSError, asyncio.TimeoutError) as error:
            _LOG.warning("Cannot list the project folders of %s: %r", spawner.user.name, error)
            return []
        return existing


def seen_by(viewer: str, ending: Ending) -> Ending:
    """Return an ending in words for whoever looks; it is kept in words for its owner."""
    if viewer == ending.username:
        return ending
    message = ending.message.replace("Stopped by you.", "Stopped by the owner.")
    return replace(ending, message=message)


def _read_records(
    settings: DS01Spawner, username: str, running: list[DS01Spawner], lifecycle: Lifecycle
) -> _Records:
    store = settings.store
    of_disk = storage_words.of_servers(_uses(settings, username), lifecycle)
    return _Records(
        notices=told_to_owner(settings.life_records, username, of_disk),
        endings=store.last_endings(username),
        folders=store.project_folders(username),
        memory_kills={spawner.name: spawner.memory_kills() for spawner in running},
    )


def _uses(settings: DS01Spawner, username: str) -> Uses:
    """Return what a user takes on the disk; blocks."""
    return settings.storage_records.uses(utc_now(), username)


def _lifecycle(spawner: DS01Spawner) -> Lifecycle:
    """Return the policy for a user's files and servers; of the Hub's loop, whose rows it reads."""
    try:
        return spawner.share().resolved.limits.lifecycle
    except Refused:
        # Without a policy there is no limit to tell of.
        return Lifecycle()


def _state(spawner: Any) -> str:
    if spawner.pending in _STATES:
        return _STATES[spawner.pending]
    return "running" if spawner.active else "stopped"


def _existing_projects(spawner: DS01Spawner) -> list[str]:
    """List the project folders, and make none: a user who only looks needs no directories."""
    account = spawner.accounts.find(spawner.user.name)
    return spawner.workspaces(account).projects() if account else []


def _stored(spawner: Any) -> dict[str, Any]:
    """Return the options of the last start, from a server or from the Hub's row of one."""
    return getattr(spawner, "orm_spawner", spawner).user_options or {}


def _memory(options: dict[str, Any]) -> str:
    """Return the memory chosen last as text; stored options may be of an older version."""
    memory = options.get("memory")
    return format_bytes(memory) if isinstance(memory, int) else ""


def _in_utc(at: datetime | None) -> datetime | None:
    """Return one of the Hub's times, which are in UTC without saying so."""
    return at.replace(tzinfo=timezone.utc) if at else None
