"""Servers that come up: how many at once, and noticing at once that one answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

#: Seconds between two tries; a server that is up goes unnoticed for no longer than this.
TRY_EVERY_S = 0.1
#: Seconds between two looks at the container, which cost the engine more than a refused connection.
LOOK_EVERY_S = 1.0
#: Bytes of an answer that are read.
_LARGEST_ANSWER = 64 * 1024


class LaunchSlots:
    """Room for a few servers to come up at the same time.

    - At most `count` come up at once: a class that presses Start together is served one after
      the other, instead of all of them late.
    - Who asks first gets a slot first, and each user has one at a time, so that nobody takes all.
    - A server that does not come up loses its slot after `longest_s`, so that it holds up nobody.

    Parameters
    ----------
    count
        Number of slots.
    longest_s
        Seconds; more than a server takes that comes up at all.
    """

    def __init__(self, count: int, longest_s: float = 20.0) -> None:
        self._free = asyncio.Semaphore(count)
        self._of_user: dict[str, asyncio.Semaphore] = {}
        self._longest_s = longest_s

    @asynccontextmanager
    async def one(self, user: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a slot; `on_wait` is called if none is free at once."""
        users = self._of_user.setdefault(user, asyncio.Semaphore(1))
        if users.locked() or self._free.locked():
            on_wait()
        async with self._lent(users), self._lent(self._free):
            yield

    @asynccontextmanager
    async def _lent(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one of the slots, for `longest_s` at most."""
        await slots.acquire()
        overdue = asyncio.get_running_loop().call_later(self._longest_s, slots.release)
        try:
            yield
        finally:
            if asyncio.get_running_loop().time() < overdue.when():
                overdue.cancel()
                slots.release()


async def until_answering(url: str, check_alive: Callable[[], Awaitable[Any]]) -> None:
    """Return when there is an HTTP answer below 500 at `url`.

    The caller bounds the time.

    Parameters
    ----------
    check_alive
        Raises if there is no more use in waiting.
    """
    # What answers is the user's code: it must not fill the Hub's memory.
    client = AsyncHTTPClient(force_instance=True, max_body_size=_LARGEST_ANSWER)
    try:
        await _until_answering(client, url, check_alive)
    finally:
        client.close()


async def _until_answering(
    client: AsyncHTTPClient, url: str, check_alive: Callable[[], Awaitable[Any]]
) -> None:
    loop = asyncio.get_running_loop()
    next_look = loop.time() + LOOK_EVERY_S
    while True:
        try:
            await client.fetch(
                url, follow_redirects=False, request_timeout=5, decompress_response=False
            )
            return
        except HTTPClientError as error:
            # 599 is tornado's word for no answer at all.
            if error.code < 500:
                return
        except OSError:
            pass
        if loop.time() >= next_look:
            await check_alive()
            next_look = loop.time() + LOOK_EVERY_S
        await asyncio.sleep(TRY_EVERY_S)
