#!/usr/bin/env python3
"""Compare one look of our service at all servers with one run of jupyterhub-idle-culler.

    bench/cull.py --json

starts a stand-in for the Hub, the engine and the notebook servers, a process of its own on
loopback, and has each of the two look at 1,000 servers again and again. 5 % of them are near a
limit, so that ours asks them for their kernels. The last line is a JSON object: CPU time, time and
requests of one look, medians of five. Nothing is stopped. docs/lifecycle.md says what was measured.

The kernel's files are plain ones below a temporary directory, in the form of cgroup v1 or v2: read
by the same code, though the kernel takes longer to write its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from culling.looks import Look
from culling.world import NEAR, plain_files

WARM_UP, LOOKS = 2, 5
HERE = Path(__file__).resolve().parent


def compare(servers: int, cgroups: str, page: int) -> dict[str, Any]:
    """Run both, each in a process of its own, and return the medians."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory()))
        proc, root = work / "proc", work / "cgroup"
        pids = plain_files(work, servers, cgroups)
        (work / "pids").write_text(json.dumps(pids))
        world = stack.enter_context(_part(work / "world.log", "world", work / "pids"))
        assert world.stdout is not None
        port = world.stdout.readline().strip()
        both = {
            "ours": stack.enter_context(
                _part(work / "ours.log", "ours", port, work, servers, proc, root)
            ),
            "stock": stack.enter_context(_part(work / "stock.log", "stock", port, page)),
        }
        found: dict[str, list[Look]] = {name: [] for name in both}
        for _ in range(WARM_UP + LOOKS):
            # In turns: what else this machine does meanwhile slows down both.
            for name, part in both.items():
                found[name].append(_look(part))
        for part in both.values():
            _end(part)
    near = len(range(0, servers, NEAR))
    if found["ours"][-1].requests["kernels"] != near:
        raise SystemExit(f"Not {near} servers were asked for their kernels: {found['ours'][-1]}")
    lines: dict[str, Any] = {"servers": servers}
    for name, looks in found.items():
        looks = looks[WARM_UP:]
        lines[f"{name}_cpu_s"] = round(statistics.median(look.cpu_s for look in looks), 4)
        lines[f"{name}_wall_s"] = round(statistics.median(look.wall_s for look in looks), 4)
        lines[f"{name}_requests"] = sum(looks[-1].requests.values())
        lines[f"{name}_requests_to"] = looks[-1].requests
    lines["cpu_ratio"] = round(lines["ours_cpu_s"] / lines["stock_cpu_s"], 2)
    return {**lines, "cgroups": cgroups, "load": round(os.getloadavg()[0], 1)}


@contextmanager
def _part(log: Path, name: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run one process, whose log is of interest only if it fails."""
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", f"culling.{name}", *map(str, words)],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as part,
    ):
        try:
            yield part
        except (SystemExit, OSError):
            print(log.read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            part.kill()


def _look(part: subprocess.Popen[str]) -> Look:
    assert part.stdin is not None
    assert part.stdout is not None
    part.stdin.write("\n")
    part.stdin.flush()
    said = part.stdout.readline()
    if not said:
        raise SystemExit(f"A part of the benchmark has ended: {part.args!r}")
    return Look(**json.loads(said))


def _end(part: subprocess.Popen[str]) -> None:
    assert part.stdin is not None
    part.stdin.close()
    if part.wait():
        raise SystemExit(f"A part of the benchmark failed: {part.args!r}")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--cgroups", choices=("v1", "v2"), default="v1")
    parser.add_argument("--stock-page", type=int, default=0, help="its api_page_size (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    # An end by force tidies up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = compare(args.servers, args.cgroups, args.stock_page)
    if args.json:
        print(json.dumps(found))
        return 0
    for key, value in found.items():
        print(f"{key:>20}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
