"""What the tests of GPUs share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ds01_spawner.gpus.devices import Device, Reading


def by_index(reading: Reading) -> dict[str, Device]:
    return {device.index: device for device in reading.inventory.devices}


def run_python(script: str, library: Path | None = None, **variables: str) -> str:
    """Run lines of Python in a process that has no pretended GPUs unless it is told so."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library or ""), **variables}
    if "DS01_PRETEND_GPUS" not in variables:
        environment.pop("DS01_PRETEND_GPUS", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
