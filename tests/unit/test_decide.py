"""When a server is kept, when its owner is warned, and when it is stopped."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.lifecycle.decide import (
    Ask,
    Facts,
    Keep,
    Reason,
    Rules,
    Stop,
    Unknown,
    Warn,
    decide,
    too_full,
)
from ds01_spawner.lifecycle.history import History, Idle, Kernels, Sample

BEGAN = datetime(2026, 6, 1, 8, 0, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
IDLE = Idle()


def at(minutes):
    return BEGAN + minutes * MINUTE


def lived(minutes, cpu=lambda m: 0.0, gpu=lambda m: None, **more):
    """Return a history with a sample each minute."""
    history = History.begun(BEGAN)
    for minute in range(1, minutes + 1):
        sample = Sample(at(minute), cpu(minute), gpu(minute), **more)
        history = history.with_sample(sample, IDLE, 3 * MINUTE)
    return history


def decided(history, minutes, *, rules=None, high_demand=False, **facts):
    known = {"kernels": facts.pop("kernels", Kernels()), "silent": facts.pop("silent", False)}
    rules = rules or Rules(grace=timedelta(0))
    facts = Facts(BEGAN, **facts)
    return decide(history, facts, rules, high_demand, at(minutes), cycle=MINUTE, **known)


# -- what counts as busy --------------------------------------------------------------------------


def test_a_server_that_does_nothing_is_idle_since_it_was_first_seen():
    assert lived(20).busy_until == BEGAN


@pytest.mark.parametrize(
    ("more", "busy_until"),
    [
        ({"cpu": lambda m: 50.0 if m <= 10 else 0.0}, 12),
        ({"gpu": lambda m: 90.0 if m <= 10 else 0.0}, 12),
        # One spike that the mean over the window does not reach.
        ({"cpu": lambda m: 5.0 if m == 10 else 0.0}, 0),
        # A pause that the mean bridges.
        ({"cpu": lambda m: 0.0 if m in (9, 10) else 50.0}, 20),
        # What cannot be read is no idleness.
        ({"cpu": lambda m: None if m == 10 else 0.0}, 10),
        ({"gpu_known": False}, 20),
    ],
)
def test_busy_is_what_reaches_a_threshold_over_the_window(more, busy_until):
    assert lived(20, **more).busy_until == at(busy_until)


def test_the_network_counts_where_the_policy_asks():
    asked = Idle(network_bytes=1000)
    history = History.begun(BEGAN)
    for minute in range(1, 11):
        sample = Sample(at(minute), 0.0, network_bytes=2000)
        history = history.with_sample(sample, asked, 3 * MINUTE)
    assert history.busy_until == at(10)
    assert lived(10, network_bytes=2000).busy_until == BEGAN


def test_a_download_that_executes_is_at_work_whatever_the_policy_says_of_networks():
    executing = Kernels(executing_since=BEGAN)
    for traffic, stalled in ((2 * 1024**2, None), (2000, BEGAN)):
        history = lived(90, network_bytes=traffic)
        assert history.stalled_since(executing, timedelta(hours=1), at(90)) == stalled
        assert history.busy_until == BEGAN


def test_time_between_samples_that_are_too_far_apart_is_not_known():
    history = lived(20).with_sample(Sample(at(40), 0.0), IDLE, 3 * MINUTE)
    assert history.busy_until == at(40)
    assert not history.is_full(IDLE)


# -- idleness -------------------------------------------------------------------------------------


def test_an_open_notebook_is_warned_of_twice_and_stopped_at_its_time():
    assert decided(lived(17), 17) == Keep(at(30), Reason.IDLE)
    assert decided(lived(20), 20) == Warn(at(30), Reason.IDLE, 1)
    once = {"warned_idle": (at(20),)}
    assert decided(lived(26), 26, **once) == Keep(at(30), Reason.IDLE)
    assert decided(lived(27), 27, **once) == Warn(at(30), Reason.IDLE, 2)
    twice = {"warned_idle": (at(20), at(27))}
    assert decided(lived(29), 29, **twice) == Keep(at(30), Reason.IDLE)
    assert decided(lived(30), 30, **twice) == Stop(Reason.IDLE, BEGAN)


def test_nothing_is_stopped_without_a_warning_ten_minutes_before():
    assert decided(lived(60), 60) == Warn(at(70), Reason.IDLE, 1)
    late = {"warned_idle": (at(60),)}
    assert decided(lived(65), 65, **late) == Warn(at(70), Reason.IDLE, 2)
    both = {"warned_idle": (at(60), at(65))}
    assert decided(lived(69), 69, **both) == Keep(at(70), Reason.IDLE)
    assert decided(lived(70), 70, **both) == Stop(Reason.IDLE, BEGAN)


def test_a_warning_of_an_earlier_end_is_none_of_a_later_one():
    # Two warnings, then a wish to keep it: it is warned of the new end as of any other.
    told = {"warned_idle": (at(20), at(27)), "keep_until": at(240)}
    assert decided(lived(100), 100, **told) == Keep(at(240), Reason.IDLE)
    assert decided(lived(230), 230, **told) == Warn(at(240), Reason.IDLE, 1)
    anew = {"warned_idle": (at(20), at(27), at(230)), "keep_until": at(240)}
    assert decided(lived(236), 236, **anew) == Keep(at(240), Reason.IDLE)
    assert decided(lived(237), 237, **anew) == Warn(at(240), Reason.IDLE, 2)
    # The demand is over: what was said of its end is, too.
    soon = {"warned_idle": (at(8), at(13)), "has_gpu": True}
    assert decided(lived(15), 15, **soon) == Keep(at(30), Reason.IDLE)
    assert decided(lived(20), 20, **soon) == Warn(at(30), Reason.IDLE, 1)
    # A policy that gives it more time.
    rules = Rules(max_runtime=timedelta(hours=8))
    assert decided(busy(240), 240, rules=rules, warned_runtime=(at(180), at(216))) == Keep(
        at(270), Reason.IDLE
    )
    late = {"warned_runtime": (at(180), at(216))}
    assert decided(busy(480), 480, rules=rules, **late) == Warn(at(490), Reason.RUNTIME, 1)


def test_a_server_is_asked_for_its_kernels_only_when_it_matters():
    assert decided(lived(17), 17, kernels=None) == Keep(at(30), Reason.IDLE)
    for minutes in (18, 20, 30):
        assert decided(lived(minutes), minutes, kernels=None) == Ask()


def test_a_kernel_that_executes_is_busy_and_one_that_is_open_is_not():
    working = Kernels(executing_since=at(5), last_activity=at(5))
    assert decided(lived(30), 30, kernels=working) == Keep(at(60), Reason.IDLE)
    ended = Kernels(last_activity=at(12))
    assert decided(lived(30), 30, kernels=ended) == Keep(at(42), Reason.IDLE)


def test_a_kernel_that_waits_for_something_is_idle_and_called_so():
    stalled = Kernels(executing_since=at(5))
    assert decided(lived(64), 64, kernels=stalled) == Keep(at(94), Reason.IDLE)
    assert decided(lived(65), 65, kernels=stalled) == Warn(at(75), Reason.STALLED, 1)
    warned = {"warned_idle": (at(65), at(70))}
    assert decided(lived(75), 75, kernels=stalled, **warned) == Stop(Reason.STALLED, at(5))
    # With a sign of work it waits for nothing.
    computes = lived(65, cpu=lambda m: 1.0 if m != 40 else 20.0)
    assert decided(computes, 65, kernels=stalled) == Keep(at(95), Reason.IDLE)


def test_who_works_beside_a_kernel_that_waits_is_not_idle():
    # Short cells in one notebook, and an input() that nobody has answered in another.
    both = Kernels(executing_since=at(5), last_activity=at(119))
    assert decided(lived(120), 120, kernels=both) == Keep(at(179), Reason.STALLED)
    warned = {"warned_idle": (at(100), at(110))}
    assert decided(lived(120), 120, kernels=both, **warned) == Keep(at(179), Reason.STALLED)
    left = Kernels(executing_since=at(5), last_activity=at(50))
    assert decided(lived(120), 120, kernels=left) == Warn(at(130), Reason.STALLED, 1)


def test_a_server_that_does_not_answer_is_kept_for_that():
    warned = {"warned_idle": (at(20), at(27))}
    assert decided(lived(300), 300, silent=True, kernels=None, **warned) == Unknown()


def test_no_stop_on_less_than_a_window():
    warned = {"warned_idle": (at(20), at(27))}
    history = History.begun(BEGAN)
    assert isinstance(decided(history, 60, **warned), Keep)


def test_many_who_want_a_gpu_shorten_the_time_of_who_has_one():
    assert decided(lived(8), 8, high_demand=True, has_gpu=True) == Warn(at(18), Reason.IDLE, 1)
    assert decided(lived(8), 8, high_demand=True) == Keep(at(30), Reason.IDLE)
    assert decided(lived(8), 8, has_gpu=True) == Keep(at(30), Reason.IDLE)


def test_grace_wishes_and_exemptions_hold():
    grace = Rules(grace=timedelta(minutes=45))
    assert decided(lived(34), 34, rules=grace) == Keep(at(45), Reason.IDLE)
    assert decided(lived(35), 35, rules=grace) == Warn(at(45), Reason.IDLE, 1)
    assert decided(lived(60), 60, keep_until=at(240)) == Keep(at(240), Reason.IDLE)
    assert decided(lived(230), 230, keep_until=at(240)) == Warn(at(240), Reason.IDLE, 1)
    never = Rules(idle_timeout=None, max_runtime=None)
    assert decided(lived(60), 60, rules=never) == Keep()
    assert decided(lived(60), 60, protected=True) == Keep()


# -- runtime --------------------------------------------------------------------------------------


def busy(minutes):
    return lived(minutes, cpu=lambda m: 90.0)


def test_a_busy_server_is_stopped_at_the_end_of_its_runtime():
    rules = Rules(max_runtime=timedelta(hours=4))
    assert decided(busy(100), 100, rules=rules) == Keep(at(130), Reason.IDLE)
    assert decided(busy(180), 180, rules=rules) == Warn(at(240), Reason.RUNTIME, 1)
    warned = {"warned_runtime": (at(180), at(216))}
    assert decided(busy(239), 239, rules=rules, **warned) != Stop(Reason.RUNTIME, BEGAN)
    assert decided(busy(240), 240, rules=rules, **warned) == Stop(Reason.RUNTIME, BEGAN)
    # A wish to keep it is one against idleness.
    kept = {**warned, "keep_until": at(1000)}
    assert decided(busy(240), 240, rules=rules, **kept) == Stop(Reason.RUNTIME, BEGAN)


# -- the disk -------------------------------------------------------------------------------------

ROOM = Rules(idle_timeout=None, max_runtime=None, container_bytes=10, workspace_bytes=50)


@pytest.mark.parametrize(
    ("has_gpu", "container", "workspace", "full"),
    [
        (True, 10, 50, None),
        (True, 11, 50, Reason.CONTAINER_FULL),
        (True, 10, 51, Reason.WORKSPACE_FULL),
        # Where its owner deletes files.
        (False, 10, 51, None),
        (False, 11, 51, Reason.CONTAINER_FULL),
        # What is not known is not too much.
        (True, None, None, None),
    ],
)
def test_what_takes_too_much_room(has_gpu, container, workspace, full):
    assert too_full(ROOM, has_gpu, container, workspace) is full
    assert too_full(Rules(), has_gpu, container, workspace) is None


@pytest.mark.parametrize(
    ("why", "time"), [(Reason.CONTAINER_FULL, 10), (Reason.WORKSPACE_FULL, 60)]
)
def test_a_full_server_is_warned_at_once_and_stopped_however_busy_it_is(why, time):
    history = lived(200, cpu=lambda m: 90.0)
    full = {"full": why, "rules": ROOM}
    assert decided(history, 100, **full) == Warn(at(100 + time), why, 1)
    warned = (at(100),)
    assert decided(history, 101, warned_full=warned, **full) == Keep(at(100 + time), why)
    second = 100 + time * 0.9
    assert decided(history, second, warned_full=warned, **full) == Warn(at(100 + time), why, 2)
    both = (at(100), at(second))
    assert decided(history, 100 + time, warned_full=both, **full) == Stop(why, at(100))
    # Not by a service that has only just begun to look.
    assert isinstance(decided(lived(1), 100 + time, warned_full=both, **full), Keep)
    # Nobody keeps it from that, but an admin's label does.
    kept = {"keep_until": at(900), "warned_full": both}
    assert decided(history, 100 + time, **kept, **full) == Stop(why, at(100))
    assert decided(history, 100 + time, protected=True, warned_full=both, **full) == Keep()
