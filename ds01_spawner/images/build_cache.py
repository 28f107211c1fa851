"""What builds leave in the engine's cache: measured for each build, and kept within bounds.

BuildKit keeps the layers of each step and the contents of each cache, also of a build that failed,
and by itself removes none of them in the engines that we know.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import docker.errors

from ..clock import utc_now
from ..engine import UNREACHABLE, Docker
from .disk import bytes_below

_LOG = logging.getLogger(__name__)

_PATIENCE_S = 60.0
#: A build that goes on beside is not waited for.
_REST_S = 10.0

#: As the engine writes a moment: with a fraction of any length, or none.
_MOMENT = re.compile(r"(.{19})(\.\d+)?(Z|[+-]\d\d:\d\d)")


class BuildCache:
    """The engine's cache of builds.

    It has layers, whose size the engine knows when they are done, and the contents of ``RUN
    --mount=type=cache``, whose size it measures once and never again: these are measured here.

    Parameters
    ----------
    docker_call
        The engine.
    root
        The engine's own directory.
    keep_bytes
        What may stay of layers that no image has, and as much of the others; the least recently
        used goes first.
    """

    def __init__(self, docker_call: Docker, root: Path, keep_bytes: int) -> None:
        self._docker = docker_call
        self._root = root
        self._keep_bytes = keep_bytes
        # By id, with the use after which it was measured.
        self._measured: dict[str, tuple[str | None, int]] = {}

    async def bytes_since(self, begun: datetime) -> int:
        """Return what layers that were made since then take, those of steps that run left out.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        records = await self._records()
        return sum(int(r["Size"]) for r in records if _moment(r["CreatedAt"]) >= begun)

    async def tidy(self, begun: datetime, largest_cache_bytes: int) -> None:
        """Make room after a build. That it cannot be done is no failure of the build.

        Parameters
        ----------
        begun
            When it began.
        largest_cache_bytes
            Of ``RUN --mount=type=cache``, if the build has used it; one that is larger is emptied.
        """
        try:
            records = await self._records_at_rest()
            if sum(r["Size"] for r in records if not r["Shared"]) > self._keep_bytes:
                await self._docker("prune_builds", keep_storage=self._keep_bytes)
            caches = [record for record in records if record["Type"] == "exec.cachemount"]
            sizes = await asyncio.to_thread(self._measure, caches)
            total = sum(sizes.values())
            for cache in sorted(caches, key=_last_used):
                is_too_large = sizes[cache["ID"]] > largest_cache_bytes
                if total > self._keep_bytes or (is_too_large and _last_used(cache) >= begun):
                    await self._docker("prune_builds", filters={"id": [cache["ID"]]})
                    total -= sizes[cache["ID"]]
        except (*UNREACHABLE, KeyError, ValueError) as error:
            # Also an engine whose records look different.
            _LOG.warning("What builds have left in Docker's cache stays there for now: %r", error)

    def _measure(self, caches: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Return the size of each by its id; blocks."""
        known, self._measured = self._measured, {}
        for cache in caches:
            used, size = known.get(cache["ID"], (None, 0))
            if used is None or used != cache["LastUsedAt"]:
                directory = self._root / "overlay2" / cache["ID"] / "diff"
                size = bytes_below(directory)
            self._measured[cache["ID"]] = (cache["LastUsedAt"], size)
        return {key: size for key, (_, size) in self._measured.items()}

    async def _records_at_rest(self) -> list[dict[str, Any]]:
        """Return the records when no build uses one, or what there is some time later.

        What is in use is not measured anew; a build that was stopped ends a moment later.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _REST_S
        while True:
            records = await self._records()
            if loop.time() > deadline or not any(record["InUse"] for record in records):
                return records
            await asyncio.sleep(0.5)

    async def _records(self) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while True:
            try:
                return (await self._docker("df")).get("BuildCache") or []
            except docker.errors.APIError as error:
                # Older engines count for one at a time, whoever asks.
                if "already running" not in str(error) or loop.time() > deadline:
                    raise
            await asyncio.sleep(0.5)


class Growth:
    """How much one build has made the cache grow.

    While it runs, the engine is asked only when the disk has lost so much that the answer could
    matter: to count, it looks at all images, containers and volumes.

    Parameters
    ----------
    free_bytes
        Tells what is left on the disk.

    Attributes
    ----------
    begun
        When the build began, by the machine's clock, which is the engine's.
    """

    def __init__(self, cache: BuildCache, free_bytes: Callable[[], int]) -> None:
        self.begun = utc_now()
        self._cache = cache
        self._free_bytes = free_bytes
        self._known = 0
        self._free_then = free_bytes()

    async def may_exceed(self, most_bytes: int) -> bool:
        """Tell whether the build has left more than so many bytes; sparing with the engine.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        free = self._free_bytes()
        if self._known + self._free_then - free <= most_bytes:
            return False
        self._free_then = free
        return await self.exceeds(most_bytes)

    async def exceeds(self, most_bytes: int) -> bool:
        """Tell whether the build has left more than so many bytes.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        self._known = await self._cache.bytes_since(self.begun)
        return self._known > most_bytes


def _last_used(record: Mapping[str, Any]) -> datetime:
    return _moment(record["LastUsedAt"] or record["CreatedAt"])


def _moment(text: str) -> datetime:
    """Read a moment as the engine writes it, to the microsecond.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"The engine says {text!r}, which is no moment")
    zone = "+00:00" if found[3] == "Z" else found[3]
    fraction = (found[2] or ".")[:7].ljust(7, "0")
    return datetime.fromisoformat(found[1] + fraction + zone)
