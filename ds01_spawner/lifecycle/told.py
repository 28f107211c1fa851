"""What the owner of a server is told of its life, beside its name on a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ..clock import utc_now
from . import words
from .decide import Reason
from .records import ASKED, PROTECTED, Course, Kept, LifeRecords


@dataclass(frozen=True)
class Told:
    """What stands beside one server.

    Attributes
    ----------
    notice
        That it will be stopped, or that it fills the disk; empty if there is nothing to tell.
    keep_until
        Until when it is kept; None if nobody has asked.
    can_be_kept
        Whether that would put off what the notice says.
    can_be_ended
        Whether its owner has asked for it to be kept, and can end that.
    """

    notice: str
    keep_until: datetime | None = None
    can_be_kept: bool = False
    can_be_ended: bool = False


def told_to_owner(records: LifeRecords, user: str, of_disk: Mapping[str, str]) -> dict[str, Told]:
    """Return what there is to tell of a user's servers, by their projects.

    Parameters
    ----------
    of_disk
        What there is to tell of the room that they take, by their containers' ids; a stop that
        comes is told instead.
    """
    now = utc_now()
    kept = records.kept(now)
    found = {}
    for seen in records.courses(user):
        course = as_kept(seen, kept, now)
        notice, can_be_kept = of_disk.get(seen.container_id, ""), False
        if course.is_warned:
            notice = words.told(course, now)
            can_be_kept = bool(course.why) and Reason(course.why).is_idleness
        if notice or course.keep_until:
            is_asked = any(k.kind == ASKED for k in kept if k.container_id == course.container_id)
            found[course.project] = Told(notice, course.keep_until, can_be_kept, is_asked)
    return found


def as_kept(course: Course, kept: Iterable[Kept], now: datetime) -> Course:
    """Return how a server is with what the service sees only at its next look.

    Parameters
    ----------
    kept
        What is to be kept, of all servers. The service also knows of DS01's file.
    """
    mine = {each.kind: each.until for each in kept if each.container_id == course.container_id}
    if PROTECTED in mine:
        return replace(course, keep_until=mine[PROTECTED], stop_at=None, why="", is_warned=False)
    known = (mine.get(ASKED), course.keep_until)
    keep_until = max((at for at in known if at and at > now), default=None)
    course = replace(course, keep_until=keep_until)
    is_put_off = keep_until and course.stop_at and course.stop_at < keep_until
    if is_put_off and course.why and Reason(course.why).is_idleness:
        return replace(course, stop_at=keep_until, is_warned=False)
    return course
