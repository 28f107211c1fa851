"""What happens to a server now: it is kept, its owner is warned, or it is stopped. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from .history import History, Idle, Kernels

#: Warnings come at these parts of a limit, and the first at least so long before the stop.
FIRST_WARNING, SECOND_WARNING = 0.75, 0.9
NOTICE = timedelta(minutes=10)
#: A server with a GPU whose owner's files take too much has so long: perhaps it is at work.
TIME_TO_DELETE = timedelta(hours=1)


class Reason(str, Enum):
    """Why a server is stopped."""

    IDLE = "idle"
    STALLED = "stalled"
    RUNTIME = "runtime"
    #: What it writes outside of its owner's files takes too much room.
    CONTAINER_FULL = "container-full"
    #: Its owner's files do, and it holds a GPU.
    WORKSPACE_FULL = "workspace-full"

    @property
    def is_idleness(self) -> bool:
        """Whether a server that somebody keeps is not stopped for this reason."""
        return self in (Reason.IDLE, Reason.STALLED)

    @property
    def is_full(self) -> bool:
        """Whether too much of the disk is taken: keeping a server does not help against that."""
        return self in (Reason.CONTAINER_FULL, Reason.WORKSPACE_FULL)


@dataclass(frozen=True)
class Rules:
    """What the policy says of one server's life; None means no limit.

    Attributes
    ----------
    idle_timeout, max_runtime
        After which it is stopped.
    idle
        Below what it counts as idle.
    grace
        After its start nothing happens to it.
    stalled_after
        A kernel that executes for longer, and uses neither CPU nor GPU, waits for something.
    high_demand_factor
        By which `idle_timeout` is cut for a server with a GPU while many want one.
    notice
        No server is stopped sooner after its owner was first warned.
    container_bytes, workspace_bytes
        What it may write outside of its owner's files, and what all of these may take.
    """

    idle_timeout: timedelta | None = timedelta(minutes=30)
    max_runtime: timedelta | None = timedelta(hours=24)
    idle: Idle = field(default_factory=Idle)
    grace: timedelta = timedelta(minutes=30)
    stalled_after: timedelta = timedelta(hours=1)
    high_demand_factor: float = 0.5
    notice: timedelta = NOTICE
    container_bytes: int | None = None
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class Facts:
    """What else is known of one server.

    Attributes
    ----------
    started
        When it was started.
    has_gpu
        Whether it holds one.
    protected
        Whether an admin protects it.
    keep_until
        Until when somebody asked to keep it, idle as it may be; None if nobody did.
    warned_idle, warned_runtime
        When its owner was warned: never, of the first stage, or of both. Warnings of idleness are
        forgotten when the server is busy again.
    full
        What of the disk it takes too much of; None if of nothing, or if that is not known. See
        `too_full`.
    warned_full
        When its owner was warned of just that.
    """

    started: datetime
    has_gpu: bool = False
    protected: bool = False
    keep_until: datetime | None = None
    warned_idle: tuple[datetime, ...] = ()
    warned_runtime: tuple[datetime, ...] = ()
    full: Reason | None = None
    warned_full: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Keep:
    """Nothing happens.

    Attributes
    ----------
    stop_at
        When it would be stopped if it goes on like this; None for never.
    why
        What would be the reason then.
    """

    stop_at: datetime | None = None
    why: Reason | None = None


@dataclass(frozen=True)
class Ask:
    """The server is to be asked for its kernels and terminals first."""


@dataclass(frozen=True)
class Unknown:
    """The server does not tell of its kernels: it is kept for that reason alone."""


@dataclass(frozen=True)
class Warn:
    """Its owner is to be told.

    Attributes
    ----------
    stop_at
        When it is stopped.
    stage
        1 or 2.
    """

    stop_at: datetime
    why: Reason
    stage: int


@dataclass(frozen=True)
class Stop:
    """It is to be stopped.

    Attributes
    ----------
    since
        Since when it was idle, or ran.
    """

    why: Reason
    since: datetime


Decision = Keep | Ask | Unknown | Warn | Stop


@dataclass(frozen=True)
class _Course:
    """How a limit takes its course: since when it counts, and when it is reached."""

    why: Reason
    since: datetime
    limit: timedelta
    notice: timedelta

    @property
    def end(self) -> datetime:
        return self.since + self.limit

    def warning(self, stage: int) -> datetime:
        """Return when to warn: the first in time for the notice, also of a short limit."""
        if stage == 1:
            return self.since + min(
                self.limit * FIRST_WARNING, max(self.limit - self.notice, timedelta())
            )
        return self.since + self.limit * SECOND_WARNING


def decide(
    history: History,
    facts: Facts,
    rules: Rules,
    high_demand: bool,
    now: datetime,
    *,
    cycle: timedelta,
    kernels: Kernels | None = None,
    silent: bool = False,
) -> Decision:
    """Decide what happens to a server.

    Parameters
    ----------
    high_demand
        Whether more people want GPUs than there are.
    cycle
        Time between two decisions.
    kernels
        What the server says of its kernels; None if it was not asked.
    silent
        Whether it was asked and gave no answer.
    """
    if facts.protected:
        return Keep()
    keeps = []
    for course, warned in _courses_whatever_it_does(facts, rules, now):
        found = _outcome(course, course.end, warned, now)
        if isinstance(found.decision, Warn) or (
            isinstance(found.decision, Stop) and history.is_full(rules.idle)
        ):
            return found.decision
        keeps.append(Keep(found.stop_at, course.why))
    if rules.idle_timeout is not None:
        course = _idle_course(history, facts, rules, high_demand, now, kernels)
        pushed = max(course.end, facts.started + rules.grace, facts.keep_until or course.end)
        found = _outcome(course, pushed, facts.warned_idle, now)
        if found.next_at - 2 * cycle <= now and kernels is None:
            return Unknown() if silent else Ask()
        if not isinstance(found.decision, Keep) and history.is_full(rules.idle):
            return found.decision
        keeps.append(Keep(found.stop_at, course.why))
    return min(keeps, key=lambda keep: keep.stop_at or now, default=Keep())


def too_full(
    rules: Rules, has_gpu: bool, container_bytes: int | None, workspace_bytes: int | None
) -> Reason | None:
    """Return why a server takes too much of the disk; None if it does not, or it is not known.

    Parameters
    ----------
    container_bytes, workspace_bytes
        What is taken of the limits of the same names in `rules`; None if that is not known.
    """
    if _is_over(container_bytes, rules.container_bytes):
        return Reason.CONTAINER_FULL
    if has_gpu and _is_over(workspace_bytes, rules.workspace_bytes):
        return Reason.WORKSPACE_FULL
    return None


def _is_over(used: int | None, limit: int | None) -> bool:
    return used is not None and limit is not None and used > limit


def _courses_whatever_it_does(
    facts: Facts, rules: Rules, now: datetime
) -> Iterator[tuple[_Course, tuple[datetime, ...]]]:
    """Give the courses that a server at work takes as well, and when their owner was warned."""
    if rules.max_runtime is not None:
        course = _Course(Reason.RUNTIME, facts.started, rules.max_runtime, rules.notice)
        yield course, facts.warned_runtime
    if facts.full is not None:
        time = rules.notice
        if facts.full is Reason.WORKSPACE_FULL:
            time = max(time, TIME_TO_DELETE)
        # Warned at once, and it counts from there.
        since = facts.warned_full[0] if facts.warned_full else now
        yield _Course(facts.full, since, time, time), facts.warned_full


@dataclass(frozen=True)
class _Outcome:
    """What one limit alone would have happen, and when the next thing does."""

    stop_at: datetime
    next_at: datetime
    decision: Keep | Warn | Stop


def _idle_course(
    history: History,
    facts: Facts,
    rules: Rules,
    high_demand: bool,
    now: datetime,
    kernels: Kernels | None,
) -> _Course:
    assert rules.idle_timeout is not None
    limit = rules.idle_timeout
    if high_demand and facts.has_gpu:
        limit *= rules.high_demand_factor
    why = Reason.IDLE
    if kernels is not None:
        stalled = history.stalled_since(kernels, rules.stalled_after, now)
        if stalled is not None:
            why, limit = Reason.STALLED, max(limit, rules.stalled_after)
        history = history.with_kernels(kernels, rules.stalled_after, now)
    return _Course(why, max(history.busy_until, facts.started), limit, rules.notice)


def _outcome(
    course: _Course, end: datetime, warned: tuple[datetime, ...], now: datetime
) -> _Outcome:
    """Return what one limit alone would have happen.

    Parameters
    ----------
    end
        When it is reached; later than the course's own where something has pushed it back.
    """
    # The warnings move along, and one that was given for an earlier end is none for this one.
    pushed = end - course.end
    warned = tuple(at for at in warned if at >= course.warning(1) + pushed)
    # No stop without a warning, and that in time: also where a limit was cut meanwhile.
    end = max(end, (warned[0] if warned else now) + course.notice)
    if not warned:
        next_at = course.warning(1) + pushed
    elif len(warned) == 1:
        next_at = min(course.warning(2) + pushed, end)
    else:
        next_at = end
    # Foreseen from now on: the warning that has still to come pushes nothing that is far.
    foreseen = course.end + pushed if not warned and now < next_at else end
    decision: Keep | Warn | Stop = Keep(foreseen, course.why)
    if warned and now >= end:
        decision = Stop(course.why, course.since)
    elif now >= next_at:
        decision = Warn(end, course.why, len(warned) + 1)
    return _Outcome(foreseen, next_at, decision)
