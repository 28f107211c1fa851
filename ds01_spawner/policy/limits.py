"""What one user may have: the seam between the lab's rules and everything that obeys them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

GIB = 1024**3

#: Left to the engine, the Hub and the system when a limit is cut to the machine.
MACHINE_RESERVE_BYTES = GIB


@dataclass(frozen=True)
class Machine:
    """What this machine has: `cpus` in cores, `memory_bytes` of RAM."""

    cpus: int
    memory_bytes: int


@dataclass(frozen=True)
class Aggregate:
    """What all of a user's servers together may use; None means no limit.

    Attributes
    ----------
    cpus
        Cores; fractions allowed.
    memory_bytes
        RAM; above it the kernel kills.
    memory_high_bytes
        RAM above which the kernel slows the user's processes down and takes memory back.
    tasks
        Processes and threads.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_high_bytes: int | None = None
    tasks: int | None = None


@dataclass(frozen=True)
class Lifecycle:
    """How long a server may live, when it counts as idle, and how much it may write.

    Attributes
    ----------
    max_runtime
        Longest life of a server; None means no limit.
    idle_timeout
        A server idle for so long is stopped; None means never.
    gpu_idle_percent, cpu_idle_percent
        Below both, a server computes nothing.
    network_idle_bytes
        Traffic in a check below which the network is idle; None means that it does not count.
    stalled_network_bytes
        The same for what executes, always.
    idle_checks
        Checks over which is averaged.
    stalled_kernel
        What executes for longer, and uses neither CPU nor GPU, waits for something and is idle.
    grace
        After its start no server is idle.
    keepalive_most
        For how long an idle server can be kept at most.
    stop_grace
        What computes in a server has so long to end when it is stopped.
    rescue_bytes
        Files outside the workspace and the home that are kept when a server is stopped, all
        together; 0 for none.
    high_demand_share
        When so much of the GPUs' weight is held, idle servers with a GPU have less time.
    high_demand_factor
        Their share of the time then.
    never_started
        A container that was made and does not run is removed after this.
    workspace_bytes
        What all workspaces and the home of a user may take on the disk; None means no limit.
    container_bytes
        What a server may write outside of these; None means no limit.
    """

    max_runtime: timedelta | None = timedelta(hours=24)
    idle_timeout: timedelta | None = timedelta(minutes=30)
    gpu_idle_percent: float = 5
    cpu_idle_percent: float = 2
    network_idle_bytes: int | None = None
    stalled_network_bytes: int = 1024**2
    idle_checks: int = 3
    stalled_kernel: timedelta = timedelta(hours=1)
    grace: timedelta = timedelta(minutes=30)
    keepalive_most: timedelta = timedelta(hours=24)
    stop_grace: timedelta = timedelta(seconds=60)
    rescue_bytes: int = GIB
    high_demand_share: float = 0.8
    high_demand_factor: float = 0.5
    never_started: timedelta = timedelta(minutes=30)
    workspace_bytes: int | None = None
    container_bytes: int | None = None


@dataclass(frozen=True)
class ImageRules:
    """What a user's own images may be.

    Attributes
    ----------
    may_build
        Whether the user may have any.
    storage_bytes
        What all of their images take beyond the bases that they stand on; None means no limit.
    largest_bytes
        The same, of one image.
    versions
        How many builds of an image are kept, the current one among them.
    build_time
        The longest build.
    build_network
        Whether a build reaches the network.
    share_with_all
        Whether an image may be shared with everybody: ``yes``, ``no``, or ``approval``, an admin's.
    """

    may_build: bool = True
    storage_bytes: int | None = 50 * GIB
    largest_bytes: int = 20 * GIB
    versions: int = 3
    build_time: timedelta = timedelta(hours=1)
    build_network: bool = True
    share_with_all: str = "approval"


@dataclass(frozen=True)
class Limits:
    """What one user may use at most; per server where nothing else is said.

    Attributes
    ----------
    cpus
        Cores; fractions allowed.
    memory_bytes
        RAM of a server, including its ``/dev/shm``.
    memory_swap_bytes
        RAM plus swap; equal to `memory_bytes` means no swap.
    shm_bytes
        Size of ``/dev/shm``.
    pids
        Processes and threads.
    gpu_equivalents
        GPU weight over all of the user's servers together: a whole GPU is 1.0, a MIG device its
        share of its GPU's compute slices. None means no limit.
    gpus_per_server
        GPUs or MIG devices in one server; None means no limit.
    full_gpu
        Whether the user may have a whole GPU.
    servers
        Servers at a time.
    priority
        Head start in the waiting line.
    aggregate
        Over all of the user's servers together.
    lifecycle
        How long servers live.
    images
        What the user's own images may be.
    """

    cpus: float
    memory_bytes: int
    memory_swap_bytes: int
    shm_bytes: int
    pids: int
    gpu_equivalents: float | None = 1.0
    gpus_per_server: int | None = 1
    full_gpu: bool = True
    servers: int = 3
    priority: int = 10
    aggregate: Aggregate = field(default_factory=Aggregate)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    images: ImageRules = field(default_factory=ImageRules)

    def within(self, machine: Machine) -> Limits:
        """Return these limits with a server cut to what the user and the machine can give it."""
        usable = max(machine.memory_bytes - MACHINE_RESERVE_BYTES, machine.memory_bytes // 2)
        memory = _least(self.memory_bytes, usable, self.aggregate.memory_bytes)
        swap = max(0, self.memory_swap_bytes - self.memory_bytes)
        return replace(
            self,
            cpus=_least(self.cpus, float(machine.cpus), self.aggregate.cpus),
            memory_bytes=memory,
            memory_swap_bytes=memory + swap,
            shm_bytes=min(self.shm_bytes, memory),
            pids=_least(self.pids, self.aggregate.tasks),
        )


def _least(first: float, *others: float | None) -> Any:
    """Return the lowest of the limits; None is no limit."""
    return min([first, *(other for other in others if other is not None)])


def this_machine() -> Machine:
    """Return the cores and the memory of the machine that the Hub runs on."""
    pages = os.sysconf("SC_PHYS_PAGES")
    return Machine(cpus=os.cpu_count() or 1, memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"))
