"""A message, and what takes it to somebody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Message:
    """Something that is told once, beside the event that says the same.

    Attributes
    ----------
    key
        What tells it from others: one that comes again, as after a restart, is not sent again.
    kind
        ``warned``, ``stopped``, or ``test``.
    user, project
        Whose server, and which.
    why
        In words, for the owner, as they were at `at`.
    at
        When it happened.
    reason
        Of a warning, a `lifecycle.decide.Reason`; empty if there is none.
    stop_at
        Of a warning, when the server will be stopped.
    """

    key: str
    kind: str
    user: str
    project: str
    why: str
    at: datetime
    reason: str = ""
    stop_at: datetime | None = None


class NotSent(Exception):
    """A message could not be sent; the text says why, to admins.

    Parameters
    ----------
    why
        In words.
    for_good
        Whether it would fail again.
    for_all
        Whether other messages would fail like it.
    """

    def __init__(self, why: str, *, for_good: bool = False, for_all: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good
        self.for_all = for_all


class Channel(Protocol):
    """Takes messages to where somebody reads them.

    Attributes
    ----------
    name
        Under which what waits for it is kept.
    """

    name: str

    async def send(self, message: Message, now: datetime) -> str:
        """Send a message, in bounded time, and return in words where it went; empty if unwanted.

        Raises
        ------
        NotSent
            If it could not be sent.
        """

    def missed(self, message: Message) -> tuple[str, str, str]:
        """Return the event if it never could be: whose, of which project, and what is told."""
