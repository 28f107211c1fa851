"""Which device nodes a GPU or a MIG device is, by NVIDIA's driver."""

from __future__ import annotations

import re
from pathlib import Path

from .. import pretend
from .devices import Device

#: Where the driver says which nodes belong to which MIG device.
CAPABILITIES = Path("/proc/driver/nvidia/capabilities")

_MINOR = re.compile(r"^DeviceFileMinor:\s*(\d+)\s*$", re.MULTILINE | re.ASCII)


def capabilities_here() -> Path:
    """Return the driver's directory with the numbers of the MIG nodes; a pretended driver's own."""
    pretended = pretend.directory()
    return pretended / pretend.CAPABILITIES if pretended else CAPABILITIES


def gpu_node(minor: int) -> str:
    """Return the path of a GPU's node below ``/dev``."""
    return f"nvidia{minor}"


def capability_node(minor: int) -> str:
    """Return the path below ``/dev`` of a node that opens one MIG instance."""
    return f"nvidia-caps/nvidia-cap{minor}"


def device_nodes(device: Device, capabilities: Path = CAPABILITIES) -> frozenset[str]:
    """Return the paths below ``/dev`` of the nodes that give this device and nothing else.

    A GPU has one node. A MIG device needs the node of its GPU, which alone opens nothing when the
    GPU is partitioned, and one each for its GPU instance and its compute instance.

    Parameters
    ----------
    capabilities
        The driver's directory with the numbers of the MIG nodes.

    Raises
    ------
    OSError
        If the driver does not say which nodes they are.

    Notes
    -----
    Source: NVIDIA Multi-Instance GPU User Guide, "Device Nodes and Capabilities".
    """
    if device.minor is None:
        raise OSError(f"The number of the device node of {device.uuid} is not known")
    nodes = {gpu_node(device.minor)}
    if device.kind == "mig":
        if device.gpu_instance is None or device.compute_instance is None:
            raise OSError(f"The instance numbers of {device.uuid} are not known")
        instance = capabilities / f"gpu{device.minor}" / "mig" / f"gi{device.gpu_instance}"
        nodes.add(capability_node(_required_minor(instance / "access")))
        nodes.add(
            capability_node(_required_minor(instance / f"ci{device.compute_instance}" / "access"))
        )
    return frozenset(nodes)


def minor_in(access: Path) -> int | None:
    """Return the number of the node that a file of the driver's directory is about, if it says."""
    found = _MINOR.search(access.read_text("ascii", "replace"))
    return int(found[1]) if found else None


def _required_minor(access: Path) -> int:
    found = minor_in(access)
    if found is None:
        raise OSError(f"{access} has no line 'DeviceFileMinor: <number>'")
    return found
