#!/usr/bin/env python3
"""Measure how long it takes to learn who holds which GPU, and to choose one.

    bench/decision.py

makes 500 containers, which never run, on this machine's Docker engine, each with a MIG device of
64 GPUs that are values only, and prints one JSON object a line with times in milliseconds. The
containers are removed afterwards, also after Ctrl-C. docs/gpus.md says what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import docker
import docker.errors

from ds01_spawner.gpus.devices import Device, GpuProcess, Inventory, Reading, Snapshot, State
from ds01_spawner.gpus.placement import RecentDemand, choose
from ds01_spawner.gpus.request import parse_request
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.names import container_name

GIB = 2**30
GPUS = 64
MIG_DEVICES = 7
#: So many MIG devices are held; several containers share one, as no engine minds.
HELD = 300
#: Processes that NVML would show.
PROCESSES = 100
#: Threads for the engine, as many as the Hub has.
THREADS = 16
REQUESTS = ("1g.10gb", ">=5g", "full", "7g.80gb", "1g.10gb@A100")


def inventory() -> Inventory:
    """Return 64 GPUs, each cut into seven."""
    devices: list[Device] = []
    for index in range(GPUS):
        gpu = Device(
            f"GPU-{index:08x}-0000-4000-8000-000000000000",
            str(index),
            "A100-SXM4-80GB",
            80 * GIB,
            7,
            1.0,
            minor=index,
            state=State.PARTITIONED,
        )
        devices += [gpu, *(_mig(gpu, position) for position in range(MIG_DEVICES))]
    return Inventory(tuple(devices))


def _mig(gpu: Device, position: int) -> Device:
    return Device(
        f"MIG-{int(gpu.index):04x}{position:04x}-0000-4000-8000-000000000000",
        f"{gpu.index}:{position}",
        gpu.model,
        10 * GIB,
        1,
        1 / 7,
        profile="1g.10gb",
        parent=gpu.uuid,
        minor=gpu.minor,
        gpu_instance=7 + position,
        compute_instance=0,
    )


class Crowd:
    """Containers of a Hub that never run, made for the measurement and removed after it."""

    def __init__(self, api: docker.APIClient, image: str, size: int, devices: Sequence[Device]):
        self.hub = f"bench-{secrets.token_hex(4)}"
        self._api, self._image, self._size, self._devices = api, image, size, devices

    def __enter__(self) -> Crowd:
        with ThreadPoolExecutor(4) as pool:
            try:
                list(pool.map(self._create, range(self._size)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                self.remove()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def _create(self, number: int) -> None:
        uuid = self._devices[number % len(self._devices)].uuid
        user = f"{self.hub.replace('-', '')}u{number}"
        body = {
            "Image": self._image,
            "Cmd": ["true"],
            "Labels": {
                "ds01.hub": self.hub,
                "ds01.user": user,
                "ds01.project": "default",
                "ds01.server": "",
                "ds01.gpu.uuids": uuid,
            },
            "HostConfig": {
                "NetworkMode": "none",
                "Runtime": "runc",
                "DeviceRequests": [
                    {"Driver": "nvidia", "DeviceIDs": [uuid], "Capabilities": [["gpu"]]}
                ],
            },
        }
        self._api.create_container_from_config(body, container_name(user, "default"))

    def remove(self) -> None:
        """Remove them all, also those that were made while it was interrupted."""
        mine = {"label": f"ds01.hub={self.hub}"}
        while left := self._api.containers(all=True, filters=mine):
            for container in left:
                with suppress(docker.errors.NotFound):
                    self._api.remove_container(container["Id"], force=True, v=True)


async def measure(api: docker.APIClient, crowd: Crowd, args: argparse.Namespace) -> None:
    """Print the times of snapshots and choices."""
    pool = ThreadPoolExecutor(THREADS)
    devices = inventory()
    migs = [device for device in devices.devices if device.parent]
    running = tuple(GpuProcess(os.getpid(), device.uuid) for device in migs[-PROCESSES:])
    reading = Reading(devices, running)

    async def in_thread(call: Callable[..., Any], *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *words)

    async def docker_call(method: str, *words: Any, **settings: Any) -> Any:
        return await in_thread(lambda: getattr(api, method)(*words, **settings))

    def new() -> Snapshots:
        return Snapshots(docker_call, lambda: reading, in_thread, crowd.hub)

    warm = new()
    snapshot, own = await warm.take()
    if len(own) != args.containers or snapshot.warnings:
        raise SystemExit(f"{len(own)} containers of {args.containers}; {snapshot.warnings[:3]}")
    cold = await _times(args.cold, lambda: new().take())
    _report("snapshot, nothing known yet", cold, containers=args.containers)
    times = await _times(args.warm, warm.take)
    _report("snapshot, containers known", times, containers=args.containers)
    _choices(snapshot, args.choices)
    _choices(Snapshot(devices), args.choices)


async def _times(count: int, call: Callable[[], Awaitable[Any]]) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return times


def _choices(snapshot: Snapshot, count: int) -> None:
    free, demand = snapshot.free, RecentDemand()
    times = []
    for number in range(count):
        request = parse_request(REQUESTS[number % len(REQUESTS)], 1 + number % 2)
        demand.saw(request)
        began = time.perf_counter()
        choose(request, free, snapshot.inventory, demand)
        times.append(time.perf_counter() - began)
    _report("choice", times, free=len(free))


def _report(what: str, times: list[float], **more: int) -> None:
    ordered = sorted(times)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    devices = GPUS * (1 + MIG_DEVICES)
    found = {"measured": what, "devices": devices, **more, "times": len(times)}
    milliseconds = {"p50_ms": round(p50 * 1e3, 3), "p99_ms": round(p99 * 1e3, 3)}
    print(json.dumps({**found, **milliseconds}), flush=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--image", default="ds01/debian:12", help="any small one (%(default)s)")
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--warm", type=int, default=300, help="snapshots with all known")
    parser.add_argument("--cold", type=int, default=10, help="snapshots with nothing known")
    parser.add_argument("--choices", type=int, default=2000)
    args = parser.parse_args()
    # An end by force tidies up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    api = docker.APIClient(version="auto", timeout=600, num_pools=THREADS)
    held = [device for device in inventory().devices if device.parent][:HELD]
    try:
        with Crowd(api, args.image, args.containers, held) as crowd:
            asyncio.run(measure(api, crowd, args))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
