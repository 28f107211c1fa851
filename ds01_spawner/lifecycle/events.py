"""What has happened to servers: events, kept for some time and found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, String, delete, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from ..clock import utc_now
from ..store import aware, naive, open_database

#: Events older than this are forgotten.
EVENTS_LAST = timedelta(days=90)
#: Of one user and kind, the newest are kept; there are some more until they are counted.
_MOST_EVENTS = 1_000
_COUNTED_EVERY = 100
#: What somebody does again and again is told once in this time.
ONCE_IN = timedelta(seconds=5)

# The kinds of events; docs/lifecycle.md says when each happens.
STARTED, START_FAILED = "started", "start-failed"
#: A start was refused because no GPU was free; `Refused.reason` says so, too.
NONE_FREE = "no-gpu"
WARNED, STOPPED, OUT_OF_MEMORY, ENDED = "warned", "stopped", "out-of-memory", "ended"
KEPT, PROTECTED, KEEP_ENDED = "kept", "protected", "keep-ended"
SILENT, RESCUED, DISK, SWEPT, NOT_SENT = "silent", "rescued", "disk", "swept", "not-sent"


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind
        What: one of those above.
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


class Base(DeclarativeBase):
    """The tables of servers' lives."""


class _EventRow(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str]
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    actor: Mapped[str]
    why: Mapped[str]
    numbers: Mapped[str]


class EventRecords:
    """Events in the database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._session = sessionmaker(open_database(path, Base))

    def tell(self, event: Event, once_in: timedelta | None = None) -> None:
        """Keep that something has happened, now if it has no time.

        Parameters
        ----------
        once_in
            Not if the same person did the same to this user's servers in this time before.
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
            _EventRow.kind == event.kind,
            _EventRow.actor == event.by,
        )
        with self._session.begin() as session:
            if once_in is not None:
                same = same.where(_EventRow.at > row.at - once_in).limit(1)
                if session.scalars(same).first() is not None:
                    return
            session.add(row)
            session.flush()
            if row.id % _COUNTED_EVERY == 0:
                beyond = _beyond(_EventRow.username == event.user, _EventRow.kind == event.kind)
                session.execute(delete(_EventRow).where(_EventRow.id.in_(beyond)))

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
        """Forget events that nobody asks for any more."""
        with self._session.begin() as session:
            session.execute(delete(_EventRow).where(_EventRow.at < naive(now - EVENTS_LAST)))
            session.execute(delete(_EventRow).where(_EventRow.id.in_(_beyond())))


def _beyond(*among: ColumnElement[bool]) -> Select[tuple[int]]:
    """Return the ids of the events that each user has beyond the newest of a kind."""
    newest_first = func.row_number().over(
        partition_by=(_EventRow.username, _EventRow.kind), order_by=_EventRow.id.desc()
    )
    numbered = select(_EventRow.id, newest_first.label("number")).where(*among).subquery()
    return select(numbered.c.id).where(numbered.c.number > _MOST_EVENTS)


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
