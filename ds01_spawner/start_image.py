"""The image of one start: found, fetched if it is missing, and right for this machine."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import docker.errors

from . import containers
from .errors import Refused
from .images import shelf
from .images.catalogue import CatalogueImage
from .progress import StartLog

if TYPE_CHECKING:
    from .spawner import DS01Spawner


async def prepare_image(
    spawner: DS01Spawner, log: StartLog, targets: Collection[str]
) -> containers.Image:
    """Return the image that a server starts from, once it is on this machine.

    Parameters
    ----------
    spawner
        Whose server it is, and which image was chosen.
    log
        Is told how much of it has been fetched.
    targets
        Where shared folders will be: no place for the image's own volumes.

    Raises
    ------
    Refused
        If there is no such image, or none that runs here.
    """
    name = spawner.options.image
    if shelf.looks_like_users(name):
        found = await _users_image(spawner, name)
    else:
        entry = spawner.catalogue.get(name)
        found = await _catalogue_image(spawner, log, entry)
        await _check_driver(spawner, entry)
    machine = (await spawner.docker("version"))["Arch"]
    if found["Architecture"] != machine:
        raise Refused(
            f"The image {name} is made for {found['Architecture']} and this machine is {machine}. "
            "Choose another image.",
            reason="image",
        )
    return containers.Image.from_inspect(found["Id"], found).without_volumes_at(targets)


async def _catalogue_image(
    spawner: DS01Spawner, log: StartLog, image: CatalogueImage
) -> dict[str, Any]:
    """Return the inspection of an image that everybody has, which is fetched if missing."""
    try:
        return dict(await spawner.docker("inspect_image", image.image))
    except docker.errors.NotFound:
        if image.on_request:
            raise Refused(
                f"The image {image.name} is not on this machine. Choose another, or ask an "
                f"admin for it: 'ds01 images build {image.name}' brings it.",
                reason="image",
            ) from None

        def say(here: int, total: int) -> None:
            log.say(
                10 + 50 * here // total,
                f"Fetching the image {spawner.options.image}: "
                f"{here / 1e6:.0f} of {total / 1e6:.0f} MB ({100 * here // total} %)",
                step="pull",
            )

        await spawner.pulls.fetch(spawner.client, image.image, say)
        return dict(await spawner.docker("inspect_image", image.image))


async def _check_driver(spawner: DS01Spawner, image: CatalogueImage) -> None:
    """Refuse a GPU to an image that could not use it here."""
    if spawner.options.gpus is None or image.minimum_driver is None:
        return
    snapshot, _ = await spawner.grants.stand(spawner.user.name)
    driver = snapshot.inventory.driver
    if not image.runs_with(driver):
        raise Refused(
            f"The image {image.name} needs NVIDIA's driver {image.minimum_driver} or newer for "
            f"a GPU, and this machine has {driver}. Choose another image, or no GPU.",
            reason="image",
        )


async def _users_image(spawner: DS01Spawner, name: str) -> dict[str, Any]:
    """Return the inspection of a user's image, if this user may still use it."""
    image = shelf.named(await spawner.user_images(), name)
    try:
        if image is not None:
            return dict(await spawner.docker("inspect_image", image.image_id))
    except docker.errors.NotFound:
        pass
    raise Refused(
        f"The image {name} was deleted at this moment, or is not shared any more. Choose another.",
        reason="image",
    )
