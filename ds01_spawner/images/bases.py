"""The images of the catalogue that are built on this machine, and the Debian below them."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound

from .. import buildkit
from ..buildkit import BuildError, Log
from . import debootstrap
from .catalogue import Catalogue, CatalogueImage

#: The directory with ``catalogue.yaml`` and one directory for each image that is built here.
IMAGES = Path(__file__).parents[2] / "images"

#: Label with the hash of everything that an image was built from.
BUILT_FROM = "ds01.built-from"

#: Held during builds. In root's own directory, as whoever may use the engine is root anyhow.
_LOCK = Path("/run/ds01-images.lock")

#: What the runtime and the bases are built on.
DEBIAN = "ds01/debian:12"
#: Installs Python packages in builds of users' images.
UV = "ds01/uv:0.13.9"

#: How long the engine may take to hear from its registry before Debian is made from packages.
_PROBE_SECONDS = 15.0
_FROM = re.compile(r"^FROM\s+(\S+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Recipe:
    """An image that is built here: its tag, the directory with its Dockerfile, and whether it is
    built only when somebody asks for it."""

    tag: str
    context: Path
    on_request: bool = False

    @property
    def parent(self) -> str:
        """The image in the Dockerfile's last ``FROM``.

        Raises
        ------
        BuildError
            If the Dockerfile cannot be read or has no FROM.
        """
        path = self.context / "Dockerfile"
        try:
            found = _FROM.findall(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BuildError(f"{path} cannot be read: {error}") from error
        if not found:
            raise BuildError(f"{path} has no FROM line; say which image this one builds on.")
        return str(found[-1])


def catalogue(images: Path = IMAGES) -> Catalogue:
    """Return the catalogue of the images that this project brings.

    Raises
    ------
    BuildError
        If they are not here, as in a package that was installed from a wheel.
    CatalogueError
        If the catalogue cannot be used.
    """
    if not images.is_dir():
        raise BuildError(
            f"The base images are built from a checkout of the project, and {images} is not there. "
            "Get a checkout, and run run.sh or .venv/bin/ds01 in it."
        )
    return Catalogue.load(images / "catalogue.yaml")


def recipes(images: Path = IMAGES) -> tuple[Recipe, ...]:
    """Return what is built here: Debian, uv, and each catalogue entry that has a Dockerfile.

    Raises
    ------
    BuildError, CatalogueError
        If there is no catalogue, or if it cannot be used.
    """
    own = tuple(
        Recipe(entry.image, images / entry.name, entry.on_request)
        for entry in catalogue(images)
        if (images / entry.name / "Dockerfile").exists()
    )
    # Another catalogue's directory may come without it.
    uv = (Recipe(UV, images / "uv"),) if (images / "uv" / "Dockerfile").exists() else ()
    return (Recipe(DEBIAN, images / "debian"), *own, *uv)


def build_bases(
    client: DockerClient,
    ca_bundle: Path | None = None,
    log: Log = print,
    *,
    only: Collection[str] | None = None,
    images: Path = IMAGES,
    details: Log = lambda line: None,
) -> tuple[str, ...]:
    """Build what is missing or was built from something else than what lies here now.

    An image counts as done when its label holds the hash of its files and of its parent, so a
    second call builds nothing and asks no registry. Servers that run an image which is replaced
    keep theirs. What is built on request only is seen to when it is named, and once it is here.

    Parameters
    ----------
    client
        The engine.
    ca_bundle
        Certificates for package registries, used in builds and kept out of the images.
    log
        Called with one line for each image that is built.
    only
        Tags to see to, with what they build on; by default all, those on request if they are here.
    images
        Directory with the catalogue and the Dockerfiles.
    details
        Called with each line that a build prints.

    Returns
    -------
    tuple of str
        Tags that were built; empty if everything was there.

    Raises
    ------
    BuildError
        If an image cannot be built.
    PermissionError
        If this is not run by root.
    """
    known = recipes(images)
    builder = _Builder(client, known, log, details)
    with _one_at_a_time(), buildkit.site_secrets(ca_bundle) as secrets:
        asked = [r for r in known if r.tag in only] if only else _wanted(client, known)
        for recipe in asked:
            builder.settle(recipe, secrets)
    builder.remove_replaced()
    return tuple(builder.built)


def stale(
    client: DockerClient, images: Path = IMAGES, *, only: Collection[str] | None = None
) -> tuple[str, ...]:
    """Return the tags that `build_bases` would build; what stands on one of them may follow."""
    known = recipes(images)
    asked = [r for r in known if r.tag in only] if only else _wanted(client, known)
    return tuple(
        recipe.tag for recipe in asked if _label(client, recipe.tag) != _wanted_hash(client, recipe)
    )


def missing_packages(client: DockerClient, images: Path = IMAGES) -> tuple[str, ...]:
    """Return the system's packages that `build_bases` would not find, none if it needs none."""
    debian = recipes(images)[0]
    if _label(client, debian.tag) == _wanted_hash(client, debian):
        return ()
    if _why_no_registry(client, debian.parent) is None:
        return ()
    return debootstrap.missing_packages()


