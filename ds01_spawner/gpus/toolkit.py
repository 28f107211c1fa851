"""Whether NVIDIA's container toolkit on this machine is safe to run other people's images with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

#: The first version in which an image cannot run code on the machine with the toolkit's rights.
#: Source: CVE-2025-23266, NVIDIA's security bulletin of July 2025.
SAFE_VERSION = (1, 17, 8)

_COMMANDS = (
    ("nvidia-ctk", "--version"),
    ("nvidia-container-runtime-hook", "--version"),
)
_VERSION = re.compile(r"version:?\s+v?(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_PATIENCE_S = 10.0


def warning(run: Callable[[Sequence[str]], str] | None = None) -> str:
    """Say why the toolkit should be replaced; empty if it is safe, or if there is none.

    Parameters
    ----------
    run
        Runs a command and returns what it prints; raises OSError if there is no such command.
    """
    run = run or _run
    printed = ""
    for command in _COMMANDS:
        try:
            printed = run(command)
        except OSError:
            continue
        found = _VERSION.search(printed)
        if found is None:
            continue
        version = tuple(map(int, found.groups()))
        if version >= SAFE_VERSION:
            return ""
        return (
            f"NVIDIA's container toolkit here is {_dotted(version)}: before "
            f"{_dotted(SAFE_VERSION)} an image can take over this machine (CVE-2025-23266). "
            "Upgrade nvidia-container-toolkit and restart the engine."
        )
    if printed:
        return (
            "NVIDIA's container toolkit here does not tell its version: make sure that it is "
            f"{_dotted(SAFE_VERSION)} or newer (CVE-2025-23266)."
        )
    return ""


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} does not answer") from error
    return done.stdout + done.stderr
