"""What is remembered of messages: who wants e-mail, and what was or has to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import String, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from ..store import aware, naive, open_database, put
from .message import Message

#: For so long it is known that a message was sent; no server is warned of the same stop for longer.
_KNOWN = timedelta(days=30)


@dataclass(frozen=True)
class Waiting:
    """A message that has to be sent.

    Attributes
    ----------
    tries
        How often that was tried.
    is_new
        Whether it was neither tried nor put off yet.
    """

    message: Message
    tries: int
    is_new: bool


class _Base(DeclarativeBase):
    pass


class _WishRow(_Base):
    __tablename__ = "mail_wishes"
    username: Mapped[str] = mapped_column(String, primary_key=True)
    wanted: Mapped[bool]


class _MessageRow(_Base):
    __tablename__ = "messages"
    key: Mapped[str] = mapped_column(String, primary_key=True)
    channel: Mapped[str] = mapped_column(String, primary_key=True)
    kind: Mapped[str]
    username: Mapped[str]
    project: Mapped[str]
    why: Mapped[str]
    at: Mapped[datetime]
    reason: Mapped[str]
    stop_at: Mapped[datetime | None]
    tries: Mapped[int]
    #: None once nothing is to be done any more.
    next_try: Mapped[datetime | None] = mapped_column(index=True)


class MessageRecords:
    """Wishes and messages in the database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._session = sessionmaker(open_database(path, _Base))

    # -- wishes --------------------------------------------------------------------------------

    def wants_mail(self, user: str) -> bool:
        """Tell whether a user wants e-mail; who has not said so does."""
        with self._session() as session:
            row = session.get(_WishRow, user)
            return row is None or row.wanted

    def set_wants_mail(self, user: str, wanted: bool) -> None:
        """Keep whether a user wants e-mail."""
        with self._session.begin() as session:
            put(session, _WishRow(username=user, wanted=wanted))

    # -- messages ------------------------------------------------------------------------------

    def add(self, message: Message, channel: str, most: int) -> bool:
        """Keep that a message is to be sent, unless it is known already.

        Returns
        -------
        bool
            False if there are `most` already that wait: it is not kept.
        """
        waiting = select(func.count()).where(
            _MessageRow.channel == channel, _MessageRow.next_try.is_not(None)
        )
        row = {
            "key": message.key,
            "channel": channel,
            "kind": message.kind,
            "username": message.user,
            "project": message.project,
            "why": message.why,
            "at": naive(message.at),
            "reason": message.reason,
            "stop_at": naive(message.stop_at),
            "tries": 0,
            "next_try": naive(message.at),
        }
        with self._session.begin() as session:
            session.execute(delete(_MessageRow).where(_MessageRow.at < naive(message.at - _KNOWN)))
            if session.scalars(waiting).one() >= most:
                return False
            session.execute(insert(_MessageRow).values(row).on_conflict_do_nothing())
            return True

    def due(self, channel: str, now: datetime) -> list[Waiting]:
        """Return what is to be sent now: what was tried least first, and of that the oldest."""
        asked = (
            select(_MessageRow)
            .where(_MessageRow.channel == channel, _MessageRow.next_try <= naive(now))
            .order_by(_MessageRow.tries, _MessageRow.at)
        )
        with self._session() as session:
            return [_waiting(row) for row in session.scalars(asked)]

    def next_due(self, channel: str) -> datetime | None:
        """Return when something is to be sent next; None if nothing is."""
        asked = select(func.min(_MessageRow.next_try)).where(_MessageRow.channel == channel)
        with self._session() as session:
            found = session.scalars(asked).one()
            return aware(found)

    def done(self, key: str, channel: str) -> None:
        """Keep that a message was sent, or never will be."""
        self._change(key, channel, next_try=None)

    def tried(self, key: str, channel: str, tries: int, next_try: datetime) -> None:
        """Keep how often it was tried to send a message, and when that is tried again."""
        self._change(key, channel, tries=tries, next_try=naive(next_try))

    def _change(self, key: str, channel: str, **values: object) -> None:
        changed = (
            update(_MessageRow)
            .where(_MessageRow.key == key, _MessageRow.channel == channel)
            .values(**values)
        )
        with self._session.begin() as session:
            session.execute(changed)


def _waiting(row: _MessageRow) -> Waiting:
    message = Message(
        key=row.key,
        kind=row.kind,
        user=row.username,
        project=row.project,
        why=row.why,
        at=aware(row.at),
        reason=row.reason,
        stop_at=aware(row.stop_at),
    )
    return Waiting(message, row.tries, is_new=row.next_try == row.at)