class _Builder:
    """One run of `build_bases`: parents first, each image at most once."""

    def __init__(
        self, client: DockerClient, known: tuple[Recipe, ...], log: Log, details: Log
    ) -> None:
        self._client = client
        self._known = {recipe.tag: recipe for recipe in known}
        self._log = log
        self._details = details
        self._settled: set[str] = set()
        self._replaced: list[str] = []
        self.built: list[str] = []

    def settle(self, recipe: Recipe, secrets: dict[str, Path], below: tuple[str, ...] = ()) -> None:
        """See to an image, after the one it builds on; `below` are those that build on it."""
        if recipe.tag in below:
            raise BuildError(f"Images build on each other: {' -> '.join([*below, recipe.tag])}")
        if recipe.tag in self._settled:
            return
        if recipe.parent in self._known:
            self.settle(self._known[recipe.parent], secrets, (*below, recipe.tag))
        wanted = _wanted_hash(self._client, recipe)
        if _label(self._client, recipe.tag) != wanted:
            before = _image_id(self._client, recipe.tag)
            self._build(recipe, {BUILT_FROM: wanted}, secrets)
            self.built.append(recipe.tag)
            if before is not None:
                self._replaced.append(before)
        self._settled.add(recipe.tag)

    def remove_replaced(self) -> None:
        """Remove images that lost their tag to a new build, unless something still uses them."""
        for image_id in reversed(self._replaced):
            try:
                # With a tag left, removing by id would take that tag away.
                if not self._client.images.get(image_id).tags:
                    self._client.images.remove(image_id)
            except ImageNotFound:
                continue
            except APIError as error:
                if error.status_code != 409:
                    raise

    def _build(self, recipe: Recipe, labels: dict[str, str], secrets: dict[str, Path]) -> None:
        if recipe.tag == DEBIAN:
            problem = _why_no_registry(self._client, recipe.parent)
            if problem is not None:
                self._log(f"The engine cannot pull {recipe.parent}: {problem}")
                self._log(f"Making {recipe.tag} from Debian's packages instead, about a minute ...")
                debootstrap.import_debian(self._client, recipe.tag, labels, self._details)
                return
        self._log(f"Building {recipe.tag} ...")
        buildkit.build(
            recipe.context, recipe.tag, labels=labels, secrets=secrets, log=self._details
        )


def fetch(client: DockerClient, entry: CatalogueImage) -> None:
    """Fetch an image that is not built here from its registry.

    Raises
    ------
    BuildError
        If it cannot be fetched.
    """
    try:
        client.images.pull(entry.image)
    except (DockerException, requests.RequestException) as error:
        reason = getattr(error, "explanation", None) or error
        raise BuildError(f"The engine cannot fetch {entry.image}: {reason}") from error


def _wanted(client: DockerClient, known: tuple[Recipe, ...]) -> list[Recipe]:
    """Return what belongs on every machine, and what somebody has asked for on this one."""
    return [r for r in known if not r.on_request or _image_id(client, r.tag) is not None]


def _wanted_hash(client: DockerClient, recipe: Recipe) -> str:
    if recipe.tag == DEBIAN:
        # The same however it was made: a registry that comes or goes is no reason to rebuild.
        return buildkit.content_hash(recipe.context, debootstrap.SUITE, *debootstrap.PACKAGES)
    return buildkit.content_hash(recipe.context, _image_id(client, recipe.parent) or "")


def _image_id(client: DockerClient, tag: str) -> str | None:
    try:
        return str(client.images.get(tag).id)
    except ImageNotFound:
        return None


def _label(client: DockerClient, tag: str) -> str | None:
    try:
        return client.images.get(tag).labels.get(BUILT_FROM)
    except ImageNotFound:
        return None


def _why_no_registry(client: DockerClient, reference: str) -> str | None:
    """Return why the engine cannot pull an image, or None if it can."""
    try:
        with _patience(client, _PROBE_SECONDS):
            client.api.inspect_distribution(reference)
    except requests.Timeout:
        return f"no answer from the registry within {_PROBE_SECONDS:.0f} s"
    except (DockerException, requests.RequestException) as error:
        return str(getattr(error, "explanation", None) or error)
    return None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep others on this machine from building meanwhile, each on the other's half."""
    with _LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _patience(client: DockerClient, seconds: float) -> Iterator[None]:
    """Wait at most so long for each answer of the engine."""
    before = client.api.timeout
    client.api.timeout = seconds
    try:
        yield
    finally:
        client.api.timeout = before
