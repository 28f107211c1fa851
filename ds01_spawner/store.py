"""What is worth remembering and Docker does not know: how servers ended, and projects' folders.

Never who holds what: that is asked of Docker.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy import DateTime, String, create_engine, event, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from .endings import Cause, Ending


class _Base(DeclarativeBase):
    pass


class _EndingRow(_Base):
    __tablename__ = "endings"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str] = mapped_column(String, index=True)
    cause: Mapped[str]
    message: Mapped[str]
    at: Mapped[datetime] = mapped_column(DateTime)
    exit_code: Mapped[int | None]
    container_id: Mapped[str]


class _FolderRow(_Base):
    __tablename__ = "project_folders"
    username: Mapped[str] = mapped_column(String, primary_key=True)
    project: Mapped[str] = mapped_column(String, primary_key=True)
    folder: Mapped[str]


class Store:
    """The project's own SQLite database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        event.listen(engine, "connect", _use_write_ahead_log)
        _Base.metadata.create_all(engine)
        self._engine: Engine = engine
        self._session = sessionmaker(engine)

    def add_ending(self, ending: Ending) -> None:
        """Keep how a server ended."""
        with self._session.begin() as session:
            session.add(
                _EndingRow(
                    username=ending.username,
                    project=ending.project,
                    cause=ending.cause.value,
                    message=ending.message,
                    at=ending.at.astimezone(timezone.utc).replace(tzinfo=None),
                    exit_code=ending.exit_code,
                    container_id=ending.container_id,
                )
            )

    def last_ending(self, username: str, project: str) -> Ending | None:
        """Return how this server ended the last time, or None if it never did."""
        newest = (
            select(_EndingRow)
            .where(_EndingRow.username == username, _EndingRow.project == project)
            .order_by(_EndingRow.id.desc())
            .limit(1)
        )
        with self._session() as session:
            row = session.scalars(newest).first()
            return _ending(row) if row is not None else None

    def last_endings(self, username: str) -> dict[str, Ending]:
        """Return how each of this user's servers ended the last time, by project."""
        newest = (
            select(func.max(_EndingRow.id))
            .where(_EndingRow.username == username)
            .group_by(_EndingRow.project)
        )
        with self._session() as session:
            rows = session.scalars(select(_EndingRow).where(_EndingRow.id.in_(newest)))
            return {row.project: _ending(row) for row in rows}

    def project_folders(self, username: str) -> dict[str, str]:
        """Return this user's projects whose folder has another name, as project -> folder."""
        mine = select(_FolderRow).where(_FolderRow.username == username)
        with self._session() as session:
            return {row.project: row.folder for row in session.scalars(mine)}

    def set_project_folder(self, username: str, project: str, folder: str) -> None:
        """Remember that a project lives in a folder of another name."""
        with self._session.begin() as session:
            session.merge(_FolderRow(username=username, project=project, folder=folder))

    def forget_project_folder(self, username: str, project: str) -> None:
        """Forget a project's folder; nothing happens if there is none."""
        with self._session.begin() as session:
            row = session.get(_FolderRow, (username, project))
            if row is not None:
                session.delete(row)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _ending(row: _EndingRow) -> Ending:
    return Ending(
        username=row.username,
        project=row.project,
        cause=Cause(row.cause),
        message=row.message,
        at=row.at.replace(tzinfo=timezone.utc),
        exit_code=row.exit_code,
        container_id=row.container_id,
    )


def _use_write_ahead_log(connection: object, _record: object) -> None:
    """Let readers go on while somebody writes."""
    connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]
