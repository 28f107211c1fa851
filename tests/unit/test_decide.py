"""When a server is kept, when its owner is warned, and when it is stopped."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from pathlib import Path

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


# -- what follows ---------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"
HEADER = ["At", "What it has done", "Limits", "What else holds", "What happens"]
N = r"(\d+)"


def cases():
    """Return the rows of the table in the docs, each as its cells."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in DOCS.open()]
    first = rows.index(HEADER) + 2
    return list(takewhile(lambda row: len(row) == len(HEADER), rows[first:]))


class Case:
    """One row of the table, put together from its words."""

    def __init__(self, row):
        self.now = int(row[0])
        self.samples, self.limits, self.facts, self.kernels = {}, {}, {}, Kernels()
        self.is_asked = True
        self.silent = self.high_demand = self.is_restarted = False
        self.seen_from = 0
        for cell, words in zip(row[1:4], (DONE, LIMITS, ELSE), strict=True):
            for phrase in filter(None, cell.split(", ")):
                self.read(phrase, words)

    def read(self, phrase, words):
        for pattern, apply in words.items():
            if found := re.fullmatch(pattern, phrase):
                apply(self, *map(int, found.groups()))
                return
        raise ValueError(f"{phrase!r} is none of {', '.join(words)}")

    def until(self, value, minute):
        """Have a value in each sample up to a minute."""
        for at_minute in range(1, minute + 1):
            self.samples.setdefault(at_minute, {}).update(value)

    def warned(self, kind, *minutes):
        self.facts[kind] = (*self.facts.get(kind, ()), *map(at, minutes))

    def runs_since(self, minute):
        self.kernels = self.kernels.with_executing(at(minute))

    def ran_until(self, minute):
        self.kernels = replace(self.kernels, last_activity=at(minute))

    def decide(self):
        rules = Rules(**{"grace": timedelta(0), "max_runtime": None, **self.limits})
        history = History.begun(at(self.seen_from))
        for minute in range(self.seen_from + 1, self.now + 1):
            values = {"cpu_percent": 0.0, **self.samples.get(minute, {})}
            history = history.with_sample(Sample(at(minute), **values), rules.idle, 3 * MINUTE)
        if self.is_restarted:
            history = History(history.busy_until, history.quiet_since, begun_at=at(self.now))
        return decided(
            *(history, self.now),
            rules=rules,
            high_demand=self.high_demand,
            kernels=self.kernels if self.is_asked and not self.silent else None,
            silent=self.silent,
            **self.facts,
        )


#: What each word of the table stands for.
DONE = {
    "nothing|a kernel is open": lambda case: None,
    f"uses CPU until {N}": lambda case, m: case.until({"cpu_percent": 90.0, "cores": 1}, m),
    f"uses its GPU until {N}": lambda case, m: case.until({"gpu_percent": 90.0}, m),
    "CPU cannot be read": lambda case: case.until({"cpu_percent": None}, case.now),
    f"uses the network until {N}": lambda case, m: case.until({"network_bytes": 2**20}, m),
    f"a cell runs since {N}": lambda case, m: case.runs_since(m),
    f"a terminal runs something since {N}": lambda case, m: case.runs_since(m),
    f"a cell ran until {N}": lambda case, m: case.ran_until(m),
}
LIMITS = {
    f"idle {N}": lambda case, m: case.limits.update(idle_timeout=m * MINUTE),
    "no idle limit": lambda case: case.limits.update(idle_timeout=None),
    f"grace {N}": lambda case, m: case.limits.update(grace=m * MINUTE),
    f"runtime {N}": lambda case, m: case.limits.update(max_runtime=m * MINUTE),
    "network counts": lambda case: case.limits.update(idle=Idle(network_bytes=2**20)),
}
ELSE = {
    f"warned at {N}": lambda case, m: case.warned("warned_idle", m),
    f"warned at {N} and {N}": lambda case, *minutes: case.warned("warned_idle", *minutes),
    f"warned of its runtime at {N}": lambda case, m: case.warned("warned_runtime", m),
    f"warned of its runtime at {N} and {N}": (
        lambda case, *minutes: case.warned("warned_runtime", *minutes)
    ),
    f"kept until {N}": lambda case, m: case.facts.update(keep_until=at(m)),
    "protected": lambda case: case.facts.update(protected=True),
    "it fills the disk": lambda case: case.facts.update(full=Reason.CONTAINER_FULL),
    "its owner fills the disk": lambda case: case.facts.update(full=Reason.WORKSPACE_FULL),
    f"warned of that at {N} and {N}": (lambda case, *minutes: case.warned("warned_full", *minutes)),
    "has a GPU": lambda case: case.facts.update(has_gpu=True),
    "many want one": lambda case: setattr(case, "high_demand", True),
    "not asked": lambda case: setattr(case, "is_asked", False),
    "it does not answer": lambda case: setattr(case, "silent", True),
    f"not looked at before {N}": lambda case, m: setattr(case, "seen_from", m),
    "the service has just been restarted": lambda case: setattr(case, "is_restarted", True),
}


def in_words(decision, minute):
    """Return a decision as the table has it."""

    def of(moment):
        return f"{(moment - BEGAN) / MINUTE:g}"

    if isinstance(decision, Stop):
        return f"stop, {decision.why.value} since {of(decision.since)}"
    if isinstance(decision, Warn):
        stage = {1: "first", 2: "second"}[decision.stage]
        return f"{stage} warning, {decision.why.value} at {of(decision.stop_at)}"
    if isinstance(decision, Keep):
        if decision.stop_at is None:
            return "nothing"
        if decision.stop_at <= at(minute):
            return "nothing yet"
        return f"nothing, {decision.why.value} at {of(decision.stop_at)}"
    return {
        Ask(): "it is asked what runs in it",
        Unknown(): "nothing, as it is not known what runs",
    }[decision]


@pytest.mark.parametrize("row", cases(), ids=" | ".join)
def test_each_case_of_the_docs_is_what_is_decided(row):
    case = Case(row)
    assert in_words(case.decide(), case.now) == row[-1]


def test_the_table_has_every_decision_and_every_word_and_no_other():
    decisions = " ".join(row[-1] for row in cases())
    for word in ("first", "second", "stop", "asked", "not known", "nothing yet", *Reason):
        assert getattr(word, "value", word) in decisions
    phrases = {phrase for row in cases() for cell in row[1:4] for phrase in cell.split(", ")}
    for pattern in (*DONE, *LIMITS, *ELSE):
        assert any(re.fullmatch(pattern, phrase) for phrase in phrases), pattern
    with pytest.raises(ValueError, match="sleeps"):
        Case(["17", "sleeps", "", "", "nothing"])


def busy(minutes):
    return lived(minutes, cpu=lambda m: 90.0)


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
