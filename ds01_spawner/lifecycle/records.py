"""What is remembered of servers' lives: how they are, what was asked and done, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, String, Update, delete, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from ..policy.units import utc_now
from ..store import aware, naive, open_database, put
from .decide import Reason
from .life import Memory

#: Events older than this are forgotten.
_EVENTS_LAST = timedelta(days=90)
#: Of one user, the newest are kept.
_MOST_EVENTS = 5_000

#: The event of a start that was refused because no GPU was free; `Refused.reason` says so, too.
NONE_FREE = "no-gpu"


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


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind
        What: ``warned``, ``stopped``, ``kept`` and others.
    user, project
        Whose server, and which.
    by
        Who did it: a user's name, or ``ds01-culler``.
    why
        In words, for the owner.
    numbers
        What it was decided on.
    """

    kind: str
    user: str
    project: str
    by: str
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    id: int = 0


class _Base(DeclarativeBase):
    pass


class _LifeRow(_Base):
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


class _KeptRow(_Base):
    __tablename__ = "kept_servers"
    container_id: Mapped[str] = mapped_column(String, primary_key=True)
    kind: Mapped[str] = mapped_column(String, primary_key=True)
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    until: Mapped[datetime]
    asked_by: Mapped[str]
    at: Mapped[datetime]


class _StopRow(_Base):
    __tablename__ = "stop_reasons"
    container_id: Mapped[str] = mapped_column(String, primary_key=True)
    words: Mapped[str]
    at: Mapped[datetime]


class _EventRow(_Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str]
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    actor: Mapped[str]
    why: Mapped[str]
    numbers: Mapped[str]


class LifeRecords:
    """Lives, keeps, reasons and events in the database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._session = sessionmaker(open_database(path, _Base))

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

    # -- events --------------------------------------------------------------------------------

    def tell(self, event: Event, once_in: timedelta | None = None) -> None:
        """Keep that something has happened, now if it has no time.

        Parameters
        ----------
        once_in
            Not if the same has happened to the same server in this time before.
        """
        row = _EventRow(
            at=naive(event.at or utc_now()),
            kind=event.kind,
            username=event.user,
            project=event.project,
            actor=event.by,
            why=event.why,
            numbers=json.dumps(dict(event.numbers)),
        )
        same = select(_EventRow.id).where(
            _EventRow.username == event.user,
            _EventRow.project == event.project,
            _EventRow.kind == event.kind,
        )
        with self._session.begin() as session:
            if once_in is not None:
                same = same.where(_EventRow.at > row.at - once_in).limit(1)
                if session.scalars(same).first() is not None:
                    return
            session.add(row)

    def events(
        self,
        user: str | None = None,
        most: int = 100,
        *,
        project: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
    ) -> list[Event]:
        """Return what has happened lately, newest first.

        Parameters
        ----------
        user
            To whose servers; None for everybody's.
        most
            How many at most.
        project, kind
            Only this.
        since
            Only from this moment on.
        before
            Only older ones than the event of this id.
        """
        asked = select(_EventRow).order_by(_EventRow.id.desc()).limit(most)
        for column, value in (
            (_EventRow.username, user),
            (_EventRow.project, project),
            (_EventRow.kind, kind),
        ):
            if value is not None:
                asked = asked.where(column == value)
        if since is not None:
            asked = asked.where(_EventRow.at >= naive(since))
        if before is not None:
            asked = asked.where(_EventRow.id < before)
        with self._session() as session:
            return [_event(row) for row in session.scalars(asked)]

    def event_kinds(self) -> list[str]:
        """Return which kinds of events there are."""
        with self._session() as session:
            return list(session.scalars(select(_EventRow.kind).distinct().order_by(_EventRow.kind)))

    def has_happened(self, kind: str, since: datetime) -> bool:
        """Tell whether something of a kind has happened since then."""
        asked = select(_EventRow.id).where(_EventRow.kind == kind, _EventRow.at >= naive(since))
        with self._session() as session:
            return session.scalars(asked.limit(1)).first() is not None

    def forget_old(self, now: datetime) -> None:
        """Forget what nobody asks for any more."""
        oldest = naive(now - _EVENTS_LAST)
        with self._session.begin() as session:
            session.execute(delete(_EventRow).where(_EventRow.at < oldest))
            session.execute(delete(_EventRow).where(_EventRow.id.in_(_beyond(_MOST_EVENTS))))
            session.execute(delete(_StopRow).where(_StopRow.at < oldest))


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


def _beyond(most: int) -> Select[tuple[int]]:
    """Return the ids of the events that each user has beyond their newest."""
    newest_first = func.row_number().over(
        partition_by=_EventRow.username, order_by=_EventRow.id.desc()
    )
    numbered = select(_EventRow.id, newest_first.label("number")).subquery()
    return select(numbered.c.id).where(numbered.c.number > most)


def _event(row: _EventRow) -> Event:
    return Event(
        kind=row.kind,
        user=row.username,
        project=row.project,
        by=row.actor,
        why=row.why,
        numbers=json.loads(row.numbers),
        at=aware(row.at),
        id=row.id,
    )


def _written(moments: tuple[datetime, ...]) -> str:
    return json.dumps([moment.isoformat() for moment in moments])


def _read(text: str) -> tuple[datetime, ...]:
    return tuple(map(datetime.fromisoformat, json.loads(text)))
