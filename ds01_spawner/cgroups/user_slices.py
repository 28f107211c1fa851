"""The users' slices as the Hub uses them: one thing at a time for each user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from ..file_lock import hold_file
from .limits import SliceError, SliceLimits, differences
from .slices import PROBE, Slices, slice_name

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_PROBED = SliceLimits(cpus=0.5, memory_bytes=1 << 26, memory_high_bytes=1 << 25, tasks=16)


class UserSlices:
    """Makes, changes and removes users' slices.

    - Nobody removes a slice while a container is started under it: the engine would make it again,
      without limits.
    - Whoever waits can be cancelled at any moment and then holds nothing; whoever is cancelled over
      a change lets go only when the change has been made.

    Parameters
    ----------
    slices
        The slices of this machine.
    directory
        Where the locks are that all Hubs on the machine share.
    """

    def __init__(self, slices: Slices, directory: Path = Path("/run/ds01-slices")) -> None:
        self._slices = slices
        self._directory = directory
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: What this process has last set, by name, until the slice is gone.
        self._last: dict[str, SliceLimits] = {}

    def parent(self, user: str) -> str:
        """Return what Docker is given as ``HostConfig.CgroupParent`` at a container's creation."""
        return self._slices.parent(slice_name(user))

    @asynccontextmanager
    async def ready(self, user: str, limits: SliceLimits) -> AsyncIterator[None]:
        """Make the slice with these limits, and keep it while a container is started under it.

        Do not leave it before the engine has answered, also when cancelled.

        Raises
        ------
        SliceError
            If the limits cannot be set, or are not in force after the start.
        """
        name = slice_name(user)
        async with self._lock(name):
            await self._set(name, limits)
            yield
            await _finished(self._verify, name, limits)

    async def follow(self, user: str, limits: SliceLimits) -> None:
        """Set limits that have changed, if the user has a slice.

        Raises
        ------
        SliceError
            If one cannot be set; it is tried again the next time.
        """
        name = slice_name(user)
        if self._last.get(name) == limits:
            return
        async with self._lock(name):
            if await _finished(self._slices.limits, name) is not None:
                await self._set(name, limits)

    async def leave(self, user: str) -> None:
        """Remove a user's slice unless a container is under it.

        Raises
        ------
        SliceError
            If it cannot be told or removed.
        """
        await self._remove_if_empty(slice_name(user))

    async def sweep(self) -> None:
        """Remove all slices that no container is under; what cannot be removed stays."""
        for name in await _finished(self._slices.names):
            try:
                await self._remove_if_empty(name)
            except SliceError as error:
                _LOG.warning("A slice without containers is left: %s", error)

    async def check(self) -> None:
        """See that slices can be made, limited and removed here.

        Raises
        ------
        SliceError
            If not, with what to do.
        """
        async with self._lock(PROBE):
            await self._set(PROBE, _PROBED)
            await _finished(self._verify, PROBE, _PROBED)
        if not await self._remove_if_empty(PROBE):
            raise SliceError(f"A process is in the cgroup {PROBE}, which is for a trial only.")

    async def _set(self, name: str, limits: SliceLimits) -> None:
        self._last.pop(name, None)
        await _finished(self._slices.set, name, limits)
        self._last[name] = limits

    async def _remove_if_empty(self, name: str) -> bool:
        async with self._lock(name):
            gone = await _finished(self._slices.remove_if_empty, name)
            if gone:
                self._last.pop(name, None)
        return gone

    def _verify(self, name: str, limits: SliceLimits) -> None:
        found = self._slices.limits(name)
        if found is None:
            raise SliceError(f"The slice {name} is gone; somebody else has removed it.")
        wrong = differences(limits, found, memory_high=self._slices.knows_memory_high)
        if wrong:
            raise SliceError(
                f"The limits of the slice {name} were set and are not in force: {', '.join(wrong)}."
            )

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        # Waiting tasks come first in this process's own line, so only one of them tries the file.
        turn = self._turns.setdefault(name, asyncio.Lock())
        path = self._directory / f"{name}.lock"
        async with turn, AsyncExitStack() as held:
            try:
                await held.enter_async_context(hold_file(path))
            except OSError as error:
                raise SliceError(
                    f"The lock {path} cannot be used: {error.strerror} (slices need root)."
                ) from error
            yield


async def _finished(call: Callable[..., _T], *args: object) -> _T:
    """Return what a blocking call returns; when cancelled, still wait for its end."""
    # No task, which would be cancelled where all are, with its thread going on unseen.
    work = asyncio.get_running_loop().run_in_executor(None, call, *args)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise
