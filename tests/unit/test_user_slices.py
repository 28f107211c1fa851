"""One thing at a time for each user's slice, in this process and beside others."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.slices import PROBE, slice_name
from ds01_spawner.cgroups.user_slices import UserSlices

LIMITS = SliceLimits(cpus=1, memory_bytes=1 << 30, tasks=100)
ALICE = slice_name("alice")


class Remembered:
    """Slices that are only remembered, and calls that can be held up."""

    knows_memory_high = True

    def __init__(self) -> None:
        self.there: dict[str, SliceLimits] = {}
        self.occupied: set[str] = set()
        self.calls: list[str] = []
        self.refuses = False
        #: A call that has come waits until it may go.
        self.come, self.go = threading.Event(), threading.Event()
        self.go.set()

    def parent(self, name):
        return f"parent of {name}"

    def set(self, name, limits):
        self._call("set")
        if self.refuses:
            raise SliceError("refused")
        self.there[name] = limits

    def limits(self, name):
        self._call("limits")
        return self.there.get(name)

    def usage(self, name):
        raise NotImplementedError

    def remove_if_empty(self, name):
        self._call("remove")
        if name in self.occupied:
            return False
        self.there.pop(name, None)
        return True

    def names(self):
        return sorted(self.there)

    def _call(self, what):
        self.come.set()
        assert self.go.wait(20)
        self.calls.append(what)


@pytest.fixture
def kernel():
    return Remembered()


@pytest.fixture
def slices(kernel, tmp_path):
    return UserSlices(kernel, tmp_path / "locks")


async def soon(awaitable):
    """See that something waits for nobody."""
    await asyncio.wait_for(awaitable, 20)


async def start(slices, user, limits=LIMITS):
    """Make a slice ready and start nothing under it."""
    async with slices.ready(user, limits):
        pass


async def come(kernel):
    """Wait until a call is in its thread."""
    await asyncio.to_thread(kernel.come.wait, 20)


async def is_waiting(task):
    """Tell whether a task is still not done after all that can go on has gone on."""
    await asyncio.wait([task], timeout=0.2)
    return not task.done()


async def test_the_limits_stand_while_a_container_is_started(slices, kernel):
    async with slices.ready("alice", LIMITS):
        assert kernel.there == {ALICE: LIMITS}
    assert slices.parent("alice") == f"parent of {ALICE}"


async def test_limits_that_are_not_in_force_afterwards_are_an_error(slices, kernel):
    with pytest.raises(SliceError, match="tasks is unlimited and should be 100"):
        async with slices.ready("alice", LIMITS):
            kernel.there[ALICE] = SliceLimits(cpus=1, memory_bytes=1 << 30)


async def test_a_slice_that_went_during_a_start_is_an_error(slices, kernel):
    with pytest.raises(SliceError, match="gone"):
        async with slices.ready("alice", LIMITS):
            del kernel.there[ALICE]


async def test_a_start_that_fails_says_why_itself(slices, kernel):
    async def fail():
        async with slices.ready("alice", LIMITS):
            kernel.there.clear()
            raise RuntimeError("no container")

    with pytest.raises(RuntimeError, match="no container"):
        await fail()


async def test_a_limit_that_the_kernel_does_not_know_is_no_error(slices, kernel):
    kernel.knows_memory_high = False
    async with slices.ready("alice", SliceLimits(memory_high_bytes=1 << 20)):
        kernel.there[ALICE] = SliceLimits()


async def test_no_slice_is_removed_while_a_container_is_started_under_it(slices, kernel):
    async with slices.ready("alice", LIMITS):
        leaving = asyncio.ensure_future(slices.leave("alice"))
        sweeping = asyncio.ensure_future(slices.sweep())
        assert await is_waiting(leaving)
        assert await is_waiting(sweeping)
        # Another user waits for nobody.
        await soon(start(slices, "bob"))
        kernel.occupied.add(ALICE)
    await asyncio.gather(leaving, sweeping)

    assert ALICE in kernel.there


async def test_users_whose_names_are_alike_wait_for_nobody(slices):
    async with slices.ready("Alice", LIMITS):
        await soon(start(slices, "alice"))


async def test_an_empty_slice_goes_when_its_user_leaves(slices, kernel):
    await start(slices, "alice")
    await slices.leave("alice")

    assert kernel.there == {}


async def test_a_sweep_removes_what_is_empty_and_goes_on_after_a_failure(slices, kernel, caplog):
    kernel.there = dict.fromkeys(map(slice_name, ("a", "b", "c")), LIMITS)
    kernel.occupied = {slice_name("b")}
    remove = kernel.remove_if_empty

    def fail_once(name):
        if name == slice_name("a"):
            raise SliceError("it is stuck")
        return remove(name)

    kernel.remove_if_empty = fail_once
    await slices.sweep()

    assert set(kernel.there) == {slice_name("a"), slice_name("b")}
    assert "it is stuck" in caplog.text


# -- following a policy ----------------------------------------------------------------------


async def test_changed_limits_are_set_and_unchanged_ones_cost_nothing(slices, kernel):
    await start(slices, "alice")
    kernel.calls.clear()

    await slices.follow("alice", LIMITS)
    assert kernel.calls == []
    await slices.follow("alice", SliceLimits(cpus=2))
    assert kernel.there[ALICE] == SliceLimits(cpus=2)
    kernel.calls.clear()
    await slices.follow("alice", SliceLimits(cpus=2))
    assert kernel.calls == []


async def test_following_makes_no_slice(slices, kernel):
    await slices.follow("alice", LIMITS)
    assert kernel.there == {}


async def test_a_hub_that_has_just_come_up_sets_what_it_finds(slices, kernel):
    kernel.there[ALICE] = SliceLimits()
    await slices.follow("alice", LIMITS)
    assert kernel.there[ALICE] == LIMITS


async def test_a_change_that_failed_is_tried_again(slices, kernel):
    await start(slices, "alice")
    kernel.refuses = True
    for _ in range(2):
        with pytest.raises(SliceError, match="refused"):
            await slices.follow("alice", SliceLimits(cpus=2))
    with pytest.raises(SliceError, match="refused"):
        await slices.follow("alice", LIMITS)
    kernel.refuses = False
    await slices.follow("alice", SliceLimits(cpus=2))

    assert kernel.there[ALICE] == SliceLimits(cpus=2)


async def test_a_start_sets_the_limits_again_whatever_was_set_before(slices, kernel):
    await start(slices, "alice")
    kernel.there[ALICE] = SliceLimits()
    async with slices.ready("alice", LIMITS):
        assert kernel.there[ALICE] == LIMITS


# -- cancelling ------------------------------------------------------------------------------


async def test_whoever_is_cancelled_while_waiting_holds_nothing(slices):
    async with slices.ready("alice", LIMITS):
        waiting = [asyncio.ensure_future(slices.leave("alice")) for _ in range(3)]
        assert await is_waiting(waiting[0])
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    await soon(slices.leave("alice"))


async def test_a_cancel_lets_go_only_when_the_change_has_been_made(slices, kernel):
    kernel.go.clear()
    leaving = asyncio.ensure_future(slices.leave("alice"))
    await come(kernel)
    for _ in range(3):
        leaving.cancel()
        assert await is_waiting(leaving)
    after = asyncio.ensure_future(slices.follow("alice", LIMITS))
    assert await is_waiting(after)
    assert kernel.calls == []

    kernel.go.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await after
    assert kernel.calls == ["remove", "limits"]


async def test_a_cancelled_start_lets_go(slices):
    started = asyncio.Event()

    async def start():
        async with slices.ready("alice", LIMITS):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(start())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(slices.leave("alice"))


async def test_no_lock_of_a_user_who_has_gone_is_kept_in_memory(slices):
    for number in range(50):
        await slices.leave(f"user-{number}")
    gc.collect()
    assert len(slices._turns) == 0


# -- other processes -------------------------------------------------------------------------

OTHER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_another_hub_is_waited_for_also_one_that_is_killed(slices, kernel, tmp_path):
    await start(slices, "alice")
    lock = tmp_path / "locks" / f"{ALICE}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert await asyncio.to_thread(other.stdout.readline) == b"held\n"
        leaving = asyncio.ensure_future(slices.leave("alice"))
        assert await is_waiting(leaving)
        await soon(start(slices, "bob"))
        other.kill()
        await soon(leaving)
    assert ALICE not in kernel.there


async def test_two_of_one_process_wait_for_each_other(slices, kernel, tmp_path):
    other = UserSlices(kernel, tmp_path / "locks")
    async with slices.ready("alice", LIMITS):
        leaving = asyncio.ensure_future(other.leave("alice"))
        assert await is_waiting(leaving)
    await leaving
    assert kernel.there == {}


async def test_a_lock_that_cannot_be_had_says_so(slices, tmp_path):
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / f"{ALICE}.lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SliceError, match=r"lock .* cannot be used"):
        await slices.leave("alice")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("user", ["../../x", "a/b", "", "\N{GRINNING FACE}" * 255, "x" * 190])
async def test_the_lock_of_any_name_is_a_file_in_the_directory(slices, tmp_path, user):
    await slices.leave(user)
    (file,) = (tmp_path / "locks").iterdir()
    assert file.name == f"{slice_name(user)}.lock"


# -- the check at the Hub's start ------------------------------------------------------------


async def test_the_check_makes_and_removes_a_slice_that_is_nobodys(slices, kernel):
    await slices.check()
    assert kernel.calls == ["set", "limits", "remove"]
    assert kernel.there == {}


async def test_the_check_tells_that_nothing_can_be_limited(slices, kernel):
    kernel.refuses = True
    with pytest.raises(SliceError, match="refused"):
        await slices.check()


async def test_the_check_tells_that_limits_do_not_hold(slices, kernel):
    kernel.limits = lambda _name: SliceLimits()
    with pytest.raises(SliceError, match="not in force"):
        await slices.check()


async def test_the_check_tells_that_a_slice_stays(slices, kernel):
    kernel.occupied.add(PROBE)
    with pytest.raises(SliceError, match="a trial only"):
        await slices.check()
