"""NVIDIA's capability nodes, as the driver lists them below /proc."""

from __future__ import annotations

import re
from pathlib import Path

from .nodes import CAPABILITIES, minor_in
from .notation import Capabilities, Capability

_DEVICES = Path("/proc/devices")
_ACCESS = re.compile(r"gpu(\d+)/mig/gi(\d+)(?:/ci(\d+))?/access", re.ASCII)


def read_capabilities(root: Path = CAPABILITIES, devices: Path = _DEVICES) -> Capabilities:
    """Return what each ``/dev/nvidia-caps/nvidia-cap<N>`` opens; nothing without a driver.

    Raises
    ------
    OSError
        If the list cannot be read.
    """
    nodes: dict[int, Capability] = {}
    for file in root.rglob("*"):
        if not file.is_file():
            continue
        number = minor_in(file)
        if number is not None:
            access = _ACCESS.fullmatch(str(file.relative_to(root)))
            nodes[number] = _capability(access) if access else Capability()
    return Capabilities(nodes, _major(devices))


def _capability(access: re.Match[str]) -> Capability:
    gpu, gpu_instance, compute_instance = access.groups()
    return Capability(
        int(gpu), int(gpu_instance), int(compute_instance) if compute_instance else None
    )


def _major(devices: Path) -> int | None:
    found = re.search(r"^\s*(\d+)\s+nvidia-caps$", devices.read_text(), re.MULTILINE | re.ASCII)
    return int(found[1]) if found else None
