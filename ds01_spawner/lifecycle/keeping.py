"""Servers that are kept although they are idle, and what their owners are told of their lives."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..cgroups.usage import container_usage
from ..engine import Docker
from ..errors import Refused
from ..policy import Lifecycle
from ..servers import running_server
from ..storage.records import StorageRecords
from ..storage.words import told_of_disk
from . import events, words
from .decide import Reason
from .events import Event
from .records import ASKED, FILE, PROTECTED, Course, Kept, LifeRecords
from .told import as_kept

#: DS01's file: whoever makes it in a project keeps that project's server.
KEEP_ALIVE = ".keep-alive"
_WORKSPACE = "/workspace"


@dataclass(frozen=True)
class ServerLife:
    """What the owner of a server is told of its life.

    Attributes
    ----------
    stop_at, why
        When it will be stopped if it goes on like this, and why (a `decide.Reason`, or empty).
    is_warned
        Whether that is near enough to be told.
    warnings
        How often its owner was warned of it: 1 or 2 if `is_warned`.
    words, because
        What to tell, and the same to follow "stops at 14:30"; empty if there is nothing.
    keep_until
        Until when it is kept; None if nobody has asked.
    keep_most_until
        Until when it could be kept; None if it needs no keeping, or cannot be kept.
    cpu_percent, gpu_percent
        What it did lately; None if that is not known, or it has no GPU.
    memory_used_bytes
        None if it cannot be read.
    memory_kills
        How many of its processes the system has ended because memory ran out.
    disk
        What to tell of the room on the disk, where there is something: of its owner's files at
        ``workspace``, of what it writes elsewhere at ``container``.
    """

    project: str
    stop_at: datetime | None
    why: str
    is_warned: bool
    warnings: int
    words: str
    because: str
    keep_until: datetime | None
    keep_most_until: datetime | None
    cpu_percent: float | None
    gpu_percent: float | None
    memory_limit_bytes: int
    memory_used_bytes: int | None
    memory_kills: int
    disk: dict[str, str]


class Keeping:
    """Keeps servers, and tells of them.

    Parameters
    ----------
    docker_call
        The engine.
    hub_id
        Servers of other Hubs are none here.
    records
        Where it is kept.
    storage
        What their files take.
    """

    def __init__(
        self, docker_call: Docker, hub_id: str, records: LifeRecords, storage: StorageRecords
    ) -> None:
        self._docker = docker_call
        self._hub_id = hub_id
        self._records = records
        self._storage = storage

    async def life(
        self, user: str, project: str, lifecycle: Lifecycle, now: datetime
    ) -> ServerLife:
        """Return what is to be told of a server.

        Raises
        ------
        Refused
            404 if there is no such server.
        """
        found = await running_server(self._docker, self._hub_id, user, project)
        return self._life(found, project, lifecycle, now)

    async def keep(
        self, user: str, project: str, time: timedelta, lifecycle: Lifecycle, now: datetime
    ) -> ServerLife:
        """Keep a server for some time, or for as long as it can be.

        Raises
        ------
        Refused
            404 if there is no such server, 409 if it cannot be kept any longer.
        """
        found = await running_server(self._docker, self._hub_id, user, project)
        life = self._life(found, project, lifecycle, now)
        most = life.keep_most_until
        if most is None:
            raise Refused(_why_not_kept(life, lifecycle), reason="keep", status_code=409)
        until = min(now + time, most)
        self._records.keep(Kept(found["Id"], user, project, ASKED, until, user))
        why = f"Kept until {until:%d %B, %H:%M} UTC."
        self._records.tell(Event(events.KEPT, user, project, user, why), events.ONCE_IN)
        return self._life(found, project, lifecycle, now)

    async def protect(
        self, user: str, project: str, time: timedelta, by: str, now: datetime
    ) -> None:
        """Let nothing stop a server for some time but people: no limit of its policy does.

        Raises
        ------
        Refused
            404 if there is no such server.
        """
        found = await running_server(self._docker, self._hub_id, user, project)
        until = now + time
        self._records.keep(Kept(found["Id"], user, project, PROTECTED, until, by))
        why = f"Protected until {until:%d %B, %H:%M} UTC: no limit stops it."
        self._records.tell(Event(events.PROTECTED, user, project, by, why))

    async def end(self, user: str, project: str, by: str, kind: str = ASKED) -> None:
        """Keep a server no longer, or protect it no longer.

        Raises
        ------
        Refused
            404 if there is no such server, or nobody has asked to keep it.
        """
        found = await running_server(self._docker, self._hub_id, user, project)
        if not self._records.end_keep(found["Id"], kind):
            raise Refused("Nobody keeps this server.", reason="keep", status_code=404)
        done = "kept" if kind == ASKED else "protected"
        why = f"It is {done} no longer."
        once_in = events.ONCE_IN if by == user else None
        self._records.tell(Event(events.KEEP_ENDED, user, project, by, why), once_in)

    def all_kept(self, container_ids: Collection[str], now: datetime) -> list[Kept]:
        """Return which of these servers are kept, also by DS01's file, in the order of users."""
        found = [kept for kept in self._records.kept(now) if kept.container_id in container_ids]
        asked = {kept.container_id: kept.until for kept in found if kept.kind == ASKED}
        for course in self._records.courses():
            key, until = course.container_id, course.keep_until
            # The service has seen it kept, and longer than somebody has asked: that is the file's.
            if key in container_ids and until and until > asked.get(key, now):
                found.append(Kept(key, course.user, course.project, FILE, until))
        return sorted(found, key=lambda kept: (kept.user, kept.project, kept.kind))

    def _life(
        self, found: Mapping[str, Any], project: str, lifecycle: Lifecycle, now: datetime
    ) -> ServerLife:
        key, user = found["Id"], found["Config"]["Labels"]["ds01.user"]
        courses = {course.container_id: course for course in self._records.courses(user)}
        course, kept = courses.get(key), self._records.kept(now)
        if course is not None:
            course = as_kept(course, kept, now)
        # The service has not looked at it yet.
        asked = max((each.until for each in kept if each.container_id == key), default=None)
        is_warned = bool(course and course.is_warned)
        usage = container_usage(int(found["State"]["Pid"]))
        return ServerLife(
            project=project,
            stop_at=course.stop_at if course else None,
            why=course.why if course else "",
            is_warned=is_warned,
            warnings=_warnings(course) if course and is_warned else 0,
            words=words.told(course, now) if course and is_warned else "",
            because=words.because(Reason(course.why)) if course and is_warned else "",
            keep_until=course.keep_until if course else asked,
            keep_most_until=_most_until(course, lifecycle, now),
            cpu_percent=course.cpu_percent if course else None,
            gpu_percent=course.gpu_percent if course else None,
            memory_limit_bytes=int(found["HostConfig"]["Memory"]),
            memory_used_bytes=usage.memory_bytes if usage else None,
            memory_kills=usage.oom_kills if usage else 0,
            disk=told_of_disk(self._storage.uses(now, user), user, key, lifecycle),
        )


