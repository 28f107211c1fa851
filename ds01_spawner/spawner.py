"""DS01Spawner: the life cycle of one server, as the Hub drives it.

Decisions are made elsewhere (`options`, `policy`, `containers`, `endings`), and the steps of a
start and a stop stand in `start` and `stop`; here is what the Hub may ask of a server at any time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

from dockerspawner import DockerSpawner
from jupyterhub import orm
from jupyterhub.utils import url_path_join
from sqlalchemy.orm import Session
from traitlets import Bunch, default, validate

from . import endings, engine, hub_rows, shared_folders
from .accounts import Account
from .admission import forecast
from .admission.grants import Grants
from .admission.leftovers import Servers
from .cgroups.limits import SliceError, SliceLimits
from .cgroups.memory import oom_kills
from .cgroups.slices import choose_slices
from .cgroups.user_slices import UserSlices
from .choices import gpu_choices, image_choices, standing
from .errors import Refused
from .form import GpuChoices, render_form
from .gpus.devices import Device
from .images import shelf
from .images.shelf import Shelf, UserImage
from .lifecycle import diary
from .lifecycle.events import START_FAILED, Event
from .names import DEFAULT_PROJECT, container_name, project_of
from .options import Choices, SpawnOptions, parse_options, read_form
from .policy import Folder, Limits, Share, this_machine
from .pulls import Pulls
from .readiness import LaunchSlots
from .settings import DS01Settings
from .start import Start
from .stop import Stop
from .storage.check import no_gpu
from .who import Requester, requester_of
from .workspaces import Workspaces

#: The server whose form was just submitted, with its fields: JupyterHub shows a refused form again
#: through the user's unnamed server, whichever it was for.
_submitted: ContextVar[tuple[DS01Spawner, dict[str, Any]] | None] = ContextVar(
    "submitted", default=None
)

_MAKING_CLIENT = threading.Lock()

# Here and not in a configuration: it must hold for every Hub that has this spawner.
hub_rows.guard()


class DS01Spawner(DS01Settings, DockerSpawner):
    """Starts each server in a container of its own that cannot take more than its share.

    A container with our labels is the only record of a server. It is removed when the server
    ends; what lasts lies in the mounted workspace and home.
    """

    #: A server is never resumed: its token dies with it.
    will_resume = False

    options: SpawnOptions
    api_token: str
    _launch_slots: LaunchSlots | None = None
    _pulls: Pulls | None = None
    _grants: Grants | None = None
    _slices: UserSlices | None = None
    _start: Start | None = None
    _pid = 0

    # -- names, places, what is allowed --------------------------------------------------------

    @property
    def project(self) -> str:
        """The project that this server works on."""
        return project_of(self.name)

    @property
    def client(self) -> Any:
        """The engine's low-level client, one for all users."""
        # Threads that ask for the first time at once would each make one and replace another's
        # while it is in use, and Python 3.11 crashed over that.
        with _MAKING_CLIENT:
            return super().client

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads for short calls to the engine, of all users: a pull has its own, a stop none."""
        cls = DS01Spawner
        if cls._executor is None:
            # The first call in this process: the place to say something once.
            self.warn_without_effect()
            cls._executor = ThreadPoolExecutor(self.engine_threads, thread_name_prefix="engine")
        return cls._executor

    @property
    def pulls(self) -> Pulls:
        """The images being fetched, for all users together."""
        cls = DS01Spawner
        if cls._pulls is None:
            cls._pulls = Pulls()
        return cls._pulls

    @property
    def grants(self) -> Grants:
        """Where GPUs are granted, to all users together."""
        cls = DS01Spawner
        if cls._grants is None:
            docker_call = engine.Caller(self.client, self.executor)
            cls._grants = self.make_grants(docker_call, partial(_servers, self.user.db))
        return cls._grants

    async def slices(self) -> UserSlices | None:
        """Return what holds the sum of each user's servers; None where that is counted instead.

        Raises
        ------
        SliceError
            If this engine's containers cannot be put under slices of ours.
        """
        cls = DS01Spawner
        if cls._slices is None and self.aggregate_limits == "slices":
            cls._slices = UserSlices(choose_slices(await self.docker("info")))
        return cls._slices

    @property
    def launch_slots(self) -> LaunchSlots:
        """Room for a few servers to come up at once, shared by all users."""
        cls = DS01Spawner
        if cls._launch_slots is None:
            cls._launch_slots = LaunchSlots(self.concurrent_starts)
        return cls._launch_slots

    async def in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking call beside the Hub's loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, call, *args)

    # The parent calls its method of this name whenever `image` changes.
    @default("object_name")
    def _object_name_default(self) -> str:
        return container_name(self.user.name, self.project)

    def account(self) -> Account:
        """Return the user's account; blocks, and makes its directories at the first call."""
        return self.accounts.get(self.user.name)

    def workspaces(self, account: Account) -> Workspaces:
        """Return the user's projects and home."""
        return Workspaces(self.user.name, account, self.store)

    def share(self) -> Share:
        """Return what the policy gives this user now."""
        return self.share_of(self.user.name, {group.name for group in self.user.orm_user.groups})

    def limits(self) -> Limits:
        """Return what this user may have now, cut to what the machine can give a server."""
        return self.share().resolved.limits.within(this_machine())

    def slice_limits(self) -> SliceLimits:
        """Return what all of this user's servers together may use."""
        return SliceLimits(**vars(self.limits().aggregate))

    def folders(self) -> tuple[Folder, ...]:
        """Return the shared folders that this start was asked for: by default all of the user's."""
        chosen = self.options.folders
        return tuple(f for f in self.share().folders if chosen is None or f.name in chosen)

    def choices(self, images: Sequence[UserImage] = ()) -> Choices:
        """Return what this user can choose from; of users' images, those that were looked up."""
        return Choices(self.catalogue, self.limits(), self.share().folders, tuple(images))

    async def user_images(self) -> list[UserImage]:
        """Return the users' images that this user may use, newest first.

        Raises
        ------
        Refused
            503 if the engine gives no answer: what cannot be looked up is not allowed.
        """
        groups = {group.name for group in self.user.orm_user.groups}
        groups.update(self.share().resolved.groups)
        try:
            images = await Shelf(self.docker, self.hub_id).all()
        except engine.UNREACHABLE as error:
            raise Refused(
                "The container engine does not answer. Try again in a minute; if it stays so, "
                "tell an admin.",
                reason="engine",
                status_code=503,
            ) from error
        shares = await self.in_thread(self.image_records.shares)
        return shelf.usable(images, shares, self.user.name, groups)

    def ownership_labels(self) -> dict[str, str]:
        """Return the labels by which this server's container is known."""
        return {
            "ds01.hub": self.hub_id,
            "ds01.user": self.user.name,
            "ds01.project": self.project,
            "ds01.server": self.name,
        }

    # -- what is asked for ---------------------------------------------------------------------

    @default("options_form")
    def _default_options_form(self) -> Callable[[DS01Spawner], Awaitable[str]]:
        return DS01Spawner.render_options_form

    @default("options_from_form")
    def _default_options_from_form(self) -> Callable[..., dict[str, Any]]:
        return self._read_submitted_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Callable[..., Awaitable[None]]:
        return DS01Spawner.apply_options

    async def render_options_form(self) -> str:
        """Return the start form, with what was chosen the last time or refused just now."""
        viewer = self.handler.current_user.name if self.handler else None
        submitted = _submitted.get()
        if submitted is None:
            spawner, previous = self, self.orm_spawner.user_options or {}
            ending = await self.in_thread(self.store.last_ending, self.user.name, self.project)
        else:
            (spawner, previous), ending = submitted, None
        own, problem = await _looked_up(spawner)
        choices, name = spawner.choices(own), spawner.user.name
        # Without a look at the images it is not known which are missing.
        builds = [] if problem else await self.in_thread(self.image_records.latest, name)
        images, gpus, (left, refusal), folders = await asyncio.gather(
            image_choices(self.docker, self.catalogue, own, name, builds),
            _gpu_choices(spawner, choices.limits),
            standing(spawner.grants, name, spawner.name, choices.limits),
            shared_folders.look(choices.folders),
        )
        return render_form(
            images,
            replace(choices, limits=left),
            previous,
            project=spawner.project,
            gpus=gpus,
            # Why it was refused just now stands above the form already.
            refusal="" if submitted else refusal or problem,
            missing_folders=folders.missing,
            ending=ending,
            viewer=viewer,
            images_url=self.images_url,
        )

    def _read_submitted_form(self, form: dict[str, list[str]]) -> dict[str, Any]:
        _submitted.set((self, {key: values[0] for key, values in form.items() if values}))
        return read_form(form)

    def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, Any]:
        """Show what a link has chosen, and start nothing: the link may be anybody's.

        Raises
        ------
        Refused
            Always; the Hub then shows the form, with the link's choices.
        """
        self._read_submitted_form(query_data)
        raise Refused("Check the choices and press Start.", reason="link")

    async def apply_options(self, raw: dict[str, Any]) -> None:
        """Check what was asked for, whoever asked and by which way: the one gate.

        Stored options come through here too, so that every start checks them again.

        Raises
        ------
        Refused
            With what to choose instead.
        """
        try:
            _refuse_default(self.name)
            named = shelf.looks_like_users(str(raw.get("image", "")))
            # Who starts from the catalogue is not kept from it by an engine that is slow.
            images = await self.user_images() if named else ()
            self.options = parse_options(raw, self.choices(images))
        except Refused as refused:
            self.user_options = hub_rows.kept(raw)
            by, why = requester_of(self.handler, self.user.name).name, refused.record
            self.tell(Event(START_FAILED, self.user.name, self.project, by, why))
            raise
        self.keep_options()

    def keep_options(self, granted: Sequence[Device] = ()) -> None:
        """Keep what was asked for, for the next start, and what was granted, for those who look."""
        stored = self.options.stored(granted)
        self.user_options = self.orm_spawner.user_options = stored
        # The Hub rolls back what is not committed when it answers any other request.
        self.user.db.commit()

    @validate("user_options")
    def _reduce_unless_starting(self, proposal: Bunch) -> dict[str, Any]:
        """Reduce what others write and the Hub's API shows; a start's options pass the gate."""
        asked: dict[str, Any] = proposal["value"]
        return asked if self._spawn_pending else hub_rows.kept(asked)

    # -- start ---------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Start the server and return its address and port once it answers; see `Start.run`."""
        self._start = Start(self)
        return await self._start.run()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what has happened in this start so far, then what happens next."""
        # The page can be quicker than the start that it shows.
        while self._spawn_pending and self._start is None:
            await asyncio.sleep(0.05)
        if self._start is not None:
            async for event in self._start.log.watch():
                yield event

    # -- look ----------------------------------------------------------------------------------

    def is_mine(self, inspected: dict[str, Any]) -> bool:
        """Tell whether a container is this server's: made by this Hub for this user and project."""
        labels = inspected["Config"]["Labels"] or {}
        return all(labels.get(key) == value for key, value in self.ownership_labels().items())

    async def inspect_own(self) -> dict[str, Any] | None:
        """Return the inspection of this server's container, None if there is none."""
        found = await engine.inspect(self.docker, self.object_id or self.object_name)
        if found is None:
            return None
        # Known by its id it stays ours, also when an admin has given its owner another name.
        if found["Id"] != self.object_id and not self.is_mine(found):
            return None
        self._pid = int(found["State"]["Pid"])
        return found

    def address_of(self, inspected: dict[str, Any]) -> str:
        """Return a container's address on the servers' network."""
        return str(inspected["NetworkSettings"]["Networks"][self.network_name]["IPAddress"])

    async def poll(self) -> int | None:
        """Tell whether the server runs: None if it does, its exit code if not.

        An engine that does not answer leaves the question open, and an open question counts as
        running: a server is given up only when the engine says that it ended.
        """
        await self._finish_undoing()
        if self._start is not None:
            if not self._start.over:
                return None
            if self._start.made_nothing:
                return 0
        try:
            found = await self.inspect_own()
        except Exception as error:
            if not engine.is_silent(error):
                raise
            self.log.warning("Cannot look at %s: %s", self._log_name, error)
            return None
        if found is None:
            await self._note_gone()
            return 0
        self.object_id = found["Id"]
        if found["State"]["Running"]:
            await self._follow_policy()
            return None
        await self.bury(found, stopped_by=None)
        return int(found["State"]["ExitCode"])

    async def _follow_policy(self) -> None:
        """Give the user's slice the limits of now, while their servers run."""
        try:
            if slices := await self.slices():
                await slices.follow(self.user.name, self.slice_limits())
        except (SliceError, Refused, *engine.UNREACHABLE) as error:
            self.log.warning("The slice of %s keeps its limits: %s", self.user.name, error)

    async def leave_slice(self) -> None:
        """Remove the user's slice unless another server is under it."""
        try:
            if slices := await self.slices():
                await slices.leave(self.user.name)
        except (SliceError, *engine.UNREACHABLE) as error:
            self.log.warning("The slice of %s stays: %s", self.user.name, error)

    async def _finish_undoing(self) -> None:
        """Wait for the end of a failed start's removal, however that ends."""
        if self._start is not None and self._start.undone is not None:
            await asyncio.wait({self._start.undone})

    async def get_url(self) -> str:
        """Return where the server is, also if the Hub was killed before it could write it down."""
        try:
            found = await engine.patiently(self.inspect_own)
            address = self.address_of(found) if found else None
        except (KeyError, *engine.UNREACHABLE) as error:
            self.log.warning("Cannot find the address of %s: %r", self._log_name, error)
            address = None
        if not address:
            return str(self.server.url)
        return url_path_join(f"http://{address}:{self.port}", self.server.base_url)

    def memory_kills(self) -> int:
        """Return how many of the running server's processes the kernel has killed for memory."""
        return (oom_kills(self._pid) if self._pid else None) or 0

    # -- stop ----------------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Stop the server, remember how it ended, and remove its container; see `Stop.run`."""
        await Stop(self).run(now)

    async def bury(
        self, inspected: dict[str, Any], stopped_by: Requester | None, reason: str = ""
    ) -> None:
        """Remember how a server ended, then remove its container, whatever comes of the first."""
        ending = endings.explain(
            *(self.user.name, self.project, inspected),
            stopped_by=stopped_by.words if stopped_by else None,
            reason=reason,
        )
        try:
            self.tell(diary.ended(ending, stopped_by.name if stopped_by else "", inspected))
            await self.in_thread(self.store.add_ending, ending)
            if use := forecast.use_of(inspected):
                await self.in_thread(self.store.add_gpu_use, *use)
        finally:
            await engine.remove(self.docker, inspected["Id"])
        self.object_id, self._pid = "", 0
        await self.leave_slice()

    async def _note_gone(self) -> None:
        """Remember a server whose container somebody else removed."""
        if self.object_id:
            ending = endings.gone(self.user.name, self.project)
            self.tell(diary.ended(ending, ""))
            await self.in_thread(self.store.add_ending, ending)
        self.object_id, self._pid = "", 0

    def tell(self, event: Event | None) -> None:
        """Keep that something has happened; nothing waits for that, or fails over it."""
        if event is None:
            return
        try:
            self.executor.submit(diary.write, self, event)
        except RuntimeError as error:
            # The Hub ends, and its threads have.
            self.log.warning("What happened to %s is not kept: %s", self._log_name, error)

    # -- what the Hub keeps --------------------------------------------------------------------

    def clear_state(self) -> None:
        """Forget the last container. The Hub calls this before a start and after an end."""
        super().clear_state()
        self.object_id, self._pid, self._start = "", 0, None

    def get_state(self) -> dict[str, Any]:
        """Return what the Hub keeps, and shows to admins, of a running server."""
        state: dict[str, Any] = super().get_state()
        if self.object_id and self.user_options:
            state["profile"] = self.user_options.get("profile", "")
        return state

    def run_post_stop_hook(self) -> Awaitable[None] | None:
        """Revoke what is left of the server's right to speak to the Hub, then run the site's hook.

        A Hub that was killed no longer knows the token that it gave to a server.
        """
        note = f"Server at {url_path_join(self.user.base_url, self.name, '/')}"
        mine = self.user.db.query(orm.APIToken).filter_by(user=self.user.orm_user, note=note)
        for token in mine:
            self.user.db.delete(token)
        self.user.db.commit()
        hook: Awaitable[None] | None = super().run_post_stop_hook()
        return hook

    async def delete_forever(self) -> None:
        """Forget the project's workspace if there is nothing in it; files are never deleted."""
        account = await self.in_thread(self.accounts.find, self.user.name)
        if account is not None:
            await self.in_thread(self.workspaces(account).remove_empty, self.project)

    async def rename(self, old_name: str, new_name: str) -> None:
        """Move the workspace along with the server's name, or refuse."""
        _refuse_default(new_name)
        workspaces = self.workspaces(await self.in_thread(self.account))
        await self.in_thread(workspaces.rename, project_of(old_name), project_of(new_name))


