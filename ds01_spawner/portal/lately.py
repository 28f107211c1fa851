"""Answers that may be a moment old, asked for once however many want them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lately(Generic[T]):
    """Keeps each answer for a moment.

    - Whoever asks while an answer is on its way waits for that one.
    - A failure is told to those who wait for it, and is not kept.
    - What is old is dropped, so no more is kept than was asked for lately.

    Parameters
    ----------
    age_s
        Seconds for which an answer is given again.
    """

    def __init__(self, age_s: float) -> None:
        self._age_s = age_s
        self._asked: dict[str, tuple[float, asyncio.Future[T]]] = {}

    async def get(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of this key; `ask` gets a new one."""
        now = asyncio.get_running_loop().time()
        self._drop_old(now)
        if key not in self._asked:
            self._asked[key] = now, asyncio.ensure_future(ask())
        # One reader who goes away must not take the answer from the others.
        return await asyncio.shield(self._asked[key][1])

    def _drop_old(self, now: float) -> None:
        self._asked = {
            key: (at, answer)
            for key, (at, answer) in self._asked.items()
            if not answer.done() or (now - at <= self._age_s and _succeeded(answer))
        }


def _succeeded(answer: asyncio.Future[T]) -> bool:
    return not answer.cancelled() and answer.exception() is None
