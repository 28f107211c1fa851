"""GPUs and MIG devices as values: what there is, who holds it, what is free. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class State(str, Enum):
    """What can be done with a device, whoever holds it."""

    OK = "ok"
    #: A GPU in MIG mode: its MIG devices are handed out, never the GPU.
    PARTITIONED = "partitioned"
    #: MIG mode is to be switched, at the next reset of the GPU.
    MIG_PENDING = "mig-pending"
    LOST = "lost"
    RESET_REQUIRED = "reset-required"
    UNHEALTHY = "unhealthy"
    #: It works, and the engine does not know how to give it to a container.
    UNATTACHABLE = "unattachable"
    #: NVML gives no answer that could be understood.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Device:
    """A whole GPU or a MIG device.

    Attributes
    ----------
    uuid
        NVIDIA's, such as ``GPU-5c89852c-…`` or ``MIG-3bd5c5b6-…``. A GPU that cannot be read any
        more has ``unreadable-<index>``.
    index
        As ``nvidia-smi`` counts now: ``"0"`` for a GPU, ``"0:1"`` for a MIG device. Not stable:
        for reading other programs' notations and for people.
    model
        The GPU's name without the maker's, such as ``A100-SXM4-80GB``.
    memory_bytes
        Memory in bytes.
    slices
        Compute slices: of a MIG device its own, of a GPU all that it can be cut into (1 where it
        cannot).
    weight
        GPU equivalents: 1.0 for a GPU, its share of the GPU's compute slices for a MIG device.
    profile
        A MIG device's profile, such as ``3g.40gb``; empty for a GPU.
    parent
        UUID of the GPU that a MIG device is a part of; empty for a GPU.
    minor
        Number of the GPU's device node, ``/dev/nvidia<minor>``; of the parent's for a MIG device.
        None if unknown.
    gpu_instance, compute_instance
        A MIG device's instance numbers; None for a GPU.
    state, detail
        Whether it works, and why not in words for an admin.
    """

    uuid: str
    index: str
    model: str
    memory_bytes: int
    slices: int
    weight: float
    profile: str = ""
    parent: str = ""
    minor: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    state: State = State.OK
    detail: str = ""

    @property
    def kind(self) -> str:
        """``"mig"`` or ``"gpu"``."""
        return "mig" if self.parent else "gpu"

    @property
    def gpu(self) -> str:
        """UUID of the GPU that this is, or is a part of."""
        return self.parent or self.uuid


@dataclass(frozen=True)
class Inventory:
    """What NVML lists now.

    Attributes
    ----------
    devices
        In the order of their indexes, each GPU before its MIG devices.
    links
        NVLink connections between two GPUs, as a set of their UUIDs -> number of links. GPUs
        that meet in an NVSwitch count as linked to each other.
    driver
        Version of NVIDIA's driver; empty if unknown.
    problem
        Why there is nothing to list, in words for an admin; empty if all is well. A machine
        without NVIDIA's library has no GPU, which is no problem.
    """

    devices: tuple[Device, ...] = ()
    links: Mapping[frozenset[str], int] = field(default_factory=dict)
    driver: str = ""
    problem: str = ""

    def get(self, uuid: str) -> Device | None:
        """Return the device of this UUID, None if there is none."""
        return next((device for device in self.devices if device.uuid == uuid), None)


@dataclass(frozen=True)
class GpuProcess:
    """A process on a device, as NVML lists it: host `pid`, device `uuid`, memory used or None."""

    pid: int
    uuid: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Reading:
    """What NVML says at one moment.

    Attributes
    ----------
    processes
        All that use a device now.
    unasked
        UUIDs of devices whose processes NVML could not tell, with the reason.
    """

    inventory: Inventory
    processes: tuple[GpuProcess, ...] = ()
    unasked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    """Who has a device.

    Attributes
    ----------
    container, container_id
        A container's name and id; empty for a process of the machine itself.
    user, server
        Whose server it is, if the container is one of this Hub's; None otherwise. The unnamed
        server is ``""``.
    since
        When the container was created; None for a process.
    detail
        What else an admin should know: the process, or what could not be understood.
    """

    container: str = ""
    container_id: str = ""
    user: str | None = None
    server: str | None = None
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True)
class Snapshot:
    """All that a grant is decided on, at one moment.

    Attributes
    ----------
    holders
        UUID -> who holds it, first the one to name. What is not in here is held by nobody.
        A held GPU holds its MIG devices, and a held MIG device its GPU.
    warnings
        What could not be understood, in words for an admin, such as a container that asks for
        a device that nobody knows.
    """

    inventory: Inventory
    holders: Mapping[str, tuple[Holder, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def free(self) -> tuple[Device, ...]:
        """Devices that work and that nobody holds, in the inventory's order."""
        return tuple(
            device
            for device in self.inventory.devices
            if device.state is State.OK and device.uuid not in self.holders
        )
