"""The API of images: ``api/images``, ``api/builds``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tornado import web
from tornado.iostream import StreamClosedError

from ..errors import Refused
from ..images.log import Said, replay
from ..images.members import Member
from ..images.recipe import RecipeError, read_requirements
from ..images.records import Build
from ..images.workshop import Workshop
from ..settings import DS01Settings
from . import image_models as models
from .answers import Api, Known
from .operations import READ, WRITE, operation
from .people import Person


async def member_of(handler: Known, settings: DS01Settings) -> Member:
    """Return who sends a request, with what the policy gives them.

    Raises
    ------
    web.HTTPError
        403 for a service, 503 if the Hub or the policy cannot be asked.
    """
    person: Person = await handler.answered(handler.person())
    try:
        resolved = settings.share_of(person.name, person.groups).resolved
    except Refused as refused:
        raise web.HTTPError(refused.status_code, refused.jupyterhub_message) from refused
    groups = frozenset(person.groups) | frozenset(resolved.groups)
    return Member(person.name, groups, resolved.limits.images, handler.is_admin)


def workshop_of(handler: web.RequestHandler) -> Workshop:
    """Return what does all that is done with images.

    Raises
    ------
    web.HTTPError
        503 if the machine cannot, which is tried again by itself.
    """
    found: Workshop | None = handler.settings["workshop"]
    if found is None:
        raise web.HTTPError(
            503, "Images cannot be built or looked at on this machine at the moment. Tell an admin."
        )
    return found


def only_own(member: Member, owner: str) -> None:
    """Refuse to change what is somebody else's, in the words for what there is not.

    Raises
    ------
    web.HTTPError
        404.
    """
    if owner != member.name:
        raise web.HTTPError(404, "There is no such image of yours.")


class ImageApi(Api):
    """What the answers below have in common.

    Attributes
    ----------
    member
        Who asks.
    """

    workshop: Workshop
    member: Member

    async def prepare(self) -> None:
        """Ask the Hub and the policy who this is."""
        await super().prepare()
        if not self._finished:
            self.workshop = workshop_of(self)
            self.member = await member_of(self, self.site.settings)

    def begun(self, build: Build, not_used: Iterable[str] = ()) -> None:
        """Answer that a build was begun."""
        self.set_status(202)
        self.answer(models.Begun.of(build, not_used))

    def done(self) -> None:
        """Answer that something was done."""
        self.set_status(204)
        self.finish()


class Images(ImageApi):
    """``api/images``: list, and create."""

    @operation("List what you may start from and build on", scope=READ, answer=models.Images)
    async def get(self) -> None:
        """Answer what the caller may use."""
        offer = await self.answered(self.workshop.holdings.offer(self.member))
        self.answer(models.Images.of(offer))

    @operation("Make an image", scope=WRITE, body=models.NewImage, answer=models.Begun, status=202)
    async def post(self) -> None:
        """Keep a recipe and build it."""
        sent = self.sent(models.NewImage)
        try:
            packages = read_requirements(sent.requirements)
        except RecipeError as error:
            raise web.HTTPError(400, str(error)) from None
        recipe = {**sent.recipe, "python": [*sent.python, *packages.used]}
        build = await self.answered(
            self.workshop.orders.build_recipe(
                *(self.member, sent.project.strip(), recipe, sent.tag.strip()),
                remarks=(*packages.remarks, *packages.refused),
            )
        )
        self.begun(build, packages.refused)


class Image(ImageApi):
    """``api/images/<owner>/<project>``: show, and delete."""

    @operation("Show an image", scope=READ, answer=models.OneImage)
    async def get(self, owner: str, project: str) -> None:
        """Answer all about an image."""
        found = await self.answered(self.workshop.holdings.details(self.member, owner, project))
        self.answer(models.OneImage.of(found))

    @operation("Delete an image with all of its versions", scope=WRITE, status=204)
    async def delete(self, owner: str, project: str) -> None:
        """Delete an image with all of its versions."""
        await self.answered(self.workshop.delete(self.member, owner, project))
        self.done()


class ImageSource(ImageApi):
    """``…/source``: the recipe and the Dockerfile."""

    @operation("Show what your image is built from", scope=READ, answer=models.ImageSource)
    async def get(self, owner: str, project: str) -> None:
        """Answer what an image of one's own is built from."""
        only_own(self.member, owner)
        found = await self.answered(self.workshop.sources.read(self.member, project))
        self.answer(models.ImageSource.of(found))


