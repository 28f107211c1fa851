"""What the sub-commands of ``ds01`` are made of: their arguments, and how they fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

#: The flags of an argument, and its other settings, as `argparse` takes them.
Argument: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]


class Failure(Exception):
    """What was asked for cannot be done; the text says why and what to do."""


def argument(*flags: str, **settings: Any) -> Argument:
    """Describe an argument of a sub-command in the words of `argparse`."""
    return flags, settings


DATA = argument(
    "--data",
    metavar="DIR",
    type=Path,
    default=os.environ.get("DS01DATA") or "/var/lib/ds01",
    help="the Hub's directory (%(default)s)",
)
