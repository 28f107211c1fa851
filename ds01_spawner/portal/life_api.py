"""The life of servers over the API: how one is, keeping it, its end, and what has happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ..clock import utc_now
from ..errors import Refused
from ..lifecycle import diary, leaving
from ..lifecycle.events import Event
from ..lifecycle.keeping import Keeping, ServerLife
from ..lifecycle.records import PROTECTED
from ..policy import Lifecycle
from ..storage.check import measure_soon
from .answers import Api
from .image_models import Nothing
from .operations import READ, WRITE, operation
from .people import Person

Found = TypeVar("Found")

_MOST_EVENTS = 200
#: Hours; longer than any policy lets a server be kept, and short enough to be added to a date.
_LONGEST_H = 10_000


class Life(RootModel[ServerLife]):
    """How a server's life goes on; times are null where there are none."""


class Leaving(RootModel[leaving.Leaving]):
    """What would go with a server; packages and files are null where they are not known."""


class KeptFiles(RootModel[leaving.Rescued]):
    """Where files were put in the server's workspace, and which were not."""


class Keep(BaseModel):
    """For how many hours a server is to be kept, idle as it may be."""

    model_config = ConfigDict(extra="forbid")

    hours: Annotated[float, Field(gt=0, le=_LONGEST_H, allow_inf_nan=False)]


class OneKept(BaseModel):
    """A server that is kept: ``asked`` for, ``protected`` by an admin, or by DS01's ``file``."""

    model_config = ConfigDict(from_attributes=True)

    user: str
    project: str
    kind: str
    until: datetime
    by: str
    at: datetime | None


class AllKept(BaseModel):
    """The servers that are kept."""

    servers: list[OneKept]


class OneEvent(BaseModel):
    """Something that has happened to a server."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    kind: str
    user: str
    project: str
    by: str
    why: str
    numbers: dict[str, Any]


class Events(BaseModel):
    """What has happened lately, newest first."""

    events: list[OneEvent]

    @classmethod
    def of(cls, found: Iterable[Event]) -> Events:
        """Return what is told of events."""
        return cls(events=[OneEvent.model_validate(event) for event in found])


class LifeApi(Api):
    """What the answers below have in common."""

    @property
    def keeping(self) -> Keeping:
        """Keeps servers, and tells of them."""
        return self.look.keeping

    def most_to_keep(self, person: Person, lifecycle: Lifecycle, now: datetime) -> int:
        """Return how many bytes of what goes with a server of theirs somebody may keep."""
        uses = self.site.settings.storage_records.uses(now, person.name)
        return leaving.most_to_keep(lifecycle, uses, person.name)

    async def with_policy(
        self,
        ask: Callable[[Person, Lifecycle, datetime], Awaitable[Found]],
        model: Callable[[Found], BaseModel],
    ) -> None:
        """Answer what is asked for the token's owner, with their policy."""
        person = await self.answered(self.person())

        async def asked() -> Found:
            share = self.site.settings.share_of(person.name, person.groups)
            lifecycle = share.resolved.limits.lifecycle
            return await ask(person, lifecycle, utc_now())

        self.answer(model(await self.answered(asked())))


class OneLife(LifeApi):
    """``api/servers/<project>/life``."""

    @operation("Show how long a server of yours will go on, and why", answer=Life)
    async def get(self, project: str) -> None:
        """Answer it."""
        await self.with_policy(
            lambda person, lifecycle, now: self.keeping.life(person.name, project, lifecycle, now),
            Life,
        )


class OneKeep(LifeApi):
    """``api/servers/<project>/keep``."""

    @operation("Keep an idle server of yours", scope=WRITE, body=Keep, answer=Life)
    async def post(self, project: str) -> None:
        """Keep it, for as long as the policy allows."""
        time = timedelta(hours=self.sent(Keep).hours)
        await self.with_policy(
            lambda person, lifecycle, now: self.keeping.keep(
                person.name, project, time, lifecycle, now
            ),
            Life,
        )

    @operation("Keep a server of yours no longer", scope=WRITE, status=204)
    async def delete(self, project: str) -> None:
        """End it."""
        person = await self.answered(self.person())
        await self.answered(self.keeping.end(person.name, project, person.name))
        self.set_status(204)


