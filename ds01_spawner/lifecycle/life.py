"""One server's life as the service follows it, cycle by cycle. Pure but for its own memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .decide import Decision, Facts, Reason, Rules, Warn, decide, too_full
from .history import History, Kernels, Sample

#: Samples further apart than so many cycles say nothing of the time between them.
GAP_CYCLES = 3


@dataclass(frozen=True)
class Circumstances:
    """What holds for a server at one look, besides what it does.

    Attributes
    ----------
    rules
        What the policy says.
    has_gpu, protected, keep_until
        See `decide.Facts`.
    high_demand
        See `decide.decide`.
    container_bytes, workspace_bytes
        See `decide.too_full`.
    """

    rules: Rules
    has_gpu: bool = False
    high_demand: bool = False
    protected: bool = False
    keep_until: datetime | None = None
    container_bytes: int | None = None
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class Memory:
    """What is known of a server, to be kept over a restart of the service.

    Attributes
    ----------
    at
        When it was looked at last.
    busy_until, quiet_since
        See `history.History`.
    warned_idle, warned_runtime, full, warned_full
        See `decide.Facts`.
    """

    at: datetime
    busy_until: datetime
    quiet_since: datetime
    warned_idle: tuple[datetime, ...] = ()
    warned_runtime: tuple[datetime, ...] = ()
    full: Reason | None = None
    warned_full: tuple[datetime, ...] = ()

    def warned_of(self, why: Reason) -> tuple[datetime, ...]:
        """Return when the owner was warned of a stop for this reason."""
        if why is Reason.RUNTIME:
            return self.warned_runtime
        if why.is_idleness:
            return self.warned_idle
        return self.warned_full if why is self.full else ()


class Life:
    """Keeps what is known of one server.

    - A warning of idleness counts until the server is busy again; then it begins anew. One of a
      limit on the disk counts while that is exceeded.
    - It is asked for its kernels only when that matters.

    Parameters
    ----------
    started
        When it was started.
    now
        When it is looked at for the first time.
    cycle
        Time between two looks.
    memory
        What was known before a restart; None if nothing was. It counts as far as it is recent,
        and even then nothing happens before a whole window of new samples.
    """

    def __init__(
        self, started: datetime, now: datetime, cycle: timedelta, memory: Memory | None = None
    ) -> None:
        self._started = started
        self._cycle = cycle
        self._history = History.begun(max(started, now))
        self._warned: dict[Reason, tuple[datetime, ...]] = {}
        self._full: Reason | None = None
        if memory is not None:
            self._warned[Reason.RUNTIME] = memory.warned_runtime
            if memory.full is not None:
                self._full = memory.full
                self._warned[memory.full] = memory.warned_full
            if now - memory.at <= GAP_CYCLES * cycle:
                self._history = History(memory.busy_until, memory.quiet_since, begun_at=now)
                self._warned[Reason.IDLE] = memory.warned_idle
        self._now = now
        self._circumstances = Circumstances(Rules())
        self._kept_until: datetime | None = None

    @property
    def busy_until(self) -> datetime:
        """Until when it was busy, as far as is known."""
        return self._history.busy_until

    @property
    def kept_until(self) -> datetime | None:
        """Until when somebody has asked to keep it; None if nobody has."""
        return self._kept_until

    @property
    def memory(self) -> Memory:
        """What is to be kept over a restart."""
        return Memory(
            self._now,
            self._history.busy_until,
            self._history.quiet_since,
            self._warnings_of_idleness(),
            self._warned.get(Reason.RUNTIME, ()),
            self._full,
            self._warned_full(),
        )

    def look(self, sample: Sample, circumstances: Circumstances) -> Decision:
        """Take a sample and decide; a warning counts as given.

        `Ask` is to be followed by `answered`.
        """
        self._now, self._circumstances = sample.at, circumstances
        if circumstances.keep_until != self._kept_until:
            self._kept_until = circumstances.keep_until
            if self._kept_until is not None and self._kept_until > sample.at:
                # The stop that its owner was warned of does not come; the next one has its own.
                self._warned[Reason.IDLE] = ()
        self._note_full(circumstances)
        gap = self._cycle * GAP_CYCLES
        self._history = self._history.with_sample(sample, circumstances.rules.idle, gap)
        return self._decide(None, silent=False)

    def forget_warning(self, warning: Warn) -> None:
        """Take the latest warning as not given: it did not reach its owner."""
        key = _kept_under(warning)
        self._warned[key] = self._warned.get(key, ())[:-1]

    def answered(self, kernels: Kernels | None) -> Decision:
        """Decide with what the server says of its kernels; None if it does not answer."""
        if kernels is not None:
            stalled_after = self._circumstances.rules.stalled_after
            self._history = self._history.with_kernels(kernels, stalled_after, self._now)
        return self._decide(kernels, silent=kernels is None)

    def _decide(self, kernels: Kernels | None, silent: bool) -> Decision:
        given, now = self._circumstances, self._now
        facts = Facts(
            started=self._started,
            has_gpu=given.has_gpu,
            protected=given.protected,
            keep_until=given.keep_until,
            warned_idle=self._warnings_of_idleness(),
            warned_runtime=self._warned.get(Reason.RUNTIME, ()),
            full=self._full,
            warned_full=self._warned_full(),
        )
        decision = decide(
            *(self._history, facts, given.rules, given.high_demand, now),
            cycle=self._cycle,
            kernels=kernels,
            silent=silent,
        )
        if isinstance(decision, Warn):
            key = _kept_under(decision)
            # A first one begins anew: what was said of an earlier end must not bring it back.
            before = self._warned.get(key, ()) if decision.stage == 2 else ()
            self._warned[key] = (*before, now)
        return decision

    def _note_full(self, given: Circumstances) -> None:
        full = too_full(*(given.rules, given.has_gpu, given.container_bytes, given.workspace_bytes))
        if full is not self._full:
            # Each limit has warnings of its own, each time that it is exceeded.
            self._warned.pop(Reason.CONTAINER_FULL, None)
            self._warned.pop(Reason.WORKSPACE_FULL, None)
        self._full = full

    def _warned_full(self) -> tuple[datetime, ...]:
        return self._warned.get(self._full, ()) if self._full else ()

    def _warnings_of_idleness(self) -> tuple[datetime, ...]:
        warned = self._warned.get(Reason.IDLE, ())
        if warned and warned[0] <= self._history.busy_until:
            warned = self._warned[Reason.IDLE] = ()
        return warned


def _kept_under(warning: Warn) -> Reason:
    return Reason.IDLE if warning.why.is_idleness else warning.why
