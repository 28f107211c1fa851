"""How the two that are compared are measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPConnection


@dataclass(frozen=True)
class Look:
    """What one look at all servers took, and how often whom it asked."""

    cpu_s: float
    wall_s: float
    requests: Mapping[str, int]


async def measured(port: int, look: Callable[[], Awaitable[None]]) -> None:
    """Look once for each line that comes in, and write a line of what it took."""
    # Nothing else is to run meanwhile: this waits for the line without the loop.
    while sys.stdin.readline():
        _counts(port)
        wall, cpu = time.perf_counter(), time.process_time()
        await look()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps(asdict(Look(cpu, wall, _counts(port)))), flush=True)


def _counts(port: int) -> dict[str, int]:
    """Return how often the stand-in was asked since the last time."""
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/counts")
        return dict.fromkeys(("hub", "engine", "kernels"), 0) | json.load(connection.getresponse())
    finally:
        connection.close()
