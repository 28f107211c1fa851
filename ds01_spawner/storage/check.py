"""Whether there is room on the disks for a server, and in its owner's share for one with a GPU."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..clock import utc_now
from ..errors import Refused
from ..policy import format_bytes
from . import room, words

if TYPE_CHECKING:
    from ..settings import DS01Settings
    from ..spawner import DS01Spawner

_LOG = logging.getLogger(__name__)

#: Seconds in which a disk that works says what is left of it.
_PATIENCE_S = 10.0


async def check_room(spawner: DS01Spawner) -> None:
    """Refuse a start for which there is no room.

    Raises
    ------
    Refused
        503 if the disks are almost full or do not answer, 403 if a GPU is asked for by somebody
        whose files take too much.
    """
    await _check_disks(spawner)
    if spawner.options.gpus is not None and (why := await no_gpu(spawner)):
        raise Refused(why, reason="storage", status_code=403)


async def no_gpu(spawner: DS01Spawner) -> str:
    """Return why the files of a server's owner take too much for a GPU; empty if they do not.

    What is not known is no reason. Whoever is told this has their files measured anew.
    """
    user, lifecycle = spawner.user.name, spawner.limits().lifecycle
    if lifecycle.workspace_bytes is None:
        return ""
    records, now = spawner.storage_records, utc_now()
    try:
        uses = await spawner.in_thread(records.uses, now, user)
        if why := words.too_full_for_gpu(uses, user, lifecycle):
            await spawner.in_thread(records.want, user)
    except SQLAlchemyError as error:
        spawner.log.warning("Cannot read what the files of %s take: %s", user, error)
        return ""
    return why


def measure_soon(settings: DS01Settings, user: str) -> None:
    """Have a user's files measured; blocks. Where that cannot be noted, it is done later."""
    try:
        settings.storage_records.want(user)
    except SQLAlchemyError as error:
        _LOG.warning("The files of %s are not measured soon: %s", user, error)


async def _check_disks(spawner: DS01Spawner) -> None:
    try:
        disks = await room.disks(spawner, spawner.docker, _PATIENCE_S)
    except room.DiskError as error:
        spawner.log.error("%s", error)
        raise Refused(
            "A disk of this machine does not answer, so no server can start. Please tell an admin.",
            reason="disk",
            status_code=503,
        ) from error
    for disk in disks:
        if disk.is_low:
            left = format_bytes(disk.free_bytes)
            spawner.log.error("No server starts: %s is left at %s", left, disk.path)
            raise Refused(
                "The disk of this machine is almost full, so no server can start; those that run "
                "go on. Please tell an admin.",
                reason="disk",
                status_code=503,
            )
