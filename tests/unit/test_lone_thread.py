"""A call that hangs holds up only what is behind it."""

import subprocess
import sys
import threading

import pytest

from ds01_spawner.lone_thread import LoneThread


async def test_calls_are_answered_in_turn_and_failures_are_raised():
    thread = LoneThread("test")

    assert await thread.run(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert await thread.run(threading.current_thread) is thread._thread


def test_a_call_that_nobody_waits_for_any_more_is_left_out():
    thread, goes_on, called = LoneThread("test"), threading.Event(), []
    first = thread.submit(goes_on.wait)
    second = thread.submit(called.append, 2)
    third = thread.submit(called.append, 3)
    assert second.cancel()

    goes_on.set()

    assert first.result(10)
    third.result(10)
    assert called == [3]


def test_a_process_ends_although_a_call_hangs():
    program = (
        "import threading; from ds01_spawner.lone_thread import LoneThread; "
        "LoneThread('test').submit(threading.Event().wait)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
