"""Images are fetched once, with their progress told, however many wait."""

import asyncio
import threading
import time

import pytest

from ds01_spawner.errors import Refused
from ds01_spawner.pulls import Pulls


class Registry:
    """Streams the events of a pull."""

    def __init__(self, *events):
        self.events, self.asked, self.ended = events, 0, threading.Event()

    def pull(self, _reference, stream, decode):
        assert stream
        assert decode
        self.asked += 1
        return (event for event in self.events)


def downloading(layer, current, total):
    detail = {"current": current, "total": total}
    return {"status": "Downloading", "id": layer, "progressDetail": detail}


async def test_a_pull_tells_its_bytes_over_all_layers():
    registry = Registry(
        {"status": "Pulling fs layer", "id": "a", "progressDetail": {}},
        downloading("a", 10, 100),
        downloading("b", 50, 300),
        downloading("a", 100, 100),
        {"status": "Download complete", "id": "a", "progressDetail": {}},
    )
    told = []
    await Pulls().fetch(registry, "image", lambda *bytes_: told.append(bytes_))
    assert told == [(10, 100), (60, 400), (150, 400)]


async def test_a_pull_that_fails_is_explained_and_can_be_tried_again():
    registry, pulls = Registry({"error": "manifest unknown"}), Pulls()
    for _ in range(2):
        with pytest.raises(Refused, match="cannot be fetched") as refused:
            await pulls.fetch(registry, "image", lambda *_: None)
        assert refused.value.status_code == 503
    assert registry.asked == 2


class Endless(Registry):
    """Streams for as long as somebody listens."""

    def pull(self, *args, **kwargs):
        self.asked += 1
        try:
            while True:
                yield downloading("a", 1, 2)
                time.sleep(0.01)
        finally:
            self.ended.set()


async def test_many_who_wait_share_one_pull_which_ends_with_the_last_of_them():
    registry, pulls = Endless(), Pulls()
    told = [asyncio.Event() for _ in range(3)]
    waiting = [
        asyncio.ensure_future(pulls.fetch(registry, "image", lambda *_, event=event: event.set()))
        for event in told
    ]
    for event in told:
        await asyncio.wait_for(event.wait(), 10)
    assert registry.asked == 1
    for one in waiting[:2]:
        one.cancel()
    await asyncio.wait(waiting[:2])
    assert not registry.ended.is_set()
    waiting[2].cancel()
    await asyncio.wait(waiting)
    assert await asyncio.to_thread(registry.ended.wait, 10)
