"""One cgroup per user, ``ds01-<user>.slice`` under ``ds01.slice``, above all of their containers.

The engine makes its containers' cgroups under the one that it is named, so who makes a slice, and
how it is named to the engine, depends on the engine's cgroup driver.
"""

from __future__ import annotations

import hashlib
import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .files_v1 import FilesV1
from .files_v2 import FilesV2
from .hierarchies import CGROUP_ROOT, PREFIX, PROC, SUFFIX, check_view, is_unified
from .limits import SliceError, SliceLimits
from .systemd import SystemdSlices
from .usage import Usage

#: Below the 255 of a directory's name, so that the slice's own files may have it in theirs.
_LONGEST_NAME = 200

#: ``:`` is one of systemd's too, but Docker's systemd driver splits names at it.
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.")

#: No user's: no name is escaped with capital hexadecimal digits, and the longest have more of them.
PROBE = rf"{PREFIX}\x2Dprobe{SUFFIX}"


class Slices(Protocol):
    """The slices of one machine. All methods block; all raise `SliceError` when they fail."""

    #: Whether `SliceLimits.memory_high_bytes` has an effect; it is None in `limits` if not.
    knows_memory_high: bool

    def parent(self, name: str) -> str:
        """Return what Docker is given as ``HostConfig.CgroupParent``."""

    def set(self, name: str, limits: SliceLimits) -> None:
        """Make the slice, or change its limits, and leave none that is not given."""

    def limits(self, name: str) -> SliceLimits | None:
        """Return the limits as the kernel has them, None if there is no such slice."""

    def usage(self, name: str) -> Usage | None:
        """Return what all containers of the slice use together, None if there is no such slice."""

    def remove_if_empty(self, name: str) -> bool:
        """Remove the slice unless a container is under it; tell whether it is gone."""

    def names(self) -> list[str]:
        """Return the names of the slices that exist now."""


def slice_name(username: str) -> str:
    """Return the name of a user's slice, another one for each user name, at most 200 characters.

    It is escaped so that it is one level for systemd (``-`` would be more) and one directory for
    the kernel; ``systemd-escape --unescape`` reads it. Names that become too long are hashed.
    Source: systemd.unit(5), "String escaping for inclusion in unit names".
    """
    escaped = "".join(
        chr(byte) if chr(byte) in _PLAIN and (at or byte != ord(".")) else rf"\x{byte:02x}"
        for at, byte in enumerate(username.encode())
    )
    name = f"{PREFIX}{escaped}{SUFFIX}"
    if escaped and len(name) <= _LONGEST_NAME:
        return name
    # No escape above has a capital digit, so no other name comes to the same.
    return rf"{PREFIX}\x2D{hashlib.sha256(username.encode()).hexdigest()[:32]}{SUFFIX}"


def choose_slices(
    info: Mapping[str, Any], *, root: Path = CGROUP_ROOT, proc: Path = PROC
) -> Slices:
    """Return the slices that an engine can put containers under.

    Parameters
    ----------
    info
        The engine's answer to ``GET /info``.

    Raises
    ------
    SliceError
        If it can put them under none that this process makes.
    """
    if any("name=rootless" in option for option in info.get("SecurityOptions") or ()):
        raise SliceError(
            "The Docker engine runs rootless and cannot limit what a user's servers use together. "
            "Use an engine that runs as root."
        )
    machine = os.uname()
    if (info.get("Name"), info.get("KernelVersion")) != (machine.nodename, machine.release):
        raise SliceError(
            f"The Docker engine is on the machine {info.get('Name')!r} and the Hub on "
            f"{machine.nodename!r}, so the Hub cannot limit what a user's servers use together. "
            "Run both on one machine."
        )
    check_view(root, proc)
    driver, version = info.get("CgroupDriver"), info.get("CgroupVersion")
    here = "2" if is_unified(root) else "1"
    if driver not in ("systemd", "cgroupfs") or version != here:
        raise SliceError(
            f"The Docker engine says cgroup driver {driver!r} and cgroup version {version!r}, and "
            f"version {here} is mounted at {root}. Set the driver to systemd or cgroupfs in "
            "/etc/docker/daemon.json, and use Docker 20.10 or newer."
        )
    files = FilesV2(root) if here == "2" else FilesV1(root)
    return files if driver == "cgroupfs" else SystemdSlices(files)
