"""One of the two that are compared: our service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import docker

from ds01_spawner import engine
from ds01_spawner.lifecycle import kernels, processes
from ds01_spawner.lifecycle.decide import FIRST_WARNING, NOTICE
from ds01_spawner.lifecycle.history import Kernels
from ds01_spawner.lifecycle.hub import Hub
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.meters import GpuLoad, Meters
from ds01_spawner.lifecycle.records import Course, LifeRecords
from ds01_spawner.lifecycle.rules import LiveRules
from ds01_spawner.lifecycle.server import Server
from ds01_spawner.lifecycle.service import Service
from ds01_spawner.lifecycle.sweep import Sweep
from ds01_spawner.messages.outbox import Outbox
from ds01_spawner.settings import DS01Settings

from .looks import measured
from .world import GPUS, HUB_ID, NEAR, PROJECT, container_id, user_name

POLICY = Path(__file__).resolve().parents[2] / "packaging" / "policy" / "resource-limits.yaml"
CYCLE = timedelta(minutes=1)
#: It looks more often than it would, by its own clock, so that what is near a limit stays there
#: until the end and is asked in each look.
STEP = timedelta(seconds=15)


class StandInGpus:
    """Eight devices, all idle."""

    async def load(self) -> GpuLoad:
        """See `service.Gpus`."""
        return GpuLoad(dict.fromkeys(GPUS, 0.0), float(len(GPUS)))


async def nothing_installed(_container: Mapping[str, Any]) -> list[str]:
    """Stand for what reads a server's packages before a stop; nothing is stopped."""
    return []


async def ours(port: int, work: Path, servers: int, proc: Path, root: Path) -> None:
    """Measure our service."""
    settings = DS01Settings(data_dir=str(work), policy_file=str(POLICY))
    rules_of = LiveRules(settings)

    async def ask(server: Server) -> Kernels | None:
        seen = server.watched
        said, since = await asyncio.gather(
            kernels.ask(server.address, server.token),
            asyncio.to_thread(processes.executing_in, seen.container_id, seen.pid, proc, root),
        )
        return None if said is None else said.with_executing(since)

    now = datetime.now(timezone.utc)
    records = LifeRecords(work / "lives.sqlite")
    limit = rules_of(user_name(0), ["student"]).idle_timeout
    # Asked from two cycles before the first warning on, which is not reached meanwhile.
    warning = min(limit * FIRST_WARNING, limit - NOTICE)
    memory = Memory(now, now - warning + 2 * CYCLE, now - warning)
    records.keep_courses(
        Course(container_id(number), user_name(number), PROJECT, memory)
        for number in range(0, servers, NEAR)
    )
    # What the environment says of proxies is not meant for this.
    client = docker.APIClient(base_url=f"tcp://127.0.0.1:{port}", version="1.41", timeout=600)
    client.trust_env = False
    call = engine.Caller(client, ThreadPoolExecutor(8))
    service = Service(
        Hub(f"http://127.0.0.1:{port}/hub/api", "token"),
        call,
        HUB_ID,
        StandInGpus(),
        rules_of,
        ask,
        records,
        Sweep(call, settings.store),
        nothing_installed,
        Outbox(settings.message_records, records, (), "ds01-culler"),
        CYCLE,
        meters=Meters(proc, root),
    )
    at = now

    async def look() -> None:
        nonlocal at
        await service.look(at)
        at += STEP

    await measured(port, look)
    courses, events = records.courses(), records.events()
    if len(courses) != servers or any(course.cpu_percent is None for course in courses):
        raise SystemExit(f"{len(courses)} servers of {servers} were looked at")
    if events:
        raise SystemExit(f"Something happened that should not: {events[0]}")


if __name__ == "__main__":
    _, port, work, servers, proc, root = sys.argv
    asyncio.run(ours(int(port), Path(work), int(servers), Path(proc), Path(root)))
