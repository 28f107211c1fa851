"""The Hub as the service sees it: which servers it has, and the request to stop one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse

#: The Hub asks each spawner that it stops; a stop waits for what computes in the server.
_PATIENCE_S = 30.0
_PAGE = 200
_PAGED = "application/jupyterhub-pagination+json"

#: What an answer that is none of the Hub's looks like when it is read.
_ODD = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


class HubSilent(Exception):
    """The Hub gives no usable answer; the text says which."""


@dataclass(frozen=True)
class HubServer:
    """A server as the Hub has it.

    Attributes
    ----------
    user, name
        Whose, and the Hub's name of it; empty for the unnamed one.
    groups
        The owner's groups on the Hub.
    url
        Its path, with a slash at both ends.
    started
        When it was started.
    last_activity
        When its owner's browser, or the server itself, has last told the Hub of activity; None if
        never.
    is_ready
        Whether it runs, and neither comes nor goes.
    """

    user: str
    name: str
    groups: tuple[str, ...]
    url: str
    started: datetime
    last_activity: datetime | None
    is_ready: bool


class Hub:
    """Talks to its API.

    Parameters
    ----------
    api_url, token
        Its address, and the service's token.
    """

    def __init__(self, api_url: str, token: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._token = token

    async def servers(self) -> list[HubServer]:
        """Return all servers that exist, also those that come or go.

        Raises
        ------
        HubSilent
            If the Hub does not say of all.
        """
        users = [user async for user in self._users()]
        try:
            return [
                _server(user, model)
                for user in users
                for model in user["servers"].values()
                if model.get("started")
            ]
        except _ODD as error:
            raise HubSilent(f"The Hub's list of servers cannot be read: {error!r}") from error

    async def stop(self, server: HubServer) -> bool:
        """Ask the Hub to stop a server; tell whether it does: it may be gone, or get a new name.

        Raises
        ------
        HubSilent
            If the Hub does not take the request.
        """
        place = f"users/{quote(server.user, safe='')}/server"
        if server.name:
            place = f"users/{quote(server.user, safe='')}/servers/{quote(server.name, safe='')}"
        answer = await self._ask(place, method="DELETE", allowed=(400, 404))
        return answer.code not in (400, 404)

    async def _users(self) -> AsyncIterator[dict[str, Any]]:
        offset: int | None = 0
        while offset is not None:
            # Some servers come and go between two pages; the next look has them.
            place = f"users?state=active&include_stopped_servers=0&offset={offset}&limit={_PAGE}"
            try:
                body = json.loads((await self._ask(place)).body)
                users, following = list(body["items"]), body["_pagination"]["next"]
                before, offset = offset, int(following["offset"]) if following else None
                if offset is not None and offset <= before:
                    raise ValueError(f"after {before} comes {offset}")
            except _ODD as error:
                raise HubSilent(f"The Hub's list of users cannot be read: {error!r}") from error
            for user in users:
                yield user

    async def _ask(
        self, place: str, method: str = "GET", allowed: tuple[int, ...] = ()
    ) -> HTTPResponse:
        # Of its own: those that share one wait for each other, and a stop takes its time.
        client = AsyncHTTPClient(force_instance=True)
        try:
            return await client.fetch(
                f"{self._api_url}/{place}",
                method=method,
                headers={"Authorization": f"token {self._token}", "Accept": _PAGED},
                request_timeout=_PATIENCE_S,
                follow_redirects=False,
            )
        except HTTPClientError as error:
            if error.code in allowed and error.response is not None:
                return error.response
            raise HubSilent(f"The Hub answers {method} {place} with {error}") from error
        except (OSError, asyncio.TimeoutError) as error:
            raise HubSilent(f"The Hub does not answer {method} {place}: {error!r}") from error
        finally:
            client.close()


def _server(user: Mapping[str, Any], model: Mapping[str, Any]) -> HubServer:
    return HubServer(
        user=str(user["name"]),
        name=str(model["name"]),
        # Not told is not none: groups may give a server more time.
        groups=tuple(user["groups"]),
        url=str(model["url"]),
        started=_moment(model["started"]),
        last_activity=_moment(model["last_activity"]) if model.get("last_activity") else None,
        is_ready=bool(model["ready"]) and not model["pending"],
    )


def _moment(text: str) -> datetime:
    """Read a time; one that names no zone is in UTC."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at.astimezone(timezone.utc) if at.tzinfo else at.replace(tzinfo=timezone.utc)
