"""Context managers that block, entered by coroutines."""

import asyncio
import threading
from contextlib import contextmanager, suppress

import pytest

from ds01_spawner.blocking import in_thread


@pytest.fixture
def manager():
    """Return a context manager that enters and leaves when it is let."""

    class Slow:
        def __init__(self) -> None:
            self.enter, self.leave, self.seen = threading.Event(), threading.Event(), []

        @contextmanager
        def __call__(self):
            self.seen.append("entering")
            self.enter.wait(20)
            yield "value"
            self.leave.wait(20)
            self.seen.append("left")

    return Slow()


async def test_the_loop_goes_on_while_a_manager_blocks(manager):
    async def use():
        async with in_thread(manager()) as value:
            manager.seen.append(value)

    task = asyncio.ensure_future(use())
    while not manager.seen:
        await asyncio.sleep(0.001)
    manager.enter.set()
    manager.leave.set()
    await task

    assert manager.seen == ["entering", "value", "left"]


@pytest.mark.parametrize("when", ["entering", "value"])
async def test_what_was_entered_is_left_although_it_is_cancelled(manager, when):
    async def use():
        async with in_thread(manager()) as value:
            manager.seen.append(value)
            await asyncio.sleep(20)

    if when == "value":
        manager.enter.set()
    task = asyncio.ensure_future(use())
    while when not in manager.seen:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    manager.enter.set()
    # A second time, while it leaves.
    task.cancel()
    manager.leave.set()
    with suppress(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert manager.seen[-1] == "left"


async def test_an_error_on_entry_is_told():
    @contextmanager
    def fails():
        raise ValueError("no")
        yield

    with pytest.raises(ValueError, match="no"):
        async with in_thread(fails()):
            pass
