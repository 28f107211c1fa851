"""Which images there are, as one member may see them: what each is made of, and who uses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import docker.errors
import yaml

from ..engine import Docker
from . import shelf
from .catalogue import Catalogue, CatalogueImage
from .layers import Layer, layers_of
from .members import Member, no_image
from .recipe import Recipe, RecipeError, read_recipe
from .records import Build, ImageRecords, Shared
from .shelf import LATEST, Shelf, UserImage


@dataclass(frozen=True)
class Offer:
    """What a member may start from or build on.

    Attributes
    ----------
    own, shared
        Users' images, newest first.
    bases
        The catalogue's.
    """

    own: tuple[UserImage, ...]
    shared: tuple[UserImage, ...]
    bases: tuple[CatalogueImage, ...]


@dataclass(frozen=True)
class Details:
    """One image of a user's, with all of its versions.

    Attributes
    ----------
    versions
        Newest first.
    layers
        Of the current version, lowest first, and which of them are its base's.
    builds
        The latest, newest first.
    servers
        Version -> names of the containers that run on it; empty for others' images.
    built_from
        The build of the current version.
    """

    owner: str
    project: str
    versions: tuple[UserImage, ...]
    builds: tuple[Build, ...]
    layers: tuple[Layer, ...] = ()
    shared_layers: int = 0
    servers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    last_used: Mapping[int, datetime] = field(default_factory=dict)
    shares: tuple[Shared, ...] = ()
    built_from: Build | None = None

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the current version; None for a Dockerfile that was written by hand."""
        text = self.built_from.recipe if self.built_from else ""
        try:
            return read_recipe(yaml.safe_load(text)) if text else None
        except RecipeError:
            # Of an older version of ours, with a package set that there is no more.
            return None


@dataclass(frozen=True)
class Use:
    """How one version of an image is used.

    Attributes
    ----------
    servers
        Names of the containers that run on it.
    last
        When one was started last.
    own_bytes
        What it takes beyond its base; None if that is not known.
    """

    servers: tuple[str, ...]
    last: datetime | None
    own_bytes: int | None


