"""What is remembered of users' images and Docker does not know: builds, and with whom they share.

Which images there are, and whose, is asked of Docker: `shelf`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import String, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from ..clock import utc_now
from ..store import aware, naive, open_database, put

#: With whom an image is shared that everybody may use.
EVERYBODY = "*"


class State(str, Enum):
    """How far a build is; the last four are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to the build any more."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Build:
    """One build of an image.

    Attributes
    ----------
    id
        Its number among all builds; 0 before it is kept.
    owner, project, tag
        Whose image, and the tag that a success moves.
    dockerfile
        What is built.
    recipe
        The recipe that this comes from, as text; empty for a Dockerfile that was edited by hand.
    packages
        Python packages that were asked for.
    number
        The version of the image that it became; 0 if none.
    state, problem, line
        How it is; why it failed, for its owner, and at which line of `dockerfile` (0: at none).
    installed
        Python packages in the image -> version.
    remarks
        What else its owner should know.
    """

    owner: str
    project: str
    tag: str
    dockerfile: str
    packages: tuple[str, ...] = ()
    recipe: str = ""
    id: int = 0
    number: int = 0
    state: State = State.QUEUED
    problem: str = ""
    line: int = 0
    image_id: str = ""
    own_bytes: int = 0
    installed: Mapping[str, str] | None = None
    remarks: tuple[str, ...] = ()
    asked_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Shared:
    """That an image may be used by others.

    Attributes
    ----------
    group
        A group's name, or `EVERYBODY`.
    approved
        Whether it holds already.
    """

    owner: str
    project: str
    group: str
    approved: bool = True


class _Base(DeclarativeBase):
    pass


class _BuildRow(_Base):
    __tablename__ = "image_builds"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str] = mapped_column(String, index=True)
    tag: Mapped[str]
    dockerfile: Mapped[str]
    recipe: Mapped[str]
    packages: Mapped[str]
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String, index=True)
    problem: Mapped[str]
    line: Mapped[int]
    image_id: Mapped[str]
    own_bytes: Mapped[int]
    installed: Mapped[str | None]
    remarks: Mapped[str]
    asked_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class _SharedRow(_Base):
    __tablename__ = "image_shares"
    owner: Mapped[str] = mapped_column(String, primary_key=True)
    project: Mapped[str] = mapped_column(String, primary_key=True)
    group: Mapped[str] = mapped_column(String, primary_key=True)
    approved: Mapped[bool]


class _UseRow(_Base):
    __tablename__ = "image_uses"
    image_id: Mapped[str] = mapped_column(String, primary_key=True)
    at: Mapped[datetime]


class _LayerRow(_Base):
    __tablename__ = "image_layers"
    digest: Mapped[str] = mapped_column(String, primary_key=True)
    build_id: Mapped[int]
    owner: Mapped[str]


