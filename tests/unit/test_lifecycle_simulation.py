"""Lives of servers by a clock that nobody waits for: none at work is stopped, each idle one is."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.lifecycle.decide import NOTICE, Ask, Keep, Reason, Rules, Stop, Warn
from ds01_spawner.lifecycle.history import Kernels, Sample
from ds01_spawner.lifecycle.life import Circumstances, Life

MONDAY = datetime(2026, 6, 1, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
DAY = 24 * 60
RULES, EXEMPT = Rules(), Rules(idle_timeout=None)
HIGH_DEMAND = 0.8
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


@dataclass
class Server:
    """A server that does what its phases say, and what should be seen of it.

    Minutes are counted from its start.
    """

    chance: random.Random
    phases: list[Phase]
    started: datetime = MONDAY
    has_gpu: bool = False
    rules: Rules = RULES
    keeps: bool = False
    asked: int = 0
    minute: int = 0
    keep_until: int = 0
    warnings: list[tuple[int, Warn]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.life = Life(self.started, self.started, MINUTE)

    def phase(self, minute: int) -> tuple[Phase, int]:
        """Return what it does in a minute, and since which one."""
        begun = 0
        for phase in self.phases:
            if minute < begun + phase.minutes:
                return phase, begun
            begun += phase.minutes
        raise AssertionError("phases never end")

    def works(self, minute: int) -> bool:
        """Tell whether it is truly at work."""
        return self.phase(minute)[0].kind in ("work", "light")

    def sample(self) -> Sample:
        kind = self.phase(self.minute)[0].kind
        # A training pauses to load data; an open notebook has its little needs.
        cpu = self.chance.choice([0.0, 40.0, 90.0]) if kind == "work" else 0.3
        if kind == "work" and self.minute % 2:
            cpu = 90.0
        return Sample(self.now, cpu, network_bytes=self.chance.randrange(10))

    def kernels(self) -> Kernels:
        self.asked += 1
        phase, begun = self.phase(self.minute)
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

    @property
    def now(self) -> datetime:
        return self.started + self.minute * MINUTE

    def look(self, high_demand: bool) -> Stop | None:
        """Be looked at once, a minute later; its owner may ask to keep it when they are warned."""
        self.minute += 1
        keep_until = self.started + self.keep_until * MINUTE if self.keep_until else None
        given = Circumstances(self.rules, self.has_gpu, high_demand, keep_until=keep_until)
        decision = self.life.look(self.sample(), given)
        if isinstance(decision, Ask):
            decision = self.life.answered(self.kernels())
        if isinstance(decision, Warn):
            self.warnings.append((self.minute, decision))
            if self.keeps and not self.keep_until and decision.why is not Reason.RUNTIME:
                self.keep_until = self.minute + self.chance.randrange(1, 300)
        elif isinstance(decision, Stop):
            return decision
        else:
            assert isinstance(decision, Keep)
        return None


def check(server: Server, ended: Stop, high_demand: bool, steady: int) -> None:
    """Check that a stop was right, in time, and no surprise.

    Parameters
    ----------
    steady
        For how many minutes the demand has been as it is.
    """
    minute = server.minute
    runtime = ended.why is Reason.RUNTIME
    told = [each for each in server.warnings if (each[1].why is Reason.RUNTIME) == runtime]
    first = max((at for at, warning in told if warning.stage == 1), default=None)
    assert first is not None, "no stop without a warning"
    assert minute * MINUTE - first * MINUTE >= NOTICE
    said_at, said = told[-1]
    # A demand that went and came back has given it more time.
    if not server.has_gpu or steady >= minute - said_at:
        assert server.now <= said.stop_at + MINUTE
    assert RULES.max_runtime is not None
    assert RULES.idle_timeout is not None
    if runtime:
        assert minute == RULES.max_runtime / MINUTE
        return
    assert server.rules is not EXEMPT
    assert not server.works(minute), "a busy server was stopped"
    last = server.last_work(before=minute)
    # What pushes a stop: the grace after the start, and a wish to keep it.
    pushed = max(RULES.grace / MINUTE, server.keep_until)
    idle = most = RULES.idle_timeout / MINUTE
    told_anew = 0.0
    if server.has_gpu and high_demand:
        idle *= RULES.high_demand_factor
    if server.has_gpu and steady >= minute - last:
        most = idle
    elif server.has_gpu:
        # The demand has changed while it was idle, and what its owner was told with it.
        told_anew = minute - steady + NOTICE / MINUTE
    if ended.why is Reason.IDLE:
        # Within a cycle of its time, which the echo of its last work pushes.
        assert max(last + idle, pushed) <= minute
        assert minute <= max(last + 1 + ECHO + most, pushed, told_anew) + 1
    else:
        assert server.phase(minute)[0].kind == "stuck"
        stuck = sum(phase.minutes for phase in server.phases[:-1])
        longest = (RULES.stalled_after + NOTICE) / MINUTE + most + ECHO
        assert max(stuck + RULES.stalled_after / MINUTE, server.keep_until) <= minute
        assert minute <= max(stuck + longest, pushed, told_anew) + 1


def lab(servers: int, days: int, chance: random.Random) -> dict[int, list[Server]]:
    """Return the servers of some days, by the minute in which they are started."""
    found: dict[int, list[Server]] = {}
    for _ in range(servers):
        start = chance.randrange(days * DAY)
        server = Server(
            chance,
            person(chance),
            MONDAY + start * MINUTE,
            has_gpu=chance.random() < 0.3,
            rules=EXEMPT if chance.random() < 0.02 else RULES,
            keeps=chance.random() < 0.1,
        )
        found.setdefault(start, []).append(server)
    return found


@pytest.mark.parametrize(
    ("servers", "days"),
    [pytest.param(10_000, 7, marks=pytest.mark.long), (120, 1)],
    ids=["week", "day"],
)
def test_no_busy_server_is_stopped_and_every_idle_one_is_at_its_time(servers, days):
    starting = lab(servers, days, random.Random(20260601))
    # So many that they are often nearly all taken, and often not.
    gpus = 0.15 * servers / days
    running: list[Server] = []
    ends: Counter[tuple[Reason, bool]] = Counter()
    looks = steady = 0
    is_high = False
    for minute in range(days * DAY + int(RULES.max_runtime / MINUTE) + 1):
        was_high, is_high = is_high, sum(s.has_gpu for s in running) >= HIGH_DEMAND * gpus
        steady = steady + 1 if is_high == was_high else 0
        looks += len(running)
        going_on = []
        for server in running:
            ended = server.look(is_high)
            if ended is None:
                going_on.append(server)
            else:
                check(server, ended, is_high, steady)
                ends[ended.why, server.has_gpu and is_high] += 1
        running = going_on + starting.pop(minute, [])
    print(f"{servers} servers, {looks} looks, ends: {dict(ends)}")

    assert (running, starting) == ([], {})
    assert sum(ends.values()) == servers
    assert {why for why, _ in ends} == {Reason.IDLE, Reason.STALLED, Reason.RUNTIME}
    # Some while many wanted a GPU.
    assert ends[Reason.IDLE, True]


def test_a_demand_that_comes_and_goes_stops_nobody_sooner_than_was_said_last():
    rules = replace(RULES, grace=timedelta(0))
    server = Server(random.Random(1), [Phase("open", 10**6)], has_gpu=True, rules=rules)
    # Warned at 5 of a stop at 15, then at 20 of one at 30; and then many want a GPU again.
    high = {*range(5, 8), *range(22, 60)}
    while server.look(server.minute + 1 in high) is None:
        pass
    assert [(minute, warning.stage) for minute, warning in server.warnings] == [
        (5, 1),
        (20, 1),
        (22, 2),
    ]
    assert server.minute == 30


def test_a_server_is_asked_for_its_kernels_seldom():
    server = Server(random.Random(1), [Phase("work", 600), Phase("open", 10**6)])
    while server.look(high_demand=False) is None:
        pass
    assert server.asked < 30
