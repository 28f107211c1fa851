"""The life of servers on pages: what their owners are told, keeping one, and what has happened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from tornado import web

from ..clock import utc_now
from .answers import Page

#: For how long the button keeps a server.
_KEPT = timedelta(hours=4)
#: The longest that an admin protects a server at a time.
_MOST_DAYS = 365
_EVENTS_ON_A_PAGE = 100


class KeepOne(Page):
    """``servers/<project>/keep``: the button Keep it running."""

    async def post(self, project: str) -> None:
        """Keep the viewer's server for some hours, if it can be kept so long, and go back."""
        person = await self.answered(self.person())

        async def keep() -> None:
            share = self.site.settings.share_of(person.name, person.groups)
            await self.look.keeping.keep(
                *(person.name, project, _KEPT, share.resolved.limits.lifecycle),
                utc_now(),
            )

        await self.answered(keep())
        self.redirect(self.site.prefix, status=303)


class KeepNoLonger(Page):
    """``servers/<project>/keep/end``: where its owner ends that a server is kept."""

    async def post(self, project: str) -> None:
        """End it, and go back."""
        person = await self.answered(self.person())
        await self.answered(self.look.keeping.end(person.name, project, person.name))
        self.redirect(self.site.prefix, status=303)


class EndKept(Page):
    """``kept/end``: where an admin ends that a server is kept."""

    async def post(self) -> None:
        """End it, and go back."""
        self.admins_only()
        whose = self.get_body_argument("user"), self.get_body_argument("project")
        kind = self.get_body_argument("kind")
        await self.answered(self.look.keeping.end(*whose, self.model["name"], kind))
        self.redirect(f"{self.site.prefix}admin", status=303)


class Protect(Page):
    """``protect``: where an admin protects a server from all limits."""

    async def post(self) -> None:
        """Protect it for some days, and go back."""
        self.admins_only()
        whose = self.get_body_argument("user"), self.get_body_argument("project")
        days = self.get_body_argument("days")
        is_number = days.isascii() and days.isdigit() and len(days) <= 3
        if not (is_number and 1 <= int(days) <= _MOST_DAYS):
            raise web.HTTPError(400, f"Protect it for 1 to {_MOST_DAYS} days.")
        time, now = timedelta(days=int(days)), utc_now()
        await self.answered(self.look.keeping.protect(*whose, time, self.model["name"], now))
        self.redirect(f"{self.site.prefix}admin", status=303)


class EventList(Page):
    """``events``: what has happened to the viewer's servers, to everybody's for an admin."""

    async def get(self) -> None:
        """Show it, newest first, in pages; an admin may ask for one user or one kind."""
        everybody = self.is_admin and self.get_query_argument("all", "") == "yes"
        person = await self.answered(self.person())
        records = self.site.settings.life_records
        user = self.get_query_argument("user", "") if everybody else person.name
        kind = self.get_query_argument("kind", "") if everybody else ""
        found = records.events(
            *(user or None, _EVENTS_ON_A_PAGE + 1), kind=kind or None, before=self._before()
        )
        shown = found[:_EVENTS_ON_A_PAGE]
        asked = {"all": "yes", "user": user, "kind": kind} if everybody else {}
        older = {**asked, "before": shown[-1].id} if len(found) > len(shown) else None
        self.write_page(
            "events.html",
            events=shown,
            everybody=everybody,
            asked=asked,
            kinds=records.event_kinds() if everybody else [],
            older=older and f"{self.site.prefix}events?{urlencode(older)}",
        )

    def _before(self) -> int | None:
        """Return the id of the event before which is asked; None for the newest."""
        before = self.get_query_argument("before", "")
        if not before:
            return None
        if not (before.isascii() and before.isdigit() and len(before) < 19):
            raise web.HTTPError(400, "There is no such page of events.")
        return int(before)


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[Page], Any]]:
    """Return the addresses of the pages above."""
    return [
        (rf"{prefix}servers/([^/]+)/keep", KeepOne, arguments),
        (rf"{prefix}servers/([^/]+)/keep/end", KeepNoLonger, arguments),
        (rf"{prefix}kept/end", EndKept, arguments),
        (rf"{prefix}protect", Protect, arguments),
        (rf"{prefix}events", EventList, arguments),
    ]
