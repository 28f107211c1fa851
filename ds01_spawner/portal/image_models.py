"""Images and builds as the API takes and answers them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ..images.catalogue import CatalogueImage
from ..images.holdings import Details, Offer
from ..images.recipe import Recipe
from ..images.records import Build, Shared
from ..images.shelf import UserImage
from ..images.sources import Source


class Sent(BaseModel):
    """What a request may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class NewImage(Recipe):
    """A recipe, the project whose image it makes, and what else is wanted of it.

    Attributes
    ----------
    requirements
        A requirements.txt, whose packages are added.
    """

    project: StrictStr = ""
    tag: StrictStr = ""
    requirements: StrictStr = ""

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe by itself."""
        return self.model_dump(include=set(Recipe.model_fields))


class Changes(Sent):
    """Python packages to add and to remove."""

    add: list[StrictStr] = []
    remove: list[StrictStr] = []


class NewBuild(Sent):
    """The tag that a build moves; none is ``latest``."""

    tag: StrictStr = ""


class Nothing(Sent):
    """No fields."""


class NewTag(Sent):
    """A tag for a version; ``latest`` restores it."""

    version: StrictInt
    tag: StrictStr = ""


class NewShare(Sent):
    """A group that may use an image; ``*`` is everybody."""

    group: StrictStr


class Packages(Sent):
    """Packages that were installed in a server, as pip names them."""

    packages: list[StrictStr] = []


class Image(BaseModel):
    """One version of an image; ``name`` is what a server's start is told."""

    name: str
    owner: str
    project: str
    version: int
    tags: list[str]
    base: str
    size_bytes: int
    created: datetime

    @classmethod
    def of(cls, found: UserImage, **more: Any) -> Any:
        """Return what is told of an image."""
        return cls(
            name=found.name,
            owner=found.owner,
            project=found.project,
            version=found.number,
            tags=list(found.tags),
            base=found.base,
            size_bytes=found.size_bytes,
            created=found.created,
            **more,
        )


class Version(Image):
    """One version with its servers' names; others' servers are not told."""

    used_by: list[str]
    last_used: datetime | None


class Base(BaseModel):
    """An image of the catalogue."""

    name: str
    framework: str
    version: str

    @classmethod
    def of(cls, found: CatalogueImage) -> Base:
        """Return what is told of an image of the catalogue."""
        return cls(name=found.name, framework=found.framework, version=found.version)


class Images(BaseModel):
    """What somebody may start from and build on."""

    own: list[Image]
    shared: list[Image]
    bases: list[Base]

    @classmethod
    def of(cls, found: Offer) -> Images:
        """Return what is told of an offer."""
        return cls(
            own=list(map(Image.of, found.own)),
            shared=list(map(Image.of, found.shared)),
            bases=list(map(Base.of, found.bases)),
        )


class OneBuild(BaseModel):
    """How a build is; ``line`` is where its Dockerfile failed."""

    id: int
    owner: str
    project: str
    tag: str
    state: str
    version: int | None
    problem: str
    line: int | None
    asked_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, found: Build, **more: Any) -> Any:
        """Return what is told of a build."""
        return cls(
            id=found.id,
            owner=found.owner,
            project=found.project,
            tag=found.tag,
            state=found.state.value,
            version=found.number or None,
            problem=found.problem,
            line=found.line or None,
            asked_at=found.asked_at,
            ended_at=found.ended_at,
            **more,
        )


class PlacedBuild(OneBuild):
    """A build with its place in the line: how many are before it."""

    builds_before: int


class Begun(BaseModel):
    """A build that was begun, and what of a requirements.txt it does not use."""

    build: OneBuild
    not_used: list[str] = []

    @classmethod
    def of(cls, found: Build, not_used: Iterable[str] = ()) -> Begun:
        """Return what is told of a new build."""
        return cls(build=OneBuild.of(found), not_used=list(not_used))


class Layer(BaseModel):
    """One layer; ``shared`` if it is the base's."""

    size_bytes: int
    command: str
    shared: bool


class Share(BaseModel):
    """A group that may use an image, once an admin has approved it where that is needed."""

    group: str
    approved: bool

    @classmethod
    def of(cls, found: Shared) -> Share:
        """Return what is told of a share."""
        return cls(group=found.group, approved=found.approved)


class OneImage(BaseModel):
    """All about an image; recipe, packages and layers are those of its current version."""

    owner: str
    project: str
    versions: list[Version]
    layers: Annotated[list[Layer], Field(description="Lowest first.")]
    packages: dict[str, str] | None
    recipe: Recipe | None
    dockerfile: str | None
    remarks: list[str]
    shares: list[Share]
    builds: list[OneBuild]

    @classmethod
    def of(cls, found: Details) -> OneImage:
        """Return what is told of an image."""
        current, shared = found.built_from, found.shared_layers
        return cls(
            owner=found.owner,
            project=found.project,
            versions=[
                Version.of(
                    version,
                    used_by=list(found.servers.get(version.number, ())),
                    last_used=found.last_used.get(version.number),
                )
                for version in found.versions
            ],
            layers=[
                Layer(size_bytes=layer.size_bytes, command=layer.command, shared=at < shared)
                for at, layer in enumerate(found.layers)
            ],
            packages=dict(current.installed or {}) if current else None,
            recipe=found.recipe,
            dockerfile=current.dockerfile if current else None,
            remarks=list(current.remarks) if current else [],
            shares=list(map(Share.of, found.shares)),
            builds=list(map(OneBuild.of, found.builds)),
        )


class ImageSource(BaseModel):
    """What an image is built from; ``edited`` if its Dockerfile is what counts."""

    recipe: Recipe | None
    dockerfile: str
    edited: bool
    problem: str

    @classmethod
    def of(cls, found: Source) -> ImageSource:
        """Return what is told of a source."""
        return cls(
            recipe=found.recipe,
            dockerfile=found.dockerfile,
            edited=found.is_edited,
            problem=found.problem,
        )


class InstalledPackage(BaseModel):
    """A package that was installed since a server's start; ``requested`` if it was named."""

    name: str
    version: str
    requested: bool


class Installed(BaseModel):
    """What was installed since a server's start."""

    packages: list[InstalledPackage]
