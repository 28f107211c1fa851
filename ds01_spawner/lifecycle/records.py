"""What is remembered of servers' lives: how they are, how they are kept, and why they stop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String, Update, delete, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from ..clock import utc_now
from ..store import aware, naive, put
from .decide import Reason
from .events import EVENTS_LAST, Base, EventRecords
from .life import Memory


@dataclass(frozen=True)
class Course:
    """How a server is, as its owner may know it.

    Attributes
    ----------
    container_id
        Docker's id of its container.
    user, project
        Whose server, and which.
    memory
        What the service knows of its activity.
    stop_at
        When it will be stopped if it goes on like this; None if it will not.
    why
        Why then: a `decide.Reason`, empty if it will not.
    is_warned
        Whether its owner was told.
    keep_until
        Until when somebody has asked to keep it; None if nobody did.
    cpu_percent, gpu_percent
        What it did lately; None if that is not known, or it has no GPU.
    """

    container_id: str
    user: str
    project: str
    memory: Memory
    stop_at: datetime | None = None
    why: str = ""
    is_warned: bool = False
    keep_until: datetime | None = None
    cpu_percent: float | None = None
    gpu_percent: float | None = None


#: How a server is kept: its owner asked, an admin protects it, or DS01's file lies in its project.
ASKED, PROTECTED, FILE = "asked", "protected", "file"


@dataclass(frozen=True)
class Kept:
    """A server that is kept.

    Attributes
    ----------
    container_id
        Docker's id of its container.
    user, project
        Whose server, and which.
    kind
        ``asked``: it is not stopped for being idle. ``protected``: it is not stopped at all.
        ``file``: as if asked, by DS01's file.
    until
        When that ends.
    by, at
        Who asked, and when; empty and None for a file.
    """

    container_id: str
    user: str
    project: str
    kind: str
    until: datetime
    by: str = ""
    at: datetime | None = None


class _LifeRow(Base):
    __tablename__ = "lives"
    container_id: Mapped[str] = mapped_column(String, primary_key=True)
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    at: Mapped[datetime]
    busy_until: Mapped[datetime]
    quiet_since: Mapped[datetime]
    warned_idle: Mapped[str]
    warned_runtime: Mapped[str]
    full: Mapped[str] = mapped_column(String, server_default="")
    warned_full: Mapped[str] = mapped_column(String, server_default="[]")
    stop_at: Mapped[datetime | None]
    why: Mapped[str]
    is_warned: Mapped[bool]
    keep_until: Mapped[datetime | None]
    cpu_percent: Mapped[float | None]
    gpu_percent: Mapped[float | None]


class _KeptRow(Base):
    __tablename__ = "kept_servers"
    container_id: Mapped[str] = mapped_column(String, primary_key=True)
    kind: Mapped[str] = mapped_column(String, primary_key=True)
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    until: Mapped[datetime]
    asked_by: Mapped[str]
    at: Mapped[datetime]


class _StopRow(Base):
    __tablename__ = "stop_reasons"
    container_id: Mapped[str] = mapped_column(String, primary_key=True)
    words: Mapped[str]
    at: Mapped[datetime]


class LifeRecords(EventRecords):
    """Lives, keeps and reasons in the database, beside events."""

    # -- lives ---------------------------------------------------------------------------------

    def keep_courses(self, courses: Iterable[Course]) -> None:
        """Keep how all servers are now; those that are not among them have ended."""
        # As plain values, as all rows change in each look: objects take four times as long.
        rows = [_life_values(course) for course in courses]
        with self._session.begin() as session:
            session.execute(delete(_LifeRow))
            if rows:
                session.execute(insert(_LifeRow), rows)

    def courses(self, user: str | None = None) -> list[Course]:
        """Return how somebody's servers are, or everybody's."""
        asked = select(_LifeRow).order_by(_LifeRow.username, _LifeRow.project)
        if user is not None:
            asked = asked.where(_LifeRow.username == user)
        with self._session() as session:
            return [_course(row) for row in session.scalars(asked)]

    # -- keeps ---------------------------------------------------------------------------------

    def keep(self, kept: Kept) -> None:
        """Keep that a server is to be kept, from now on if it has no time."""
        row = _KeptRow(
            container_id=kept.container_id,
            kind=kept.kind,
            username=kept.user,
            project=kept.project,
            until=naive(kept.until),
            asked_by=kept.by,
            at=naive(kept.at or utc_now()),
        )
        with self._session.begin() as session:
            put(session, row)
            session.execute(_keep_unseen(kept.container_id))

    def end_keep(self, container_id: str, kind: str = ASKED) -> bool:
        """End that; tell whether there was one."""
        with self._session.begin() as session:
            found = session.get(_KeptRow, (container_id, kind))
            if found is not None:
                session.delete(found)
                session.execute(_keep_unseen(container_id))
            return found is not None

    def kept(self, now: datetime) -> list[Kept]:
        """Return what is to be kept, also of servers that have ended since; files are not known."""
        asked = select(_KeptRow).order_by(_KeptRow.username, _KeptRow.project, _KeptRow.kind)
        with self._session.begin() as session:
            session.execute(delete(_KeptRow).where(_KeptRow.until <= naive(now)))
            return [_kept(row) for row in session.scalars(asked)]

    def keeps(self, now: datetime, kind: str = ASKED) -> dict[str, datetime]:
        """Return until when servers are to be kept, by their containers' ids."""
        return {kept.container_id: kept.until for kept in self.kept(now) if kept.kind == kind}

    # -- reasons -------------------------------------------------------------------------------

    def note_stop(self, container_id: str, words: str) -> None:
        """Keep why a server is about to be stopped, for its owner."""
        with self._session.begin() as session:
            put(session, _StopRow(container_id=container_id, words=words, at=naive(utc_now())))

    def stop_reason(self, container_id: str) -> str:
        """Return why a server was stopped; empty if nobody has said."""
        with self._session() as session:
            row = session.get(_StopRow, container_id)
            return row.words if row is not None else ""

    def forget_stop(self, container_id: str) -> None:
        """Forget that a server was about to be stopped: the Hub did not do it."""
        with self._session.begin() as session:
            session.execute(delete(_StopRow).where(_StopRow.container_id == container_id))

    def forget_old(self, now: datetime) -> None:
        """Forget what nobody asks for any more."""
        super().forget_old(now)
        with self._session.begin() as session:
            session.execute(delete(_StopRow).where(_StopRow.at < naive(now - EVENTS_LAST)))


