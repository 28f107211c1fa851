"""The builds that wait and run: one of each user's at a time, and few altogether."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ..blocking import to_its_end
from ..errors import Refused
from .builder import Builder, Request
from .log import BuildLog
from .output import Line
from .records import Build, ImageRecords, State

_LOG = logging.getLogger(__name__)

#: Builds of one user's that wait or run.
_MOST_OF_A_USER = 3
#: Logs of one user's that are kept, the newest.
_MOST_LOGS = 50
#: Older ones that are looked for: more than one, as a portal that was killed may have left some.
_OLDER_LOGS = 10


@dataclass
class _Entry:
    request: Request
    log: BuildLog
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False
    runs: bool = False


class BuildQueue:
    """Runs builds in the order in which they were asked for.

    - A user's builds run one after the other, and of one image there is one at a time.
    - One that is cancelled while it waits never begins.
    - Whoever watches a log learns of its end, however the build ends.
    - Of a user's logs the newest are kept.
    - What a process before this one has left under way is over: its record says so.

    Parameters
    ----------
    builder
        Runs each.
    logs
        Directory for their logs, made when missing.
    at_once
        How many run at the same time.

    Attributes
    ----------
    on_success
        Called with a build that has become a version, and how many versions its owner may keep.
    """

    on_success: Callable[[Build, int], Awaitable[None]] | None = None

    def __init__(
        self, builder: Builder, records: ImageRecords, logs: Path, at_once: int = 1
    ) -> None:
        self._builder = builder
        self._records = records
        self._logs = logs
        self._at_once = at_once
        self._turns = asyncio.Condition()
        # In the order in which they were asked for.
        self._entries: dict[int, _Entry] = {}
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in records.under_way():
            records.change(
                left,
                state=State.INTERRUPTED,
                problem="The portal was restarted while this was built. Build it again.",
            )

    def log_path(self, build_id: int) -> Path:
        """Return where a build's log lies."""
        return self._logs / f"{build_id}.jsonl"

    def log(self, build_id: int) -> BuildLog | None:
        """Return the log of a build that waits or runs, None of any other."""
        entry = self._entries.get(build_id)
        return None if entry is None else entry.log

    def place(self, build_id: int) -> int:
        """Return how many builds are before this one; 0 for one that runs or is over."""
        found = self._records.get(build_id)
        if found is None or found.state is not State.QUEUED:
            return 0
        return sum(1 for waiting in self._entries if waiting < build_id)

    def add(self, make: Callable[[Build], Request], build: Build) -> Build:
        """Take a build into the line, and return its record.

        Parameters
        ----------
        make
            Makes the request of the record.

        Raises
        ------
        Refused
            409 if this image is being built, or too much of this user's is; 503 if its log cannot
            be kept.
        """
        self.check(build.owner, build.project)
        kept = self._records.add(build)
        entry = _Entry(make(kept), self._new_log(kept))
        self._entries[kept.id] = entry
        entry.task = asyncio.ensure_future(self._run(kept, entry))
        return kept

    def is_building(self, owner: str, project: str) -> bool:
        """Tell whether a build of an image waits or runs."""
        builds = (entry.request.build for entry in self._entries.values())
        return any((build.owner, build.project) == (owner, project) for build in builds)

    def check(self, owner: str, project: str) -> None:
        """Refuse what `add` would refuse.

        Raises
        ------
        Refused
            409.
        """
        if self.is_building(owner, project):
            raise Refused(
                "This image is being built at the moment. Wait for it, or cancel that build first.",
                reason="image",
                status_code=409,
            )
        mine = sum(1 for entry in self._entries.values() if entry.request.build.owner == owner)
        if mine >= _MOST_OF_A_USER:
            raise Refused(
                f"{mine} images of yours wait to be built already. Wait for one of them.",
                reason="image",
                status_code=409,
            )

    async def cancel(self, build_id: int) -> None:
        """Cancel a build, and wait until nothing is left of it; one that is over stays so."""
        entry = self._entries.get(build_id)
        if entry is not None and entry.task is not None:
            # Once: a second time would break off what a build does to end well.
            if not entry.is_cancelled:
                entry.is_cancelled = True
                entry.task.cancel()
            await asyncio.wait({entry.task})

    async def close(self) -> None:
        """Cancel all builds."""
        await asyncio.gather(*map(self.cancel, list(self._entries)))

    def _new_log(self, build: Build) -> BuildLog:
        """Begin a build's log, and remove the owner's oldest ones.

        Raises
        ------
        Refused
            503 if that cannot be done; the build's record says so.
        """
        newest = self._records.builds(build.owner, most=_MOST_LOGS + _OLDER_LOGS)
        try:
            for old in newest[_MOST_LOGS:]:
                self.log_path(old.id).unlink(missing_ok=True)
            return BuildLog(self.log_path(build.id))
        except OSError as error:
            _LOG.error("There can be no log of build %s of %s: %s", build.id, build.owner, error)
            problem = (
                "The machine cannot keep the log of a build at the moment, so nothing was built. "
                "Try again later, or tell an admin."
            )
            self._records.change(build, state=State.FAILED, problem=problem)
            raise Refused(problem, reason="disk", status_code=503) from error

    async def _run(self, build: Build, entry: _Entry) -> None:
        """Run a build when its turn has come, and end its log."""
        try:
            ended = await self._ended(build, entry)
            if ended.problem:
                entry.log.say(Line(ended.problem))
        except OSError as error:
            _LOG.error("The log of build %s of %s lacks its end: %s", build.id, build.owner, error)
        finally:
            entry.log.end()

    async def _ended(self, build: Build, entry: _Entry) -> Build:
        """Run a build when its turn has come, and return its record as it is then."""
        try:
            async with self._turns:
                await self._turns.wait_for(lambda: self._is_next(build.id))
                entry.runs = True
            ended = await self._builder.run(entry.request, entry.log.say)
        except asyncio.CancelledError:
            return self._records.change(
                build, state=State.CANCELLED, problem="The build was cancelled."
            )
        except Exception:  # noqa: BLE001
            _LOG.exception("Build %s of %s failed in a way of its own", build.id, build.owner)
            return self._records.change(
                build,
                state=State.FAILED,
                problem="The build failed, for a reason that only the portal's log has. Please "
                "tell an admin when this happened.",
            )
        finally:
            del self._entries[build.id]
            async with self._turns:
                self._turns.notify_all()
        if ended.state is State.SUCCEEDED and self.on_success is not None:
            # A version is one by now, whatever comes of its elder ones.
            try:
                await to_its_end(self.on_success(ended, entry.request.rules.versions))
            except Exception:  # noqa: BLE001
                _LOG.exception("Older versions of %s/%s stay", build.owner, build.project)
        return ended

    def _is_next(self, build_id: int) -> bool:
        """Tell whether a build may begin: the first whose owner has none that runs."""
        busy = {entry.request.build.owner for entry in self._entries.values() if entry.runs}
        if sum(entry.runs for entry in self._entries.values()) >= self._at_once:
            return False
        waiting = (
            each
            for each, entry in self._entries.items()
            if not entry.runs and entry.request.build.owner not in busy
        )
        return next(waiting, None) == build_id
