#!/usr/bin/env python3
"""How long it takes to add one package to an image that has the data-science set.

Ours: the Dockerfile that a recipe comes to, built as the portal builds it, with the cache of its
owner as the first build left it. Against it: one ``pip install`` of everything in a Dockerfile,
which is built anew whenever a package is added. Both on the base "python", one after the other in
one run, several times; the best of each counts. Both compile what they install. The trial of a
finished image is the same for both and left out.

The set has a layer of its own, which is found again. For comparison, not in the last line: the same
packages typed as lines of the recipe, which share one layer that is built anew.

    python bench/image_rebuild.py [--json] [--times 3]

The last line with --json: {"ours_s": ..., "pip_s": ..., "ratio": ...}
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import docker

from ds01_spawner import buildkit, certificates
from ds01_spawner.images import bases, steps
from ds01_spawner.images.dockerfile import parse
from ds01_spawner.images.recipe import PACKAGE_SETS, dockerfile_text, read_recipe

BASE = "ds01/python:3.11"
#: Each time another one, so that no layer of an earlier run is found.
ADDED = ("humanize", "toolz", "tabulate", "wcwidth", "sortedcontainers", "more-itertools")


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    bases.build_bases(docker.from_env(), certificates.ca_bundle(), lambda line: None)
    # A user of this run alone: its cache begins empty.
    user, run = f"bench{secrets.token_hex(4)}", secrets.token_hex(4)
    first = ours(user, run, [])
    if not args.json:
        print(f"ours, the set for the first time   {first:6.1f} s")
    times: dict[str, list[float]] = {"ours": [], "lines": [], "pip": []}
    for package in ADDED[: args.times]:
        times["ours"].append(ours(user, run, [package]))
        times["lines"].append(ours(user, run, [*PACKAGE_SETS["data-science"], package], sets=[]))
        times["pip"].append(pip(run, [package]))
        if not args.json:
            said = "   ".join(f"{name} {seconds[-1]:6.1f} s" for name, seconds in times.items())
            print(f"with {package:18} {said}")
    ours_s, lines_s, pip_s = (min(seconds) for seconds in times.values())
    result = {
        "ours_s": round(ours_s, 2),
        "pip_s": round(pip_s, 2),
        "ratio": round(ours_s / pip_s, 3),
    }
    if not args.json:
        print(f"typed as lines: {lines_s:.2f} s, {lines_s / pip_s:.3f} of pip")
    print(json.dumps(result) if args.json else f"best of each: {result}")


def ours(
    user: str, run: str, packages: list[str], sets: Sequence[str] = ("data-science",)
) -> float:
    """Build as the portal does; return seconds."""
    recipe = read_recipe(
        {
            "base": "python",
            "sets": list(sets),
            "python": packages,
            # Makes the layers this run's own.
            "environment": {"BENCH": run},
        }
    )
    options = steps.run_options(user, "bench", bases.UV)
    emitted = parse(dockerfile_text(recipe)).emit({"python": BASE}, options)
    return _timed(emitted.text, lambda files: steps.write_ours(files, user, "bench"))


def pip(run: str, packages: list[str]) -> float:
    """Build with one plain pip; return seconds."""
    names = " ".join([*PACKAGE_SETS["data-science"], *packages])
    text = (
        f"FROM {BASE}\nENV BENCH={run}\n"
        "RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf "
        f"pip install --no-cache-dir {names}\n"
    )
    return _timed(text, lambda context: None)


def _timed(dockerfile: str, prepare: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        prepare(context)
        (context / "Dockerfile").write_text(dockerfile)
        with buildkit.site_secrets(certificates.ca_bundle()) as secrets_:
            began = time.monotonic()
            buildkit.build(context, "ds01-bench/image:rebuild", secrets=secrets_)
            return time.monotonic() - began


if __name__ == "__main__":
    main()