class ImageUpdate(ImageApi):
    """``…/update``: add and remove packages."""

    @operation(
        "Add and remove packages", scope=WRITE, body=models.Changes, answer=models.Begun, status=202
    )
    async def post(self, owner: str, project: str) -> None:
        """Change the recipe and build."""
        only_own(self.member, owner)
        sent = self.sent(models.Changes)
        self.begun(
            await self.answered(
                self.workshop.orders.update(self.member, project, sent.add, sent.remove)
            )
        )


class ImageRebuild(ImageApi):
    """``…/rebuild``."""

    @operation(
        "Build what the project's folder says",
        scope=WRITE,
        body=models.NewBuild,
        answer=models.Begun,
        status=202,
    )
    async def post(self, owner: str, project: str) -> None:
        """Build what the project's folder says."""
        only_own(self.member, owner)
        tag = self.sent(models.NewBuild).tag
        self.begun(await self.answered(self.workshop.orders.rebuild(self.member, project, tag)))


class ImageForms(ImageApi):
    """``…/forms``: back from a Dockerfile that was edited by hand to the last recipe."""

    @operation("Build the last recipe", scope=WRITE, answer=models.Begun, status=202)
    async def post(self, owner: str, project: str) -> None:
        """Build the recipe."""
        only_own(self.member, owner)
        self.sent(models.Nothing)
        self.begun(await self.answered(self.workshop.orders.back_to_forms(self.member, project)))


class ImageTags(ImageApi):
    """``…/tags``: give a version a tag; ``latest`` restores it."""

    @operation("Give a version a tag", scope=WRITE, body=models.NewTag, status=204)
    async def post(self, owner: str, project: str) -> None:
        """Set a tag."""
        only_own(self.member, owner)
        sent = self.sent(models.NewTag)
        await self.answered(self.workshop.tag(self.member, project, sent.version, sent.tag))
        self.done()


class ImageTag(ImageApi):
    """``…/tags/<tag>``."""

    @operation("Remove a tag", scope=WRITE, status=204)
    async def delete(self, owner: str, project: str, tag: str) -> None:
        """Remove a tag."""
        only_own(self.member, owner)
        await self.answered(self.workshop.untag(self.member, project, tag))
        self.done()


class ImageVersion(ImageApi):
    """``…/versions/<number>``."""

    @operation("Delete a version that has no tag", scope=WRITE, status=204)
    async def delete(self, owner: str, project: str, number: str) -> None:
        """Delete a version that has no tag."""
        only_own(self.member, owner)
        await self.answered(self.workshop.delete(self.member, owner, project, int(number)))
        self.done()


class ImageShares(ImageApi):
    """``…/shares``: whom an image is shared with."""

    @operation("Share an image", scope=WRITE, body=models.NewShare, answer=models.Share)
    async def post(self, owner: str, project: str) -> None:
        """Share an image with a group, or ``*`` for everybody."""
        only_own(self.member, owner)
        group = self.sent(models.NewShare).group
        shared = await self.answered(self.workshop.share(self.member, project, group))
        self.answer(models.Share.of(shared))


class ImageShare(ImageApi):
    """``…/shares/<group>``."""

    @operation("Share an image no more", scope=WRITE, status=204)
    async def delete(self, owner: str, project: str, group: str) -> None:
        """Share an image with a group no more."""
        only_own(self.member, owner)
        self.workshop.unshare(self.member, project, group)
        self.done()


