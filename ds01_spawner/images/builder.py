"""One build of a user's image, from a Dockerfile to a version that can be chosen.

The steps in order: what the Dockerfile stands on is looked up and held by names of ours, it is
built, what came out is tried, and only then a tag moves. Whatever fails before changes no image.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import docker.errors

from .. import buildkit
from ..blocking import in_thread, to_its_end
from ..cgroups.builds import BuildRoom, written
from ..cgroups.limits import SliceError, SliceLimits
from ..engine import UNREACHABLE, Docker, remove
from ..errors import Refused
from ..policy import ImageRules, format_bytes
from . import checks, context, layers, shelf, steps
from .build_cache import BuildCache, Growth
from .checks import CheckFailed, Report
from .client import Bounds, Stopped, run_client
from .disk import free_bytes
from .dockerfile import Dockerfile, DockerfileError, Emitted, parse
from .layers import Layer
from .output import Line, Output, without_options
from .records import Build, ImageRecords, State
from .wheels import wheels_image

_LOG = logging.getLogger(__name__)

#: Names of ours during a build; nobody can choose an image of such a name.
_WORK = "ds01_building"
#: What a build may take from a project's folder.
_MOST_CONTEXT_BYTES = 100 * 1024**2
_MOST_CONTEXT_FILES = 2000

Say = Callable[[Line], None]


@dataclass(frozen=True)
class Site:
    """What every build on this machine is given.

    Attributes
    ----------
    hub_id
        Whose images these are.
    uv_image
        See `steps.run_options`.
    wheels
        Directory with the site's own wheels; None if there is none.
    ca_bundle, package_index
        See `buildkit.site_secrets`.
    limits
        Of all builds together.
    free_bytes
        Below this the disk counts as full.
    cache_bytes
        What all builds may leave in the engine's cache.
    disk
        A path on the disk that images fill.
    work
        Directory for what builds are made of, which nobody else writes to.
    """

    hub_id: str
    uv_image: str
    wheels: Path | None = None
    ca_bundle: Path | None = None
    package_index: str = ""
    limits: SliceLimits = field(default_factory=SliceLimits)
    free_bytes: int = 0
    cache_bytes: int = 20 * 1024**3
    disk: Path = Path("/var/lib/docker")
    work: Path = Path("/var/lib/ds01/builds/work")


@dataclass(frozen=True)
class Request:
    """A build that its owner may have.

    Attributes
    ----------
    build
        Its record.
    rules
        What the owner's images may be.
    bases
        Name of each image that the Dockerfile stands on or copies from -> Docker's id.
    workspace
        The project's folder, from which files are copied; None if there is none.
    uid
        Whose files these must be.
    """

    build: Build
    rules: ImageRules
    bases: Mapping[str, str]
    workspace: Path | None
    uid: int


class _Failed(Exception):
    """The build cannot go on; the text is for its owner."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.line = line


