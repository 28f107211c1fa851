"""The portal's pages and its API, as Tornado serves them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from jupyterhub._data import DATA_FILES_PATH
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from .. import pages
from ..engine import UNREACHABLE
from ..errors import Refused
from ..policy import format_bytes
from .look import Look
from .people import HubSilent, People, Person, is_admin
from .site import Site
from .standing import few_digits

_LOG = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_ENVIRONMENT = Environment(
    loader=PackageLoader("ds01_spawner.portal", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"size": format_bytes, "few_digits": few_digits}

#: Nothing here takes what is sent to it.
LARGEST_BODY = 64 * 1024
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def make_app(site: Site, people: People, look: Look) -> web.Application:
    """Return the portal's application.

    Parameters
    ----------
    site
        Where everything is.
    people
        Finds users in the Hub.
    look
        Finds what they may have and have.
    """
    with_all = {"site": site, "people": people, "look": look}
    prefix = site.prefix
    hub_static = str(Path(DATA_FILES_PATH) / "static")
    return web.Application(
        [
            (prefix, OwnLimits, with_all),
            (rf"{prefix}users/([^/]+)/limits", SomebodysLimits, with_all),
            (rf"{prefix}admin", Admin, with_all),
            (rf"{prefix}find", Find, with_all),
            (rf"{prefix}api/limits", OwnLimitsApi, with_all),
            (rf"{prefix}api/users/([^/]+)/limits", SomebodysLimitsApi, with_all),
            (rf"{prefix}oauth_callback", Callback, {"site": site}),
            (rf"{prefix}static/hub/((?:css|images|components)/.*)", Static, {"path": hub_static}),
            (rf"{prefix}static/(ds01\.css)", Static, {"path": pages.template_path()}),
            (rf"{prefix}static/(portal\.(?:css|js))", Static, {"path": str(_HERE / "static")}),
        ],
        default_handler_class=Missing,
        default_handler_args=with_all,
        cookie_secret=site.cookie_secret,
        log_function=_log_request,
    )


class Headers(web.RequestHandler):
    """What every answer says about itself."""

    def set_default_headers(self) -> None:
        """Let no page be framed, and run nothing but our own script."""
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")


class Static(Headers, web.StaticFileHandler):
    """Style sheets and the script; nothing in them is anybody's."""

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep them for a while."""
        self.set_header("Cache-Control", "public, max-age=300")


class Callback(HubOAuthCallbackHandler, Headers):
    """Where the Hub sends a browser after the log-in."""

    def initialize(self, site: Site) -> None:
        """Keep what tells who sends a request."""
        self.hub_auth = site.auth


class Known(HubOAuthenticated, Headers):
    """Answers to whom the Hub knows, and who may use the portal.

    Attributes
    ----------
    model
        The Hub's model of whoever sends the request, with its token's scopes.
    """

    model: dict[str, Any]

    def initialize(self, site: Site, people: People, look: Look) -> None:
        """Keep what finds the answers."""
        self.hub_auth = site.auth
        self.site, self.people, self.look = site, people, look

    async def prepare(self) -> None:
        """Ask the Hub who this is."""
        found = await self.hub_auth.get_user(self, sync=False)
        if not found:
            self.refuse_unknown()
            return
        try:
            self.model = self.current_user = self.check_hub_user(found)
        except UserNotAllowed:
            raise web.HTTPError(
                403, "This token may not use the portal: it needs access:services!service=ds01."
            ) from None

    def refuse_unknown(self) -> None:
        """Answer somebody whom the Hub does not know."""
        raise NotImplementedError

    @property
    def is_admin(self) -> bool:
        """Whether an admin looks."""
        return is_admin(self.model)

    def admins_only(self) -> None:
        """Refuse everybody else.

        Raises
        ------
        web.HTTPError
            403.
        """
        if not self.is_admin:
            raise web.HTTPError(403, "Only admins see what others have.")

    async def person(self, name: str | None = None) -> Person:
        """Return a user of the Hub, by default who sends the request.

        Raises
        ------
        web.HTTPError
            404 for nobody, 403 for a service, which has no limits.
        """
        if name is None and self.model.get("kind") != "user":
            raise web.HTTPError(403, "A service has no servers and no limits. Name a user.")
        found = await self.people.find(name or self.model["name"])
        if found is None:
            raise web.HTTPError(404, f"The Hub has no user {name!r:.80}.")
        return found

    async def answered(self, answer: Awaitable[Any]) -> Any:
        """Wait for an answer, and put into words why there is none.

        Raises
        ------
        web.HTTPError
            503.
        """
        try:
            return await answer
        except HubSilent as error:
            _LOG.warning("%s", error)
            raise web.HTTPError(503, "The Hub does not answer. Try again in a minute.") from error
        except Refused as refused:
            raise web.HTTPError(503, refused.jupyterhub_message) from refused
        except UNREACHABLE as error:
            _LOG.warning("The engine does not answer: %s", error)
            raise web.HTTPError(
                503, "The container engine does not answer. Try again in a minute."
            ) from error

    def problem(self, status: int, **kwargs: Any) -> str:
        """Return what is told to whoever sent a request that failed."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, web.HTTPError) and error.log_message:
            return error.log_message
        return f"{HTTPStatus(status).phrase}."


class Page(Known):
    """Answers with pages."""

    def refuse_unknown(self) -> None:
        """Send the browser to the Hub's log-in."""
        self.redirect(self.get_login_url())

    def write_page(self, template: str, **values: Any) -> None:
        """Answer with a page."""
        name = self.model["name"] if hasattr(self, "model") else ""
        self.finish(
            _ENVIRONMENT.get_template(template).render(
                prefix=self.site.prefix,
                hub_url=self.site.hub_url,
                viewer=name,
                is_admin=bool(name) and self.is_admin,
                # The Hub takes a cookie from a script only together with this.
                xsrf=self.xsrf_token.decode("ascii"),
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a page that says what is wrong."""
        self.set_status(status_code)
        self.write_page(
            "error.html", status=status_code, problem=self.problem(status_code, **kwargs)
        )


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
        self.write_page("limits.html", standing=standing, owner=person.name)


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


class OwnLimitsApi(Known):
    """``GET api/limits``."""

    def refuse_unknown(self) -> None:
        """Ask for a token."""
        raise web.HTTPError(403, "Send a token of the Hub's: Authorization: token ...")

    async def get(self) -> None:
        """Answer what the token's owner may have and has."""
        await self.tell(None)

    async def tell(self, name: str | None) -> None:
        """Answer what somebody may have and has."""
        person = await self.answered(self.person(name))
        standing = await self.answered(self.look.standing(person))
        self.finish(standing.as_json())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what is wrong."""
        self.set_status(status_code)
        self.finish({"status": status_code, "message": self.problem(status_code, **kwargs)})


class SomebodysLimitsApi(OwnLimitsApi):
    """``GET api/users/<name>/limits``."""

    async def get(self, name: str) -> None:  # type: ignore[override]
        """Answer an admin what somebody may have and has."""
        self.admins_only()
        await self.tell(name)


def _log_request(handler: web.RequestHandler) -> None:
    """Log what failed; pages that refresh themselves would fill a disk."""
    if handler.get_status() >= 500:
        request = handler.request
        _LOG.warning("%s %s %s", handler.get_status(), request.method, request.path)
