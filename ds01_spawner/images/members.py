"""Who asks for something about images, and what names they can have. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Refused
from ..names import DEFAULT_PROJECT, is_project_name
from ..policy import ImageRules
from . import shelf
from .shelf import LATEST


@dataclass(frozen=True)
class Member:
    """Who asks: the name, all groups, what the policy gives, and whether as an admin."""

    name: str
    groups: frozenset[str]
    rules: ImageRules
    is_admin: bool = False


def check_project(project: str) -> None:
    """Check that an image can be called so.

    Raises
    ------
    Refused
        400 if not.
    """
    if project != DEFAULT_PROJECT and not is_project_name(project):
        raise Refused(
            f"{project!r:.60} cannot be an image's name: use up to 30 lower-case letters, digits "
            "and single hyphens, beginning with a letter.",
            reason="image",
        )


def check_tag(tag: str) -> str:
    """Return the tag that is meant: none means ``latest``.

    Raises
    ------
    Refused
        400 if this can be none.
    """
    if not tag:
        return LATEST
    if not shelf.is_users_tag(tag):
        raise Refused(
            f"{tag!r:.80} cannot be a tag: use lower-case letters, digits, '.', '_' and '-', such "
            "as experiment-42.",
            reason="image",
        )
    return tag


def no_image(name: str) -> Refused:
    """Return what is said of an image that there is not, or that somebody may not use."""
    return Refused(
        f"There is no image {name!r:.120} here that you may use.", reason="image", status_code=404
    )
