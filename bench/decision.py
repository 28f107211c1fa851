#!/usr/bin/env python3
"""Measure how long it takes to learn who holds which GPU, and to choose one.

    bench/decision.py

makes 500 containers, which never run, on this machine's Docker engine, each with a MIG device of
64 pretended GPUs, and prints one JSON object a line: times in milliseconds, and how many programs
wanted a CPU meanwhile. The containers are removed afterwards, also after Ctrl-C. docs/gpus.md says
what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import docker
import docker.errors

from ds01_spawner import pretend
from ds01_spawner.gpus.devices import Device, Snapshot
from ds01_spawner.gpus.nvml import Nvml
from ds01_spawner.gpus.placement import RecentDemand, choose
from ds01_spawner.gpus.request import parse_request
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.names import container_name
from ds01_spawner.pretend.machine import Machine
from ds01_spawner.pretend.state import Process

GPUS = 64
MIG_DEVICES = 7
#: So many MIG devices are held; several containers share one, as no engine minds.
HELD = 300
#: GPUs with a process on each of their MIG devices.
BUSY_GPUS = 14
#: Threads for the engine, as many as the Hub has.
THREADS = 16
REQUESTS = ("1g.10gb", ">=5g", "full", "7g.80gb", "1g.10gb@A100")


@contextmanager
def pretended_gpus() -> Iterator[Nvml]:
    """Give what reads 64 pretended GPUs, each cut into seven, with processes on some of them."""
    with TemporaryDirectory() as folder:
        machine = Machine(folder, f"a100-80gb:{GPUS},mig=7x1g.10gb@0-{GPUS - 1}")
        for index in range(GPUS - BUSY_GPUS, GPUS):
            for device in machine.mig(index):
                machine.device(device).processes.append(Process(os.getpid(), None, "compute"))
        machine.write()
        os.environ[pretend.VARIABLE] = folder
        # Loaded under this name, it is what pynvml finds.
        ctypes.CDLL(str(machine.directory / pretend.LIBRARY))
        yield Nvml()


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


async def measure(
    api: docker.APIClient, nvml: Nvml, crowd: Crowd, args: argparse.Namespace
) -> None:
    """Print the times of snapshots and choices."""
    pool = ThreadPoolExecutor(THREADS)

    async def in_thread(call: Callable[..., Any], *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *words)

    async def docker_call(method: str, *words: Any, **settings: Any) -> Any:
        return await in_thread(lambda: getattr(api, method)(*words, **settings))

    def new() -> Snapshots:
        return Snapshots(docker_call, nvml.read, in_thread, crowd.hub)

    warm = new()
    snapshot, own, _ = await warm.take()
    if len(own) != args.containers or snapshot.warnings:
        raise SystemExit(f"{len(own)} containers of {args.containers}; {snapshot.warnings[:3]}")
    listing = await _times(args.warm, lambda: docker_call("containers", all=True))
    _report("the engine's list alone", listing, containers=args.containers)
    _report("NVML's answers alone", await _times(args.warm, lambda: in_thread(nvml.read)))
    cold = await _times(args.cold, lambda: new().take())
    _report("snapshot, nothing known yet", cold, containers=args.containers)
    times = await _times(args.warm, warm.take)
    _report("snapshot, containers known", times, containers=args.containers)
    _choices(snapshot, args.choices)
    _choices(Snapshot(snapshot.inventory), args.choices)


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
    load = {"load": round(os.getloadavg()[0], 1), "cpus": os.cpu_count()}
    print(json.dumps({**found, **milliseconds, **load}), flush=True)


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
    try:
        with pretended_gpus() as nvml:
            held = [device for device in nvml.read().inventory.devices if device.parent][:HELD]
            with Crowd(api, args.image, args.containers, held) as crowd:
                asyncio.run(measure(api, nvml, crowd, args))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
