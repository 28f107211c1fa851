"""What a user may do with images: look, build, tag, restore, share, delete.

Pages, the API and the command all end here, so that each rule stands once. An image that somebody
may not use is refused in the same words as one that there is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ..engine import Docker
from ..errors import Refused
from . import shelf
from .builder import remove_name
from .holdings import Holdings
from .members import Member, check_tag, no_image
from .orders import Orders
from .queue import BuildQueue
from .records import EVERYBODY, Build, ImageRecords, Shared
from .shelf import LATEST, Shelf, UserImage
from .sources import Sources


class Workshop:
    """Does it: names and shares by itself, the rest in the parts that it consists of.

    Parameters
    ----------
    docker_call
        The engine.

    Attributes
    ----------
    holdings
        Looks at what there is.
    sources
        What images are built from.
    orders
        Takes builds.
    queue, records
        The builds.
    """

    def __init__(
        self,
        docker_call: Docker,
        shelf_: Shelf,
        records: ImageRecords,
        queue: BuildQueue,
        holdings: Holdings,
        sources: Sources,
        orders: Orders,
    ) -> None:
        self._docker = docker_call
        self._shelf = shelf_
        self.records = records
        self.queue = queue
        self.holdings = holdings
        self.sources = sources
        self.orders = orders
        # One change of names at a time.
        self._changing = asyncio.Lock()
        queue.on_success = self.prune

    # -- names ---------------------------------------------------------------------------------

    async def tag(self, member: Member, project: str, number: int, tag: str) -> None:
        """Give a version a tag; ``latest`` restores it.

        Raises
        ------
        Refused
            If there is no such version, or this can be no tag.
        """
        async with self._changing:
            version = await self.holdings.own_version(member, project, number)
            await self._docker(
                "tag", version.image_id, version.repository, check_tag(tag), force=True
            )

    async def untag(self, member: Member, project: str, tag: str) -> None:
        """Remove a tag; the version that had it is kept.

        Raises
        ------
        Refused
            If there is no such tag, or it is the one that the image itself goes by.
        """
        if tag == LATEST:
            raise Refused(
                f"{LATEST} is the image itself. Restore another version, or delete the image.",
                reason="image",
            )
        async with self._changing:
            versions = await self.holdings.versions(member, member.name, project)
            if not any(tag in version.tags for version in versions):
                raise no_image(f"{shelf.repository(member.name, project)}:{tag}")
            await remove_name(self._docker, f"{shelf.repository(member.name, project)}:{tag}")

    async def delete(
        self, member: Member, owner: str, project: str, number: int | None = None
    ) -> None:
        """Delete an image with all of its versions and builds, or one version that has no tag.

        The recipe stays in the project's folder.

        Raises
        ------
        Refused
            404 if there is none; 409 while a server runs on it, or it is being built.
        """
        if owner != member.name and not member.is_admin:
            raise no_image(shelf.repository(owner, project))
        async with self._changing:
            versions = await self.holdings.versions(member, owner, project)
            whole = number is None
            if not whole:
                versions = [version for version in versions if version.number == number]
            if not versions and not (whole and self.records.builds(owner, project, most=1)):
                raise no_image(shelf.repository(owner, project))
            if whole and self.queue.is_building(owner, project):
                raise Refused(
                    "It is being built at the moment. Wait for that, or cancel it first.",
                    reason="image",
                    status_code=409,
                )
            if not whole and versions[0].tags:
                raise Refused(
                    f"Version {number} has the tag {versions[0].tags[0]}. Move that first.",
                    reason="image",
                    status_code=409,
                )
            if used := await self.holdings.servers(versions):
                raise _in_use({name for each in used.values() for name in each})
            for version in versions:
                if not await self._remove(version):
                    # One that has begun to start meanwhile.
                    raise _in_use({f"a server on version {version.number}"})
            if whole:
                self.records.unshare(owner, project)
            # A build that was asked for meanwhile makes it anew.
            if whole and not self.queue.is_building(owner, project):
                for build_id in self.records.forget(owner, project):
                    self.queue.log_path(build_id).unlink(missing_ok=True)

    async def prune(self, build: Build, keep: int) -> None:
        """Remove versions beyond the newest few; what has a tag or is in use is kept."""
        async with self._changing:
            versions = [
                image
                for image in await self._shelf.all()
                if (image.owner, image.project) == (build.owner, build.project)
            ]
            versions.sort(key=lambda version: version.number, reverse=True)
            used = await self.holdings.servers(versions)
            for version in versions[keep:]:
                if not version.tags and version.number not in used:
                    await self._remove(version)

    # -- sharing -------------------------------------------------------------------------------

    async def share(self, member: Member, project: str, group: str) -> Shared:
        """Share one's image with a group, or with everybody; an admin may have to agree.

        Raises
        ------
        Refused
            403 for a group that the member is not in, or where the policy says no.
        """
        if not await self.holdings.versions(member, member.name, project):
            raise no_image(shelf.repository(member.name, project))
        approved = True
        if Shared(member.name, project, group) in self.records.shares():
            # Asked for again, it stays approved.
            return Shared(member.name, project, group)
        if group == EVERYBODY:
            if member.rules.share_with_all == "no":
                raise Refused(
                    "The lab's policy lets no image be shared with everybody. Share it with a "
                    "group.",
                    reason="image",
                    status_code=403,
                )
            approved = member.rules.share_with_all == "yes" or member.is_admin
        elif group not in member.groups:
            raise Refused(f"{group!r:.80} is none of your groups.", reason="image", status_code=403)
        shared = Shared(member.name, project, group, approved)
        self.records.share(shared)
        return shared

    def unshare(self, member: Member, project: str, group: str) -> None:
        """Share one's image with a group no more; servers that run on it go on."""
        self.records.unshare(member.name, project, group)

    def waiting_shares(self, member: Member) -> list[Shared]:
        """Return what waits for an admin."""
        return [s for s in self.records.shares() if not s.approved] if member.is_admin else []

    def decide(self, member: Member, owner: str, project: str, approve: bool) -> None:
        """Agree as an admin that an image is shared with everybody, or refuse.

        Raises
        ------
        Refused
            403 for others, 404 if nobody asked.
        """
        if not member.is_admin:
            raise Refused("Only admins decide this.", reason="image", status_code=403)
        asked = Shared(owner, project, EVERYBODY, approved=False)
        if asked not in self.records.shares():
            raise Refused("Nobody has asked for this.", reason="image", status_code=404)
        if approve:
            self.records.share(Shared(owner, project, EVERYBODY))
        else:
            self.records.unshare(owner, project, EVERYBODY)

    # -- within --------------------------------------------------------------------------------

    async def _remove(self, version: UserImage) -> bool:
        """Remove a version; tell whether it is gone, which it is not while something runs on it."""
        # The version's own name last: with it the image goes, and until then it is listed.
        for tag in (*version.tags, shelf.version_tag(version.number)):
            if not await remove_name(self._docker, f"{version.repository}:{tag}"):
                return False
        return True


def _in_use(by: Collection[str]) -> Refused:
    return Refused(
        f"It is in use by {', '.join(sorted(by))}. Stop that server first.",
        reason="image",
        status_code=409,
    )
