"""Waits until a server answers, without the Hub's growing pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

#: Seconds between two tries; a server that is up goes unnoticed for no longer than this.
TRY_EVERY_S = 0.1
#: Seconds between two looks at the container, which cost the engine more than a refused connection.
LOOK_EVERY_S = 1.0


async def until_answering(url: str, check_alive: Callable[[], Awaitable[Any]]) -> None:
    """Return when there is an HTTP answer below 500 at `url`.

    The caller bounds the time.

    Parameters
    ----------
    check_alive
        Raises if there is no more use in waiting.
    """
    client = AsyncHTTPClient()
    loop = asyncio.get_running_loop()
    next_look = loop.time() + LOOK_EVERY_S
    while True:
        try:
            await client.fetch(url, follow_redirects=False, request_timeout=5)
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
