"""What is known of one server's activity: samples, a minute apart, and what they come to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: What keeps so many cores busy waits for nothing, however few these are of all that it may use.
_WORKING_CORES = 0.5


@dataclass(frozen=True)
class Idle:
    """Below what a server counts as idle.

    Attributes
    ----------
    gpu_percent
        Of its devices' time.
    cpu_percent
        Of the CPU time of all cores that it may use.
    network_bytes
        Traffic between two samples; None means that the network does not count.
    stalled_network_bytes
        The same of something that executes: with more traffic, such as a download's, it is at work.
    checks
        Samples over which is averaged.
    """

    gpu_percent: float = 5
    cpu_percent: float = 2
    network_bytes: int | None = None
    stalled_network_bytes: int = 1024**2
    checks: int = 3


@dataclass(frozen=True)
class Sample:
    """What a server did since the sample before.

    Attributes
    ----------
    at
        When it was taken.
    cpu_percent
        Of the CPU time of all cores that it may use; None if it cannot be read.
    gpu_percent
        Of its devices' time, the busiest one's; None if it has none, or it cannot be read.
    gpu_known
        False if it has devices of which nothing can be read.
    network_bytes
        Traffic, both ways; None if it cannot be read.
    cores
        How many were busy, on average; None if that is not known.
    """

    at: datetime
    cpu_percent: float | None
    gpu_percent: float | None = None
    gpu_known: bool = True
    network_bytes: int | None = None
    cores: float | None = None


@dataclass(frozen=True)
class Kernels:
    """What a server says of its kernels and terminals.

    Attributes
    ----------
    executing_since
        Since when the latest that executes does; None if none does. If even that one waits for
        something, all do.
    last_activity
        When one did last; None if there was none.
    """

    executing_since: datetime | None = None
    last_activity: datetime | None = None

    def with_executing(self, since: datetime | None) -> Kernels:
        """Return the same with something else that executes since then, if anything does."""
        known = [each for each in (self.executing_since, since) if each is not None]
        return replace(self, executing_since=max(known, default=None))


@dataclass(frozen=True)
class History:
    """One server's activity as far as it is known; a new one for each sample.

    - Time of which nothing is known counts as busy: before the first sample, between two that are
      too far apart, and where a value cannot be read.
    - A value counts by its mean over the window: one spike among quiet samples may be no work, and
      one pause in a training no idleness.

    Attributes
    ----------
    busy_until
        Until when the server was busy, or nothing was known of it.
    quiet_since
        Since when CPU, GPU and network have been below all thresholds, sample by sample, and not
        even half a core was busy: how long a kernel that executes has shown no other sign of it.
    window
        The latest samples, oldest first.
    begun_at
        When the history was begun, if that is later than `busy_until`.
    """

    busy_until: datetime
    quiet_since: datetime
    window: tuple[Sample, ...] = ()
    begun_at: datetime | None = None

    @classmethod
    def begun(cls, at: datetime) -> History:
        """Return the history of a server that is looked at for the first time."""
        return cls(busy_until=at, quiet_since=at)

    @property
    def last(self) -> datetime:
        """When the latest sample was taken, or the history was begun."""
        return self.window[-1].at if self.window else self.begun_at or self.busy_until

    def is_full(self, idle: Idle) -> bool:
        """Tell whether a whole window has been seen."""
        return len(self.window) >= idle.checks

    def with_sample(self, sample: Sample, idle: Idle, gap: timedelta) -> History:
        """Return the history with one more sample.

        Parameters
        ----------
        gap
            Samples further apart than this say nothing of the time between them.
        """
        if sample.at - self.last > gap:
            return History.begun(sample.at)
        window = (*self.window, sample)[-idle.checks :]
        found = replace(self, window=window)
        if not _is_known(sample) or _works(window, idle):
            found = replace(found, busy_until=sample.at)
        moving = replace(idle, network_bytes=idle.stalled_network_bytes)
        computes = (sample.cores or 0) >= _WORKING_CORES
        if computes or not _is_known(sample) or _works((sample,), moving):
            found = replace(found, quiet_since=sample.at)
        return found

    def with_kernels(self, kernels: Kernels, stalled_after: timedelta, now: datetime) -> History:
        """Return the history with what the server says of its kernels now.

        Parameters
        ----------
        stalled_after
            A kernel that has executed for longer, with no other sign of it, waits for something.
        """
        known = self.busy_until
        if kernels.executing_since is not None:
            stalled = self.stalled_since(kernels, stalled_after, now)
            known = now if stalled is None else stalled
        # Also beside a kernel that waits for something, somebody may work with another.
        ended = min(kernels.last_activity or known, now)
        return replace(self, busy_until=max(known, ended))

    def stalled_since(
        self, kernels: Kernels, stalled_after: timedelta, now: datetime
    ) -> datetime | None:
        """Return since when a kernel has executed and done nothing; None if it is none such."""
        if kernels.executing_since is None:
            return None
        since = max(kernels.executing_since, self.quiet_since)
        return since if now - since >= stalled_after else None


def _is_known(sample: Sample) -> bool:
    return sample.cpu_percent is not None and sample.gpu_known


def _works(window: Iterable[Sample], idle: Idle) -> bool:
    """Tell whether the mean of any value reaches its threshold."""
    window = tuple(window)
    return (
        _mean(sample.cpu_percent for sample in window) >= idle.cpu_percent
        or _mean(sample.gpu_percent for sample in window) >= idle.gpu_percent
        or (
            idle.network_bytes is not None
            and _mean(sample.network_bytes for sample in window) >= idle.network_bytes
        )
    )


def _mean(values: Iterable[float | None]) -> float:
    """Return the mean of what there is, -1 if there is nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else -1.0
