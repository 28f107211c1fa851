"""What one user may have: the seam between the lab's rules and everything that obeys them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

GIB = 1024**3

#: Left to the engine, the Hub and the system when a limit is cut to the machine.
MACHINE_RESERVE_BYTES = GIB


@dataclass(frozen=True)
class Machine:
    """What this machine has: `cpus` in cores, `memory_bytes` of RAM."""

    cpus: int
    memory_bytes: int


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
    """

    cpus: float
    memory_bytes: int
    memory_swap_bytes: int
    shm_bytes: int
    pids: int
    gpu_equivalents: float | None = 1.0
    gpus_per_server: int | None = 1
    full_gpu: bool = True

    def within(self, machine: Machine) -> Limits:
        """Return these limits cut to what the machine can give."""
        usable = max(machine.memory_bytes - MACHINE_RESERVE_BYTES, machine.memory_bytes // 2)
        memory = min(self.memory_bytes, usable)
        swap = max(0, self.memory_swap_bytes - self.memory_bytes)
        return replace(
            self,
            cpus=min(self.cpus, float(machine.cpus)),
            memory_bytes=memory,
            memory_swap_bytes=memory + swap,
            shm_bytes=min(self.shm_bytes, memory),
        )


def this_machine() -> Machine:
    """Return the cores and the memory of the machine that the Hub runs on."""
    pages = os.sysconf("SC_PHYS_PAGES")
    return Machine(cpus=os.cpu_count() or 1, memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"))
