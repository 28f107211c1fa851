"""Who asked the Hub for what is being done right now."""

from __future__ import annotations

import inspect
from types import FrameType

from jupyterhub.handlers.base import BaseHandler


def requester(owner: str) -> str:
    """Return who asked for a stop, as a phrase that completes "stopped by …".

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
            return _phrase(caller, owner)
        frame = frame.f_back
    return "the Hub"


def _phrase(handler: BaseHandler, owner: str) -> str:
    person = handler.current_user
    if person is None:
        return "the Hub"
    if person.name == owner:
        return "you"
    return f"{'the service' if getattr(person, 'kind', '') == 'service' else 'admin'} {person.name}"
