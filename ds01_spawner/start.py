"""One start of one server: its steps in order, and how it is undone when one of them fails."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import docker.errors
from jupyterhub.utils import url_path_join
from sqlalchemy.exc import SQLAlchemyError

from . import (
    containers,
    endings,
    engine,
    identity,
    image_volumes,
    network,
    runtime,
    shared_folders,
)
from .accounts import Account
from .admission.grants import Applicant
from .admission.lock import Pending
from .cgroups.limits import SliceError
from .cgroups.slices import slice_name
from .columns import printable
from .comparison import Meant, compare, not_limited
from .errors import Refused
from .gpus.attachment import Backend
from .gpus.devices import Device
from .lifecycle import diary
from .lifecycle.events import NONE_FREE, START_FAILED, Event
from .plans import server_plan
from .progress import StartLog
from .readiness import until_answering
from .shared_folders import SharedFolder
from .start_image import prepare_image
from .storage.check import check_room
from .who import requester_of
from .workspaces import Directory, Workspaces

if TYPE_CHECKING:
    from .spawner import DS01Spawner


#: The rest is for undoing a start that took too long.
_SHARE_OF_THE_HUBS_LIMIT = 0.95


class Start:
    """One start, from the request to a server that answers.

    - `run` returns only when the server answers; every other exit from it has removed what it
      made, once `undone` is finished.
    - A container is known to this start by its id and by a label that no other one has, so what
      is removed is never somebody else's.

    Parameters
    ----------
    spawner
        Whose server it is, and the settings.
    """

    def __init__(self, spawner: DS01Spawner) -> None:
        self.log = StartLog()
        self.undone: asyncio.Task[None] | None = None
        self._nonce = secrets.token_hex(8)
        self._devices: tuple[Device, ...] = ()
        self._folders: tuple[SharedFolder, ...] = ()
        self._spawner = spawner
        # The Hub forgets the request when the start is over.
        self._by = requester_of(spawner.handler, spawner.user.name).name
        self._docker = spawner.docker
        self._creating: asyncio.Task[str] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._new_in: Workspaces | None = None

    async def run(self) -> tuple[str, int]:
        """Start the server.

        Returns
        -------
        (str, int)
            Address and port of the server on the servers' network.

        Raises
        ------
        Refused
            With a text for the user.
        """
        spawner = self._spawner
        # Until it has ended one way or the other, what it makes is not a leftover.
        spawner.grants.starts.add(self._nonce)
        try:
            address = await self._steps_in_time()
            options, user = spawner.options, spawner.user.name
            spawner.tell(diary.started(user, spawner.project, self._by, options, self._devices))
            return address
        except asyncio.CancelledError:
            spawner.log.info("The start of %s was cancelled", spawner._log_name)
            # Not awaited: the Hub gives a cancelled start one second, an engine may take longer.
            # The Hub's next look at the server waits for it.
            self._undo("The start was cancelled.")
            raise
        except Exception as error:
            refused = self._explain(error)
            kind = NONE_FREE if refused.reason == NONE_FREE else START_FAILED
            await asyncio.shield(self._undo(refused.record, kind))
            raise refused from error
        finally:
            self.log.end()
            if self.undone is None:
                spawner.grants.starts.discard(self._nonce)

    @property
    def over(self) -> bool:
        """Whether `run` has come to an end, whichever."""
        return self.log.ended

    @property
    def made_nothing(self) -> bool:
        """Whether this start is over and never asked the engine for a container."""
        return self.undone is not None and self._creating is None

    @property
    def _targets(self) -> list[str]:
        """Where shared folders are in the server."""
        return [shared.folder.target for shared in self._folders]

    # -- the steps ---------------------------------------------------------------------------

    async def _steps_in_time(self) -> tuple[str, int]:
        """Do the steps, and give up a little before the Hub does, which has no words for it."""
        limit = self._spawner.start_timeout * _SHARE_OF_THE_HUBS_LIMIT
        steps = asyncio.ensure_future(self._steps())
        try:
            # Not wait_for: its time-out looks like those of a slow disk or network.
            done, _ = await asyncio.wait({steps}, timeout=limit)
        finally:
            steps.cancel()
        if done:
            return steps.result()
        raise Refused(
            f"Your server did not come up in {self._spawner.start_timeout} seconds. The last step "
            f"was: {self.log.last} Try again in a few minutes.",
            reason="timeout",
            status_code=503,
        )

    async def _steps(self) -> tuple[str, int]:
        spawner, say = self._spawner, self.log.say
        say(5, "Checking the servers' network …")
        await self._check_fence()
        await self._check_runtime()
        await spawner.grants.check(self._applicant())
        await check_room(spawner)
        say(10, f"Preparing the image {spawner.options.image} …")
        self._folders = await self._look_for_folders()
        image = await prepare_image(spawner, self.log, self._targets)
        account = await spawner.in_thread(spawner.account)
        image_home = containers.home_in_container(account)
        image_volumes.check(spawner.options.image, image.volumes, image_home, self._targets)
        workspaces = spawner.workspaces(account)
        if spawner.project not in await spawner.in_thread(workspaces.projects):
            self._new_in = workspaces
        workspace = await spawner.in_thread(workspaces.workspace, spawner.project)
        home = await spawner.in_thread(workspaces.home)
        await self._remove_leftover()

        say(60, "Creating your container …")
        # A task of its own: a cancelled start must still learn what the engine has made.
        self._creating = asyncio.ensure_future(self._create(image, account, workspace))
        spawner.object_id = await asyncio.shield(self._creating)
        await self._note_use(image.reference)
        if self._devices:
            spawner.keep_options(self._devices)
        await self._introduce_user(image, account)

        busy = "Others are starting at this moment; yours is next in turn …"
        async with spawner.launch_slots.one(spawner.user.name, lambda: say(65, busy)):
            say(70, "Starting your container …")
            await self._start_container()
            address = await self._check_started(image, account, workspace, home)
            say(80, "Waiting for JupyterLab …")
            await self._wait_for_jupyterlab(address)
        say(100, "Ready.")
        return address, spawner.port

    async def _wait_for_jupyterlab(self, address: str) -> None:
        spawner = self._spawner
        url = url_path_join(f"http://{address}:{spawner.port}", spawner.server.base_url, "api")
        try:
            await asyncio.wait_for(until_answering(url, self._running), spawner.http_timeout)
        except asyncio.TimeoutError:
            raise Refused(
                f"JupyterLab did not answer within {spawner.http_timeout} seconds. Try Safe start, "
                "which ignores your settings, or another image.",
                reason="timeout",
                status_code=503,
            ) from None

    async def _check_fence(self) -> None:
        spawner = self._spawner
        if not spawner.manage_fence:
            return
        try:
            await spawner.in_thread(
                network.stand, spawner.client, spawner.network_name, spawner.ports_for_servers
            )
        except network.NetworkError as error:
            raise Refused(
                "The servers' network is not protected at the moment, so nothing is started. "
                f"Please tell an admin: {error}",
                reason="network",
                status_code=503,
            ) from error

    async def _check_runtime(self) -> None:
        """Refuse to start without the runtime: Docker would make an empty volume in its place."""
        try:
            await self._docker("inspect_volume", runtime.volume_name())
        except docker.errors.NotFound:
            raise Refused(
                "The notebook server is not built on this machine yet. Please tell an admin: "
                "'ds01 runtime build' makes it.",
                reason="runtime",
                status_code=503,
            ) from None

    async def _look_for_folders(self) -> tuple[SharedFolder, ...]:
        """Return the shared folders that are there: one that is not keeps nobody from starting."""
        found = await shared_folders.look(self._spawner.folders())
        for name, problem in found.missing.items():
            self._spawner.log.warning("The shared folder %s is left out: %s", name, problem)
        return found.here

    async def _remove_leftover(self) -> None:
        """Remove a container of this very server that an earlier Hub left behind."""
        spawner = self._spawner
        found = await engine.inspect(self._docker, spawner.object_name)
        if found is not None and (spawner.is_mine(found) or engine.is_probe(found)):
            spawner.log.warning("Removing %s, left behind earlier", spawner.object_name)
            await engine.remove(self._docker, found["Id"])
            # Here and not where the create meets it: there, everybody else's grant would wait.
            await engine.wait_until_gone(self._docker, found["Id"])

    async def _create(self, image: containers.Image, account: Account, workspace: Directory) -> str:
        """Create the container, with the GPUs that are asked for; return its id."""
        grants, request = self._spawner.grants, self._spawner.options.gpus
        parent = await self._cgroup_parent()

        async def make(backend: Backend, devices: tuple[Device, ...]) -> str:
            self._devices = devices
            plan = server_plan(
                self._spawner, image, account, workspace, self._folders, devices, self._nonce
            )
            plan = replace(plan, cgroup_parent=parent)
            body = backend.apply(containers.create_arguments(plan), devices)
            try:
                return await engine.create(self._docker, plan.name, body, self._nonce)
            except docker.errors.APIError as error:
                raise self._not_possible(error) from error

        if request is None:
            backend = await grants.without()
            return await grants.create(self._applicant(), lambda: make(backend, ()))
        self.log.say(55, "Choosing your GPU …")
        pending = Pending(self._spawner.object_name, image.reference)
        made, reason = await grants.grant(request, self._applicant(), pending, make)
        self.log.say(62, reason)
        return made

    async def _cgroup_parent(self) -> str:
        """Return the name of the user's slice as the engine wants it; empty where there is none."""
        try:
            slices = await self._spawner.slices()
        except SliceError as error:
            raise not_limited(self._spawner._log_name, error) from error
        return slices.parent(self._spawner.user.name) if slices else ""

    def _applicant(self) -> Applicant:
        """Say who asks for what, with the limits of now."""
        spawner = self._spawner
        return Applicant(
            user=spawner.user.name,
            server=spawner.name,
            limits=spawner.limits(),
            cpus=spawner.options.cpus,
            memory_bytes=spawner.options.memory,
            still_wants=lambda: self.undone is None,
        )

    async def _start_container(self) -> None:
        # A task of its own: the slice must be kept until the engine has answered.
        self._starting = asyncio.ensure_future(self._start_in_slice())
        await asyncio.shield(self._starting)

    async def _start_in_slice(self) -> None:
        spawner = self._spawner
        try:
            slices = await spawner.slices()
            if slices is None:
                await self._docker("start", spawner.object_id)
                return
            async with slices.ready(spawner.user.name, spawner.slice_limits()):
                await self._docker("start", spawner.object_id)
        except SliceError as error:
            raise not_limited(self._spawner._log_name, error) from error
        except docker.errors.APIError as error:
            raise self._not_possible(error) from error

    def _not_possible(self, error: docker.errors.APIError) -> Exception:
        """Return what the user is told when the engine answered that it cannot do it."""
        if "no space left on device" in str(error).lower() or error.status_code == 503:
            return error
        spawner = self._spawner
        spawner.log.error("The engine has no container for %s: %s", spawner._log_name, error)
        if self._devices:
            return Refused(
                "Your server could not be started with its GPU. Please tell an admin; the Hub's "
                "log has the reason. Perhaps it starts without a GPU.",
                reason="gpu",
                status_code=500,
            )
        return Refused(
            f"The engine cannot start a container of the image {spawner.options.image}. Please "
            "tell an admin; the Hub's log has the reason. Perhaps another image starts.",
            reason="image",
            status_code=500,
        )

    async def _note_use(self, image_id: str) -> None:
        """Keep when the image was used last; a start does not fail because that cannot be kept."""
        spawner = self._spawner
        try:
            await spawner.in_thread(spawner.image_records.note_use, image_id)
        except SQLAlchemyError:
            spawner.log.exception("The use of an image could not be noted")

    async def _introduce_user(self, image: containers.Image, account: Account) -> None:
        """Put the user's passwd and group entries, and places to write to, into the container."""
        spawner, home = self._spawner, containers.home_in_container(account)
        volumes = image_volumes.places(image.volumes, home)
        await spawner.in_thread(
            identity.introduce, spawner.client, spawner.object_id, account, volumes
        )

    async def _check_started(
        self, image: containers.Image, account: Account, workspace: Directory, home: Directory
    ) -> str:
        """Check that the container has what was meant, and return its address."""
        spawner, image_home = self._spawner, containers.home_in_container(account)
        meant = Meant(
            server=spawner._log_name,
            image=spawner.options.image,
            volumes=image_volumes.places(image.volumes, image_home),
            places=((workspace, containers.WORKSPACE), (home, image_home)),
            folders=self._folders,
            devices=self._devices,
            slice_name=slice_name(spawner.user.name) if await spawner.slices() else "",
        )
        found = await self._running()
        try:
            await spawner.in_thread(compare, meant, int(found["State"]["Pid"]))
        except OSError:
            # A container that has just ended cannot be looked into; that has words of its own.
            await self._running()
            raise
        return spawner.address_of(found)

    async def _running(self) -> dict[str, Any]:
        """Return the container's inspection.

        Raises
        ------
        Refused
            If it has ended.
        """
        found: dict[str, Any] | None = await engine.patiently(self._spawner.inspect_own)
        if found is not None and found["State"]["Running"]:
            return found
        code = found["State"]["ExitCode"] if found else "unknown"
        raise Refused(
            f"The server ended while it started (exit code {code}). Try Safe start, which ignores "
            "your settings, or another image. If that does not help, tell an admin.",
            reason="exited",
            status_code=500,
        )

    # -- when it fails -----------------------------------------------------------------------

    def _explain(self, error: Exception) -> Refused:
        """Return what the user is told; what an admin needs goes to the log."""
        if isinstance(error, Refused):
            return error
        spawner = self._spawner
        spawner.log.error("Starting %s failed", spawner._log_name, exc_info=error)
        if "no space left on device" in str(error).lower():
            return Refused(
                "The machine's disk is full, so no server can start. Please tell an admin.",
                reason="disk",
                status_code=503,
            )
        if engine.is_silent(error):
            return Refused(
                "The container engine does not answer. Try again in a minute; if it stays so, "
                "tell an admin.",
                reason="engine",
                status_code=503,
            )
        return Refused(
            "Your server could not be started, for a reason that only the Hub's log has. Please "
            "tell an admin when this happened.",
            reason="error",
            status_code=500,
        )

    def _undo(self, message: str, kind: str = START_FAILED) -> asyncio.Task[None]:
        """Begin to remove what this start made and to remember why, whoever waits for it.

        Parameters
        ----------
        kind
            Of the event. Where no GPU was free, idle servers have less time for a while.
        """
        spawner = self._spawner
        self.undone = asyncio.ensure_future(self._remove_and_record(message))
        spawner.tell(Event(kind, spawner.user.name, spawner.project, self._by, message))
        return self.undone

    async def _remove_and_record(self, message: str) -> None:
        """Do both, whatever comes of the other; what goes wrong here is for the log."""
        spawner = self._spawner
        try:
            await self._record(message)
            await self._remove_container()
        except Exception:
            spawner.log.exception("The container of %s cannot be removed yet", spawner._log_name)
            return
        finally:
            spawner.grants.starts.discard(self._nonce)
        if self._new_in is not None:
            await spawner.in_thread(self._new_in.remove_empty, spawner.project)

    async def _record(self, message: str) -> None:
        spawner = self._spawner
        try:
            ending = endings.start_failed(spawner.user.name, spawner.project, message)
            await spawner.in_thread(spawner.store.add_ending, ending)
        except Exception:
            spawner.log.exception("The failed start of %s cannot be recorded", spawner._log_name)

    async def _remove_container(self) -> None:
        if self._creating is None:
            return
        (made,) = await asyncio.gather(self._creating, return_exceptions=True)
        if self._starting is not None:
            # Its failure, if any, is why this start is undone, or of no interest after a cancel.
            await asyncio.gather(self._starting, return_exceptions=True)
        if isinstance(made, str):
            await self._log_last_words(made)
            await engine.remove(self._docker, made)
            await self._spawner.leave_slice()
        self._spawner.object_id = ""

    async def _log_last_words(self, container: str) -> None:
        try:
            words = (await self._docker("logs", container, tail=20)).decode("utf-8", "replace")
        except engine.UNREACHABLE as error:
            words = f"(not available: {error})"
        # A server's words are its user's: no control characters for the admin's terminal.
        shown = "\n".join(map(printable, words.split("\n")))
        self._spawner.log.info("%s said at last:\n%s", self._spawner._log_name, shown)
