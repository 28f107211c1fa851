"""What was measured: how much users' files and servers' own ones take, kept over a restart."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from sqlalchemy import String, delete, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from ..store import aware, naive, open_database, put

#: What was measured longer ago says nothing of now.
_COUNTS_FOR = timedelta(hours=24)


class Kind(str, Enum):
    """What takes room."""

    #: A user: all workspaces and the home; known by the user's name.
    USER = "user"
    #: A server: what it writes outside of these; known by its container's id.
    CONTAINER = "container"


@dataclass(frozen=True)
class Use:
    """What a user or a container takes on the disk.

    Attributes
    ----------
    kind, name
        What takes it: a user's name, or a container's id.
    user, project
        Whose; the project is empty for a user.
    bytes, at
        How much, and when that was measured; None if it never was.
    problem
        Why that is not all, or why the last measurement failed; empty if neither is so.
    tried_at, took
        When it was last begun to be measured, and how long that took; None if never.
    is_wanted
        Whether somebody waits for it to be measured anew.
    """

    kind: Kind
    name: str
    user: str
    project: str = ""
    bytes: int | None = None
    at: datetime | None = None
    problem: str = ""
    tried_at: datetime | None = None
    took: timedelta = timedelta(0)
    is_wanted: bool = False

    def counts(self, now: datetime) -> bool:
        """Tell whether it was measured, and lately."""
        return self.bytes is not None and self.at is not None and now - self.at <= _COUNTS_FOR


@dataclass(frozen=True)
class Uses:
    """What there is to say now: users by name, containers by id; only what was measured lately."""

    users: dict[str, Use] = field(default_factory=dict)
    containers: dict[str, Use] = field(default_factory=dict)

    def of_user(self, name: str) -> int | None:
        """Return what a user's files take, in bytes; None if that is not known."""
        use = self.users.get(name)
        return use.bytes if use else None

    def of_container(self, container_id: str) -> int | None:
        """Return what a server's own files take, in bytes; None if that is not known."""
        use = self.containers.get(container_id)
        return use.bytes if use else None


class _Base(DeclarativeBase):
    pass


class _UseRow(_Base):
    __tablename__ = "disk_uses"
    kind: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String, primary_key=True)
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str]
    bytes: Mapped[int | None]
    at: Mapped[datetime | None]
    problem: Mapped[str]
    tried_at: Mapped[datetime | None]
    took_s: Mapped[float]
    is_wanted: Mapped[bool]


class StorageRecords:
    """What was measured, in the database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._session = sessionmaker(open_database(path, _Base))

    def keep(self, use: Use) -> None:
        """Keep what something takes."""
        with self._session.begin() as session:
            put(session, _row(use))

    def note(self, use: Use) -> None:
        """Keep what came of a measurement, of something that was kept before.

        Whether it is wanted stays: somebody may have asked meanwhile.
        """
        row = _row(use)
        found = {"bytes": row.bytes, "at": row.at, "problem": row.problem, "took_s": row.took_s}
        asked = update(_UseRow).filter_by(kind=row.kind, name=row.name)
        with self._session.begin() as session:
            session.execute(asked.values(**found))

    def forget(self, uses: Iterable[Use]) -> None:
        """Forget what is not there any more."""
        for use in uses:
            row = delete(_UseRow).filter_by(kind=use.kind.value, name=use.name)
            with self._session.begin() as session:
                session.execute(row)

    def want(self, user: str) -> None:
        """Have a user's files measured soon; nothing happens if they never were."""
        row = update(_UseRow).filter_by(kind=Kind.USER.value, name=user)
        with self._session.begin() as session:
            session.execute(row.values(is_wanted=True))

    def all(self) -> list[Use]:
        """Return everything, also what was measured long ago, or could not be."""
        with self._session() as session:
            return [_use(row) for row in session.scalars(select(_UseRow))]

    def uses(self, now: datetime, user: str | None = None) -> Uses:
        """Return what there is to say now of a user, or of everybody."""
        asked = select(_UseRow) if user is None else select(_UseRow).filter_by(username=user)
        with self._session() as session:
            found = [_use(row) for row in session.scalars(asked)]
        known = [use for use in found if use.counts(now)]
        return Uses(
            {use.name: use for use in known if use.kind is Kind.USER},
            {use.name: use for use in known if use.kind is Kind.CONTAINER},
        )


def largest(uses: Collection[Use], kind: Kind, most: int) -> list[Use]:
    """Return what takes most room of one kind, largest first, whenever it was measured."""
    known = [use for use in uses if use.kind is kind and use.bytes is not None]
    return sorted(known, key=lambda use: -(use.bytes or 0))[:most]


def _row(use: Use) -> _UseRow:
    return _UseRow(
        kind=use.kind.value,
        name=use.name,
        username=use.user,
        project=use.project,
        bytes=use.bytes,
        at=naive(use.at),
        problem=use.problem,
        tried_at=naive(use.tried_at),
        took_s=use.took.total_seconds(),
        is_wanted=use.is_wanted,
    )


def _use(row: _UseRow) -> Use:
    return Use(
        kind=Kind(row.kind),
        name=row.name,
        user=row.username,
        project=row.project,
        bytes=row.bytes,
        at=aware(row.at),
        problem=row.problem,
        tried_at=aware(row.tried_at),
        took=timedelta(seconds=row.took_s),
        is_wanted=row.is_wanted,
    )
