"""The life of servers on pages: what their owners are told, keeping one, and what has happened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from .answers import Page

#: For how long the button keeps a server.
_KEPT = timedelta(hours=4)


class KeepOne(Page):
    """``servers/<project>/keep``: the button Keep it running."""

    async def post(self, project: str) -> None:
        """Keep the viewer's server for some hours, if it can be kept so long, and go back."""
        person = await self.answered(self.person())

        async def keep() -> None:
            share = self.site.settings.share_of(person.name, person.groups)
            await self.look.keeping.keep(
                *(person.name, project, _KEPT, share.resolved.limits.lifecycle),
                datetime.now(timezone.utc),
            )

        await self.answered(keep())
        self.redirect(self.site.prefix, status=303)


class EventList(Page):
    """``events``: what has happened to the viewer's servers, to everybody's for an admin."""

    async def get(self) -> None:
        """Show it, newest first."""
        everybody = self.is_admin and self.get_query_argument("all", "") == "yes"
        person = await self.answered(self.person())
        records = self.site.settings.life_records
        found = records.events(None if everybody else person.name)
        self.write_page("events.html", events=found, everybody=everybody)


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[Page], Any]]:
    """Return the addresses of the pages above."""
    return [
        (rf"{prefix}servers/([^/]+)/keep", KeepOne, arguments),
        (rf"{prefix}events", EventList, arguments),
    ]