class Installed(ImageApi):
    """``api/servers/<project>/installed``: packages installed since the server's start."""

    @operation(
        "List what was installed in your running server", scope=READ, answer=models.Installed
    )
    async def get(self, project: str) -> None:
        """Answer what a running server of one's own has."""
        found = await self.answered(self.workshop.orders.installed(self.member, project))
        self.answer(models.Installed.model_validate({"packages": found}))


class Save(ImageApi):
    """``api/servers/<project>/save``: put packages into the image of a running server."""

    @operation(
        "Put packages into the image of your running server",
        scope=WRITE,
        body=models.Packages,
        answer=models.Begun,
        status=202,
    )
    async def post(self, project: str) -> None:
        """Change the recipe and build."""
        packages = self.sent(models.Packages).packages
        self.begun(await self.answered(self.workshop.orders.save(self.member, project, packages)))


class OneBuild(ImageApi):
    """``api/builds/<id>``: how a build is."""

    @operation("Show how a build is", scope=READ, answer=models.PlacedBuild)
    async def get(self, number: str) -> None:
        """Answer how it is."""
        build = await self.answered(_now(self.workshop.orders.build_of, self.member, int(number)))
        before = self.workshop.queue.place(build.id)
        self.answer(models.PlacedBuild.of(build, builds_before=before))

    @operation("Cancel a build", scope=WRITE, status=204)
    async def delete(self, number: str) -> None:
        """Cancel it."""
        build = await self.answered(_now(self.workshop.orders.build_of, self.member, int(number)))
        await self.workshop.queue.cancel(build.id)
        self.done()


class OneBuildLog(ImageApi):
    """``api/builds/<id>/log``: what it says, as server-sent events until it is over."""

    @operation(
        "Follow what a build says: an event for each line, and `end` with the build",
        scope=READ,
        media="text/event-stream",
    )
    async def get(self, number: str) -> None:
        """Send all lines so far, each new one, and how it ended."""
        build = await self.answered(_now(self.workshop.orders.build_of, self.member, int(number)))
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        after = self.request.headers.get("Last-Event-ID", "")
        after_line = int(after) if after.isascii() and after.isdigit() else 0
        try:
            log = self.workshop.queue.log(build.id)
            if log is not None:
                async for said in log.watch(after_line):
                    self._send(said)
                    await self.flush()
            else:
                async for said in replay(self.workshop.queue.log_path(build.id), after_line):
                    self._send(said)
            ended = self.workshop.orders.build_of(self.member, build.id)
            self.write(f"event: end\ndata: {models.OneBuild.of(ended).model_dump_json()}\n\n")
            await self.finish()
        except StreamClosedError:
            # Whoever watched has gone.
            return

    def _send(self, said: Said) -> None:
        data = json.dumps({"seconds": said.seconds, **asdict(said.line)})
        self.write(f"id: {said.at}\ndata: {data}\n\n")


async def _now(call: Any, *args: Any) -> Any:
    return call(*args)


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[ImageApi], Any]]:
    """Return the addresses of the answers above."""
    image = rf"{prefix}api/images/([^/]+)/([^/]+)"
    found: tuple[tuple[str, type[ImageApi]], ...] = (
        (rf"{prefix}api/images", Images),
        (image, Image),
        (f"{image}/source", ImageSource),
        (f"{image}/update", ImageUpdate),
        (f"{image}/rebuild", ImageRebuild),
        (f"{image}/forms", ImageForms),
        (f"{image}/tags", ImageTags),
        (f"{image}/tags/([^/]+)", ImageTag),
        (f"{image}/versions/([1-9][0-9]{{0,8}})", ImageVersion),
        (f"{image}/shares", ImageShares),
        (f"{image}/shares/([^/]+)", ImageShare),
        (rf"{prefix}api/servers/([^/]+)/installed", Installed),
        (rf"{prefix}api/servers/([^/]+)/save", Save),
        (rf"{prefix}api/builds/([0-9]{{1,9}})", OneBuild),
        (rf"{prefix}api/builds/([0-9]{{1,9}})/log", OneBuildLog),
    )
    return [(address, handler, arguments) for address, handler in found]
