"""Many users who come and go at once: no container without its limits, and no slice left."""

from __future__ import annotations

import asyncio
import random

import pytest

from ds01_spawner.cgroups.hierarchies import slice_of
from ds01_spawner.cgroups.limits import SliceLimits

from .users import SLOW

#: A start takes seconds in the virtual machine.
USERS, ROUNDS = 6, max(3, int(15 / SLOW))


@pytest.mark.long
def test_slices_come_and_go_under_starts_and_ends_that_meet(user, user_slices, slices):
    people = [user() for _ in range(USERS)]
    chance = random.Random(1)
    delays = [[chance.random() / 5 for _ in range(2 * ROUNDS)] for _ in people]

    async def one_server(person, waits):
        """Start and end a server again and again, as one of a person's two projects."""
        for number in range(ROUNDS):
            limits = SliceLimits(tasks=100 + number)
            async with user_slices.ready(person.name, limits):
                container = await asyncio.to_thread(person.start)
            assert slice_of(container.pid) == person.slice
            found = person.limits
            # The other project may have set its own by now; none is what must not be.
            assert found is not None
            assert found.tasks in range(100, 100 + ROUNDS)
            await asyncio.sleep(waits[number])
            await asyncio.to_thread(container.remove)
            await user_slices.leave(person.name)
            if number % 5 == 0:
                await user_slices.sweep()

    async def everybody():
        both = [
            one_server(person, waits[half : half + ROUNDS])
            for person, waits in zip(people, delays, strict=True)
            for half in (0, ROUNDS)
        ]
        await asyncio.gather(*both)

    asyncio.run(everybody())
    assert not {person.slice for person in people} & set(slices.names())
