"""What all answers of the portal have in common: who asks, and how failures are told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import docker.errors
from jinja2 import Environment, PackageLoader, StrictUndefined
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from pydantic import BaseModel, ValidationError
from tornado import web

from ..engine import UNREACHABLE
from ..errors import Refused
from ..images.recipe import explain
from ..policy import format_bytes
from .look import Look
from .operations import WRITE, operation_of
from .people import HubSilent, People, Person, is_admin
from .site import Site
from .standing import few_digits

Sent = TypeVar("Sent", bound=BaseModel)

_LOG = logging.getLogger(__name__)

_ENVIRONMENT = Environment(
    loader=PackageLoader("ds01_spawner.portal", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "size": format_bytes,
    "few_digits": few_digits,
    "moment": lambda at: f"{at:%d %b, %H:%M} UTC",
    # A name as one part of an address.
    "address": lambda text: quote(str(text), safe=""),
}

#: Seconds for the Hub to tell who sends a request.
PATIENCE_S = 10.0
_HUB_SILENT = "The Hub does not answer. Try again in a minute."

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
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
        try:
            asked = self.hub_auth.get_user(self, sync=False)
            found = await asyncio.wait_for(asked, PATIENCE_S)
        except (asyncio.TimeoutError, web.HTTPError) as error:
            # Its own words would tell a user how to configure a Hub.
            if isinstance(error, web.HTTPError) and error.status_code < 500:
                raise
            _LOG.warning("The Hub does not tell who sends a request: %r", error)
            raise web.HTTPError(503, _HUB_SILENT) from error
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

    def check_scope(self, scope: str) -> None:
        """Refuse a token that may not do this.

        Raises
        ------
        web.HTTPError
            403.
        """
        if scope not in self.model.get("scopes", ()):
            raise web.HTTPError(403, f"This token may not do this: it needs the scope {scope}.")

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
            raise web.HTTPError(503, _HUB_SILENT) from error
        except Refused as refused:
            raise web.HTTPError(refused.status_code, refused.jupyterhub_message) from refused
        except docker.errors.NotFound as error:
            raise web.HTTPError(404, "It has gone at this moment. Load the page again.") from error
        except UNREACHABLE as error:
            _LOG.warning("The engine does not answer: %s", error)
            raise web.HTTPError(
                503, "The container engine does not answer. Try again in a minute."
            ) from error
        except OSError as error:
            # After the engine's: what requests raises are such errors, too.
            _LOG.error("A request failed at the machine's files: %s", error)
            raise web.HTTPError(
                503, "The machine cannot read or write files at the moment. Tell an admin."
            ) from error

    def problem(self, status: int, **kwargs: Any) -> str:
        """Return what is told to whoever sent a request that failed."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, web.HTTPError) and error.log_message:
            # Doubled by Tornado, which would fill in what follows a percent sign.
            return error.log_message.replace("%%", "%")
        return f"{HTTPStatus(status).phrase}."


class Page(Known):
    """Answers with pages."""

    def refuse_unknown(self) -> None:
        """Send the browser to the Hub's log-in."""
        self.redirect(self.get_login_url())

    async def prepare(self) -> None:
        """Ask the Hub who this is: a token may be sent in place of a browser's cookie."""
        await super().prepare()
        if not self._finished and self.request.method == "POST":
            self.check_scope(WRITE)

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


class Api(Known):
    """Answers with JSON, to whoever sends a token or a cookie."""

    def initialize(self, site: Site, people: People, look: Look) -> None:
        """Keep what finds the answers."""
        super().initialize(site, people, look)
        self.set_default_headers()

    def set_default_headers(self) -> None:
        """Let the Hub's own pages ask with a token, also where the Hub has a domain of its own."""
        super().set_default_headers()
        # Tornado calls this before it tells where the Hub is, and again for an error.
        if (site := getattr(self, "site", None)) and site.hub_host:
            self.set_header("Access-Control-Allow-Origin", site.hub_host)
            self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")

    def refuse_unknown(self) -> None:
        """Ask for a token."""
        raise web.HTTPError(403, "Send a token of the Hub's: Authorization: token ...")

    async def prepare(self) -> None:
        """Ask the Hub who this is, and whether the token may do this."""
        if self.request.method == "OPTIONS":
            # A browser asks whether it may ask, and sends no token.
            self.set_status(204)
            await self.finish()
            return
        await super().prepare()
        asked = operation_of(self, self.request.method or "")
        if not self._finished and asked and asked.scope:
            self.check_scope(asked.scope)

    def answer(self, answer: BaseModel) -> None:
        """Answer with a value."""
        self.finish(answer.model_dump(mode="json"))

    def sent(self, model: type[Sent]) -> Sent:
        """Return what was sent; nothing counts as an empty object.

        Raises
        ------
        web.HTTPError
            400 for anything that is no such value, with what to change.
        """
        try:
            found = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            raise web.HTTPError(400, "The body is not JSON.") from None
        if not isinstance(found, dict):
            raise web.HTTPError(400, "The body must be a JSON object.")
        try:
            return model.model_validate(found)
        except ValidationError as error:
            raise web.HTTPError(400, explain(error, tuple(model.model_fields))) from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what is wrong."""
        self.set_status(status_code)
        self.finish({"status": status_code, "message": self.problem(status_code, **kwargs)})
