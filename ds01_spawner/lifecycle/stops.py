"""Stops of servers by the service: what is noted before, and who is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from .. import engine
from ..clock import utc_now
from ..engine import UNREACHABLE, Docker
from ..messages.message import Message
from ..settings import CULLER
from . import words
from .events import STOPPED, Event
from .hub import Hub, HubSilent
from .records import LifeRecords
from .server import Server

_LOG = logging.getLogger(__name__)

#: Servers that are stopped at the same time.
_AT_ONCE = 20


class Messages(Protocol):
    """Takes what owners are told beside the pages."""

    def put(self, message: Message) -> None:
        """Take a message; never waits, and never fails."""


class Stops:
    """Stops servers, some at a time; a look at the others does not wait for it.

    Parameters
    ----------
    hub
        Stops servers.
    docker_call
        The engine.
    records
        Keep why, and that it happened.
    installed
        Names the packages that were installed in a container, by its inspection.
    messages
        Takes what owners are told.
    """

    def __init__(
        self,
        hub: Hub,
        docker_call: Docker,
        records: LifeRecords,
        installed: Callable[[Mapping[str, Any]], Awaitable[Sequence[str]]],
        messages: Messages,
    ) -> None:
        self._hub = hub
        self._docker = docker_call
        self._records = records
        self._installed = installed
        self._messages = messages
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def begin(self, server: Server, why: str, numbers: Mapping[str, Any]) -> None:
        """Begin to stop a server, unless that is under way or many are.

        Parameters
        ----------
        why
            To follow "Stopped".
        numbers
            What it was decided on.
        """
        key = server.watched.container_id
        # The others are looked at again before it is their turn.
        if key in self._under_way or len(self._under_way) >= _AT_ONCE:
            return
        task = asyncio.ensure_future(self._stop(server, why, numbers))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def wait(self) -> None:
        """Wait until the stops that were begun are done."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _stop(self, server: Server, why: str, numbers: Mapping[str, Any]) -> None:
        key = server.watched.container_id
        is_stopped = False
        try:
            # The Hub knows a server by its name: it may have been started anew since the look.
            running = await engine.inspect(self._docker, key)
            if running is None or not running["State"]["Running"]:
                return
            why += words.lost(await self._installed(running))
            # Before the Hub is asked: its spawner reads it.
            self._records.note_stop(key, why)
            is_stopped = await self._hub.stop(server.hub)
            if is_stopped:
                _LOG.info("Stopped %s: %s", server.label, why)
                why = f"Stopped {why}."
                user, project = server.hub.user, server.project
                self._records.tell(Event(STOPPED, user, project, CULLER, why, numbers))
                now = utc_now()
                self._messages.put(Message(f"{key} stopped", "stopped", user, project, why, now))
        except (HubSilent, *UNREACHABLE) as error:
            _LOG.warning("%s is not stopped now: %s", server.label, error)
        except Exception:  # noqa: BLE001
            _LOG.exception("The stop of %s failed", server.label)
        finally:
            if not is_stopped:
                self._forget(server)

    def _forget(self, server: Server) -> None:
        try:
            self._records.forget_stop(server.watched.container_id)
        except SQLAlchemyError as error:
            # Only a stop by this service reads it, which writes another one before.
            _LOG.warning("Why %s was to be stopped is not forgotten: %s", server.label, error)
