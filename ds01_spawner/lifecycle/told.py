"""What the owner of a server is told of its life, beside its name on a page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone

from . import words
from .decide import Reason
from .records import Course, LifeRecords


@dataclass(frozen=True)
class Told:
    """What stands beside one server: a notice, or until when it is kept."""

    notice: str
    keep_until: datetime | None


def told_to_owner(records: LifeRecords, user: str) -> dict[str, Told]:
    """Return what there is to tell of a user's servers, by their projects."""
    now = datetime.now(timezone.utc)
    keeps = records.keeps(now)
    found = {}
    for seen in records.courses(user):
        course = as_kept(seen, keeps.get(seen.container_id), now)
        if course.is_warned or course.keep_until:
            notice = words.told(course, now) if course.is_warned else ""
            found[course.project] = Told(notice, course.keep_until)
    return found


def as_kept(course: Course, asked: datetime | None, now: datetime) -> Course:
    """Return how a server is with what the service sees only at its next look.

    Parameters
    ----------
    asked
        Until when somebody has asked to keep it. The service also knows of DS01's file.
    """
    keep_until = max((at for at in (asked, course.keep_until) if at and at > now), default=None)
    kept = replace(course, keep_until=keep_until)
    is_put_off = keep_until and course.stop_at and course.stop_at < keep_until
    if is_put_off and course.why != Reason.RUNTIME.value:
        return replace(kept, stop_at=keep_until, is_warned=False)
    return kept
