"""When a device may be free again, judged by how long earlier servers had theirs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from ..endings import docker_time

#: With fewer earlier servers than this, nothing can be said.
_ENOUGH = 5


def outlook(
    held_since: Sequence[datetime | None],
    earlier: Sequence[timedelta],
    now: datetime,
    count: int = 1,
) -> str:
    """Say when to try again, as well as anybody can know; empty if nobody can.

    The parameters are those of `expected_wait`.
    """
    wait = expected_wait(held_since, earlier, now, count)
    if wait is not None:
        return f"Judged by earlier servers, it takes {in_words(wait)} until that changes."
    known = [since for since in held_since if since is not None]
    if not known:
        return ""
    lasts = in_words(now - min(known))
    which = "it has" if len(held_since) == 1 else "the longest of them has"
    return f"Nobody can say yet when that changes; {which} lasted {lasts} so far."


def expected_wait(
    held_since: Iterable[datetime | None],
    earlier: Sequence[timedelta],
    now: datetime,
    count: int = 1,
) -> timedelta | None:
    """Return how long it takes until `count` of the held devices are free, None if unknown.

    A server that has lasted for an hour is compared with those that lasted for more than an hour:
    half of them ended within the time that is expected here.

    Parameters
    ----------
    held_since
        For each device that would do, since when it is held; None where nobody knows.
    earlier
        How long earlier servers had such devices.
    now
        The present, in UTC.
    """
    waits = sorted(
        wait
        for since in held_since
        if since is not None and (wait := _remaining(now - since, earlier)) is not None
    )
    return waits[count - 1] if len(waits) >= count else None


def _remaining(elapsed: timedelta, earlier: Sequence[timedelta]) -> timedelta | None:
    longer = [duration.total_seconds() for duration in earlier if duration > elapsed]
    if len(longer) < _ENOUGH:
        return None
    return timedelta(seconds=median(longer)) - elapsed


def use_of(inspected: Mapping[str, Any]) -> tuple[str, timedelta] | None:
    """Return which size of GPU a server had, and for how long, from its container's inspection.

    None for one without a GPU, and for one that never ran.
    """
    size = (inspected["Config"]["Labels"] or {}).get("ds01.gpu.size", "")
    began, ended = (docker_time(inspected["State"][key]) for key in ("StartedAt", "FinishedAt"))
    if not size or began is None or ended is None:
        return None
    return size, max(timedelta(), ended - began)


def in_words(wait: timedelta) -> str:
    """Return a wait for people, rounded to what such a guess is worth: ``about 40 minutes``."""
    minutes = wait.total_seconds() / 60
    if minutes < 10:
        return "a few minutes"
    if minutes < 90:
        return f"about {round(minutes / 10) * 10} minutes"
    if minutes < 36 * 60:
        return f"about {round(minutes / 60)} hours"
    return f"about {round(minutes / 60 / 24)} days"
