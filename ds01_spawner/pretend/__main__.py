"""Makes a directory that stands for a machine with GPUs: ``python -m ds01_spawner.pretend``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import VARIABLE
from .build import BuildError
from .layout import parse_spec
from .machine import Machine
from .models import MODELS
from .partition import SpecError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 for a failure, 2 for a spec that cannot be."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.directory is None and not args.check:
        parser.error("DIR is missing")
    try:
        if args.check:
            parse_spec(args.spec)
            return 0
        machine = Machine(args.directory, args.spec)
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(machine.state.gpus)} GPUs are pretended for processes that have this set:")
    for name, value in machine.environment().items():
        print(f"{name}={value}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ds01_spawner.pretend",
        description=f"Pretends GPUs for processes with {VARIABLE} set.",
        epilog=f"GPUs: {', '.join(MODELS)}. docs/pretended-gpus.md has the grammar.",
    )
    parser.add_argument("spec", metavar="SPEC", help="such as a100-80gb:2,mig=7x1g.10gb@1")
    parser.add_argument(
        "directory", metavar="DIR", type=Path, nargs="?", help="made if it is not there"
    )
    parser.add_argument("--check", action="store_true", help="make nothing, only check SPEC")
    return parser


if __name__ == "__main__":
    sys.exit(main())
