"""What happens to servers in the Hub, as events: their starts and their ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from ..endings import FILES_ARE_SAFE, Cause, Ending, docker_time
from ..gpus.devices import Device
from . import words
from .events import (
    ENDED,
    NONE_FREE,
    ONCE_IN,
    OUT_OF_MEMORY,
    RESCUED,
    START_FAILED,
    STARTED,
    STOPPED,
    Event,
)
from .leaving import Rescued

if TYPE_CHECKING:
    from ..options import SpawnOptions
    from ..settings import DS01Settings

_LOG = logging.getLogger(__name__)

_KINDS = {
    Cause.STOPPED: STOPPED,
    Cause.OUT_OF_MEMORY: OUT_OF_MEMORY,
    Cause.START_FAILED: START_FAILED,
}


def started(
    user: str, project: str, by: str, options: SpawnOptions, devices: Sequence[Device]
) -> Event:
    """Return the event of a server that is up.

    Parameters
    ----------
    by
        Who asked for the start.
    devices
        What it was granted in GPUs.
    """
    numbers = {
        "image": options.image,
        "cpus": options.cpus,
        "memory_bytes": options.memory,
        "gpu_weight": sum(device.weight for device in devices),
        "gpu_uuids": [device.uuid for device in devices],
    }
    return Event(STARTED, user, project, by, f"Started: {options.profile(devices)}.", numbers)


def ended(ending: Ending, by: str, inspected: Mapping[str, Any] | None = None) -> Event | None:
    """Return the event of a server's end; None if the service that stops idle ones tells it.

    Parameters
    ----------
    by
        Who stopped it; empty if nobody did.
    inspected
        Docker's inspection of the container after its end; None if there is none any more.
    """
    if ending.cause is Cause.CULLED:
        return None
    why = ending.message.removesuffix(FILES_ARE_SAFE).strip()
    if ending.cause is Cause.STOPPED:
        # Its own words are for its owner, and others read this as well.
        why = f"Stopped by {by}."
    numbers: dict[str, Any] = {"exit_code": ending.exit_code}
    began = docker_time(str(inspected["State"].get("StartedAt", ""))) if inspected else None
    if began is not None:
        numbers["ran_s"] = round((ending.at - began).total_seconds())
    kind = _KINDS.get(ending.cause, ENDED)
    return Event(kind, ending.username, ending.project, by or "nobody", why, numbers)


def rescued(user: str, project: str, by: str, what: Rescued) -> Event | None:
    """Return the event of files that were kept at a stop, or could not be; None if there were none.

    It is there for longer than how the server ended the last time.
    """
    why = words.rescued(what).removeprefix(". ")
    return Event(RESCUED, user, project, by, f"{why}.") if why else None


def write(settings: DS01Settings, event: Event) -> None:
    """Keep an event; blocks, and what cannot be kept is for the log alone."""
    once_in = ONCE_IN if event.kind in (START_FAILED, NONE_FREE) else None
    try:
        settings.life_records.tell(event, once_in)
    except SQLAlchemyError:
        what = f"{event.kind} of {event.user}/{event.project}"
        _LOG.exception("An event could not be kept: %s", what)
