"""What must not be interrupted, for coroutines that may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

_Value = TypeVar("_Value")


async def to_its_end(deed: Awaitable[_Value]) -> _Value:
    """Wait for something that happens as a whole: a cancel in the middle comes too late."""
    task = asyncio.ensure_future(deed)
    await _done(task)
    return task.result()


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_Value]) -> AsyncIterator[_Value]:
    """Enter and leave a context manager in other threads.

    What was entered is always left, also when whoever waits is cancelled meanwhile. It does not
    learn of an exception in between.
    """
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    cancelled = await _done(entering)
    value = entering.result()
    try:
        if cancelled is not None:
            raise cancelled
        yield value
    finally:
        leaving = asyncio.ensure_future(asyncio.to_thread(manager.__exit__, None, None, None))
        cancelled = await _done(leaving)
        leaving.result()
        if cancelled is not None:
            raise cancelled


async def _done(task: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a task is done, and return the cancel of this one that came meanwhile."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
