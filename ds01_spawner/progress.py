"""The steps of one start, for everybody who watches it, from the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class StartLog:
    """Events of one start, kept so that each viewer sees them all.

    - A viewer who comes late, or reloads, gets every event from the first one.
    - An event with the same `step` as the one before replaces it for viewers who come later
      (a download says its megabytes many times).
    - When the start has ended, every viewer's stream ends.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()
        self._done = False

    def say(self, progress: int, message: str, step: str = "") -> None:
        """Add an event: `progress` in percent, `message` as plain text."""
        event = {"progress": progress, "message": message}
        if step and self._events and self._events[-1][0] == step:
            self._events[-1] = (step, event)
        else:
            self._events.append((step, event))
        self._wake()

    def end(self) -> None:
        """End all viewers' streams. Idempotent."""
        self._done = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._done

    @property
    def last(self) -> str:
        """The latest message, or an empty text."""
        return str(self._events[-1][1]["message"]) if self._events else ""

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all events, past and coming, until the start has ended."""
        shown = 0
        last: dict[str, Any] | None = None
        while True:
            changed = self._changed
            # The last shown event may have been replaced by a newer one of its step.
            first = shown - 1 if shown and self._events[shown - 1][1] is not last else shown
            batch = self._events[first:]
            for _, event in batch:
                last = event
                yield event
            # More may have come while the viewer took these.
            shown = first + len(batch)
            if self._changed is not changed:
                continue
            if self._done:
                return
            await changed.wait()
