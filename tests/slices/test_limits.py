"""The kernel holds a user's containers to their sum, and others notice nothing."""

import time

import pytest

from ds01_spawner.cgroups.hierarchies import slice_of
from ds01_spawner.cgroups.limits import SliceError, SliceLimits

from .users import MIB, eventually


def test_a_container_is_under_its_users_slice(user):
    alice = user()
    alice.limit(tasks=50)

    assert slice_of(alice.start().pid) == alice.slice


def test_memory_ends_at_the_sum_and_the_neighbour_keeps_his(user):
    alice, bob = user(), user()
    alice.limit(memory_bytes=100 * MIB)
    bob.limit(memory_bytes=100 * MIB)
    neighbour = bob.start(memory_mib=64)
    his = neighbour.hold_memory(44)
    eventually(lambda: neighbour.usage.memory_bytes > 44 * MIB, "the neighbour has his memory")

    hers = [alice.start(memory_mib=64) for _ in range(3)]
    hogs = [container.hold_memory(44) for container in hers]

    eventually(lambda: any(hog.exit_code == 137 for hog in hogs), "the kernel has killed a process")
    assert alice.usage.oom_kills >= 1
    assert alice.usage.memory_bytes <= 100 * MIB
    assert all(container.usage.memory_bytes < 64 * MIB for container in hers)
    # One of them would have fitted, and two: nobody was killed without need.
    survivors = [hog for hog in hogs if hog.exit_code is None]
    assert len(survivors) in (1, 2)
    assert all(container.is_running for container in hers)
    assert his.exit_code is None
    assert neighbour.usage.memory_bytes > 44 * MIB
    assert bob.usage.oom_kills == 0


def test_cpu_ends_at_the_sum_and_the_neighbour_gets_his(user, capsys):
    alice, bob = user(), user()
    alice.limit(cpus=0.5)
    bob.limit(cpus=1)
    for _ in range(3):
        alice.start(cpus=0.4).compute()
    bob.start(cpus=1).compute()
    eventually(lambda: alice.usage.cpu_seconds > 1, "they compute")
    eventually(lambda: bob.usage.cpu_seconds > 1, "the neighbour computes")

    samples = []
    began = time.monotonic()
    while time.monotonic() < began + 24:
        at = time.monotonic()
        samples.append((at, alice.usage.cpu_seconds, time.monotonic(), bob.usage.cpu_seconds))
        time.sleep(0.5)

    shares = [
        # The time in which the first was surely not read yet, and the second surely was.
        (second[1] - first[1]) / (second[2] - first[0])
        for number, first in enumerate(samples)
        for second in samples[number:]
        if second[0] - first[0] >= 20
    ]
    his = (samples[-1][3] - samples[0][3]) / (samples[-1][0] - samples[0][0])
    with capsys.disabled():
        print(
            f"\nover 20 s: {min(shares):.3f} to {max(shares):.3f} CPUs of 0.5 in "
            f"{len(shares)} windows; the neighbour had {his:.3f} of 1"
        )
    assert max(shares) <= 0.5 * 1.05
    # They did want more than they got.
    assert min(shares) > 0.5 * 0.5
    assert his > 0.25


@pytest.mark.long_in_vm
def test_tasks_end_at_the_sum_and_the_neighbour_goes_on(user):
    alice, bob = user(), user()
    alice.limit(tasks=60)
    bob.limit(tasks=60)
    hers = [alice.start(pids=40) for _ in range(2)]
    neighbour = bob.start(pids=40)

    loops = [container.fork_forever() for container in hers]

    eventually(lambda: all(loop.exit_code for loop in loops), "no process can be made any more")
    assert 50 <= alice.usage.tasks <= 60
    assert all(container.usage.tasks <= 40 for container in hers)
    done = neighbour.run("true; sleep 0")
    eventually(lambda: done.exit_code == 0, "the neighbour makes processes")


# -- changed while containers run ------------------------------------------------------------


def test_changed_tasks_take_effect_at_once(user):
    alice = user()
    alice.limit(tasks=20)
    container = alice.start()
    loop = container.fork_forever()
    eventually(lambda: loop.exit_code, "the first limit is reached")
    assert alice.usage.tasks <= 20

    alice.limit(tasks=40)

    assert alice.limits == SliceLimits(tasks=40)
    more = container.fork_forever()
    eventually(lambda: more.exit_code, "the second limit is reached")
    assert 30 <= alice.usage.tasks <= 40


def test_changed_cpu_takes_effect_at_once_also_below_a_containers_own(user):
    alice = user()
    alice.limit(cpus=1)
    container = alice.start(cpus=0.8)
    container.compute()
    eventually(lambda: alice.usage.cpu_seconds > 0.5, "it computes")

    alice.limit(cpus=0.2)

    assert alice.limits == SliceLimits(cpus=0.2)
    before, began = alice.usage.cpu_seconds, time.monotonic()
    eventually(lambda: alice.usage.cpu_seconds > before + 1, "it goes on computing")
    assert (alice.usage.cpu_seconds - before) / (time.monotonic() - began) < 0.2 * 1.1


def test_changed_memory_takes_effect_at_once(user):
    alice = user()
    alice.limit(memory_bytes=160 * MIB)
    container = alice.start(memory_mib=200)
    first = container.hold_memory(90)
    eventually(lambda: alice.usage.memory_bytes > 90 * MIB, "it fits")
    first_kills = alice.usage.oom_kills

    alice.limit(memory_bytes=120 * MIB)

    assert alice.limits == SliceLimits(memory_bytes=120 * MIB)
    second = container.hold_memory(90)
    eventually(
        lambda: {first.exit_code, second.exit_code} == {None, 137}, "one of the two is killed"
    )
    assert first_kills == 0
    assert alice.usage.oom_kills == 1


def test_memory_in_use_is_kept_or_the_new_limit_holds(user, slices):
    """v1 refuses and says so; v2 kills in the slice. Neither lets it pass."""
    alice = user()
    alice.limit(memory_bytes=160 * MIB)
    hog = alice.start().hold_memory(90)
    eventually(lambda: alice.usage.memory_bytes > 90 * MIB, "the memory is in use")

    if slices.knows_memory_high:
        alice.limit(memory_bytes=40 * MIB, tasks=30)
        eventually(lambda: hog.exit_code == 137, "the kernel makes room")
        assert alice.limits == SliceLimits(memory_bytes=40 * MIB, tasks=30)
    else:
        with pytest.raises(SliceError, match="more is in use"):
            alice.limit(memory_bytes=40 * MIB, tasks=30)
        assert hog.exit_code is None
        assert alice.limits == SliceLimits(memory_bytes=160 * MIB, tasks=30)


def test_a_limit_that_is_taken_away_is_gone(user):
    alice = user()
    alice.limit(cpus=0.5, memory_bytes=100 * MIB, memory_high_bytes=90 * MIB, tasks=20)
    alice.start()

    alice.limit()

    assert alice.limits == SliceLimits()


def test_all_limits_are_read_back_as_the_kernel_has_them(user, slices):
    alice = user()
    alice.limit(cpus=0.75, memory_bytes=100 * MIB, memory_high_bytes=90 * MIB, tasks=20)
    high = 90 * MIB if slices.knows_memory_high else None

    assert alice.limits == SliceLimits(0.75, 100 * MIB, high, 20)
