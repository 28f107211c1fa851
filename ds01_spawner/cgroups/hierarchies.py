"""Where the kernel shows cgroups: the mounted hierarchies, and a process's place in them."""

from __future__ import annotations

import os
from pathlib import Path

from .files import children, read_bytes
from .limits import SliceError

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")

#: The cgroup above all slices of ours. Under systemd it is there by the slices' names.
PARENT = "ds01.slice"

#: What the name of each begins and ends with.
PREFIX, SUFFIX = "ds01-", ".slice"

#: Source: Linux, include/linux/proc_ns.h, PROC_CGROUP_INIT_INO.
_FIRST_NAMESPACE = f"cgroup:[{0xEFFFFFFB}]"


def is_unified(root: Path = CGROUP_ROOT) -> bool:
    """Tell whether cgroup v2 is mounted there, and not the hierarchies of v1."""
    return (root / "cgroup.controllers").exists()


def hierarchies(root: Path = CGROUP_ROOT) -> dict[str, Path]:
    """Return the mounted hierarchies of v1: controller -> directory.

    Two controllers may share one hierarchy, such as ``cpu,cpuacct``. Those without a controller
    (``systemd``, and v2's ``unified``) are there by the name of their directory.
    """
    found = [Path(entry) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    return {name: directory for directory in found for name in directory.name.split(",")}


def slices_in(directory: Path) -> list[str]:
    """Return the names of the slices of ours in a hierarchy of v1, or in v2."""
    names = (child.name for child in children(directory / PARENT))
    return [name for name in names if name.startswith(PREFIX) and name.endswith(SUFFIX)]


def cgroups_of(pid: int, proc: Path = PROC) -> dict[str, str]:
    """Return a process's cgroups: controller of v1 -> path, and ``""`` -> path in v2.

    Raises
    ------
    OSError, ValueError
        If the process is gone, or the kernel says something unknown.
    """
    found = {}
    for line in read_bytes(f"{proc}/{pid}/cgroup").decode().splitlines():
        # Source: cgroups(7), /proc/pid/cgroup.
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def slice_of(pid: int, *, proc: Path = PROC) -> str | None:
    """Return the name of the slice of ours that a container's first process is under.

    Returns
    -------
    str or None
        None when it is under none, or gone, or no process that is seen from here.
    """
    try:
        cgroups = cgroups_of(pid, proc)
    except (OSError, ValueError):
        return None
    parts = cgroups.get("memory", cgroups.get("", "")).split("/")
    return parts[2] if parts[:2] == ["", PARENT] and len(parts) > 3 else None


def check_view(root: Path = CGROUP_ROOT, proc: Path = PROC) -> None:
    """See that this process sees the whole machine's cgroups, as the engine does.

    Raises
    ------
    SliceError
        If it sees a part of them: what it makes there would not be where the engine looks.
    """
    mounts = [line.split() for line in (proc / "self" / "mountinfo").read_text().splitlines()]
    # Source: proc(5), /proc/pid/mountinfo: the fourth field is the mounted part, the fifth where.
    partial = any(
        fields[3] != "/" and Path(fields[4]).is_relative_to(root)
        for fields in mounts
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2")
    )
    if partial or os.readlink(proc / "self" / "ns" / "cgroup") != _FIRST_NAMESPACE:
        raise SliceError(
            "The Hub runs in a container or namespace that shows a part of the machine's cgroups "
            "only, so it cannot limit what a user's servers use together. Run it on the machine "
            "itself."
        )