class KeptApi(LifeApi):
    """``api/kept``."""

    @operation("Show an admin which servers are kept, by whom and until when", answer=AllKept)
    async def get(self) -> None:
        """Answer it."""
        self.admins_only()
        found = await self.answered(self.look.kept())
        self.answer(AllKept(servers=[OneKept.model_validate(kept) for kept in found]))


class SomebodysKeep(LifeApi):
    """``api/users/<name>/servers/<project>/keep``."""

    @operation("Let an admin end that somebody's server is kept", scope=WRITE, status=204)
    async def delete(self, name: str, project: str) -> None:
        """End it."""
        self.admins_only()
        await self.answered(self.keeping.end(name, project, self.model["name"]))
        self.set_status(204)


class Protection(LifeApi):
    """``api/users/<name>/servers/<project>/protection``."""

    @operation("Let an admin protect a server from all limits", scope=WRITE, body=Keep, status=204)
    async def post(self, name: str, project: str) -> None:
        """Protect it."""
        self.admins_only()
        time, now = timedelta(hours=self.sent(Keep).hours), utc_now()
        by = self.model["name"]
        await self.answered(self.keeping.protect(name, project, time, by, now))
        self.set_status(204)

    @operation("Let an admin protect a server no longer", scope=WRITE, status=204)
    async def delete(self, name: str, project: str) -> None:
        """End it."""
        self.admins_only()
        await self.answered(self.keeping.end(name, project, self.model["name"], PROTECTED))
        self.set_status(204)


class OneLeaving(LifeApi):
    """``api/servers/<project>/leaving``."""

    @operation("Show what would go with a server of yours", scope=READ, answer=Leaving)
    async def get(self, project: str) -> None:
        """Answer it."""
        await self.with_policy(
            lambda person, lifecycle, now: self.look.leavings.look(
                person.name, project, self.most_to_keep(person, lifecycle, now)
            ),
            Leaving,
        )


class OneRescue(LifeApi):
    """``api/servers/<project>/rescue``."""

    @operation("Keep files of a server of yours in its workspace", scope=WRITE, answer=KeptFiles)
    async def post(self, project: str) -> None:
        """Keep them, up to the policy's size."""
        self.sent(Nothing)

        async def keep(person: Person, lifecycle: Lifecycle, now: datetime) -> leaving.Rescued:
            settings, most = self.site.settings, self.most_to_keep(person, lifecycle, now)
            if lifecycle.rescue_bytes and not most:
                raise Refused(
                    "Your files take all the room that they may, so nothing more is kept. Delete "
                    "some of them first.",
                    reason="rescue",
                    status_code=409,
                )
            try:
                kept = await self.look.leavings.keep(person.name, project, most, now)
            finally:
                # What was kept counts, also if not all of it was.
                measure_soon(settings, person.name)
            if event := diary.rescued(person.name, project, person.name, kept):
                diary.write(settings, event)
            return kept

        await self.with_policy(keep, KeptFiles)


class OwnEvents(LifeApi):
    """``api/events``."""

    @operation("Show what has happened to your servers", answer=Events)
    async def get(self) -> None:
        """Answer it, newest first."""
        person = await self.answered(self.person())
        records = self.site.settings.life_records
        self.answer(Events.of(records.events(person.name, _MOST_EVENTS)))


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[Api], Any]]:
    """Return the addresses of the answers above."""
    return [
        (rf"{prefix}api/servers/([^/]+)/life", OneLife, arguments),
        (rf"{prefix}api/servers/([^/]+)/keep", OneKeep, arguments),
        (rf"{prefix}api/kept", KeptApi, arguments),
        (rf"{prefix}api/users/([^/]+)/servers/([^/]+)/keep", SomebodysKeep, arguments),
        (rf"{prefix}api/users/([^/]+)/servers/([^/]+)/protection", Protection, arguments),
        (rf"{prefix}api/servers/([^/]+)/leaving", OneLeaving, arguments),
        (rf"{prefix}api/servers/([^/]+)/rescue", OneRescue, arguments),
        (rf"{prefix}api/events", OwnEvents, arguments),
    ]
