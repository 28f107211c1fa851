"""How containers and tools name GPUs, and which devices are meant. No I/O here."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from .devices import Device, Inventory

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_COMPLETE_GPU = re.compile(rf"GPU-{_UUID}", re.IGNORECASE)
_COMPLETE_MIG = re.compile(rf"MIG-{_UUID}", re.IGNORECASE)
_PREFIX = re.compile(r"(?:GPU|MIG)-[0-9a-f-]+", re.IGNORECASE)
#: A MIG device as drivers before 470 name it: its GPU, its GPU and its compute instance.
_LEGACY_MIG = re.compile(rf"MIG-(GPU-{_UUID})/(\d+)/(\d+)", re.IGNORECASE)
_INDEX = re.compile(r"\d+(?::\d+)?", re.ASCII)
_CDI = re.compile(r"([^/=\s]+)/([^/=\s]+)=(\S+)")
_RULE = re.compile(r"([abc])\s+(\d+|\*):(\d+|\*)(?:\s+[rwm]*)?", re.ASCII)

#: Classes of NVIDIA's CDI devices that are no GPU.
_OTHER_CLASSES = frozenset({"gds", "gdrcopy", "mofed", "nvswitch", "imex-channel"})

#: NVIDIA's own number for its device nodes, and the two of them that are no GPU: nvidia-modeset and
#: nvidiactl. Source: nvidia-modprobe-utils.h, NV_MODESET_MODULE and NV_CTL device minors.
_NVIDIA_MAJOR = 195
CONTROL_MINORS = frozenset({254, 255})
_CONTROL_NODE = re.compile(
    r"/dev/nvidia(?:ctl|-uvm|-uvm-tools|-modeset|-nvlink|-nvswitch\w*|-fs\w*|"
    r"-caps-imex-channels(?:/.*)?)"
)


class Unresolved(ValueError):
    """What a container says could mean any device."""


@dataclass(frozen=True)
class Capability:
    """What a node ``/dev/nvidia-caps/nvidia-cap<N>`` opens.

    Attributes
    ----------
    gpu_minor
        The GPU, by the number of its own node. None for what is no device: to set MIG up, or to
        watch it.
    gpu_instance, compute_instance
        The MIG device; without a compute instance, all of that GPU instance.
    """

    gpu_minor: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """NVIDIA's capability nodes: number -> what it opens, and the kernel's major number of all."""

    nodes: Mapping[int, Capability] = field(default_factory=dict)
    major: int | None = None


class Names:
    """Tells which devices a notation means.

    - What names one device of the inventory gives that device.
    - A GPU's complete UUID that the inventory does not have is a GPU that is not here now: it gives
      no device.
    - A MIG device that is not here was taken apart. Its nodes may open what was made in its place,
      on any GPU: it is `Unresolved`.
    - What could mean anything is `Unresolved`, never nothing.

    Parameters
    ----------
    inventory
        What there is now.
    capabilities
        Gives the capability nodes; asked only where a node may be one.
    """

    def __init__(
        self, inventory: Inventory, capabilities: Callable[[], Capabilities] = Capabilities
    ) -> None:
        self._devices = inventory.devices
        self._capabilities = capabilities
        self._all = frozenset(device.uuid for device in inventory.devices)
        self._by_index = {device.index: device.uuid for device in inventory.devices}
        self._parents = {device.uuid: device.parent for device in inventory.devices}
        self._by_lower = {device.uuid.lower(): device.uuid for device in inventory.devices}

    def named(self, words: str) -> frozenset[str]:
        """Return the UUIDs that a name means, or several with commas between them.

        Parameters
        ----------
        words
            ``0``, ``0:1``, ``GPU-…``, ``MIG-…``, the beginning of one of them,
            ``MIG-GPU-…/1/0``, ``nvidia.com/gpu=`` and any of these, ``all``, ``none``, ``void``.

        Raises
        ------
        Unresolved
            If it could mean any device.
        """
        return frozenset().union(*(self._one(word.strip()) for word in words.split(",")))

    def node(self, node: str) -> frozenset[str]:
        """Return the UUIDs that a device node opens; none for a node that is no GPU's.

        Parameters
        ----------
        node
            A path on the host, such as ``/dev/nvidia0``, or one of Docker's rules for devices,
            such as ``c 195:* rwm``.

        Raises
        ------
        Unresolved
            If it could mean any device.
        """
        if node.startswith("/"):
            return self._by_path(posixpath.normpath("/" + node.lstrip("/")))
        if rule := _RULE.fullmatch(node):
            return self._by_rule(*rule.groups())
        raise Unresolved(f"{node!r} is no device node")

    def together(self, opened: Iterable[frozenset[str]]) -> frozenset[str]:
        """Return the UUIDs that several device nodes open in one container.

        A MIG device needs its GPU's node beside its own ones. The GPU's node alone opens none of
        a partitioned GPU's devices, so beside one of them it counts for nothing more. Source:
        NVIDIA Multi-Instance GPU User Guide, "Device Nodes and Capabilities".
        """
        opened = list(opened)
        entrances = {frozenset({self._parents[uuid]}) for found in opened for uuid in found}
        return frozenset().union(*(found for found in opened if found not in entrances))

    def _one(self, name: str) -> frozenset[str]:
        if cdi := _CDI.fullmatch(name):
            return self._by_cdi(*cdi.groups())
        if name == "all":
            return self._all
        if name in ("", "none", "void"):
            return frozenset()
        if name in self._by_index:
            return frozenset({self._by_index[name]})
        if name.lower() in self._by_lower:
            return frozenset({self._by_lower[name.lower()]})
        if _COMPLETE_GPU.fullmatch(name):
            return frozenset()
        if _COMPLETE_MIG.fullmatch(name):
            raise Unresolved(f"there is no {name} any more, and what is in its place is not known")
        if legacy := _LEGACY_MIG.fullmatch(name):
            return self._by_instance(*legacy.groups())
        if _PREFIX.fullmatch(name):
            return self._by_prefix(name.lower())
        if _INDEX.fullmatch(name):
            raise Unresolved(f"there is no device {name}")
        raise Unresolved(f"{name!r} is no notation for a device")

    def _by_prefix(self, beginning: str) -> frozenset[str]:
        found = [uuid for lower, uuid in self._by_lower.items() if lower.startswith(beginning)]
        if len(found) != 1:
            raise Unresolved(f"{len(found)} devices begin with {beginning!r}")
        return frozenset(found)

    def _by_instance(self, gpu: str, gpu_instance: str, compute_instance: str) -> frozenset[str]:
        known = self._by_lower.get(gpu.lower())
        if known is None:
            return frozenset()
        return self._those(
            lambda device: (
                device.parent == known
                and device.gpu_instance == int(gpu_instance)
                and device.compute_instance == int(compute_instance)
            ),
            f"{known} has no MIG device {gpu_instance}/{compute_instance}",
        )

    def _by_cdi(self, vendor: str, kind: str, name: str) -> frozenset[str]:
        """Resolve ``vendor/class=name``; other makers' devices are none of ours."""
        if vendor != "nvidia.com" and not vendor.endswith(".nvidia.com"):
            return frozenset()
        if kind in _OTHER_CLASSES:
            return frozenset()
        if kind != "gpu":
            raise Unresolved(f"nothing is known of NVIDIA's class {kind!r}")
        return self._one(name)

    def _by_path(self, path: str) -> frozenset[str]:
        """Resolve a device node, or a folder of them, of which the engine takes all."""
        folders = (path, posixpath.dirname(path))
        if path in ("/", "/dev", "/dev/char", "/dev/nvidia-caps"):
            return self._all
        if numbers := re.fullmatch(r"/dev/char/(\d+):(\d+)", path, re.ASCII):
            return self._by_rule("c", *numbers.groups())
        if numbers := re.fullmatch(r"/dev/nvidia(\d+)", path, re.ASCII):
            return self._by_minor(int(numbers[1]))
        if numbers := re.fullmatch(r"/dev/nvidia-caps/nvidia-cap(\d+)", path, re.ASCII):
            return self._by_capability(int(numbers[1]))
        if path.startswith("/dev/nvidia") and not any(map(_CONTROL_NODE.fullmatch, folders)):
            raise Unresolved(f"nothing is known of {path}")
        return frozenset()

    def _by_rule(self, kind: str, major: str, minor: str) -> frozenset[str]:
        if kind == "b":
            return frozenset()
        if major == "*" or kind == "a":
            return self._all
        nvidia = int(major) == _NVIDIA_MAJOR
        if not nvidia and int(major) != self._capabilities().major:
            return frozenset()
        if minor == "*":
            return self._all
        if not nvidia:
            return self._by_capability(int(minor))
        return frozenset() if int(minor) in CONTROL_MINORS else self._by_minor(int(minor))

    def _by_minor(self, minor: int) -> frozenset[str]:
        return self._those(
            lambda device: not device.parent and device.minor == minor,
            f"/dev/nvidia{minor} is none of the devices",
        )

    def _by_capability(self, number: int) -> frozenset[str]:
        capability = self._capabilities().nodes.get(number)
        if capability is None:
            raise Unresolved(f"nothing is known of nvidia-cap{number}")
        if capability.gpu_minor is None:
            return frozenset()
        return self._those(
            lambda device: (
                bool(device.parent)
                and device.minor == capability.gpu_minor
                and device.gpu_instance == capability.gpu_instance
                and capability.compute_instance in (None, device.compute_instance)
            ),
            f"nvidia-cap{number} is none of the devices",
        )

    def _those(self, meant: Callable[[Device], bool], otherwise: str) -> frozenset[str]:
        found = frozenset(device.uuid for device in self._devices if meant(device))
        # The node of a GPU that cannot be read is not known; one that no other has must be its.
        found = found or frozenset(
            device.uuid for device in self._devices if device.minor is None and not device.parent
        )
        if not found:
            raise Unresolved(otherwise)
        return found
