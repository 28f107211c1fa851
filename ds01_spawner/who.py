"""Who asked the Hub for what is being done right now."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import FrameType
from typing import Any

from jupyterhub.handlers.base import BaseHandler


@dataclass(frozen=True)
class Requester:
    """Who asked for something.

    Attributes
    ----------
    name
        Of the user or service, or ``the Hub``.
    words
        For the server's owner: a phrase that completes "stopped by …".
    is_service
        Whether it is a service of the Hub; a user may have the same name.
    """

    name: str
    words: str
    is_service: bool = False


_HUB = Requester("the Hub", "the Hub")


def requester(owner: str) -> Requester:
    """Return who asked for a stop.

    The Hub does not hand a request on to the spawner. The request's handler is found among the
    callers; without one it was the Hub itself, for example as it shuts down.

    Parameters
    ----------
    owner
        Whose server it is; they read the phrase.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, BaseHandler):
            return requester_of(caller, owner)
        frame = frame.f_back
    return _HUB


def requester_of(handler: Any, owner: str) -> Requester:
    """Return who sent a request; the Hub itself for none."""
    person = handler.current_user if handler else None
    if person is None:
        return _HUB
    if person.name == owner:
        return Requester(owner, "you")
    if getattr(person, "kind", "") == "service":
        return Requester(person.name, f"the service {person.name}", is_service=True)
    return Requester(person.name, f"admin {person.name}")