class Builder:
    """Builds images on one engine.

    Parameters
    ----------
    docker_call
        The engine.
    check
        Tries an image: called with its id, the packages asked for, and a user's number.
    """

    def __init__(
        self,
        site: Site,
        docker_call: Docker,
        records: ImageRecords,
        room: BuildRoom,
        check: Callable[[str, tuple[str, ...], int], Awaitable[Report]],
    ) -> None:
        self._site = site
        self._docker = docker_call
        self._records = records
        self._room = room
        self._check = check
        self._cache = BuildCache(docker_call, site.disk, site.cache_bytes)
        self._building = 0

    async def run(self, request: Request, say: Say) -> Build:
        """Build an image, and return the build's record as it is in the end.

        Raises
        ------
        asyncio.CancelledError
            If it was cancelled; nothing is left of it, and the record says so.
        """
        build = self._records.change(request.build, state=State.RUNNING)
        try:
            return await self._build(request, build, say)
        except asyncio.CancelledError:
            self._records.change(build, state=State.CANCELLED, problem="The build was cancelled.")
            raise
        except _Failed as failed:
            problem, line = str(failed), failed.line
        except (Stopped, DockerfileError, CheckFailed) as error:
            problem, line = str(error), 0
        except Refused as refused:
            problem, line = refused.jupyterhub_message, 0
        except (SliceError, buildkit.BuildError, OSError, *UNREACHABLE) as error:
            _LOG.exception("Build %s of %s was failed by the machine", build.id, build.owner)
            problem, line = f"The machine cannot build at the moment; tell an admin: {error}", 0
        return self._records.change(build, state=State.FAILED, problem=problem, line=line)

    async def _build(self, request: Request, build: Build, say: Say) -> Build:
        parsed = parse(build.dockerfile)
        work = f"{_WORK}/{self._site.hub_id}-{build.id}"
        async with self._held(work, request.bases) as references:
            with tempfile.TemporaryDirectory(dir=self._site.work) as directory:
                emitted = await self._emit(request, parsed, references)
                number = self._records.last_number(build.owner, build.project) + 1
                image_id = await self._make(
                    Path(directory), work, request, parsed, emitted, number, say
                )
            made = await self._own_layers(request, image_id)
            say(Line("Trying the image: a kernel starts, and the packages are imported …"))
            report = await self._check(image_id, build.packages, request.uid)
            _refuse_broken(report)
            remarks = tuple(
                f"{found.package} can only be tried with a GPU."
                for found in report.imports
                if found.needs_gpu
            )
            version = replace(
                build,
                number=number,
                image_id=image_id,
                own_bytes=sum(layer.size_bytes for layer in made),
                installed=report.packages,
                remarks=(*build.remarks, *parsed.warnings, *remarks),
            )
            ended = await to_its_end(self._publish(version, made))
        say(Line(f"Ready: {shelf.repository(build.owner, build.project)}:{build.tag}"))
        return ended

    async def sweep(self) -> None:
        """Remove what builds of a portal that was killed have left; none may be under way."""
        shutil.rmtree(self._site.work, ignore_errors=True)
        self._site.work.mkdir(mode=0o700, parents=True)
        ours = {"label": f"{checks.LABEL}={self._site.hub_id}"}
        for container in await self._docker("containers", all=True, filters=ours):
            await remove(self._docker, container["Id"])
        prefix = f"{_WORK}/{self._site.hub_id}-"
        for image in await self._docker("images"):
            for name in image.get("RepoTags") or ():
                if name.startswith(prefix):
                    await remove_name(self._docker, name)

    # -- the build itself ----------------------------------------------------------------------

    @asynccontextmanager
    async def _held(self, work: str, bases: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
        """Give each image that a build stands on a name of ours for as long as the build takes.

        The names that users know may move meanwhile, and BuildKit finds no image by its id.
        """
        references = {}
        try:
            for at, (name, image_id) in enumerate(bases.items()):
                await self._docker("tag", image_id, work, f"base-{at}", force=True)
                references[name] = f"{work}:base-{at}"
            yield references
        finally:
            await asyncio.shield(self._remove_names(work))

    async def _remove_names(self, work: str) -> None:
        """Remove all names of one build; an image without another name goes too.

        What the engine does not remove now is removed when the portal starts.
        """
        try:
            listed = await self._docker("images", name=work)
            for reference in (name for entry in listed for name in entry.get("RepoTags") or ()):
                await remove_name(self._docker, reference)
        except UNREACHABLE as error:
            _LOG.warning("Names of a build stay behind under %s: %s", work, error)

    async def _emit(
        self, request: Request, parsed: Dockerfile, references: Mapping[str, str]
    ) -> Emitted:
        site = self._site
        wheels = ""
        if site.wheels:
            wheels = await wheels_image(self._docker, site.wheels, site.hub_id)
        options = steps.run_options(request.build.owner, site.hub_id, site.uv_image, wheels)
        return parsed.emit(references, options, steps.MARK)

    async def _make(
        self,
        directory: Path,
        work: str,
        request: Request,
        parsed: Dockerfile,
        emitted: Emitted,
        number: int,
        say: Say,
    ) -> str:
        """Run the build and return the new image's id."""
        build, site, rules = request.build, self._site, request.rules
        files = directory / "files"
        files.mkdir()
        if parsed.sources:
            if request.workspace is None:
                raise _Failed("COPY needs the project's folder, and there is none yet.")
            await asyncio.to_thread(
                context.collect,
                request.workspace,
                parsed.sources,
                files,
                uid=request.uid,
                largest_bytes=_MOST_CONTEXT_BYTES,
                most_files=_MOST_CONTEXT_FILES,
            )
        steps.write_ours(files, build.owner, site.hub_id)
        (directory / "Dockerfile").write_text(emitted.text, "utf-8")
        result = directory / "image-id"
        labels = {
            shelf.HUB: site.hub_id,
            shelf.OWNER: build.owner,
            shelf.PROJECT: build.project,
            shelf.NUMBER: str(number),
            shelf.BASE: next(iter(request.bases), ""),
        }
        names = {f"{work}:base-{at}": name for at, name in enumerate(request.bases)}
        bounds = Bounds(
            seconds=rules.build_time.total_seconds(),
            layer_bytes=rules.largest_bytes,
            total_bytes=2 * rules.largest_bytes,
            free_bytes=site.free_bytes,
        )
        async with (
            in_thread(buildkit.site_secrets(site.ca_bundle, site.package_index)) as secrets,
            self._measured(rules.largest_bytes) as growth,
            in_thread(self._room.hold(site.limits)) as check,
        ):
            command = buildkit.build_command(
                *(files, f"{work}:result", labels, secrets, {}),
                *("--file", str(directory / "Dockerfile"), "--iidfile", str(result)),
                *(() if rules.build_network else ("--network", "none")),
            )
            with self._at_work():
                status, output = await run_client(
                    *(command, bounds),
                    written=self._written,
                    growth=growth,
                    others=lambda: self._building > 1,
                    check=check,
                    disk=site.disk,
                    say=say,
                    names=names,
                )
        if status:
            raise _explain(output, emitted)
        return result.read_text().strip()

    @asynccontextmanager
    async def _measured(self, largest_bytes: int) -> AsyncIterator[Growth]:
        """Measure what a build leaves in the engine's cache, and make room when it is over."""
        growth = Growth(self._cache, partial(free_bytes, self._site.disk))
        try:
            yield growth
        finally:
            # Half, so that there is room for the next build.
            await asyncio.shield(self._cache.tidy(growth.begun, largest_bytes // 2))

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._building += 1
        try:
            yield
        finally:
            self._building -= 1

    def _written(self) -> list[Path]:
        return written(self._room.processes(), self._site.disk)

    async def _own_layers(self, request: Request, image_id: str) -> list[Layer]:
        """Return the layers of an image beyond what it stands on.

        Raises
        ------
        _Failed
            If they take more than their owner may have.
        """
        found = await layers.layers_of(self._docker, image_id)
        below: set[str] = set()
        # None for an image that is made from nothing.
        for base in [*request.bases.values()][:1]:
            below = {layer.digest for layer in await layers.layers_of(self._docker, base)}
        made = [layer for layer in found if layer.digest not in below]
        own = sum(layer.size_bytes for layer in made)
        if own > request.rules.largest_bytes:
            raise _Failed(
                f"The image takes {format_bytes(own)} beyond its base, and "
                f"{format_bytes(request.rules.largest_bytes)} are the most. Take packages out."
            )
        return made

    # -- what came out -------------------------------------------------------------------------

    async def _publish(self, version: Build, made: Collection[Layer]) -> Build:
        """Give the image the version's own tag, then move the one that users know; keep both."""
        repository = shelf.repository(version.owner, version.project)
        own = shelf.version_tag(version.number)
        await self._docker("tag", version.image_id, repository, own, force=True)
        try:
            await self._docker("tag", version.image_id, repository, version.tag, force=True)
        except UNREACHABLE:
            # The next build has the same number.
            await remove_name(self._docker, f"{repository}:{own}")
            raise
        self._records.note_layers(version, [layer.digest for layer in made])
        changed = ("number", "image_id", "own_bytes", "installed", "remarks")
        changes = {name: getattr(version, name) for name in changed}
        return self._records.change(version, state=State.SUCCEEDED, **changes)


async def remove_name(docker_call: Docker, reference: str) -> bool:
    """Remove an image's name, and the image with its last one; tell whether the name is gone."""
    try:
        await docker_call("remove_image", reference)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        # Something still runs on it.
        if error.status_code == 409:
            return False
        raise
    return True


def _refuse_broken(report: Report) -> None:
    if report.kernel != "ok":
        raise _Failed(f"The image was built, but no notebook runs in it: {report.kernel}")
    broken = [found for found in report.imports if not (found.ok or found.needs_gpu)]
    if broken:
        first = broken[0]
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise _Failed(
            f"The image was built, but {first.package} cannot be imported{more}: {first.error:.500}"
        )


def _explain(output: Output, emitted: Emitted) -> _Failed:
    """Return what failed, at which line of the user's file, and what to try."""
    line = 0
    for at, text in enumerate(emitted.text.splitlines()):
        if output.failed and _same(text, output.failed):
            line = emitted.lines[at]
    where = f"Line {line}: " if line else ""
    failed = " ".join(without_options(output.failed).split())[:120]
    said = f"{where}{failed or 'The build'} failed: {output.last:.300}".rstrip(". ")
    # What to try comes first, as pages have room for little.
    return _Failed(f"{output.advice()} {said}.".strip(), line)


def _same(one: str, other: str) -> bool:
    """Compare instructions as BuildKit shows them, with any spaces."""
    return without_options(one).split() == without_options(other).split()
