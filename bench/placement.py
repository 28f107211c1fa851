#!/usr/bin/env python3
"""Replay a cluster's real demand on eight GPUs, under our choice of devices and two others.

    bench/placement.py openb_pod_list_default.csv

reads a trace in the format of Alibaba's cluster-trace-gpu-v2023 and prints one JSON object a
line, for each partitioning and policy. docs/placement.md says what the fields mean.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ds01_spawner.gpus.devices import Device, Inventory, State
from ds01_spawner.gpus.placement import GpuRequest, RecentDemand, choose
from ds01_spawner.gpus.request import suffices

SEED = 1
LONGEST_SECONDS = 24 * 3600
#: Before this share of the arrivals the cluster was still being filled.
IDLE_SHARE = 0.01

MIB = 2**20
MODEL = "A100-SXM4-80GB"
GPU_SLICES = 7
GPU_BYTES = 81920 * MIB
#: An A100 80GB's profiles: compute slices, and the memory that NVML reports for them.
PROFILES = {
    "1g.10gb": (1, 9728 * MIB),
    "2g.20gb": (2, 19968 * MIB),
    "3g.40gb": (3, 40192 * MIB),
    "4g.40gb": (4, 40192 * MIB),
}

#: Layouts of a GPU that an A100 can be cut into, larger MIG devices first, as NVML lists them.
HALVES = ("4g.40gb", "3g.40gb")
THIRDS = ("3g.40gb", "2g.20gb", "2g.20gb")
MIXED = ("4g.40gb", "2g.20gb", "1g.10gb")
ONES = ("1g.10gb",) * 7
WHOLE = ()

#: From mostly whole to mostly partitioned, so that now large devices are scarce and now small
#: ones; the partitioned GPUs behind the whole ones, and once in between.
PARTITIONINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "3 of 8 partitioned": (*[WHOLE] * 5, HALVES, THIRDS, ONES),
    "every other partitioned": (WHOLE, HALVES, WHOLE, THIRDS, WHOLE, MIXED, WHOLE, ONES),
    "5 of 8 partitioned": (*[WHOLE] * 3, HALVES, HALVES, THIRDS, MIXED, ONES),
    "6 of 8 partitioned": (*[WHOLE] * 2, HALVES, HALVES, THIRDS, THIRDS, MIXED, ONES),
}


@dataclass(frozen=True)
class Task:
    """One request of the trace: when it came, for what, how long it ran."""

    at: float
    request: GpuRequest
    seconds: float


@dataclass
class Result:
    """One line of the output."""

    partitioning: str
    policy: str
    requests: int = 0
    granted: int = 0
    gpu_seconds: float = 0.0
    fragmented: int = 0
    never_fitting: int = 0


# -- the trace --------------------------------------------------------------------------


def read_trace(lines: Iterable[str]) -> list[Task]:
    """Read a trace's requests for GPUs in the order of their arrival, without the idle time."""
    tasks = [_task(row) for row in csv.DictReader(lines) if int(row["num_gpu"]) > 0]
    tasks.sort(key=lambda task: task.at)
    start = tasks[int(len(tasks) * IDLE_SHARE)].at if tasks else 0
    return [task for task in tasks if task.at >= start]


def _task(row: dict[str, str]) -> Task:
    came = float(row["creation_time"])
    # A task that the cluster never scheduled counts from its creation until it was given up.
    began = float(row["scheduled_time"] or came)
    ended = float(row["deletion_time"] or began + LONGEST_SECONDS)
    seconds = min(max(ended - began, 1.0), LONGEST_SECONDS)
    return Task(came, _request(int(row["num_gpu"]), int(row["gpu_milli"] or 1000)), seconds)


def _request(count: int, milli: int) -> GpuRequest:
    """Ask for the smallest MIG profile with that share of a GPU, else for whole GPUs."""
    if count == 1:
        for profile, (slices, _) in PROFILES.items():
            if slices * 1000 >= milli * GPU_SLICES:
                return GpuRequest(profile=profile)
    return GpuRequest(count, whole=True)


# -- the server -------------------------------------------------------------------------


