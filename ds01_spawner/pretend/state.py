"""What the stand-in library tells, as values, and as the lines that state.c reads.

A line is a word and the rest. Lines after ``gpu`` belong to that GPU, lines after ``mig`` to that
MIG device, those before the first ``gpu`` to the whole machine. What is not there has no such
thing: without ``mode`` a GPU has no MIG, without ``remapped`` it remaps no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .models import MIB, Model

#: NVML's kinds of what is at the other end of an NVLink; the last is a link that is not active.
LINK_TO_GPU, LINK_TO_SWITCH, LINK_DOWN = 0, 2, 255
#: NVML's number for "belongs to no GPU instance".
NO_INSTANCE = 0xFFFFFFFF


@dataclass
class Process:
    """A process on a device; `kind` is ``compute``, ``graphics`` or ``mps``."""

    pid: int
    memory_bytes: int | None = None
    kind: str = "compute"


@dataclass
class Common:
    """What GPUs and MIG devices have in common.

    Attributes
    ----------
    errors
        NVML function -> the error that it returns. ``*`` stands for all functions but those that
        find the device, ``field-230`` for a value that ``nvmlDeviceGetFieldValues`` gives.
    """

    uuid: str
    name: str
    memory_bytes: int
    utilisation_percent: int = 0
    processes: list[Process] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def common_lines(self) -> Iterator[str]:
        """Give the lines that both kinds of devices have."""
        yield f"name {self.name}"
        yield f"memory {self.memory_bytes}"
        yield f"utilisation {self.utilisation_percent}"
        for process in self.processes:
            memory = -1 if process.memory_bytes is None else process.memory_bytes
            yield f"process {process.kind} {process.pid} {memory}"
        yield from error_lines(self.errors)


@dataclass
class Mig(Common):
    """A MIG device: the index at which NVML lists it, its numbers, its compute slices."""

    index: int = 0
    instance: int = 0
    compute_instance: int = 0
    instance_slices: int = 0
    slices: int = 0

    def lines(self) -> Iterator[str]:
        """Give the device's lines."""
        yield f"mig {self.index} {self.uuid}"
        numbers = (self.instance, self.compute_instance, self.instance_slices, self.slices)
        yield f"instance {' '.join(map(str, numbers))}"
        yield from self.common_lines()


@dataclass
class Gpu(Common):
    """A GPU.

    Attributes
    ----------
    mode, pending_mode
        Whether it is in MIG mode, and whether it will be after a reset; None without MIG.
    remapped
        Rows remapped after corrected and after uncorrected errors, whether a remapping is
        pending, whether one failed; None if this kind of GPU remaps no rows.
    retired_pending
        Whether pages are to be retired; None if this kind of GPU retires no pages.
    recovery_action
        NVML's ``NVML_GPU_RECOVERY_ACTION_…``.
    links
        Kind and bus address of what is at the other end of each NVLink.
    """

    model: Model = field(kw_only=True)
    minor: int = 0
    bus: str = ""
    mode: bool | None = None
    pending_mode: bool | None = None
    remapped: tuple[int, int, bool, bool] | None = None
    retired_pending: bool | None = None
    recovery_action: int = 0
    links: list[tuple[int, str]] = field(default_factory=list)
    mig: list[Mig] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Give the lines of the GPU and of its MIG devices."""
        yield f"gpu {self.uuid}"
        yield from self.common_lines()
        yield f"minor {self.minor}"
        yield f"bus {self.bus}"
        yield f"recovery {self.recovery_action}"
        yield f"gpm {self.model.has_gpm:d}"
        if self.mode is not None:
            yield f"mode {self.mode:d} {bool(self.pending_mode):d}"
        if self.remapped is not None:
            yield f"remapped {' '.join(str(int(number)) for number in self.remapped)}"
        if self.retired_pending is not None:
            yield f"retired {self.retired_pending:d}"
        for kind, bus in self.links:
            yield f"link {kind} {bus}"
        for p in self.model.profiles:
            yield f"profile {p.number} {p.slices} {p.limit} {p.memory_mib} {p.name}"
        for device in self.mig:
            yield from device.lines()


@dataclass
class Event:
    """An event on a GPU, numbered from 1; `data` is the number of an Xid."""

    number: int
    gpu: int
    data: int
    instance: int = NO_INSTANCE
    compute_instance: int = NO_INSTANCE
    #: nvmlEventTypeXidCriticalError
    type: int = 8

    def line(self) -> str:
        """Return the event's line."""
        place = f"{self.instance} {self.compute_instance}"
        return f"event {self.number} {self.gpu} {self.type} {self.data} {place}"


@dataclass
class State:
    """A whole machine.

    Attributes
    ----------
    generation
        Counts partitionings: handles of MIG devices from before are not valid any more.
    errors
        NVML function -> the error that it returns for every device, such as
        ``nvmlInitWithFlags``.
    """

    gpus: list[Gpu]
    driver: str = "550.127.05"
    generation: int = 1
    errors: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def text(self) -> str:
        """Return all lines."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"driver {self.driver}"
        yield f"generation {self.generation}"
        yield from error_lines(self.errors)
        for gpu in self.gpus:
            yield from gpu.lines()
        for event in self.events:
            yield event.line()


def error_lines(errors: dict[str, int]) -> Iterator[str]:
    """Give a line for each call that fails."""
    for call, code in errors.items():
        yield f"error {call} {code}"


def mib(number: int) -> int:
    """Return MiB in bytes."""
    return number * MIB
