"""How the engine is asked to give a container exactly the devices it was granted. Pure functions.

What the NVIDIA toolkit reads from a container's variables, and in which order, was read in
nvidia-container-toolkit 1.17 (``internal/config/image``, ``cmd/nvidia-container-runtime-hook``).
"""

from __future__ import annotations

import fnmatch
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .claims import VISIBLE, Runtimes
from .conflicts import conflicts
from .devices import Device, Inventory, State
from .nodes import CAPABILITIES, capabilities_here, device_nodes

Body = dict[str, Any]

#: What a container's programs may use of NVIDIA's driver: CUDA, and nvidia-smi.
DRIVER_CAPABILITIES = "compute,utility"

#: How CDI names NVIDIA's devices. Source: NVIDIA Container Toolkit, "Support for CDI".
CDI_KIND = "nvidia.com/gpu"

#: What dockerd looks for on its PATH when it starts; without it there are no device requests.
HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")

#: Beats `VISIBLE` where an admin has named such a variable in the toolkit's configuration.
_SWARM = "DOCKER_RESOURCE_*"
_PLAIN_RUNTIME = "runc"


class AttachmentError(Exception):
    """The engine cannot attach GPUs, or not in the way that is configured; says what to do."""


@dataclass(frozen=True)
class Here:
    """What back ends need to know of this machine beside what the engine says.

    Attributes
    ----------
    has_hook
        Whether the toolkit's hook is installed.
    pretended
        Whether the GPUs are pretended.
    capabilities
        The driver's directory with the numbers of the MIG nodes; a pretended driver has its own.
    """

    has_hook: bool = False
    pretended: bool = False
    capabilities: Path = CAPABILITIES

    @classmethod
    def look(cls) -> Here:
        """Look at the machine."""
        return cls(
            has_hook=any(shutil.which(name) for name in HOOKS),
            pretended=capabilities_here() != CAPABILITIES,
            capabilities=capabilities_here(),
        )


@dataclass(frozen=True)
class Engine:
    """What back ends need to know of the engine.

    Attributes
    ----------
    cdi
        CDI names of all devices that the engine has found.
    runtimes
        The OCI runtimes that it knows.
    """

    cdi: frozenset[str]
    runtimes: Runtimes

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Engine:
        """Read the answer to ``GET /info``; engines before 28.2 list no CDI devices."""
        found = info.get("DiscoveredDevices") or ()
        return cls(
            cdi=frozenset(str(one["ID"]) for one in found if one.get("Source") == "cdi"),
            runtimes=Runtimes.from_info(info),
        )