class Holdings:
    """Looks them up.

    Parameters
    ----------
    docker_call
        The engine.
    catalogue
        Gives the bases.
    """

    def __init__(
        self,
        docker_call: Docker,
        shelf_: Shelf,
        records: ImageRecords,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._docker = docker_call
        self._shelf = shelf_
        self._records = records
        self._catalogue = catalogue
        # By image; an image never changes.
        self._layers: dict[str, list[Layer]] = {}

    async def offer(self, member: Member) -> Offer:
        """Return what a member may use."""
        images = await self.usable(member)
        return Offer(
            own=tuple(image for image in images if image.owner == member.name),
            shared=tuple(i for i in images if i.owner != member.name and i.tags),
            bases=tuple(
                [b for b in self._catalogue() if not b.on_request or await self.is_here(b)]
            ),
        )

    async def uses(self, images: Collection[UserImage]) -> dict[str, Use]:
        """Return how one's own images are used, by Docker's id."""
        ids = [image.image_id for image in images]
        last, own = self._records.last_uses(ids), self._records.own_bytes(ids)
        servers: dict[str, tuple[str, ...]] = {}
        for listed in await self._docker("containers", all=True):
            name = (listed.get("Names") or [listed["Id"][:12]])[0].lstrip("/")
            servers[listed["ImageID"]] = (*servers.get(listed["ImageID"], ()), name)
        return {i: Use(servers.get(i, ()), last.get(i), own.get(i)) for i in ids}

    async def details(self, member: Member, owner: str, project: str) -> Details:
        """Return all about an image: one's own, one that is shared, or any for an admin.

        Raises
        ------
        Refused
            404 if there is none that the member may see.
        """
        versions = await self.versions(member, owner, project)
        mine = member.is_admin or owner == member.name
        builds = self._records.builds(owner, project) if mine else []
        if not versions and not builds:
            raise no_image(shelf.repository(owner, project))
        current = next((v for v in versions if LATEST in v.tags), None)
        used = self._records.last_uses(version.image_id for version in versions)
        found = Details(
            owner=owner,
            project=project,
            versions=tuple(versions),
            builds=tuple(builds),
            servers=await self.servers(versions) if mine else {},
            last_used={v.number: used[v.image_id] for v in versions if v.image_id in used},
            shares=tuple(
                s for s in self._records.shares() if (s.owner, s.project) == (owner, project)
            )
            if mine
            else (),
        )
        if current is None:
            return found
        layers = await layers_of(self._docker, current.image_id)
        built_from = self._records.of_image(current.image_id)
        makers = self._records.makers()
        made = built_from.id if built_from else 0
        return replace(
            found,
            layers=tuple(layers),
            shared_layers=sum(makers.get(layer.digest, (0, ""))[0] != made for layer in layers),
            built_from=built_from,
        )

    async def usable(self, member: Member) -> list[UserImage]:
        """Return the users' images that a member may use, newest first."""
        images = await self._shelf.all()
        return shelf.usable(images, self._records.shares(), member.name, member.groups)

    async def versions(self, member: Member, owner: str, project: str) -> list[UserImage]:
        """Return the versions of an image that a member may see, newest first."""
        images = await self._shelf.all() if member.is_admin else await self.usable(member)
        return [image for image in images if (image.owner, image.project) == (owner, project)]

    async def own_version(self, member: Member, project: str, number: int) -> UserImage:
        """Return a version of a member's own image.

        Raises
        ------
        Refused
            404 if there is none.
        """
        for version in await self.versions(member, member.name, project):
            if version.number == number:
                return version
        raise no_image(f"{shelf.repository(member.name, project)}, version {number}")

    async def servers(self, versions: Collection[UserImage]) -> dict[int, tuple[str, ...]]:
        """Return which containers run on which versions."""
        uses = await self.uses(versions)
        found = {version.number: uses[version.image_id].servers for version in versions}
        return {number: names for number, names in found.items() if names}

    async def id_of(self, member: Member, name: str, of_anybody: bool = False) -> str:
        """Return Docker's id of an image that a member may use; empty if there is none."""
        if base := self.base(name):
            return await _docker_id(self._docker, base.image)
        images = await (self._shelf.all() if of_anybody else self.usable(member))
        found = shelf.named(images, name)
        return found.image_id if found else ""

    async def is_here(self, base: CatalogueImage) -> bool:
        """Tell whether an image of the catalogue is on this machine."""
        return bool(await _docker_id(self._docker, base.image))

    def base(self, name: str) -> CatalogueImage | None:
        """Return the catalogue's image of a name, whether it is on this machine or not."""
        return next((base for base in self._catalogue() if base.name == name), None)

    async def used_bytes(self, member: Member) -> int:
        """Return what a member's images take, each layer once.

        A layer counts for whoever has built it, as long as one of their images has it; then for
        everybody whose images have it. The lab's own count for nobody.
        """
        images = await self._shelf.all()
        found = {image.image_id: await self._layers_once(image.image_id) for image in images}
        self._layers = {image_id: layers for image_id, layers in found.items() if layers}
        makers = self._records.makers()
        kept = {(image.owner, layer.digest) for image in images for layer in found[image.image_id]}

        def counts(digest: str) -> bool:
            _, maker = makers.get(digest, (0, ""))
            return maker == member.name or (bool(maker) and (maker, digest) not in kept)

        sizes = {
            layer.digest: layer.size_bytes
            for image in images
            if image.owner == member.name
            for layer in found[image.image_id]
        }
        return sum(size for digest, size in sizes.items() if counts(digest))

    async def _layers_once(self, image_id: str) -> list[Layer]:
        """Return an image's layers, none if it is gone meanwhile."""
        try:
            return self._layers.get(image_id) or await layers_of(self._docker, image_id)
        except docker.errors.NotFound:
            return []


async def _docker_id(docker_call: Docker, reference: str) -> str:
    """Return the id of an image that is on this machine; empty if it is not."""
    try:
        return str((await docker_call("inspect_image", reference))["Id"])
    except docker.errors.NotFound:
        return ""
