"""What the start form offers, as far as the engine and NVML say what is here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import docker.errors

from . import engine
from .admission import quota
from .admission.grants import Grants
from .admission.offers import largest_count, offers
from .admission.quota import in_words
from .errors import Refused
from .form import GpuChoices, ImageChoice
from .images.catalogue import CatalogueImage
from .policy import Limits

_LOG = logging.getLogger(__name__)

#: Seconds that the form waits for the GPUs: most servers are started without one.
_PATIENCE_S = 5.0


async def image_choices(
    docker_call: engine.Docker, catalogue: Iterable[CatalogueImage]
) -> list[ImageChoice]:
    """Return the catalogue's images with their sizes."""
    return await asyncio.gather(*(_image_choice(docker_call, image) for image in catalogue))


async def _image_choice(docker_call: engine.Docker, image: CatalogueImage) -> ImageChoice:
    try:
        found = await docker_call("inspect_image", image.image)
    except docker.errors.NotFound:
        return ImageChoice(image, None)
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
