"""Who somebody is, in the Hub's words: asked with the portal's own token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from .lately import Lately

#: Seconds for the Hub's answer.
_PATIENCE_S = 10.0
#: A page that refreshes itself asks this often at most, in seconds.
_AGE_S = 1.0
#: Whoever may list all users may see what they have: admins, and nobody else.
_ADMINS_SCOPE = "list:users"


class HubSilent(Exception):
    """The Hub gives no usable answer."""


@dataclass(frozen=True)
class Person:
    """A user of the Hub: the `name`, and the names of the Hub's `groups` that they are in."""

    name: str
    groups: tuple[str, ...]


def is_admin(model: Mapping[str, Any]) -> bool:
    """Tell whether whoever sends a request is an admin.

    By what their token may do: the token in an admin's own server is no admin's.

    Parameters
    ----------
    model
        The Hub's model of the token's owner, with the token's ``scopes``.
    """
    return _ADMINS_SCOPE in model.get("scopes", ())


class People:
    """Looks users up in the Hub's API.

    A token's own model has only what that token may see, so groups are never taken from there.

    Parameters
    ----------
    api_url, token
        The Hub's API, and a token that may read all users' names and groups.
    """

    def __init__(self, api_url: str, token: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._lately: Lately[Person | None] = Lately(_AGE_S)

    async def find(self, name: str) -> Person | None:
        """Return a user, None if the Hub has none of this name.

        Raises
        ------
        HubSilent
            If the Hub does not say.
        """
        return await self._lately.get(name, lambda: self._ask(name))

    async def _ask(self, name: str) -> Person | None:
        try:
            answer = await AsyncHTTPClient().fetch(
                f"{self._api_url}/users/{quote(name, safe='')}",
                headers={"Authorization": f"token {self._token}"},
                request_timeout=_PATIENCE_S,
                follow_redirects=False,
            )
            model = json.loads(answer.body)
            return Person(model["name"], tuple(model["groups"]))
        except HTTPClientError as error:
            if error.code == 404:
                return None
            raise HubSilent(f"The Hub does not tell who {name!r} is: {error}") from error
        except (OSError, ValueError, LookupError, asyncio.TimeoutError) as error:
            raise HubSilent(f"The Hub does not tell who {name!r} is: {error!r}") from error