def _servers(db: Session) -> Servers:
    """Return the servers that run, start or stop, as the Hub's database has them."""
    rows = db.query(orm.Spawner).filter(orm.Spawner.server_id.isnot(None)).all()
    # By the container as well: its user may have got another name since it was started.
    containers = (str((row.state or {}).get("object_id", "")) for row in rows)
    return Servers(frozenset(containers), frozenset((row.user.name, row.name) for row in rows))


async def _gpu_choices(spawner: DS01Spawner, limits: Limits) -> GpuChoices:
    """Return the GPUs for the form, and none for somebody whose files take too much."""
    if problem := await no_gpu(spawner):
        return GpuChoices(problem=problem)
    return await gpu_choices(spawner.grants, spawner.user.name, limits)


async def _looked_up(spawner: DS01Spawner) -> tuple[list[UserImage], str]:
    """Return users' images for the form, and why there are none to see."""
    try:
        return await spawner.user_images(), ""
    except Refused as refused:
        return [], f"Your own images cannot be shown. {refused.jupyterhub_message}"


def _refuse_default(server_name: str) -> None:
    """Refuse a server that would share its project with the unnamed one."""
    if server_name == DEFAULT_PROJECT:
        raise Refused(
            f"The project {DEFAULT_PROJECT!r} belongs to your server without a name. Start that "
            "one on the home page, or choose another name.",
            reason="project",
            status_code=409,
        )
