"""Users' own images, as Docker has them: whose each is, and who may use it.

An image belongs to the user in its labels, which the builder sets last, and goes by the tags in
that user's own part of the names, ``ds01-<user>/<project>:<tag>``. Whatever else an image is called
counts for nothing, and by its id or digest nobody gets one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..engine import Docker
from ..names import user_slug
from .records import EVERYBODY, Shared

# Other labels than a server's: a container that somebody else starts has its image's.
HUB, OWNER, PROJECT = "ds01.image.hub", "ds01.image.owner", "ds01.image.project"
NUMBER, BASE = "ds01.image.number", "ds01.image.base"
LATEST = "latest"

#: Kept for each version, so that it has a name when another tag moves on.
_VERSION = re.compile(r"build-[1-9][0-9]{0,8}")
_TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NAME = re.compile(r"(ds01-[a-z0-9-]+/[a-z0-9-]+)(?::([A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?")


@dataclass(frozen=True)
class UserImage:
    """One version of a user's image.

    Attributes
    ----------
    image_id
        Docker's id.
    number
        Its version, counted from 1.
    tags
        Its tags without the version's own; empty for a version that is only kept.
    base
        Name of what it stands on.
    size_bytes
        With everything that it shares with others.
    """

    owner: str
    project: str
    image_id: str
    number: int
    tags: tuple[str, ...]
    base: str
    size_bytes: int
    created: datetime

    @property
    def repository(self) -> str:
        """The name without a tag."""
        return repository(self.owner, self.project)

    @property
    def name(self) -> str:
        """What users choose: without a tag where that is ``latest``."""
        tag = self.tags[0] if self.tags else version_tag(self.number)
        return tagged_name(self.owner, self.project, tag)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that lead to it."""
        tags = (*self.tags, version_tag(self.number))
        bare = (self.repository,) if LATEST in self.tags else ()
        return (*bare, *(f"{self.repository}:{tag}" for tag in tags))


def repository(owner: str, project: str) -> str:
    """Return Docker's name of a user's image, without a tag."""
    return f"ds01-{user_slug(owner)}/{project}"


def tagged_name(owner: str, project: str, tag: str) -> str:
    """Return the name that users choose for a tag of an image: without it for ``latest``."""
    return repository(owner, project) + ("" if tag == LATEST else f":{tag}")


def version_tag(number: int) -> str:
    """Return the tag that a version keeps."""
    return f"build-{number}"


def is_users_tag(tag: str) -> bool:
    """Tell whether a user may give an image this tag."""
    return bool(_TAG.fullmatch(tag)) and not _VERSION.fullmatch(tag)


def looks_like_users(name: str) -> bool:
    """Tell whether a name is of the form that users' images have."""
    return bool(_NAME.fullmatch(name))


class Shelf:
    """Finds users' images.

    Parameters
    ----------
    docker_call
        The engine.
    hub_id
        Images of other Hubs are none here.
    """

    def __init__(self, docker_call: Docker, hub_id: str) -> None:
        self._docker = docker_call
        self.hub_id = hub_id

    async def all(self) -> list[UserImage]:
        """Return all users' images, newest first.

        Raises
        ------
        Exception
            Whatever the engine raises when it gives no answer.
        """
        labels = [f"{HUB}={self.hub_id}", NUMBER]
        listed = await self._docker("images", filters={"label": labels})
        # The engine's times are whole seconds.
        return sorted(_read(listed), key=lambda image: (image.created, image.number), reverse=True)


def usable(
    images: Iterable[UserImage], shares: Iterable[Shared], user: str, groups: Collection[str]
) -> list[UserImage]:
    """Return the images that a user may use: their own, and with a tag what is shared with them.

    Parameters
    ----------
    groups
        All groups that the user is in.
    """
    shared = {
        (share.owner, share.project)
        for share in shares
        if share.approved and (share.group == EVERYBODY or share.group in groups)
    }
    return [
        image
        for image in images
        if image.owner == user or (image.tags and (image.owner, image.project) in shared)
    ]


def named(images: Iterable[UserImage], name: str) -> UserImage | None:
    """Return the image that a name leads to, None if there is none."""
    return next((image for image in images if name in image.names), None)


def _read(listed: Iterable[Mapping[str, Any]]) -> Iterator[UserImage]:
    for entry in listed:
        labels = entry.get("Labels") or {}
        owner, project = labels.get(OWNER, ""), labels.get(PROJECT, "")
        number = labels.get(NUMBER, "")
        if not (owner and project and number.isascii() and number.isdigit()):
            continue
        prefix = f"{repository(owner, project)}:"
        tags = [t.removeprefix(prefix) for t in entry.get("RepoTags") or [] if t.startswith(prefix)]
        # Without its version's tag it is not published, or somebody is removing it.
        if version_tag(int(number)) not in tags:
            continue
        yield UserImage(
            owner=owner,
            project=project,
            image_id=entry["Id"],
            number=int(number),
            tags=_sorted(tag for tag in tags if not _VERSION.fullmatch(tag)),
            base=labels.get(BASE, ""),
            size_bytes=int(entry["Size"]),
            created=datetime.fromtimestamp(entry["Created"], timezone.utc),
        )


def _sorted(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags with ``latest`` first."""
    return tuple(sorted(tags, key=lambda tag: (tag != LATEST, tag)))
