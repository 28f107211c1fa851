"""What a message says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..columns import printable
from ..lifecycle import words
from ..lifecycle.decide import Reason
from .message import Message


@dataclass(frozen=True)
class Links:
    """Where a browser finds the pages that messages name; empty where that is not known.

    Attributes
    ----------
    home
        The home page, with *Keep it running* on it.
    limits
        *My limits*, with the switch for e-mail.
    """

    home: str = ""
    limits: str = ""

    @classmethod
    def below(cls, public_url: str, portal: str) -> Links:
        """Return the pages of a Hub.

        Parameters
        ----------
        public_url
            Its address, with a slash at the end; empty if it is not known.
        portal
            The portal's name as a service; empty if there is none.
        """
        if not public_url:
            return cls()
        limits = f"{public_url}services/{portal}/" if portal else ""
        return cls(f"{public_url}hub/home", limits)


def why(message: Message, now: datetime) -> str:
    """Return what happened, or what will: with the time that is left now."""
    if message.stop_at is None or not message.reason:
        return message.why
    return words.warned(Reason(message.reason), message.stop_at, now)


def line(message: Message, now: datetime) -> str:
    """Return all of it in one line, for a chat: nobody is called by it, whatever a name is."""
    named = printable(f"{message.user}, {message.project}: {why(message, now)}")
    return named.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def subject(message: Message) -> str:
    """Return an e-mail's subject."""
    project = printable(message.project)
    if message.kind == "warned" and message.stop_at is not None:
        return f"Your server {project} will be stopped at {message.stop_at:%H:%M} UTC"
    if message.kind == "stopped":
        return f"Your server {project} was stopped"
    if message.kind == "test":
        return "A test of e-mail from your server"
    return f"About your server {project}"


def text(message: Message, links: Links, now: datetime) -> str:
    """Return what an e-mail says."""
    parts = [_first(message, now), *_way_on(message, links)]
    if message.kind != "test":
        where = f":\n{links.limits}" if links.limits else "."
        parts.append(f"You can switch these e-mails off on the page My limits{where}")
    return "\n\n".join(parts) + "\n"


def _first(message: Message, now: datetime) -> str:
    project, said = printable(message.project), printable(why(message, now))
    if message.kind == "warned" and message.stop_at is not None:
        return f"Your server {project}: {said} That is at {_moment(message.stop_at)}."
    if message.kind == "stopped":
        return f"Your server {project}, at {_moment(message.at)}: {said}"
    return said


def _way_on(message: Message, links: Links) -> list[str]:
    where = f":\n{links.home}" if links.home else "."
    if message.kind == "warned" and message.reason == Reason.RUNTIME.value:
        return [f"Save your work before. Then you can start it again on the home page{where}"]
    if message.kind == "warned" and Reason(message.reason).is_idleness:
        return [f'If you need it, press "Keep it running" on the home page{where}']
    if message.kind == "stopped":
        return [
            "Your files in /workspace and your home are safe.",
            f"You can start it again on the home page{where}",
        ]
    # What to do about a full disk is said with why.
    return [links.home] if links.home else []


def _moment(at: datetime) -> str:
    return f"{at:%H:%M} UTC on {at.day} {at:%B}"
