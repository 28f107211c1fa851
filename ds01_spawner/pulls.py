"""Fetching images: each once, however many wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker.errors

from .engine import UNREACHABLE
from .errors import Refused

#: Called with the bytes that are here, and the bytes known of.
OnProgress = Callable[[int, int], None]


class _Pull:
    """One pull under way."""

    def __init__(self) -> None:
        self.listeners: list[OnProgress] = []
        self.cancelled = threading.Event()
        self.task: asyncio.Task[None] | None = None


class Pulls:
    """The pulls under way on one engine.

    - A class that chooses the same new image fetches it once, and everybody sees its progress.
    - One who goes away stops nobody else's; when the last one goes, it ends at the engine too.
    - Pulls have threads of their own, so that they hold up no other call.

    Parameters
    ----------
    at_once
        Different images fetched at the same time.
    """

    def __init__(self, at_once: int = 4) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="pull")
        self._under_way: dict[str, _Pull] = {}

    async def fetch(self, client: Any, reference: str, on_progress: OnProgress) -> None:
        """Fetch an image, or join those who wait for it.

        Raises
        ------
        Refused
            503 if the image cannot be had.
        """
        pull = self._under_way.get(reference) or self._begin(client, reference)
        pull.listeners.append(on_progress)
        assert pull.task is not None
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.listeners.remove(on_progress)
            if not pull.listeners:
                pull.cancelled.set()

    def _begin(self, client: Any, reference: str) -> _Pull:
        pull = self._under_way[reference] = _Pull()
        pull.task = asyncio.ensure_future(self._fetch(client, reference, pull))
        # Asked for once, as nobody may be left to do so.
        pull.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return pull

    async def _fetch(self, client: Any, reference: str, pull: _Pull) -> None:
        loop = asyncio.get_running_loop()

        def tell(here: int, total: int) -> None:
            for listener in pull.listeners:
                listener(here, total)

        def in_thread() -> None:
            for here, total in _bytes_of(client, reference, pull.cancelled):
                loop.call_soon_threadsafe(tell, here, total)

        try:
            await loop.run_in_executor(self._threads, in_thread)
        except UNREACHABLE as error:
            raise Refused(
                f"The image {reference} is not on this machine and cannot be fetched. "
                "Choose another image, or tell an admin.",
                reason="image",
                status_code=503,
            ) from error
        finally:
            del self._under_way[reference]


def _bytes_of(client: Any, reference: str, cancelled: threading.Event) -> Iterator[tuple[int, int]]:
    """Pull an image and yield the bytes here and known of, summed over its layers."""
    layers: dict[str, tuple[int, int]] = {}
    stream = client.pull(reference, stream=True, decode=True)
    try:
        for event in stream:
            if cancelled.is_set():
                return
            if "error" in event:
                raise docker.errors.DockerException(event["error"])
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and detail.get("total"):
                layers[event["id"]] = (detail["current"], detail["total"])
                here, total = map(sum, zip(*layers.values(), strict=True))
                yield here, total
    finally:
        # The engine ends a pull when its connection is closed.
        stream.close()
