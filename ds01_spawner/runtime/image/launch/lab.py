"""What the status item in JupyterLab asks: an extension of the notebook server."""

from __future__ import annotations

import json
import os
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado import web

from .ask import Portal
from .life import Answer, Life
from .memory import Watch


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    life = Life(Portal(os.environ), Watch())
    server.web_app.add_handlers(".*$", routes(server.base_url, life))


def routes(base_url: str, life: Life) -> list[tuple[str, type[APIHandler], dict[str, Any]]]:
    """Return the addresses of the answers below."""
    with_life = {"life": life}
    return [
        (url_path_join(base_url, "ds01/life"), LifeHandler, with_life),
        (url_path_join(base_url, "ds01/keep"), KeepHandler, with_life),
    ]


class _Handler(APIHandler):
    #: A page that is only open is no work.
    _track_activity = False

    def initialize(self, life: Life) -> None:
        """Take over who knows."""
        self.life = life

    def answer(self, content: Answer, status: int = 200) -> None:
        """Answer with JSON that nothing on the way keeps."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(content))


class LifeHandler(_Handler):
    """``ds01/life``: asked every few seconds by every page."""

    @web.authenticated
    async def get(self) -> None:
        """Answer it."""
        self.answer(await self.life.now())

    def _log(self) -> None:
        """Leave the log to what says something."""
        if self.get_status() >= 400:
            super()._log()


class KeepHandler(_Handler):
    """``ds01/keep``: keep this server although nothing runs in it."""

    @web.authenticated
    async def post(self) -> None:
        """Pass it on, and answer how it is then, or what the portal says against it."""
        status, content = await self.life.keep(self.get_json_body())
        self.answer(content, status)