def build(layouts: Sequence[Sequence[str]]) -> Inventory:
    """Make a server of A100s that are partitioned like this."""
    devices: list[Device] = []
    for number, layout in enumerate(layouts):
        state = State.PARTITIONED if layout else State.OK
        gpu = f"GPU-{number}"
        devices.append(
            Device(gpu, str(number), MODEL, GPU_BYTES, GPU_SLICES, 1.0, minor=number, state=state)
        )
        for place, profile in enumerate(layout):
            slices, memory = PROFILES[profile]
            devices.append(
                Device(
                    f"MIG-{number}-{place}",
                    f"{number}:{place}",
                    MODEL,
                    memory,
                    slices,
                    slices / GPU_SLICES,
                    profile,
                    gpu,
                    number,
                )
            )
    return Inventory(tuple(devices))


def weight(request: GpuRequest) -> float:
    """Return the GPU equivalents asked for."""
    each = PROFILES[request.profile][0] / GPU_SLICES if request.profile else 1.0
    return request.count * each


# -- the policies -----------------------------------------------------------------------

Policy = Callable[[GpuRequest, Sequence[Device], Inventory], Sequence[Device]]


def ours() -> Policy:
    """Choose as the product does, with its memory of recent demand."""
    demand = RecentDemand()

    def policy(
        request: GpuRequest, free: Sequence[Device], inventory: Inventory
    ) -> Sequence[Device]:
        demand.saw(request)
        return choose(request, free, inventory, demand).devices

    return policy


def lowest_index() -> Policy:
    """Take the first that are enough."""

    def policy(
        request: GpuRequest, free: Sequence[Device], inventory: Inventory
    ) -> Sequence[Device]:
        enough = [device for device in free if suffices(device, request)]
        return enough[: request.count] if len(enough) >= request.count else ()

    return policy


def at_random() -> Policy:
    """Take any that are enough; the same ones in every run."""
    chance = random.Random(SEED)

    def policy(
        request: GpuRequest, free: Sequence[Device], inventory: Inventory
    ) -> Sequence[Device]:
        enough = [device for device in free if suffices(device, request)]
        return chance.sample(enough, request.count) if len(enough) >= request.count else ()

    return policy


POLICIES: dict[str, Callable[[], Policy]] = {
    "ours": ours,
    "lowest-index": lowest_index,
    "random": at_random,
}


# -- the replay -------------------------------------------------------------------------


def replay(tasks: Iterable[Task], inventory: Inventory, policy: Policy, result: Result) -> Result:
    """Let the tasks come one after the other; one that gets nothing when it comes is gone."""
    usable = [device for device in inventory.devices if device.state is State.OK]
    held: set[str] = set()
    ending: list[tuple[float, int, Sequence[Device]]] = []
    for number, task in enumerate(tasks):
        while ending and ending[0][0] <= task.at:
            held.difference_update(device.uuid for device in heapq.heappop(ending)[2])
        if sum(suffices(device, task.request) for device in usable) < task.request.count:
            result.never_fitting += 1
            continue
        result.requests += 1
        free = [device for device in usable if device.uuid not in held]
        devices = policy(task.request, free, inventory)
        if devices:
            result.granted += 1
            result.gpu_seconds += weight(task.request) * task.seconds
            held.update(device.uuid for device in devices)
            heapq.heappush(ending, (task.at + task.seconds, number, devices))
        elif sum(device.weight for device in free) >= weight(task.request) - 1e-9:
            result.fragmented += 1
    return result


def results(tasks: Sequence[Task]) -> Iterator[Result]:
    """Replay the tasks under each policy on each partitioning."""
    for partitioning, layouts in PARTITIONINGS.items():
        inventory = build(layouts)
        for name, policy in POLICIES.items():
            yield replay(tasks, inventory, policy(), Result(partitioning, name))


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trace", type=Path, help="CSV file with the trace")
    with parser.parse_args().trace.open(newline="", encoding="utf-8") as lines:
        tasks = read_trace(lines)
    for result in results(tasks):
        print(json.dumps({**asdict(result), "gpu_seconds": round(result.gpu_seconds)}), flush=True)


if __name__ == "__main__":
    main()
