"""What the start form offers, as far as the engine and NVML say what is here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

import docker.errors

from . import engine
from .admission import quota
from .admission.grants import Grants
from .admission.offers import largest_count, offers
from .admission.quota import in_words
from .errors import Refused
from .form import GpuChoices, ImageChoice, OwnImage
from .images.catalogue import CatalogueImage
from .images.records import Build, State
from .images.shelf import UserImage, tagged_name
from .policy import Limits

_LOG = logging.getLogger(__name__)

#: Seconds that the form waits for the GPUs: most servers are started without one.
_PATIENCE_S = 5.0


async def image_choices(
    docker_call: engine.Docker,
    catalogue: Iterable[CatalogueImage],
    users: Iterable[UserImage] = (),
    viewer: str = "",
    builds: Iterable[Build] = (),
) -> list[ImageChoice]:
    """Return the images to choose from, with their sizes: one's own, others', the catalogue's.

    Parameters
    ----------
    users
        Users' images, newest first.
    builds
        The last build of each of the viewer's own images.
    """
    made = users_choices(list(users), viewer, builds)
    bases = await asyncio.gather(*(_image_choice(docker_call, image) for image in catalogue))
    return [*made, *(base for base in bases if base is not None)]


def users_choices(
    images: Collection[UserImage], viewer: str, builds: Iterable[Build]
) -> list[ImageChoice]:
    """Return users' images to choose from: one's own, then others', then those that only failed."""
    problems = {
        tagged_name(build.owner, build.project, build.tag): build.problem
        for build in builds
        if build.state in (State.FAILED, State.INTERRUPTED)
    }
    tagged = sorted((image for image in images if image.tags), key=lambda i: i.owner != viewer)
    shown = []
    for image in tagged:
        own = [problems.pop(name) for name in image.names if name in problems]
        described = OwnImage.of(image, viewer, own[0] if own else "")
        shown.append(ImageChoice(described, image.size_bytes))
    missing = [ImageChoice(OwnImage.missing(*problem), None) for problem in problems.items()]
    mine = sum(1 for choice in shown if choice.kind == "My images")
    return [*shown[:mine], *missing, *shown[mine:]]


async def _image_choice(docker_call: engine.Docker, image: CatalogueImage) -> ImageChoice | None:
    try:
        found = await docker_call("inspect_image", image.image)
    except docker.errors.NotFound:
        return None if image.on_request else ImageChoice(image, None)
    except engine.UNREACHABLE:
        return ImageChoice(image, None, known=False)
    return ImageChoice(image, int(found["Size"]))


async def standing(grants: Grants, user: str, server: str, limits: Limits) -> tuple[Limits, str]:
    """Return what is left for one more server, and why the user may have none at present.

    Returns
    -------
    (Limits, str)
        The words are empty if there may be one, and if it cannot be told: the start tells then.
    """
    try:
        held = await asyncio.wait_for(grants.holdings(user), _PATIENCE_S)
    except Exception as error:  # noqa: BLE001
        _LOG.warning("Cannot ask what the servers of %s hold", user, exc_info=error)
        return limits, ""
    return grants.left(limits, held, server), quota.too_many(limits, held, server)


async def gpu_choices(grants: Grants, user: str, limits: Limits) -> GpuChoices:
    """Return the sizes of GPU that a user's limits allow, and how many are free."""
    try:
        snapshot, used = await asyncio.wait_for(grants.stand(user), _PATIENCE_S)
    except Refused as refused:
        return GpuChoices(problem=refused.jupyterhub_message)
    except Exception as error:  # noqa: BLE001
        # Whatever it is, it must not keep those from starting who need no GPU.
        _LOG.warning("Cannot ask which GPUs are free", exc_info=error)
        return GpuChoices(problem="Which GPUs are free cannot be read at the moment.")
    if snapshot.inventory.problem:
        _LOG.error("The GPUs cannot be read: %s", snapshot.inventory.problem)
        return GpuChoices(
            problem="The GPUs of this server cannot be read at the moment. Please tell an admin."
        )
    if not snapshot.inventory.devices:
        return GpuChoices()
    found = offers(snapshot, limits, used)
    if not found:
        return GpuChoices(problem="There is no GPU here that works and that your limits allow.")
    return GpuChoices(found, largest_count(found, limits), used=in_words(used))