def kept_until(
    asked: datetime | None, touched: datetime | None, busy_until: datetime, lifecycle: Lifecycle
) -> datetime | None:
    """Return until when a server is kept, idle as it may be.

    Parameters
    ----------
    asked
        Until when somebody has asked to.
    touched
        When DS01's file was made or touched last.
    busy_until
        Until when it was at work. From then on, it can be kept only so long.
    """
    wishes = [] if asked is None else [asked]
    if touched is not None:
        wishes.append(touched + lifecycle.keepalive_most)
    if not wishes:
        return None
    return min(max(wishes), busy_until + lifecycle.keepalive_most)


def file_touched(inspected: Mapping[str, Any], now: datetime) -> datetime | None:
    """Return when DS01's file in a server's workspace was touched last; blocks.

    Returns
    -------
    datetime or None
        None if there is none, or it is no file. One from the future was touched now.

    Raises
    ------
    OSError
        If the disk does not say: that is not the same as no file.
    """
    for mount in inspected.get("Mounts") or ():
        if mount.get("Destination") == _WORKSPACE and mount.get("Source"):
            try:
                found = os.lstat(Path(mount["Source"], KEEP_ALIVE))
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_mtime >= now.timestamp():
                return now
            # Some file systems have times for which Python has no date.
            return datetime.fromtimestamp(max(0.0, found.st_mtime), timezone.utc)
    return None


def _why_not_kept(life: ServerLife, lifecycle: Lifecycle) -> str:
    if _is_full(life.why):
        return f"That does not help here. {life.words}"
    if lifecycle.idle_timeout is None:
        return "Idle servers are not stopped, so there is nothing to keep it from."
    return (
        f"It has been idle for {words.duration(lifecycle.keepalive_most)}, the longest that an "
        "idle server can be kept. Save your work."
    )


def _is_full(why: str) -> bool:
    return bool(why) and Reason(why).is_full


def _warnings(course: Course) -> int:
    return len(course.memory.warned_of(Reason(course.why))) if course.why else 0


def _most_until(course: Course | None, lifecycle: Lifecycle, now: datetime) -> datetime | None:
    if lifecycle.idle_timeout is None or (course and _is_full(course.why)):
        return None
    busy_until = course.memory.busy_until if course else now
    most = busy_until + lifecycle.keepalive_most
    return most if most > now else None
