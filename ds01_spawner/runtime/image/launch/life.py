"""How this server's life goes on: what the portal says of it, and what can be read here."""

from __future__ import annotations

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from .ask import Failure, Portal
from .memory import Watch

#: All pages of a server together ask the portal so often, at most.
PORTAL_EVERY_S = 15.0
#: A page waits so long for the portal; what it says later is for the next one.
_WAIT_S = 2.0
_PATIENCE_S = 10.0

Answer = dict[str, Any]

#: What is told of a life where the portal is away.
_UNKNOWN: Answer = {
    "stop_at": None,
    "why": "",
    "is_warned": False,
    "words": "",
    "because": "",
    "keep_until": None,
    "keep_most_until": None,
    "cpu_percent": None,
    "gpu_percent": None,
    "disk": {},
}


class Life:
    """Tells how this server's life goes on.

    - The portal is asked by one task at a time, however many pages ask here.
    - An answer never waits long for the portal: without it, it has what can be read here.

    Parameters
    ----------
    portal
        Who knows when a server is stopped.
    memory
        Looks at the memory of this container.
    every_s
        Seconds between two questions to the portal.
    """

    def __init__(self, portal: Portal, memory: Watch, every_s: float = PORTAL_EVERY_S) -> None:
        self._portal = portal
        self._memory = memory
        self._every_s = every_s
        self._path = f"api/servers/{quote(portal.project, safe='')}"
        # A page that outlives the server sees by this that another one answers.
        self._server = uuid.uuid4().hex
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="ds01-portal")
        self._said: Answer | None = None
        self._asked_at = -every_s
        self._asking: asyncio.Task[None] | None = None

    async def now(self) -> Answer:
        """Return how it is."""
        await self._refresh()
        return self._answer()

    async def keep(self, asked: Any) -> tuple[int, Answer]:
        """Have the portal keep this server, and return a status and an answer.

        Parameters
        ----------
        asked
            What a page sent: ``{"hours": 4}``.

        Returns
        -------
        tuple
            200 and how it is then, or another status and a ``message`` to be shown.
        """
        hours = asked.get("hours") if isinstance(asked, dict) else None
        if isinstance(hours, bool) or not isinstance(hours, int | float):
            return _no(400, "say for how many hours.")
        try:
            said = await self._ask("POST", "keep", {"hours": hours})
        except Failure as failure:
            # Neither 503 nor 424: JupyterLab and proxies take those for a server that is gone.
            return _no(failure.status if 400 <= failure.status < 500 else 502, str(failure))
        if self._asking is not None:
            # What a question from before brings now is out of date.
            self._asking.cancel()
        self._said, self._asked_at = said, time.monotonic()
        return 200, self._answer()

    def _answer(self) -> Answer:
        said = self._said or {}
        own: Answer = {}
        memory = self._memory.look()
        if memory is not None:
            own = {
                "memory_used_bytes": memory.used_bytes,
                "memory_limit_bytes": memory.limit_bytes or said.get("memory_limit_bytes"),
                "memory_kills": memory.kills,
            }
        none = {"memory_used_bytes": None, "memory_limit_bytes": None, "memory_kills": 0}
        return {
            **_UNKNOWN,
            **none,
            **said,
            **own,
            "is_memory_shared": self._memory.is_shared,
            "portal": self._said is not None,
            "project": self._portal.project,
            "server": self._server,
            # A page's own clock may be wrong.
            "now": datetime.now(timezone.utc).isoformat(),
        }

    async def _refresh(self) -> None:
        is_asking = self._asking is not None and not self._asking.done()
        if not is_asking and time.monotonic() - self._asked_at >= self._every_s:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask_for_life())
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=_WAIT_S)

    async def _ask_for_life(self) -> None:
        try:
            self._said = await self._ask("GET", "life", None)
        except Failure:
            self._said = None

    async def _ask(self, method: str, what: str, body: Any) -> Answer:
        """Ask the portal in a thread: it takes its time."""
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(
            self._executor,
            lambda: self._portal.ask(method, f"{self._path}/{what}", body, _PATIENCE_S),
        )
        if not isinstance(said, dict):
            raise Failure("the portal says something else than was asked.")
        return said


def _no(status: int, text: str) -> tuple[int, Answer]:
    return status, {"status": status, "message": text[:1].upper() + text[1:]}
