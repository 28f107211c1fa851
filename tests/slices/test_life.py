"""When slices come and go, and whose they are."""

import asyncio

import pytest

from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.slices import PROBE

from .users import eventually

STRANGE = [
    "Alice",
    "alice",
    "a.b",
    "a-b",
    "a/b",
    "../x",
    ".",
    "a:b",
    "a b\n",
    r"a\x2db",
    "cpu.max",
    "\N{GRINNING FACE}" * 3,
    "\N{GRINNING FACE}" * 255,
]


def test_an_empty_slice_goes_and_one_with_a_container_stays(user, slices):
    alice = user()
    alice.limit(tasks=50)
    assert alice.slice in slices.names()
    container = alice.start()

    assert not slices.remove_if_empty(alice.slice)
    assert container.is_running
    assert alice.limits == SliceLimits(tasks=50)

    container.remove()
    eventually(lambda: slices.remove_if_empty(alice.slice), "the slice goes")
    assert alice.limits is None
    assert alice.slice not in slices.names()


def test_a_slice_that_was_removed_is_made_again_with_its_limits(user, slices):
    alice = user()
    for tasks in (50, 60):
        alice.limit(tasks=tasks)
        container = alice.start()
        assert alice.limits == SliceLimits(tasks=tasks)
        container.remove()
        eventually(lambda: slices.remove_if_empty(alice.slice), "the slice goes")


def test_a_slice_that_the_engine_made_without_limits_gets_them(user):
    alice = user()
    container = alice.start()
    assert alice.limits == SliceLimits()

    alice.limit(cpus=0.5, tasks=20)

    assert alice.limits == SliceLimits(cpus=0.5, tasks=20)
    loop = container.fork_forever()
    eventually(lambda: loop.exit_code, "the limit is reached")
    assert alice.usage.tasks <= 20


@pytest.mark.long_in_vm
def test_strange_names_have_a_slice_each(user, slices):
    people = [user(name) for name in STRANGE]
    for number, person in enumerate(people):
        person.limit(tasks=100 + number)
    assert [person.limits.tasks for person in people] == [100 + n for n in range(len(people))]
    assert {person.slice for person in people} <= set(slices.names())

    # The engine finds each of them.
    for number, person in enumerate(people):
        container = person.start()
        assert container.usage.tasks >= 1
        assert person.usage.tasks >= 1, person.name
        assert person.limits.tasks == 100 + number
        container.remove()


def test_the_hub_finds_that_it_can_make_slices_here(user_slices, slices):
    asyncio.run(user_slices.check())
    assert PROBE not in slices.names()


def test_limits_stand_before_a_start_and_are_read_back_after_it(user, user_slices):
    alice = user()
    limits = SliceLimits(cpus=1 / 3, memory_bytes=10**8, memory_high_bytes=9 * 10**7, tasks=33)

    async def start():
        async with user_slices.ready(alice.name, limits):
            await asyncio.to_thread(alice.start)

    asyncio.run(start())
    assert alice.limits.tasks == 33


def test_limits_that_somebody_changes_during_a_start_are_found(user, user_slices):
    alice = user()

    async def start():
        async with user_slices.ready(alice.name, SliceLimits(tasks=33)):
            await asyncio.to_thread(alice.limit, tasks=34)

    with pytest.raises(SliceError, match="tasks is 34 and should be 33"):
        asyncio.run(start())


def test_a_sweep_leaves_the_slices_with_containers(user, user_slices, slices):
    alice, bob = user(), user()
    alice.limit(tasks=50)
    bob.limit(tasks=50)
    alice.start()

    asyncio.run(user_slices.sweep())

    assert alice.limits == SliceLimits(tasks=50)
    assert bob.limits is None
