"""The pages of images: the list, one image, its recipe, and a build as it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote

from tornado import web

from ..errors import Refused
from ..images.log import read_log
from ..images.members import Member
from ..images.recipe import PACKAGE_SETS, Recipe, RecipeError, read_requirements
from ..images.records import EVERYBODY, Build
from ..images.workshop import Workshop
from .answers import Page
from .image_api import member_of, only_own, workshop_of
from .operations import READ

#: Lines of a log that are on the page before the browser fetches more.
_LINES_AT_ONCE = 5000


class ImagePage(Page):
    """What the pages below have in common; see `image_api.ImageApi`."""

    workshop: Workshop
    member: Member

    async def prepare(self) -> None:
        """Ask the Hub and the policy who this is."""
        await super().prepare()
        if not self._finished:
            self.check_scope(READ)
            self.workshop = workshop_of(self)
            self.member = await member_of(self, self.site.settings)

    def address(self, *parts: object) -> str:
        """Return the address of a page."""
        return self.site.prefix + "/".join(quote(str(part), safe="") for part in parts)

    def show_build(self, build: Build) -> None:
        """Go to the page of a build that has been asked for."""
        self.redirect(self.address("builds", build.id), status=303)


class ImageList(ImagePage):
    """``images``."""

    async def get(self) -> None:
        """Show all that the viewer may use."""
        offer = await self.answered(self.workshop.holdings.offer(self.member))
        self.write_page(
            "images.html",
            offer=offer,
            uses=await self.answered(self.workshop.holdings.uses(offer.own)),
            builds=self.workshop.records.builds(self.member.name, most=5),
            used_bytes=await self.answered(self.workshop.holdings.used_bytes(self.member)),
            rules=self.member.rules,
            waiting=self.workshop.waiting_shares(self.member),
        )


class NewImage(ImagePage):
    """``new-image``: the form for a first recipe, or with one's own or a shared image's in it."""

    async def get(self) -> None:
        """Show the form."""
        owner, _, project = self.get_query_argument("like", "").partition("/")
        if not owner:
            await self.show_form(_Form())
            return
        found = await self.answered(self.workshop.holdings.details(self.member, owner, project))
        if found.recipe is None:
            raise web.HTTPError(
                409, "This image comes from a Dockerfile that was written by hand: copy that."
            )
        await self.show_form(_Form("", found.recipe))

    async def post(self) -> None:
        """Build what was chosen, or show the form again with what is wrong."""
        form = _Form.read(self)
        try:
            build = await form.build(self)
        except Refused as refused:
            await self.show_form(form, refused)
            return
        self.show_build(build)

    async def show_form(self, form: _Form, refused: Refused | None = None) -> None:
        """Show the form with what was chosen."""
        if refused is not None:
            self.set_status(refused.status_code)
        offer = await self.answered(self.workshop.holdings.offer(self.member))
        self.write_page(
            "image_form.html",
            form=form,
            sets=PACKAGE_SETS,
            names=[image.name for image in (*offer.bases, *offer.own, *offer.shared)],
            refusal=refused.jupyterhub_message if refused else "",
            is_new=True,
            source=None,
        )


class EditImage(NewImage):
    """``images/<owner>/<project>/recipe``: the same form with the recipe in it."""

    async def get(self, owner: str, project: str) -> None:  # type: ignore[override]
        """Show the recipe, or the Dockerfile where that counts."""
        await self._show(owner, project)

    async def post(self, owner: str, project: str) -> None:  # type: ignore[override]
        """Build what was chosen."""
        only_own(self.member, owner)
        form = _Form.read(self)
        form.project = project
        try:
            build = await form.build(self)
        except Refused as refused:
            await self._show(owner, project, form, refused)
            return
        self.show_build(build)

    async def _show(
        self,
        owner: str,
        project: str,
        form: _Form | None = None,
        refused: Refused | None = None,
    ) -> None:
        only_own(self.member, owner)
        if refused is not None:
            self.set_status(refused.status_code)
        source = await self.answered(self.workshop.sources.read(self.member, project))
        offer = await self.answered(self.workshop.holdings.offer(self.member))
        self.write_page(
            "image_form.html",
            form=form or _Form.of(project, source.recipe),
            sets=PACKAGE_SETS,
            names=[image.name for image in (*offer.bases, *offer.own, *offer.shared)],
            refusal=refused.jupyterhub_message if refused else source.problem,
            is_new=False,
            source=source,
        )


class OneImage(ImagePage):
    """``images/<owner>/<project>``."""

    async def get(self, owner: str, project: str) -> None:
        """Show all about an image."""
        found = await self.answered(self.workshop.holdings.details(self.member, owner, project))
        self.write_page(
            "image.html",
            dockerfile=found.built_from.dockerfile if found.built_from else "",
            found=found,
            is_mine=owner == self.member.name,
            groups=sorted(self.member.groups),
            everybody=EVERYBODY,
            rules=self.member.rules,
            total_bytes=sum(layer.size_bytes for layer in found.layers),
            own_bytes=sum(layer.size_bytes for layer in found.layers[found.shared_layers :]),
        )


class ImageAction(ImagePage):
    """``images/<owner>/<project>/<action>``: what the buttons of that page do."""

    async def post(self, owner: str, project: str, action: str) -> None:
        """Do it, and go back."""
        if action == "delete" and self.member.is_admin:
            await self.answered(self.workshop.delete(self.member, owner, project))
            self.redirect(self.address("images"), status=303)
            return
        only_own(self.member, owner)
        build = await self.answered(self._actions()[action](project))
        if isinstance(build, Build):
            self.show_build(build)
        elif action == "delete":
            self.redirect(self.address("images"), status=303)
        else:
            self.redirect(self.address("images", owner, project), status=303)

    def _actions(self) -> dict[str, Callable[[str], Awaitable[Build | None]]]:
        do, me = self.workshop, self.member

        async def share(project: str) -> None:
            await do.share(me, project, self._field("group"))

        async def unshare(project: str) -> None:
            do.unshare(me, project, self._field("group"))

        return {
            "rebuild": lambda project: do.orders.rebuild(me, project, self._field("tag")),
            "forms": lambda project: do.orders.back_to_forms(me, project),
            "tag": lambda project: do.tag(me, project, self._number(), self._field("tag")),
            "untag": lambda project: do.untag(me, project, self._field("tag")),
            "delete": lambda project: do.delete(me, me.name, project),
            "delete-version": lambda project: do.delete(me, me.name, project, self._number()),
            "share": share,
            "unshare": unshare,
        }

    def _field(self, name: str) -> str:
        return str(self.get_body_argument(name, ""))

    def _number(self) -> int:
        text = self._field("version")
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
            raise web.HTTPError(400, "Name a version by its number.")
        return int(text)


class SavePage(ImagePage):
    """``servers/<project>/save``: what was installed in a running server, to be kept."""

    async def get(self, project: str) -> None:
        """Show the packages."""
        found = await self.answered(self.workshop.orders.installed(self.member, project))
        self.write_page("save.html", project=project, packages=found)

    async def post(self, project: str) -> None:
        """Put those that were chosen into the image."""
        packages = [str(text) for text in self.get_body_arguments("package")]
        self.show_build(
            await self.answered(self.workshop.orders.save(self.member, project, packages))
        )


class Decision(ImagePage):
    """``shares/<owner>/<project>/<approve|refuse>``: an admin's word on sharing with everybody."""

    async def post(self, owner: str, project: str, word: str) -> None:
        """Keep it."""
        self.admins_only()
        try:
            self.workshop.decide(self.member, owner, project, word == "approve")
        except Refused as refused:
            raise web.HTTPError(refused.status_code, refused.jupyterhub_message) from refused
        self.redirect(self.address("images"), status=303)