class Backend(ABC):
    """One way of attaching devices to a container.

    A back end says by `missing` whether the engine has it, and changes a request by `_attach`.
    The rest is the same for all of them: nothing in the request may ask for GPUs already, and a
    container without a grant gets none, whatever its image says.

    Parameters
    ----------
    engine, here
        The engine that will be asked, on this machine.
    driver_capabilities
        Value of ``NVIDIA_DRIVER_CAPABILITIES``.
    """

    name: str

    def __init__(self, engine: Engine, here: Here, driver_capabilities: str) -> None:
        self.engine = engine
        self.here = here
        self.driver_capabilities = driver_capabilities

    @abstractmethod
    def missing(self) -> str:
        """Say what this engine needs before the back end can be used; empty if it can be."""

    def unknown(self, device: Device) -> str:
        """Say why the engine cannot attach this one device, and what to do; empty if it can."""
        return ""

    def attachable(self, inventory: Inventory) -> Inventory:
        """Return the inventory with what the engine cannot attach marked so: it is not given."""
        return replace(inventory, devices=tuple(map(self._judged, inventory.devices)))

    def _judged(self, device: Device) -> Device:
        if device.state is not State.OK or not (why := self.unknown(device)):
            return device
        return replace(device, state=State.UNATTACHABLE, detail=why)

    @abstractmethod
    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        """Ask for devices, at least one, by changing the host configuration and variables."""

    def apply(self, body: Mapping[str, Any], devices: Sequence[Device]) -> Body:
        """Return the request to create a container, with these devices and no other GPU.

        Parameters
        ----------
        body
            Of ``POST /containers/create``, complete but for GPUs; it is not changed. Applied
            last, as nothing may undo it.
        devices
            What was granted; none for a server without a GPU.

        Raises
        ------
        ValueError
            If something in the body asks for GPUs already, or could give more than the grant.
        OSError
            If pretended devices have no description to read.
        """
        host = dict(body.get("HostConfig") or {})
        found = conflicts(body, self.engine.runtimes)
        if found:
            raise ValueError(
                "The container asks for GPUs beside what is granted: "
                f"{'; '.join(found)}. Take that out of the configuration."
            )
        env = _variables(body)
        # By name: the engine's default may be a runtime that follows the image's variables.
        host["Runtime"] = host.get("Runtime") or _PLAIN_RUNTIME
        # Not "none", which still brings the driver's files.
        env[VISIBLE] = "void"
        if devices:
            env["NVIDIA_DRIVER_CAPABILITIES"] = self.driver_capabilities
            self._attach(host, env, devices)
        return {
            **body,
            "HostConfig": host,
            "Env": [key if value is None else f"{key}={value}" for key, value in env.items()],
        }


class NoGpus(Backend):
    """For a machine without GPUs: attaches nothing."""

    name = "none"

    def missing(self) -> str:
        return ""

    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        raise ValueError("There is no way of attaching GPUs on this machine")


class Cdi(Backend):
    """The engine itself attaches, by descriptions that the toolkit wrote for each device."""

    name = "cdi"

    def missing(self) -> str:
        if any(one.startswith(f"{CDI_KIND}=") for one in self.engine.cdi):
            return ""
        return (
            "the engine lists no CDI devices of NVIDIA (Docker 28.2 or newer with a CDI "
            "specification in /etc/cdi or /var/run/cdi)"
        )

    def unknown(self, device: Device) -> str:
        if _cdi_id(device) in self.engine.cdi:
            return ""
        return (
            f"the engine's CDI devices lack {device.uuid}; write the specification again: "
            "nvidia-ctk cdi generate --device-name-strategy=uuid --output=/var/run/cdi/nvidia.yaml"
        )

    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        ids = [_cdi_id(device) for device in devices]
        host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": ids}]


class DeviceRequests(Backend):
    """The engine calls the toolkit's hook, as ``docker run --gpus`` does."""

    name = "device-requests"

    def missing(self) -> str:
        if self.here.has_hook:
            return ""
        return (
            f"{HOOKS[0]} is not installed: install nvidia-container-toolkit and restart the engine"
        )

    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        # One request with all of them: of several, only the last one's devices would come.
        request = {
            "Driver": "nvidia",
            "DeviceIDs": [device.uuid for device in devices],
            "Capabilities": [["gpu"]],
        }
        host["DeviceRequests"] = [request]
        _ask_by_variables(env, devices)


class NvidiaRuntime(Backend):
    """A runtime of the toolkit's, asked by variables."""

    name = "nvidia-runtime"
    _runtime = "nvidia"

    def missing(self) -> str:
        if self._runtime in self.engine.runtimes.programs:
            return ""
        return (
            "the engine knows no runtime named nvidia: run nvidia-ctk runtime configure "
            "--runtime=docker and restart the engine"
        )

    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        if host["Runtime"] != _PLAIN_RUNTIME:
            raise ValueError(
                f"The OCI runtime {host['Runtime']!r} is configured, and the back end "
                f"{self.name!r} needs {self._runtime!r}. Configure one of them only."
            )
        host["Runtime"] = self._runtime
        _ask_by_variables(env, devices)


