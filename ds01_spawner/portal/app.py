"""The portal's pages and its API, as Tornado serves them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyterhub._data import DATA_FILES_PATH
from tornado import web

from .. import __version__, pages
from ..images.workshop import Workshop
from ..lifecycle.told import told_to_owner
from . import image_api, image_pages, life_api, life_pages, limit_models, mail
from .answers import Api, Callback, Headers, Page, Static
from .look import Look
from .operations import document, operation
from .people import People
from .site import Site

_LOG = logging.getLogger(__name__)

_HERE = Path(__file__).parent

#: The longest thing that is sent here: a Dockerfile or a list of packages.
LARGEST_BODY = 256 * 1024


def make_app(
    site: Site, people: People, look: Look, workshop: Workshop | None = None
) -> web.Application:
    """Return the portal's application.

    Parameters
    ----------
    site
        Where everything is.
    people
        Finds users in the Hub.
    look
        Finds what they may have and have.
    workshop
        Builds and keeps images.
    """
    with_all = {"site": site, "people": people, "look": look}
    prefix = site.prefix
    api = api_routes(prefix, with_all)
    described = {"document": document(api, prefix, __version__)}
    hub_static = str(Path(DATA_FILES_PATH) / "static")
    return web.Application(
        [
            (prefix, OwnLimits, with_all),
            (rf"{prefix}users/([^/]+)/limits", SomebodysLimits, with_all),
            (rf"{prefix}admin", Admin, with_all),
            (rf"{prefix}find", Find, with_all),
            *life_pages.routes(prefix, with_all),
            *mail.page_routes(prefix, with_all),
            *api,
            (rf"{prefix}api/openapi\.json", Described, described),
            *image_pages.routes(prefix, with_all),
            (rf"{prefix}oauth_callback", Callback, {"site": site}),
            (rf"{prefix}static/hub/((?:css|images|components)/.*)", Static, {"path": hub_static}),
            (rf"{prefix}static/(ds01\.css)", Static, {"path": pages.template_path()}),
            (rf"{prefix}static/(portal\.(?:css|js))", Static, {"path": str(_HERE / "static")}),
        ],
        default_handler_class=Missing,
        default_handler_args=with_all,
        cookie_secret=site.cookie_secret,
        log_function=_log_request,
        workshop=workshop,
    )


def api_routes(prefix: str, arguments: dict[str, Any]) -> list[tuple[str, type[Api], Any]]:
    """Return the addresses of the API."""
    return [
        (rf"{prefix}api/limits", OwnLimitsApi, arguments),
        (rf"{prefix}api/users/([^/]+)/limits", SomebodysLimitsApi, arguments),
        *image_api.routes(prefix, arguments),
        *life_api.routes(prefix, arguments),
        *mail.routes(prefix, arguments),
    ]


class Described(Headers):
    """``GET api/openapi.json``: the API, for programs and people; nothing in it is anybody's."""

    def initialize(self, document: dict[str, Any]) -> None:
        """Keep the document."""
        self.document = document

    def get(self) -> None:
        """Answer it."""
        self.finish(self.document)


class Missing(Page):
    """Answers where there is no page."""

    async def get(self) -> None:
        """Say so."""
        raise web.HTTPError(404, "There is no such page.")


class OwnLimits(Page):
    """The page My limits."""

    async def get(self) -> None:
        """Show what the viewer may have and has."""
        await self.show(None)

    async def show(self, name: str | None) -> None:
        """Show what somebody may have and has."""
        person = await self.answered(self.person(name))
        standing = await self.answered(self.look.standing(person))
        records = self.site.settings.life_records
        self.write_page(
            "limits.html",
            standing=standing,
            owner=person.name,
            lives=told_to_owner(records, person.name, standing.of_servers),
            mail=await self.look.wishes.of(person.name),
        )


class SomebodysLimits(OwnLimits):
    """The same page about somebody else."""

    async def get(self, name: str) -> None:  # type: ignore[override]
        """Show an admin what somebody may have and has."""
        self.admins_only()
        await self.show(name)


class Admin(Page):
    """The admin's page."""

    async def get(self) -> None:
        """Show what is wrong, and who has servers."""
        self.admins_only()
        self.write_page("admin.html", overview=await self.answered(self.look.overview()))


class Find(Page):
    """Where the admin's page sends a name."""

    async def get(self) -> None:
        """Go to the page of this user."""
        self.admins_only()
        name = quote(self.get_argument("user", ""), safe="")
        self.redirect(f"{self.site.prefix}users/{name}/limits")


class OwnLimitsApi(Api):
    """``GET api/limits``."""

    @operation("Show your limits, and what you use of them", answer=limit_models.Limits)
    async def get(self) -> None:
        """Answer what the token's owner may have and has."""
        await self.answer_for(None)

    async def answer_for(self, name: str | None) -> None:
        """Answer what somebody may have and has."""
        person = await self.answered(self.person(name))
        standing = await self.answered(self.look.standing(person))
        self.answer(limit_models.Limits.of(standing))


class SomebodysLimitsApi(OwnLimitsApi):
    """``GET api/users/<name>/limits``."""

    @operation("Show an admin somebody's limits", answer=limit_models.Limits)
    async def get(self, name: str) -> None:  # type: ignore[override]
        """Answer an admin what somebody may have and has."""
        self.admins_only()
        await self.answer_for(name)


def _log_request(handler: web.RequestHandler) -> None:
    """Log what failed; pages that refresh themselves would fill a disk."""
    if handler.get_status() >= 500:
        request = handler.request
        _LOG.warning("%s %s %s", handler.get_status(), request.method, request.path)
