"""Builds that users ask for: checked, kept as files of the project, and queued."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ..engine import Docker
from ..errors import Refused
from ..policy import format_bytes
from ..servers import running_server
from . import shelf
from .builder import Request
from .catalogue import CatalogueImage
from .disk import is_almost_full
from .dockerfile import DockerfileError, parse
from .holdings import Holdings
from .installed import read_installed
from .members import Member, check_project, check_tag, no_image
from .queue import BuildQueue
from .recipe import Recipe, RecipeError, dockerfile_text, read_recipe, recipe_text
from .records import Build, ImageRecords
from .sources import Sources


class Orders:
    """Takes them.

    Parameters
    ----------
    docker_call
        The engine.
    hub_id
        Servers of other Hubs are none here.
    disk, lowest_free_bytes
        Where images lie, and below how much free room nothing is built.
    """

    def __init__(
        self,
        docker_call: Docker,
        hub_id: str,
        holdings: Holdings,
        sources: Sources,
        records: ImageRecords,
        queue: BuildQueue,
        disk: Path,
        lowest_free_bytes: int,
    ) -> None:
        self._docker = docker_call
        self._hub_id = hub_id
        self._holdings = holdings
        self._sources = sources
        self._records = records
        self._queue = queue
        self._disk = disk
        self._lowest_free_bytes = lowest_free_bytes
        # By member; one that nobody holds goes.
        self._ordering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def build_of(self, member: Member, build_id: int) -> Build:
        """Return a build that the member may look at.

        Raises
        ------
        Refused
            404 for everybody else's.
        """
        found = self._records.get(build_id)
        if found is None or not (member.is_admin or found.owner == member.name):
            raise Refused("There is no such build.", reason="image", status_code=404)
        return found

    async def build_recipe(
        self,
        member: Member,
        project: str,
        raw: Any,
        tag: str = "",
        remarks: Collection[str] = (),
        *,
        drop_edited: bool = False,
    ) -> Build:
        """Keep a recipe in the project's folder, with its Dockerfile, and build it.

        Parameters
        ----------
        raw
            The recipe, or what may be one.
        remarks
            What the owner should know of it, such as lines that were not used.
        drop_edited
            Whether a Dockerfile that was edited by hand gives way; it is kept under another name.

        Raises
        ------
        Refused
            400 for a recipe that cannot be used, 403 and 404 for what the member may not have,
            409 while this image is built, and where a Dockerfile would have to give way.
        """
        check_project(project)
        try:
            recipe = raw if isinstance(raw, Recipe) else read_recipe(raw)
        except RecipeError as error:
            raise Refused(str(error), reason="image") from None
        text = dockerfile_text(recipe)
        tag = check_tag(tag)
        # Between the checks and the queue, nothing else of this member's writes into a folder.
        async with self._ordering.setdefault(member.name, asyncio.Lock()):
            bases = await self._check(member, text)
            self._queue.check(member.name, project)
            if not drop_edited and (await self._sources.read(member, project)).is_edited:
                raise Refused(
                    "The project has a Dockerfile that was edited by hand, and that is what "
                    "counts. Rebuild builds it; Back to forms keeps it as Dockerfile.edited and "
                    "takes the recipe.",
                    reason="image",
                    status_code=409,
                )
            build = Build(
                *(member.name, project, tag, text, recipe.distributions),
                recipe=recipe_text(recipe),
                remarks=tuple(remarks),
            )
            await self._sources.keep(member, project, recipe)
            return await self._add(member, build, bases)

    async def back_to_forms(self, member: Member, project: str) -> Build:
        """Build the last recipe; a Dockerfile that was edited by hand is kept beside the new one.

        Raises
        ------
        Refused
            As `build_recipe`; 404 if there is no recipe.
        """
        source = await self._sources.read(member, project)
        if source.recipe is None:
            raise Refused(
                source.problem or "There is no recipe to go back to.",
                reason="image",
                status_code=404,
            )
        return await self.build_recipe(member, project, source.recipe, drop_edited=True)

    async def rebuild(self, member: Member, project: str, tag: str = "") -> Build:
        """Build what the project's folder says: its Dockerfile, if that was edited, or its recipe.

        Raises
        ------
        Refused
            As `build_recipe`; 404 if there is neither.
        """
        source = await self._sources.read(member, project)
        if source.dockerfile and source.is_edited:
            bases = await self._check(member, source.dockerfile)
            build = Build(member.name, project, check_tag(tag), source.dockerfile)
            return await self._add(member, build, bases)
        if source.recipe is None:
            raise Refused(
                source.problem
                or "The project has no recipe and no Dockerfile yet. Choose a base and packages.",
                reason="image",
                status_code=404,
            )
        return await self.build_recipe(member, project, source.recipe, tag)

    async def update(
        self,
        member: Member,
        project: str,
        add: Iterable[str],
        remove: Iterable[str],
        tag: str = "",
    ) -> Build:
        """Add and remove Python packages, and build.

        Raises
        ------
        Refused
            As `build_recipe`; 409 where a Dockerfile was edited by hand.
        """
        source = await self._sources.read(member, project)
        if source.is_edited:
            raise Refused(
                "The Dockerfile was edited by hand, and is what counts. Change it there and "
                "rebuild, or go back to the forms first.",
                reason="image",
                status_code=409,
            )
        if source.recipe is None:
            raise Refused(
                source.problem or "There is no recipe to change. Make the image first.",
                reason="image",
                status_code=404,
            )
        try:
            changed = source.recipe.with_python(add, remove)
        except RecipeError as error:
            raise Refused(str(error), reason="image") from None
        return await self.build_recipe(member, project, changed, tag)

    async def save(self, member: Member, server: str, packages: Iterable[str]) -> Build:
        """Put packages that were installed in a running server into its image, and build that.

        A server on one's own image changes that image; on any other, its project gets an image of
        its own that stands on the other.

        Raises
        ------
        Refused
            As `update`; 404 if there is no such server of the member's.
        """
        found = await self._server(member, server)
        name = found["Config"]["Labels"].get("ds01.image", "")
        own = shelf.named(await self._holdings.usable(member), name)
        if own is not None and own.owner == member.name:
            tag = name.partition(":")[2]
            tag = tag if shelf.is_users_tag(tag) else ""
            return await self.update(member, own.project, packages, (), tag)
        source = await self._sources.read(member, server)
        if source.recipe is not None or source.is_edited:
            return await self.update(member, server, packages, ())
        return await self.build_recipe(member, server, {"base": name, "python": list(packages)})

    async def installed(self, member: Member, server: str) -> list[dict[str, Any]]:
        """Return what was installed in a running server: see ``ds01_launch.installed``.

        Raises
        ------
        Refused
            404 if there is no such server of the member's, 503 if it does not say.
        """
        found = await self._server(member, server)
        return await read_installed(self._docker, found)

    async def _server(self, member: Member, project: str) -> dict[str, Any]:
        check_project(project)
        return await running_server(self._docker, self._hub_id, member.name, project)

    async def _check(self, member: Member, dockerfile: str) -> dict[str, str]:
        """Return Docker's ids of all that a Dockerfile stands on.

        Raises
        ------
        Refused
            If it cannot be built by this member, now.
        """
        if not member.rules.may_build:
            raise Refused(
                "The lab's policy gives you no images of your own. Ask an admin.",
                reason="image",
                status_code=403,
            )
        try:
            parsed = parse(dockerfile)
        except DockerfileError as error:
            raise Refused(str(error), reason="image") from None
        bases = {}
        for name in parsed.bases:
            bases[name] = await self._holdings.id_of(member, name)
            if not bases[name]:
                raise _missing(self._holdings.base(name)) or no_image(name)
        if is_almost_full(self._disk, self._lowest_free_bytes):
            raise Refused(
                "The machine's disk is almost full, so nothing is built. Delete images that you "
                "do not need, or tell an admin.",
                reason="disk",
                status_code=503,
            )
        await self._check_budget(member)
        return bases

    async def _check_budget(self, member: Member) -> None:
        most = member.rules.storage_bytes
        if most is None:
            return
        used = await self._holdings.used_bytes(member)
        if used > most:
            raise Refused(
                f"Your images take {format_bytes(used)}, and {format_bytes(most)} are the most. "
                "Delete images or old versions that you do not need.",
                reason="image",
                status_code=403,
            )

    async def _add(self, member: Member, build: Build, bases: Mapping[str, str]) -> Build:
        account, folder = await self._sources.folder(member, build.project)

        def request(kept: Build) -> Request:
            return Request(kept, member.rules, bases, folder.path, account.uid)

        return self._queue.add(request, build)


def _missing(base: CatalogueImage | None) -> Refused | None:
    """Return what is said of an image of the catalogue that is not on this machine."""
    if base is None:
        return None
    how = (
        f"Ask an admin for it: 'ds01 images build {base.name}' brings it."
        if base.on_request
        else "Start a server with it once, which fetches it."
    )
    return Refused(
        f"The image {base.name} is not on this machine yet. {how}", reason="image", status_code=409
    )