class Pretend(Backend):
    """Device nodes with the right names that do nothing, for pretended GPUs on any engine."""

    name = "pretend"

    def missing(self) -> str:
        return "" if self.here.pretended else "the GPUs of this machine are not pretended"

    def _attach(self, host: Body, env: dict[str, str], devices: Sequence[Device]) -> None:
        nodes = {
            node for device in devices for node in device_nodes(device, self.here.capabilities)
        }
        host["Devices"] = [
            *(host.get("Devices") or ()),
            *(
                {
                    "PathOnHost": "/dev/null",
                    "PathInContainer": f"/dev/{node}",
                    "CgroupPermissions": "rw",
                }
                for node in sorted(nodes)
            ),
        ]


#: In the order of preference. CDI first: it names each device's nodes exactly, and neither the
#: image's nor anybody's variables have a say in it.
BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend for backend in (Cdi, DeviceRequests, NvidiaRuntime, Pretend)
}
#: Those that give real GPUs.
REAL = tuple(name for name in BACKENDS if name != Pretend.name)


def choose_backend(
    info: Mapping[str, Any],
    inventory: Inventory,
    forced: str = "",
    driver_capabilities: str = DRIVER_CAPABILITIES,
    here: Here | None = None,
) -> Backend:
    """Return the way in which this engine attaches GPUs.

    Parameters
    ----------
    info
        The engine's answer to ``GET /info``.
    inventory
        What can be granted. Without any GPU, and no back end forced, the answer attaches nothing.
    forced
        A name of `BACKENDS`, to have that one or an error. Pretended GPUs take the back end for
        them unless another is forced.
    driver_capabilities
        Value of ``NVIDIA_DRIVER_CAPABILITIES`` in containers with a grant.
    here
        This machine; looked at if not given.

    Raises
    ------
    AttachmentError
        If the engine does not have the one that is forced, or none at all; says what to do.
    """
    engine, here = Engine.from_info(info), here or Here.look()
    if forced and forced not in BACKENDS:
        raise AttachmentError(
            f"There is no way of attaching GPUs called {forced!r}: choose one of "
            f"{', '.join(BACKENDS)}, or leave it empty."
        )
    if not forced and not inventory.devices:
        return NoGpus(engine, here, driver_capabilities)
    if not forced and here.pretended:
        forced = Pretend.name
    working = [device for device in inventory.devices if device.state is State.OK]
    usable: list[tuple[int, Backend]] = []
    reasons = []
    for name in (forced,) if forced else REAL:
        backend = BACKENDS[name](engine, here, driver_capabilities)
        unknown = list(filter(None, map(backend.unknown, working)))
        reason = backend.missing() or (unknown[0] if len(unknown) == len(working) > 0 else "")
        if reason:
            reasons.append(f"{name}: {reason}")
        else:
            usable.append((len(unknown), backend))
    if not usable:
        raise AttachmentError(
            f"The engine cannot attach GPUs{' as configured' if forced else ''}. "
            f"What is missing for {'; for '.join(reasons)}."
        )
    # The first of those that can attach the most.
    return min(usable, key=lambda one: one[0])[1]


def _cdi_id(device: Device) -> str:
    return f"{CDI_KIND}={device.uuid}"


def _variables(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body's variables; one without "=" has the value None, and the last one wins."""
    pairs = (line.partition("=") for line in body.get("Env") or ())
    return {key: value if equals else None for key, equals, value in pairs}


def _ask_by_variables(env: dict[str, str], devices: Sequence[Device]) -> None:
    """Name the devices wherever the toolkit may look for them.

    Emptied, a variable that the toolkit takes for Swarm's would mean no device at all, and an
    emptied requirement of the image's makes a long ``CUDA_VERSION`` an error.
    """
    uuids = ",".join(device.uuid for device in devices)
    env[VISIBLE] = uuids
    env.update({key: uuids for key in env if fnmatch.fnmatchcase(key, _SWARM)})
    env["NVIDIA_DISABLE_REQUIRE"] = "true"
