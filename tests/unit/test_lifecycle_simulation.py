"""Lives of servers by a clock that nobody waits for: none at work is stopped, each idle one is."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.lifecycle.decide import NOTICE, Ask, Keep, Reason, Rules, Stop, Warn
from ds01_spawner.lifecycle.history import Kernels, Sample
from ds01_spawner.lifecycle.life import Circumstances, Life

MONDAY = datetime(2026, 6, 1, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
RULES = Rules()
#: A busy value shows in the mean of so many samples after it.
ECHO = RULES.idle.checks - 1


@dataclass(frozen=True)
class Phase:
    """What a server does for some minutes: ``work``, ``light``, ``open`` or ``stuck``."""

    kind: str
    minutes: int


def person(chance: random.Random) -> list[Phase]:
    """Return what somebody does with a server until they forget it."""
    phases = []
    for _ in range(chance.randrange(6)):
        kind = chance.choice(["work", "work", "light", "open"])
        longest = {"work": 900, "light": 55, "open": 25}[kind]
        phases.append(Phase(kind, chance.randrange(1, longest)))
    end = "stuck" if chance.random() < 0.1 else "open"
    return [*phases, Phase(end, 10**6)]


class Server:
    """A server that does what its phases say, and what should be seen of it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.started = MONDAY + timedelta(minutes=chance.randrange(7 * 24 * 60))
        self.phases = person(chance)
        self.asked = 0

    def phase(self, minute: int) -> tuple[Phase, int]:
        """Return what it does in a minute since its start, and since which minute."""
        begun = 0
        for phase in self.phases:
            if minute < begun + phase.minutes:
                return phase, begun
            begun += phase.minutes
        raise AssertionError("phases never end")

    def works(self, minute: int) -> bool:
        """Tell whether it is truly at work."""
        return self.phase(minute)[0].kind in ("work", "light")

    def sample(self, minute: int) -> Sample:
        kind = self.phase(minute)[0].kind
        # A training pauses to load data; an open notebook has its little needs.
        cpu = self.chance.choice([0.0, 40.0, 90.0]) if kind == "work" else 0.3
        if kind == "work" and minute % 2:
            cpu = 90.0
        return Sample(self.started + minute * MINUTE, cpu, network_bytes=self.chance.randrange(10))

    def kernels(self, minute: int) -> Kernels:
        self.asked += 1
        phase, begun = self.phase(minute)
        executing = phase.kind in ("work", "light", "stuck")
        return Kernels(
            executing_since=self.started + begun * MINUTE if executing else None,
            last_activity=self.started + self.last_work(before=begun) * MINUTE,
        )

    def last_work(self, before: int = 10**6) -> int:
        """Return the last minute of work before one."""
        end = begun = 0
        for phase in self.phases[:-1]:
            begun += phase.minutes
            if phase.kind in ("work", "light") and begun <= before:
                end = begun - 1
        return end


def live(server: Server) -> tuple[Stop, int, list[tuple[int, Warn]]]:
    """Return how it ended, in which minute, and of what its owner was warned when."""
    life = Life(server.started, server.started, MINUTE)
    warnings: list[tuple[int, Warn]] = []
    for minute in range(1, 8 * 24 * 60):
        decision = life.look(server.sample(minute), Circumstances(RULES))
        if isinstance(decision, Ask):
            decision = life.answered(server.kernels(minute))
        if isinstance(decision, Warn):
            warnings.append((minute, decision))
        elif isinstance(decision, Stop):
            return decision, minute, warnings
        else:
            assert isinstance(decision, Keep)
    raise AssertionError("it lives for ever")


def check(server: Server) -> Reason:
    ended, minute, warnings = live(server)
    runtime = ended.why is Reason.RUNTIME
    told = [each for each in warnings if (each[1].why is Reason.RUNTIME) == runtime][-2:]
    assert told, "no stop without a warning"
    assert minute * MINUTE - told[0][0] * MINUTE >= NOTICE
    assert server.started + minute * MINUTE <= told[-1][1].stop_at + MINUTE
    assert RULES.max_runtime is not None
    assert RULES.idle_timeout is not None
    if runtime:
        assert minute == RULES.max_runtime / MINUTE
        return ended.why
    assert not server.works(minute), "a busy server was stopped"
    last = server.last_work(before=minute)
    grace = RULES.grace / MINUTE
    idle = RULES.idle_timeout / MINUTE
    if ended.why is Reason.IDLE:
        # Within a cycle of its time, which the echo of its last work and the grace push.
        assert max(last + idle, grace) <= minute <= max(last + 1 + ECHO + idle, grace) + 1
    else:
        assert server.phase(minute)[0].kind == "stuck"
        stuck = sum(phase.minutes for phase in server.phases[:-1])
        assert RULES.stalled_after / MINUTE <= minute - stuck
        assert minute - stuck <= RULES.stalled_after / MINUTE + NOTICE / MINUTE + idle + ECHO + 1
    return ended.why


@pytest.mark.parametrize(
    "servers", [pytest.param(10_000, marks=pytest.mark.long), 120], ids=["week", "day"]
)
def test_no_busy_server_is_stopped_and_every_idle_one_is_at_its_time(servers):
    chance = random.Random(20260601)
    reasons = [check(Server(chance)) for _ in range(servers)]

    assert set(reasons) == {Reason.IDLE, Reason.STALLED, Reason.RUNTIME}


def test_a_server_is_asked_for_its_kernels_seldom():
    server = Server(random.Random(1))
    server.phases = [Phase("work", 600), Phase("open", 10**6)]
    live(server)
    assert server.asked < 30
