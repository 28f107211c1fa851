"""The steps of image builds as the kernel and the engine show them, wherever they run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import files
from .limits import SliceError, SliceLimits, differences

_LOG = logging.getLogger(__name__)

#: Called while a build runs and when it has ended, with whether a step of it has run. Raises
#: `SliceError` if steps are not held to the limits, or none has been where they would be.
Check = Callable[[bool], None]


def refuse_elsewhere(bundles: Path, place: re.Pattern[str]) -> None:
    """See that the engine puts no step that runs now elsewhere.

    Raises
    ------
    SliceError
        If it does.
    """
    for file in bundles.glob("*/config.json"):
        # It is over, or is being written: the next look comes.
        with suppress(FileNotFoundError, ValueError):
            path = json.loads(file.read_text()).get("linux", {}).get("cgroupsPath", "")
            if not place.fullmatch(path):
                raise SliceError(f"The engine runs a step in the cgroup {path!r}, says {file}.")


def processes_below(directory: Path) -> list[int]:
    """Return the processes in a cgroup and below; none if it is gone.

    Raises
    ------
    OSError
        If the kernel does not say.
    """
    found = []
    for cgroup in (directory, *files.descendants(directory)):
        try:
            found += [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
        except OSError as error:
            if not files.is_gone(error):
                raise
    if 0 in found:
        # To the kernel 0 is whoever asks.
        raise PermissionError(f"{directory} has processes that are not to be seen from here")
    return found


@contextmanager
def for_the_owner() -> Iterator[None]:
    """Log what is wrong, and raise what a build's owner should read."""
    try:
        yield
    except (SliceError, OSError) as error:
        _LOG.error("A build is ended: the limits of image builds do not hold. %s", error)
        raise SliceError(
            "the limits of image builds do not hold. The portal's log says why."
        ) from error


def verify(slices: Any, name: str, limits: SliceLimits) -> None:
    """See that a cgroup has the limits of builds.

    Raises
    ------
    SliceError
        If it has not.
    """
    if found := problems(slices, name, limits):
        raise SliceError(f"The limits of image builds do not hold: {', '.join(found)}.")


def problems(slices: Any, name: str, limits: SliceLimits) -> list[str]:
    """Return how a cgroup's limits differ from these; nothing if they do not."""
    found = slices.limits(name)
    if found is None:
        return ["there is no such cgroup"]
    return differences(limits, found, memory_high=slices.knows_memory_high)
