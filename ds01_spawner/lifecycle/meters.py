"""What servers do, read from outside of them: CPU and network from the kernel, GPUs from NVML."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..cgroups.files import read_bytes
from ..cgroups.hierarchies import CGROUP_ROOT, PROC
from ..cgroups.usage import ContainerWork
from ..gpus.devices import State
from ..gpus.nvml import Nvml
from .history import Sample
from .processes import is_in


@dataclass(frozen=True)
class Watched:
    """A container to look at.

    Attributes
    ----------
    container_id
        Docker's id.
    pid
        Its first process, as the host numbers it.
    cpus
        Cores that it may use.
    gpu_uuids
        The devices that it holds.
    """

    container_id: str
    pid: int
    cpus: float
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuLoad:
    """What the machine's GPUs do.

    Attributes
    ----------
    percent
        UUID -> how busy a device is, in percent, of all of which it is known.
    weight
        GPU equivalents of all devices that can be given to servers; 0 if that is not known.
    """

    percent: Mapping[str, float] = field(default_factory=dict)
    weight: float = 0.0


def read_gpus(nvml: Nvml) -> GpuLoad:
    """Return what the GPUs do; blocks.

    A MIG device that does not tell (before Hopper) counts as busy while a process is on it.
    """
    shares, reading = nvml.utilisation(), nvml.read()
    used = {process.uuid for process in reading.processes}
    percent = {uuid: 100 * share for uuid, share in shares.items()}
    for device in reading.inventory.devices:
        if device.kind == "mig" and device.uuid not in {*percent, *reading.unasked}:
            percent[device.uuid] = 100.0 if device.uuid in used else 0.0
    good = (device for device in reading.inventory.devices if device.state is State.OK)
    return GpuLoad(percent, sum(device.weight for device in good))


@dataclass(frozen=True)
class _Counters:
    pid: int
    read_at: float
    cpu_seconds: float
    network_bytes: int | None


class Meters:
    """Compares each look with the one before.

    - Of a container that is seen for the first time, nothing is known yet.
    - What cannot be read is None, never zero; so is what a container has done that was started
      again meanwhile.
    - Nothing that is read is another container's, also if the number of a process is used again.

    Parameters
    ----------
    clock
        Seconds that pass also while somebody sets the machine's time.
    """

    def __init__(
        self,
        proc: Path = PROC,
        root: Path = CGROUP_ROOT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc, self._root, self._clock = proc, root, clock
        self._work: dict[str, ContainerWork] = {}
        self._before: dict[str, _Counters] = {}
        #: How often memory ran out in each container, by its id.
        self.oom_kills: dict[str, int] = {}

    def is_process_of(self, container_id: str, pid: int) -> bool:
        """Tell whether a number is that of a process in a container; False if it is not known."""
        try:
            return is_in(container_id, pid, self._proc)
        except (OSError, ValueError):
            return False

    def sample(
        self, watched: Watched, gpu_percent: Mapping[str, float], at: datetime
    ) -> Sample | None:
        """Return what a container did since the last look; blocks for about a millisecond.

        Parameters
        ----------
        gpu_percent
            See `GpuLoad`.

        Returns
        -------
        Sample or None
            None at the first look.
        """
        known = [gpu_percent[uuid] for uuid in watched.gpu_uuids if uuid in gpu_percent]
        gpu, gpu_known = max(known, default=None), len(known) == len(watched.gpu_uuids)
        unknown = Sample(at, None, gpu, gpu_known)
        before = self._before.pop(watched.container_id, None)
        read_at = self._clock()
        work = self._work_of(watched).read()
        network = network_bytes(watched.pid, self._proc)
        # Seen afterwards: until then the number was this container's, and so is what was read.
        if work is None or not self.is_process_of(watched.container_id, watched.pid):
            return unknown
        self.oom_kills[watched.container_id] = work.oom_kills
        now = _Counters(watched.pid, read_at, work.cpu_seconds, network)
        self._before[watched.container_id] = now
        if before is None:
            return None
        seconds, spent = now.read_at - before.read_at, now.cpu_seconds - before.cpu_seconds
        if now.pid != before.pid or seconds <= 0 or spent < 0:
            return unknown
        cores = spent / seconds
        moved = None
        if now.network_bytes is not None and before.network_bytes is not None:
            moved = max(0, now.network_bytes - before.network_bytes)
        percent = 100 * cores / watched.cpus
        return Sample(at, percent, gpu, gpu_known, network_bytes=moved, cores=cores)

    def forget_others(self, container_ids: frozenset[str]) -> None:
        """Forget containers that are not among these."""
        self._work = {k: v for k, v in self._work.items() if k in container_ids}
        self._before = {k: v for k, v in self._before.items() if k in container_ids}
        self.oom_kills = {k: v for k, v in self.oom_kills.items() if k in container_ids}

    def _work_of(self, watched: Watched) -> ContainerWork:
        found = self._work.get(watched.container_id)
        if found is None or found.pid != watched.pid:
            found = ContainerWork(watched.pid, proc=self._proc, root=self._root)
            self._work[watched.container_id] = found
        return found


def network_bytes(pid: int, proc: Path = PROC) -> int | None:
    """Return what a container has received and sent, without what it has sent to itself.

    Returns
    -------
    int or None
        None if the kernel does not say.
    """
    try:
        lines = read_bytes(f"{proc}/{pid}/net/dev").splitlines()[2:]
        total = 0
        for line in lines:
            name, _, rest = line.partition(b":")
            if name.strip() != b"lo":
                # Source: proc(5): received bytes first, sent ones ninth.
                counts = rest.split(None, 9)
                total += int(counts[0]) + int(counts[8])
        return total
    except (OSError, ValueError, IndexError):
        return None
