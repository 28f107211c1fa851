"""What is worth remembering and Docker does not know: how servers ended, how long GPUs were held,
which GPUs reported an error, and projects' folders.

Never who holds what: that is asked of Docker.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

from sqlalchemy import (
    DDL,
    DateTime,
    String,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.schema import CreateColumn

from .endings import Cause, Ending

_At = TypeVar("_At", datetime, datetime | None)


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


class _GpuUseRow(_Base):
    __tablename__ = "gpu_uses"
    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[str] = mapped_column(String, index=True)
    seconds: Mapped[float]


class _GpuFaultRow(_Base):
    __tablename__ = "gpu_faults"
    uuid: Mapped[str] = mapped_column(String, primary_key=True)
    boot: Mapped[str] = mapped_column(String, primary_key=True)
    xid: Mapped[int]
    at: Mapped[datetime] = mapped_column(DateTime)


#: So many of the latest uses of a size tell how long the next one will be.
_USES_LOOKED_AT = 200


class Store:
    """The project's own SQLite database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._engine = open_database(path, _Base)
        self._session = sessionmaker(self._engine)

    def add_ending(self, ending: Ending) -> None:
        """Keep how a server ended; of starts that failed only the last, however often one tries."""
        failed = Cause.START_FAILED.value
        with self._session.begin() as session:
            if ending.cause.value == failed:
                session.execute(
                    delete(_EndingRow).where(
                        _EndingRow.username == ending.username,
                        _EndingRow.project == ending.project,
                        _EndingRow.cause == failed,
                    )
                )
            session.add(
                _EndingRow(
                    username=ending.username,
                    project=ending.project,
                    cause=ending.cause.value,
                    message=ending.message,
                    at=naive(ending.at),
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
            put(session, _FolderRow(username=username, project=project, folder=folder))

    def forget_project_folder(self, username: str, project: str) -> None:
        """Forget a project's folder; nothing happens if there is none."""
        with self._session.begin() as session:
            row = session.get(_FolderRow, (username, project))
            if row is not None:
                session.delete(row)

    def add_gpu_use(self, size: str, duration: timedelta) -> None:
        """Keep for how long a server had a device of a size, a profile or ``full``."""
        with self._session.begin() as session:
            session.add(_GpuUseRow(size=size, seconds=duration.total_seconds()))

    def gpu_uses(self, sizes: Collection[str]) -> list[timedelta]:
        """Return for how long the latest servers had devices of these sizes."""
        latest = (
            select(_GpuUseRow.seconds)
            .where(_GpuUseRow.size.in_(sizes))
            .order_by(_GpuUseRow.id.desc())
            .limit(_USES_LOOKED_AT)
        )
        with self._session() as session:
            return [timedelta(seconds=seconds) for seconds in session.scalars(latest)]

    def add_gpu_fault(self, uuid: str, xid: int, at: datetime) -> None:
        """Keep that a device reported a critical error, until the machine is started again."""
        row = _GpuFaultRow(
            uuid=uuid,
            boot=_this_boot(),
            xid=xid,
            at=naive(at),
        )
        with self._session.begin() as session:
            put(session, row)

    def gpu_faults(self) -> dict[str, str]:
        """Return the devices with a critical error since the machine started, and what it was."""
        current = select(_GpuFaultRow).where(_GpuFaultRow.boot == _this_boot())
        with self._session() as session:
            return {
                row.uuid: f"reported the critical error Xid {row.xid} on {row.at:%d %B, %H:%M} UTC"
                for row in session.scalars(current)
            }

    def forget_gpu_fault(self, uuid: str) -> bool:
        """Forget a device's error, after its repair; tell whether there was one."""
        with self._session.begin() as session:
            row = session.get(_GpuFaultRow, (uuid, _this_boot()))
            if row is not None:
                session.delete(row)
            return row is not None

    def users(self) -> set[str]:
        """Return the names of all whose server has ended at least once."""
        with self._session() as session:
            return set(session.scalars(select(_EndingRow.username).distinct()))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def open_database(path: Path, base: type[DeclarativeBase]) -> Engine:
    """Return an engine for the project's SQLite file, which several processes may use at once.

    Parameters
    ----------
    path
        The file, made when missing.
    base
        Of the tables. Those that are missing are made, and the columns that an older version did
        not have: a new column needs a default at the server.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
    event.listen(engine, "connect", _use_write_ahead_log)
    base.metadata.create_all(engine)
    _add_missing_columns(engine, base)
    return engine


def _add_missing_columns(engine: Engine, base: type[DeclarativeBase]) -> None:
    for table in base.metadata.sorted_tables:
        known = {column["name"] for column in inspect(engine).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                _add_column(engine, CreateColumn(column))


def _add_column(engine: Engine, column: CreateColumn) -> None:
    table = column.element.table
    try:
        with engine.begin() as connection:
            connection.execute(DDL(f"ALTER TABLE {table.name} ADD COLUMN {column.compile(engine)}"))
    except OperationalError as error:
        # Another process has just done so.
        if "duplicate column" not in str(error):
            raise


def put(session: Session, row: DeclarativeBase) -> None:
    """Add a row in one statement, or give the one with its key these values.

    `Session.merge` looks first and adds then: of two that do so at the same moment, one fails.
    """
    values = {name: value for name, value in vars(row).items() if not name.startswith("_")}
    keys = [column.name for column in inspect(type(row)).primary_key]
    others = {name: value for name, value in values.items() if name not in keys}
    session.execute(
        insert(type(row)).values(values).on_conflict_do_update(index_elements=keys, set_=others)
    )


def naive(at: _At) -> _At:
    """Return a time as the database has it: in UTC, without saying so."""
    return at.astimezone(timezone.utc).replace(tzinfo=None) if at else at


def aware(at: _At) -> _At:
    """Return a time from the database."""
    return at.replace(tzinfo=timezone.utc) if at else at


def _this_boot() -> str:
    """Return what tells this run of the machine from the one before its restart."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _ending(row: _EndingRow) -> Ending:
    return Ending(
        username=row.username,
        project=row.project,
        cause=Cause(row.cause),
        message=row.message,
        at=aware(row.at),
        exit_code=row.exit_code,
        container_id=row.container_id,
    )


def _use_write_ahead_log(connection: object, _record: object) -> None:
    """Let readers go on while somebody writes."""
    connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]
