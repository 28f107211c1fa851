"""One stop of one server: its steps in order, of which none that fails keeps the server running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from . import engine
from .changes import changes_of
from .clock import utc_now
from .errors import Refused
from .lifecycle import diary, words
from .lifecycle.leaving import keep_files, most_to_keep
from .lifecycle.processes import end_work
from .policy import Lifecycle
from .settings import CULLER
from .storage.check import measure_soon
from .who import requester

if TYPE_CHECKING:
    from .spawner import DS01Spawner


class Stop:
    """One stop, whoever asks for it.

    - What computes has its time to end; then files are kept if the service does it, as nobody was
      asked; then the container ends.
    - Who has asked at a page has said there what to keep.

    Parameters
    ----------
    spawner
        Whose server it is, and the settings.
    """

    def __init__(self, spawner: DS01Spawner) -> None:
        self._spawner = spawner
        self._by = requester(spawner.user.name)

    async def run(self, now: bool) -> None:
        """Stop the server, remember how it ended, and remove its container.

        Parameters
        ----------
        now
            Wait for nothing.
        """
        spawner = self._spawner
        found = await engine.patiently(spawner.inspect_own)
        if found is None:
            return
        is_culled = self._by.is_service and self._by.name == CULLER
        reason = await self._why_culled(found["Id"]) if is_culled else ""
        if not now and found["State"]["Running"]:
            lifecycle = self._lifecycle()
            await end_work(found["Id"], found["State"]["Pid"], lifecycle.stop_grace)
            if is_culled and lifecycle.rescue_bytes:
                # What the work has written at its end is kept, too.
                told = await self._keep_files(found, await self._most_to_keep(lifecycle))
                reason += told if reason else ""
        await engine.stop(spawner.docker, found["Id"], 0 if now else spawner.stop_grace_s)
        ended = await engine.patiently(spawner.inspect_own)
        await spawner.bury(ended or found, stopped_by=self._by, reason=reason)

    async def _why_culled(self, container_id: str) -> str:
        """Return why the service stops this server; empty if it has not said."""
        spawner = self._spawner
        try:
            return str(await spawner.in_thread(spawner.life_records.stop_reason, container_id))
        except SQLAlchemyError as error:
            # A stop needs no reason.
            spawner.log.warning("Cannot read why %s is stopped: %s", spawner._log_name, error)
            return ""

    def _lifecycle(self) -> Lifecycle:
        """Return what the policy says of a stop."""
        try:
            return self._spawner.share().resolved.limits.lifecycle
        except Refused:
            # A stop needs no policy.
            return Lifecycle()

    async def _most_to_keep(self, lifecycle: Lifecycle) -> int:
        """Return how many bytes may be kept."""
        spawner, user = self._spawner, self._spawner.user.name
        try:
            uses = await spawner.in_thread(spawner.storage_records.uses, utc_now(), user)
        except SQLAlchemyError as error:
            spawner.log.warning("Cannot read what the files of %s take: %s", user, error)
            return lifecycle.rescue_bytes
        return most_to_keep(lifecycle, uses, user)

    async def _keep_files(self, running: dict[str, Any], most_bytes: int) -> str:
        """Keep files that would go with the server; return what its owner is told of them."""
        spawner = self._spawner
        try:
            rescued = await keep_files(spawner.docker, changes_of, running, most_bytes, utc_now())
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the server is stopped and gives everything back.
            spawner.log.warning("The files of %s cannot be kept: %r", spawner._log_name, error)
            return words.NOT_KEPT
        finally:
            # What was kept counts.
            await spawner.in_thread(measure_soon, spawner, spawner.user.name)
        spawner.tell(diary.rescued(spawner.user.name, spawner.project, CULLER, rescued))
        return words.rescued(rescued)