class BuildPage(ImagePage):
    """``builds/<id>``."""

    async def get(self, number: str) -> None:
        """Show a build; the script of the page follows it."""
        build = self._build(number)
        queue = self.workshop.queue
        said = await asyncio.to_thread(read_log, queue.log_path(build.id))
        self.write_page(
            "build.html",
            build=build,
            said=said[-_LINES_AT_ONCE:],
            before=queue.place(build.id),
            is_mine=build.owner == self.member.name,
        )

    async def post(self, number: str) -> None:
        """Cancel it."""
        build = self._build(number)
        await self.workshop.queue.cancel(build.id)
        self.redirect(self.address("builds", build.id), status=303)

    def _build(self, number: str) -> Build:
        try:
            return self.workshop.orders.build_of(self.member, int(number))
        except Refused as refused:
            raise web.HTTPError(refused.status_code, refused.jupyterhub_message) from refused


class _Form:
    """The fields of the recipe's form, as they are typed: one thing a line."""

    def __init__(self, project: str = "", recipe: Recipe | None = None) -> None:
        self.project, self.tag = project, ""
        self.base = recipe.base if recipe else ""
        self.sets = list(recipe.sets) if recipe else []
        self.python = "\n".join(recipe.python) if recipe else ""
        self.system = "\n".join(recipe.system) if recipe else ""
        variables = recipe.environment if recipe else {}
        self.environment = "\n".join(f"{name}={value}" for name, value in variables.items())

    @classmethod
    def of(cls, project: str, recipe: Recipe | None) -> _Form:
        """Return the form that a recipe fills."""
        return cls(project, recipe)

    @classmethod
    def read(cls, page: ImagePage) -> _Form:
        """Read what was sent."""
        form = cls()
        for name in ("project", "tag", "base", "python", "system", "environment"):
            setattr(form, name, page.get_body_argument(name, "").replace("\r\n", "\n"))
        form.sets = page.get_body_arguments("sets")
        return form

    async def build(self, page: ImagePage) -> Build:
        """Build what was chosen.

        Raises
        ------
        Refused
            With what to change.
        """
        try:
            packages = read_requirements(self.python)
        except RecipeError as error:
            raise Refused(str(error), reason="image") from None
        if packages.refused:
            raise Refused(" ".join(packages.refused[:5]), reason="image")
        raw: dict[str, Any] = {
            "base": self.base,
            "sets": self.sets,
            "python": packages.used,
            "system": self.system.split(),
            "environment": dict(self._variables()),
        }
        return await page.workshop.orders.build_recipe(
            page.member, self.project, raw, self.tag, packages.remarks
        )

    def _variables(self) -> Iterable[tuple[str, str]]:
        for line in self.environment.split("\n"):
            name, equals, value = line.strip().partition("=")
            if name and not equals:
                raise Refused(f"{name!r:.60}: write a variable as NAME=value.", reason="image")
            if name:
                yield name, value


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[ImagePage], Any]]:
    """Return the addresses of the pages above."""
    image = rf"{prefix}images/([^/]+)/([^/]+)"
    actions = "rebuild|forms|tag|untag|delete|delete-version|share|unshare"
    found: tuple[tuple[str, type[ImagePage]], ...] = (
        (rf"{prefix}images", ImageList),
        (rf"{prefix}new-image", NewImage),
        (image, OneImage),
        (f"{image}/recipe", EditImage),
        (f"{image}/({actions})", ImageAction),
        (rf"{prefix}shares/([^/]+)/([^/]+)/(approve|refuse)", Decision),
        (rf"{prefix}servers/([^/]+)/save", SavePage),
        (rf"{prefix}builds/([0-9]{{1,9}})", BuildPage),
    )
    return [(address, handler, arguments) for address, handler in found]
