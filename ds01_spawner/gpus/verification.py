"""What a running container really has of NVIDIA's devices, compared with what was granted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from .devices import Device
from .nodes import capabilities_here, capability_node, device_nodes, gpu_node
from .notation import CONTROL_MINORS

#: No engine puts so many into ``/dev``; whoever did wants us to be busy.
MOST_ENTRIES = 20_000

_GPU = re.compile(r"nvidia(\d+)", re.ASCII)
_CAPABILITY = re.compile(r"nvidia-caps/nvidia-cap(\d+)", re.ASCII)

#: Names in ``/proc/devices`` of the major numbers that the driver has for its GPUs.
_GPU_DRIVERS = ("nvidia", "nvidia-frontend")
_CAPABILITY_DRIVER = "nvidia-caps"

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def problem(
    pid: int,
    granted: Sequence[Device],
    *,
    capabilities: Path | None = None,
    proc: Path = Path("/proc"),
) -> str:
    """Say in what a container differs from its grant.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.
    granted
        The devices that it must have, and no other.
    capabilities
        The driver's directory with the numbers of the MIG nodes; by default this machine's.
    proc
        The kernel's ``/proc``.

    Returns
    -------
    str
        For the log; empty if the container has exactly these devices.

    Raises
    ------
    OSError
        If the container cannot be looked into, or a device's nodes are not known.
    """
    capabilities = capabilities or capabilities_here()
    expected = {node: device for device in granted for node in device_nodes(device, capabilities)}
    found = visible_nodes(pid, proc)
    parts = []
    if extra := found.keys() - expected.keys():
        shown = ", ".join(_shown(node, found[node]) for node in sorted(extra))
        parts.append(f"it has {shown}, which was not granted")
    if lacking := expected.keys() - found.keys():
        shown = ", ".join(f"/dev/{node} of {expected[node].uuid}" for node in sorted(lacking))
        parts.append(f"it lacks {shown}, which was granted")
    return "; ".join(parts)


def visible_nodes(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return which of NVIDIA's devices a container has a node of.

    A node is known by its number, whatever its name and wherever below ``/dev``, and by its name,
    whatever its number. Nodes that belong to no GPU, such as nvidiactl, are left out.

    Returns
    -------
    dict of str to str
        The device's usual path below ``/dev`` -> the path below ``/dev`` where it was found.

    Raises
    ------
    OSError
        If the container cannot be looked into.
    """
    if pid <= 0:
        raise OSError(f"{pid} is the number of no process: the container does not run")
    majors = _majors(proc)
    return {
        node: path
        for path, number in _character_devices(pid, proc)
        if (node := _device_of(path, number, majors))
    }


def _shown(node: str, path: str) -> str:
    return f"/dev/{node}" if node == path else f"/dev/{node} (as {'/dev/' + path!r})"


def _device_of(path: str, number: int, majors: dict[int, str]) -> str:
    """Return the usual path of the device that a node stands for; empty if it is no GPU's."""
    driver, minor = majors.get(os.major(number)), os.minor(number)
    if driver == _CAPABILITY_DRIVER:
        return capability_node(minor)
    if driver in _GPU_DRIVERS:
        return "" if minor in CONTROL_MINORS else gpu_node(minor)
    if named := _GPU.fullmatch(path):
        return gpu_node(int(named[1]))
    if named := _CAPABILITY.fullmatch(path):
        return capability_node(int(named[1]))
    return ""


def _majors(proc: Path) -> dict[int, str]:
    """Return the major numbers of NVIDIA's character devices; there are none without a driver."""
    characters = (proc / "devices").read_text("ascii", "replace").partition("Block devices:")[0]
    pairs = (line.split() for line in characters.splitlines())
    ours = (*_GPU_DRIVERS, _CAPABILITY_DRIVER)
    # Before a number becomes a key: newer drivers list nvidia-modeset and nvidiactl under the GPUs'
    # own number, too.
    return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2 and pair[1] in ours}


def _character_devices(pid: int, proc: Path) -> Iterator[tuple[str, int]]:
    """Yield path below ``/dev`` and number of each character device that can be opened there."""
    root = os.open(proc / str(pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A link in the container would lead into the host's files, so none is followed.
        waiting = [("", os.open("dev", _OPEN, dir_fd=root))]
    finally:
        os.close(root)
    seen = 0
    try:
        while waiting:
            prefix, fd = waiting.pop()
            try:
                for name, found in _entries(fd):
                    seen += 1
                    if seen > MOST_ENTRIES:
                        raise OSError(f"There are more than {MOST_ENTRIES} entries below /dev")
                    if stat.S_ISCHR(found.st_mode):
                        yield prefix + name, found.st_rdev
                    elif stat.S_ISDIR(found.st_mode):
                        below = os.open(name, _OPEN, dir_fd=fd)
                        waiting.append((f"{prefix}{name}/", below))
            finally:
                os.close(fd)
    finally:
        for _, fd in waiting:
            os.close(fd)


def _entries(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a directory; nothing where nodes cannot be opened, as in ``/dev/shm``."""
    if os.fstatvfs(fd).f_flag & os.ST_NODEV:
        return
    for name in os.listdir(fd):
        yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)
