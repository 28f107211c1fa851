"""Whatever is wrong with the GPUs, the form comes, and says so."""

import asyncio

import pytest
import requests

from ds01_spawner import choices
from ds01_spawner.choices import gpu_choices
from ds01_spawner.errors import Refused
from ds01_spawner.gpus.devices import Inventory, Snapshot
from ds01_spawner.policy import GIB, Limits

from .machine import INVENTORY

LIMITS = Limits(4, GIB, GIB, GIB, 100, gpus_per_server=2)


class Grants:
    """Answers with a snapshot, with an error, or not at all."""

    def __init__(self, answer=None):
        self.answer = answer

    async def stand(self, user):
        assert user == "alice"
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer, {"thesis": 0.25}


async def test_what_is_free_is_offered():
    found = await gpu_choices(Grants(Snapshot(INVENTORY)), "alice", LIMITS)

    assert [(o.value, o.free) for o in found.offers] == [("2g.20gb", 3), ("full", 2)]
    assert [o.within for o in found.offers] == [True, False]
    assert found.largest_count == 2
    assert found.used == "thesis (0.25)"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Snapshot(Inventory()), "There is no GPU on this server"),
        (Snapshot(Inventory(problem="The driver is not loaded.")), "tell an admin"),
        (requests.exceptions.ConnectionError(), "cannot be read"),
        (Refused("GPUs cannot be attached.", reason="gpu"), "GPUs cannot be attached"),
        (KeyError("Labels"), "cannot be read"),
    ],
)
async def test_what_is_wrong_is_said_in_place_of_the_sizes(answer, words):
    found = await gpu_choices(Grants(answer), "alice", LIMITS)

    assert found.offers == ()
    assert words in found.problem
    # What only helps an admin is for the log.
    assert "driver" not in found.problem


async def test_a_driver_that_hangs_does_not_keep_the_form(monkeypatch):
    monkeypatch.setattr(choices, "_PATIENCE_S", 0.1)

    assert "cannot be read" in (await gpu_choices(Grants(), "alice", LIMITS)).problem