def _life_values(course: Course) -> dict[str, Any]:
    memory = course.memory
    return {
        "container_id": course.container_id,
        "username": course.user,
        "project": course.project,
        "at": naive(memory.at),
        "busy_until": naive(memory.busy_until),
        "quiet_since": naive(memory.quiet_since),
        "warned_idle": _written(memory.warned_idle),
        "warned_runtime": _written(memory.warned_runtime),
        "full": memory.full.value if memory.full else "",
        "warned_full": _written(memory.warned_full),
        "stop_at": naive(course.stop_at),
        "why": course.why,
        "is_warned": course.is_warned,
        "keep_until": naive(course.keep_until),
        "cpu_percent": course.cpu_percent,
        "gpu_percent": course.gpu_percent,
    }


def _course(row: _LifeRow) -> Course:
    return Course(
        container_id=row.container_id,
        user=row.username,
        project=row.project,
        memory=Memory(
            at=aware(row.at),
            busy_until=aware(row.busy_until),
            quiet_since=aware(row.quiet_since),
            warned_idle=_read(row.warned_idle),
            warned_runtime=_read(row.warned_runtime),
            full=Reason(row.full) if row.full else None,
            warned_full=_read(row.warned_full),
        ),
        stop_at=aware(row.stop_at),
        why=row.why,
        is_warned=row.is_warned,
        keep_until=aware(row.keep_until),
        cpu_percent=row.cpu_percent,
        gpu_percent=row.gpu_percent,
    )


def _kept(row: _KeptRow) -> Kept:
    return Kept(
        container_id=row.container_id,
        user=row.username,
        project=row.project,
        kind=row.kind,
        until=aware(row.until),
        by=row.asked_by,
        at=aware(row.at),
    )


def _keep_unseen(container_id: str) -> Update:
    """Return what forgets until when the service saw a server kept: it sees the new one next."""
    return update(_LifeRow).where(_LifeRow.container_id == container_id).values(keep_until=None)


def _written(moments: tuple[datetime, ...]) -> str:
    return json.dumps([moment.isoformat() for moment in moments])


def _read(text: str) -> tuple[datetime, ...]:
    return tuple(map(datetime.fromisoformat, json.loads(text)))
