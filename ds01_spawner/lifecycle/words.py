"""What owners are told of a stop. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..policy import Lifecycle, format_bytes
from .decide import Reason, Rules, Stop
from .leaving import Files, Rescued
from .records import Course

_MOST_NAMED = 5

#: After a stop of which it is not known whether there were files to keep, and whether they were.
NOT_KEPT = ". If you had files outside /workspace and your home, they could not all be kept"


def duration(time: timedelta) -> str:
    """Return a time for people, such as ``45 minutes`` or ``2 hours 30 minutes``."""
    minutes = max(1, round(time.total_seconds() / 60))
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{number} {name}{'s' if number != 1 else ''}"
        # Nobody needs the minutes of a week.
        for number, name in ((days, "day"), (hours, "hour"), (0 if days else minutes, "minute"))
        if number
    ]
    return " ".join(parts)


def stopped(stop: Stop, rules: Rules, now: datetime) -> str:
    """Return why a server was stopped, to follow "Stopped"."""
    time = duration(now - stop.since)
    if stop.why is Reason.RUNTIME:
        assert rules.max_runtime is not None
        return f"after {duration(rules.max_runtime)}, the longest that a server may run"
    if stop.why is Reason.CONTAINER_FULL:
        assert rules.container_bytes is not None
        return (
            f"because its files outside /workspace and your home took more than "
            f"{format_bytes(rules.container_bytes)}"
        )
    if stop.why is Reason.WORKSPACE_FULL:
        assert rules.workspace_bytes is not None
        return (
            f"because your files take more than {format_bytes(rules.workspace_bytes)}: start it "
            "without a GPU to delete some"
        )
    if stop.why is Reason.STALLED:
        return (
            f"after {time} in which what runs in it used neither CPU nor GPU: it may wait for an "
            "input"
        )
    return f"after {time} without activity"


def lost(packages: Sequence[str]) -> str:
    """Return what went with a server, to follow why it was stopped; empty if nothing did."""
    if not packages:
        return ""
    named = ", ".join(packages[:_MOST_NAMED])
    more = len(packages) - _MOST_NAMED
    more_words = f" and {more} more" if more > 0 else ""
    return (
        f". Packages that you had installed went with it: {named}{more_words}. Put them into an "
        "image of yours, and each server has them"
    )


def rescued(what: Rescued) -> str:
    """Return what became of files outside the workspace, to follow the same; empty for none."""
    where = (
        f". Files that you had outside /workspace and your home are in {what.place}"
        if what.number
        else ""
    )
    return where + _missed(what.missed, what.problem)


def _missed(files: Files, problem: str) -> str:
    if not files.number:
        return "" if files.is_complete else NOT_KEPT
    named = files.named[:_MOST_NAMED]
    listed = ", ".join(f"{file.path} ({format_bytes(file.size_bytes)})" for file in named)
    more = files.number - len(named)
    more_words = f" and {more} more" if more > 0 else ""
    if not files.is_complete:
        more_words = " and others"
    why = f" ({problem})" if problem else ""
    return f". These could not be kept{why}: {listed}{more_words}"


def warned(why: Reason, stop_at: datetime, now: datetime) -> str:
    """Return what an owner is told before a stop."""
    return f"It will be stopped in {duration(stop_at - now)}{because(why)}"


def because(why: Reason) -> str:
    """Return why a server will be stopped, to follow "stops at 14:30"."""
    if why is Reason.RUNTIME:
        return ": then it has run as long as a server may."
    if why is Reason.CONTAINER_FULL:
        return (
            ": its files outside /workspace and your home take too much of the disk. Delete some, "
            "for example in /tmp."
        )
    if why is Reason.WORKSPACE_FULL:
        return ": your files take too much of the disk for a server with a GPU. Delete some."
    if why is Reason.STALLED:
        return ": what runs in it uses neither CPU nor GPU, and may wait for an input."
    return " if nothing runs in it. An open page does not count."


def told(course: Course, now: datetime) -> str:
    """Return the same of a server as it is now; empty if it will not be stopped."""
    if course.stop_at is None or not course.why:
        return ""
    return warned(Reason(course.why), course.stop_at, now)


def limits(lifecycle: Lifecycle) -> str:
    """Return how long a user's servers go on; empty if nothing ends them."""
    idle, most = lifecycle.idle_timeout, lifecycle.max_runtime
    parts = []
    if idle is not None:
        parts.append(
            f"after {duration(idle)} in which nothing runs in it (an open page does not count)"
        )
    if most is not None:
        parts.append(f"after {duration(most)} in any case")
    return f"A server is stopped {', and '.join(parts)}." if parts else ""
