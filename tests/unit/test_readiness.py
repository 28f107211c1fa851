"""Servers that come up: how many at once, and noticing at once that one answers."""

import asyncio

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from ds01_spawner.readiness import LaunchSlots, until_answering


async def test_no_more_come_up_at_once_than_there_are_slots_and_all_do_in_order():
    slots, now, most, order = LaunchSlots(3), 0, 0, []

    async def come_up(number):
        nonlocal now, most
        async with slots.one(f"user{number}", on_wait=lambda: None):
            now += 1
            most = max(most, now)
            order.append(number)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(come_up(number) for number in range(20)))
    assert most == 3
    assert order == list(range(20))


async def test_a_server_that_does_not_come_up_holds_up_nobody():
    slots = LaunchSlots(1, longest_s=0.05)
    waited = []
    stuck = asyncio.ensure_future(_hold(slots, asyncio.Event()))
    await asyncio.sleep(0)

    async def next_one():
        async with slots.one("other", on_wait=lambda: waited.append(True)):
            assert not stuck.done()

    await asyncio.wait_for(next_one(), 5)
    assert waited == [True]
    stuck.cancel()
    await asyncio.wait({stuck})
    # Its slot was given back once and not twice.
    assert slots._free._value == 1


async def test_one_user_never_takes_all_slots():
    slots = LaunchSlots(2)
    greedy = [asyncio.ensure_future(_hold(slots, asyncio.Event())) for _ in range(5)]
    await asyncio.sleep(0)
    free_at_once = []

    async def somebody_else():
        async with slots.one("other", on_wait=lambda: free_at_once.append(False)):
            free_at_once.append(True)

    await asyncio.wait_for(somebody_else(), 5)
    assert free_at_once == [True]
    for one in greedy:
        one.cancel()
    await asyncio.wait(greedy)


async def test_a_cancelled_start_gives_its_slot_back():
    slots = LaunchSlots(1)
    holder = asyncio.ensure_future(_hold(slots, asyncio.Event()))
    await asyncio.sleep(0)
    holder.cancel()
    await asyncio.wait({holder})
    await asyncio.wait_for(_hold(slots, None), 5)


async def _hold(slots, until):
    async with slots.one("user", on_wait=lambda: None):
        if until is not None:
            await until.wait()


class Late(RequestHandler):
    """Fails twice, then wants a log-in, as a notebook server does."""

    asked = 0

    def get(self):
        Late.asked += 1
        self.set_status(503 if Late.asked < 3 else 403)


async def test_an_answer_below_500_is_a_server_that_is_up():
    listener, port = bind_unused_port()
    server = HTTPServer(Application([("/api", Late)]))
    looks = []

    async def look():
        looks.append(True)

    waiting = asyncio.ensure_future(until_answering(f"http://127.0.0.1:{port}/api", look))
    server.add_sockets([listener])
    await asyncio.wait_for(waiting, 30)
    assert Late.asked == 3
    server.stop()


async def test_waiting_ends_when_there_is_nothing_to_wait_for():
    listener, port = bind_unused_port()
    listener.close()

    async def ended():
        raise RuntimeError("ended")

    with pytest.raises(RuntimeError, match="ended"):
        await asyncio.wait_for(until_answering(f"http://127.0.0.1:{port}/api", ended), 30)
