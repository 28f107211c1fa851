"""What our extension of JupyterLab asks: an extension of the notebook server."""

from __future__ import annotations

import json
import os
from typing import Any

from jupyter_events import EventLogger
from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado import web

from .ask import Portal
from .connection import KeepingConnection
from .keeper import Keeper
from .life import Answer, Life
from .memory import Watch

_KERNEL_ACTIONS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    life = Life(Portal(os.environ), Watch())
    KeepingConnection.keeper = keeper = _keeper(server)
    server.web_app.add_handlers(".*$", routes(server.base_url, life, keeper))


def _keeper(server: ServerApp) -> Keeper:
    kernels = server.kernel_manager

    async def paths(kernel: str) -> set[str]:
        sessions = await server.session_manager.list_sessions()
        of_kernel = [s for s in sessions if s["type"] == "notebook" and s["kernel"]["id"] == kernel]
        return {session["path"] for session in of_kernel}

    keeper = Keeper(server.contents_manager, paths, lambda id: id in kernels, server.log)

    async def listen(logger: EventLogger, schema_id: str, data: dict[str, Any]) -> None:
        if data["action"] in ("restart", "shutdown") and data["status"] == "success":
            keeper.stopped(data.get("kernel_id", ""))

    server.event_logger.add_listener(schema_id=_KERNEL_ACTIONS, listener=listen)
    return keeper


def routes(
    base_url: str, life: Life, keeper: Keeper
) -> list[tuple[str, type[APIHandler], dict[str, Any]]]:
    """Return the addresses of the answers below."""
    outputs = url_path_join(base_url, "ds01/outputs")
    return [
        (url_path_join(base_url, "ds01/life"), LifeHandler, {"life": life}),
        (url_path_join(base_url, "ds01/keep"), KeepHandler, {"life": life}),
        (rf"{outputs}/([\w-]+)", OutputsHandler, {"keeper": keeper}),
        (rf"{outputs}/([\w-]+)/([\w-]+)", TakenHandler, {"keeper": keeper}),
    ]


class _Handler(APIHandler):
    #: A page that is only open is no work.
    _track_activity = False

    def answer(self, content: Answer, status: int = 200) -> None:
        """Answer with JSON that nothing on the way keeps."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(content))

    def _log(self) -> None:
        """Leave the log to what says something."""
        if self.get_status() >= 400 or self.request.method == "POST":
            super()._log()


class _LifeHandler(_Handler):
    def initialize(self, life: Life) -> None:
        """Take over who knows."""
        self.life = life


class LifeHandler(_LifeHandler):
    """``ds01/life``: asked every few seconds by every page."""

    @web.authenticated
    async def get(self) -> None:
        """Answer it."""
        self.answer(await self.life.now())


class KeepHandler(_LifeHandler):
    """``ds01/keep``: keep this server although nothing runs in it."""

    @web.authenticated
    async def post(self) -> None:
        """Pass it on, and answer how it is then, or what the portal says against it."""
        status, content = await self.life.keep(self.get_json_body())
        self.answer(content, status)


class _OutputsHandler(_Handler):
    def initialize(self, keeper: Keeper) -> None:
        """Take over who knows."""
        self.keeper = keeper


class OutputsHandler(_OutputsHandler):
    """``ds01/outputs/<kernel>``: asked by a page that opens a notebook, and while it follows it."""

    @web.authenticated
    async def get(self, kernel: str) -> None:
        """Answer what the page is to show that runs, or ran, without it."""
        session, path = self.get_argument("session"), self.get_argument("path")
        since = self.get_argument("since", "0")
        if not since.isdecimal():
            raise web.HTTPError(400, "since is not the version of an answer.")
        own = self.get_argument("own", "") == "true"
        self.answer(await self.keeper.answer(kernel, session, path, int(since), own))


class TakenHandler(_OutputsHandler):
    """``ds01/outputs/<kernel>/<request>``: the page has all that a cell has shown."""

    @web.authenticated
    async def delete(self, kernel: str, request: str) -> None:
        """Leave it to the page."""
        self.keeper.taken(kernel, request)
        self.set_status(204)
        self.finish()