class ImageRecords:
    """Builds, shares, uses and layers in the database; methods block for about a millisecond.

    Parameters
    ----------
    path
        The database file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._session = sessionmaker(open_database(path, _Base))

    # -- builds --------------------------------------------------------------------------------

    def add(self, build: Build) -> Build:
        """Keep a new build, and return it with its id."""
        with self._session.begin() as session:
            row = _BuildRow(**_columns(replace(build, asked_at=_now())))
            session.add(row)
            session.flush()
            return _build(row)

    def change(self, build: Build, **changes: Any) -> Build:
        """Keep what has changed of a build; an end gets its time."""
        if replace(build, **changes).state.is_over and build.ended_at is None:
            changes["ended_at"] = _now()
        changed = replace(build, **changes)
        values = {name: value for name, value in _columns(changed).items() if name in changes}
        with self._session.begin() as session:
            session.execute(update(_BuildRow).where(_BuildRow.id == build.id).values(**values))
        return changed

    def get(self, build_id: int) -> Build | None:
        """Return a build, None if there is none of this id."""
        with self._session() as session:
            row = session.get(_BuildRow, build_id)
            return None if row is None else _build(row)

    def builds(self, owner: str, project: str = "", most: int = 50) -> list[Build]:
        """Return somebody's latest builds, newest first, of one project or of all."""
        asked = select(_BuildRow).where(_BuildRow.owner == owner).order_by(_BuildRow.id.desc())
        if project:
            asked = asked.where(_BuildRow.project == project)
        with self._session() as session:
            return [_build(row) for row in session.scalars(asked.limit(most))]

    def latest(self, owner: str) -> list[Build]:
        """Return the last build of each of somebody's images that is over, newest first."""
        states = [state.value for state in State if state.is_over]
        newest = (
            select(func.max(_BuildRow.id))
            .where(_BuildRow.owner == owner, _BuildRow.state.in_(states))
            .group_by(_BuildRow.project, _BuildRow.tag)
        )
        asked = select(_BuildRow).where(_BuildRow.id.in_(newest)).order_by(_BuildRow.id.desc())
        with self._session() as session:
            return [_build(row) for row in session.scalars(asked)]

    def of_image(self, image_id: str) -> Build | None:
        """Return the build that an image came from."""
        asked = (
            select(_BuildRow).where(_BuildRow.image_id == image_id).order_by(_BuildRow.id.desc())
        )
        with self._session() as session:
            row = session.scalars(asked.limit(1)).first()
            return None if row is None else _build(row)

    def own_bytes(self, image_ids: Iterable[str]) -> dict[str, int]:
        """Return what images take beyond their bases, by Docker's id."""
        asked = select(_BuildRow.image_id, _BuildRow.own_bytes).where(
            _BuildRow.image_id.in_(list(image_ids))
        )
        with self._session() as session:
            return {row.image_id: row.own_bytes for row in session.execute(asked)}

    def under_way(self) -> list[Build]:
        """Return the builds that are not over, oldest first."""
        states = [state.value for state in State if not state.is_over]
        asked = select(_BuildRow).where(_BuildRow.state.in_(states)).order_by(_BuildRow.id)
        with self._session() as session:
            return [_build(row) for row in session.scalars(asked)]

    def last_number(self, owner: str, project: str) -> int:
        """Return the highest version that this image ever had."""
        asked = (
            select(_BuildRow.number)
            .where(_BuildRow.owner == owner, _BuildRow.project == project)
            .order_by(_BuildRow.number.desc())
        )
        with self._session() as session:
            return session.scalars(asked.limit(1)).first() or 0

    def forget(self, owner: str, project: str) -> list[int]:
        """Forget all builds of an image, and return their ids."""
        theirs = (_BuildRow.owner == owner, _BuildRow.project == project)
        with self._session.begin() as session:
            return list(session.scalars(delete(_BuildRow).where(*theirs).returning(_BuildRow.id)))

    def note_layers(self, build: Build, digests: Iterable[str]) -> None:
        """Keep which build has made layers; the first that did is the one."""
        rows = [{"digest": d, "build_id": build.id, "owner": build.owner} for d in digests]
        if rows:
            with self._session.begin() as session:
                session.execute(insert(_LayerRow).on_conflict_do_nothing(), rows)

    def makers(self) -> dict[str, tuple[int, str]]:
        """Return which build of whom has made each layer, by the layer's digest."""
        asked = select(_LayerRow.digest, _LayerRow.build_id, _LayerRow.owner)
        with self._session() as session:
            return {digest: (build, owner) for digest, build, owner in session.execute(asked)}

    # -- sharing and use -----------------------------------------------------------------------

    def share(self, shared: Shared) -> None:
        """Share an image with a group, or approve that."""
        with self._session.begin() as session:
            put(session, _SharedRow(**vars(shared)))

    def unshare(self, owner: str, project: str, group: str | None = None) -> None:
        """Share an image with a group no more, or with nobody."""
        with self._session.begin() as session:
            for row in session.scalars(select(_SharedRow).filter_by(owner=owner, project=project)):
                if group is None or group == row.group:
                    session.delete(row)

    def shares(self) -> list[Shared]:
        """Return what is shared with whom, also what waits for an admin."""
        with self._session() as session:
            rows = session.scalars(select(_SharedRow).order_by(_SharedRow.owner))
            return [Shared(row.owner, row.project, row.group, row.approved) for row in rows]

    def note_use(self, image_id: str) -> None:
        """Keep that a server was started from an image now."""
        with self._session.begin() as session:
            put(session, _UseRow(image_id=image_id, at=naive(_now())))

    def last_uses(self, image_ids: Iterable[str]) -> dict[str, datetime]:
        """Return when a server was last started from each of these images, if ever."""
        asked = select(_UseRow).where(_UseRow.image_id.in_(list(image_ids)))
        with self._session() as session:
            return {row.image_id: aware(row.at) for row in session.scalars(asked)}


def _columns(build: Build) -> dict[str, Any]:
    values = dict(vars(build))
    values["state"] = build.state.value
    for name in ("packages", "remarks"):
        values[name] = json.dumps(list(values[name]))
    values["installed"] = None if build.installed is None else json.dumps(dict(build.installed))
    for name in ("asked_at", "ended_at"):
        values[name] = naive(values[name])
    if not build.id:
        del values["id"]
    return values


def _build(row: _BuildRow) -> Build:
    values = {name: getattr(row, name) for name in Build.__dataclass_fields__}
    values["state"] = State(row.state)
    for name in ("packages", "remarks"):
        values[name] = tuple(json.loads(values[name]))
    values["installed"] = None if row.installed is None else json.loads(row.installed)
    for name in ("asked_at", "ended_at"):
        values[name] = aware(values[name])
    return Build(**values)


def _now() -> datetime:
    return utc_now().replace(microsecond=0)
