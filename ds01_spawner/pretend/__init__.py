"""GPUs that are not there: a stand-in for NVIDIA's library, to test and to look around.

`ds01_spawner.pretend.machine.Machine` makes a directory that stands for a machine with GPUs. A
process to which the directory's `environment` was given finds these GPUs through pynvml as it
would find real ones. docs/pretended-gpus.md says what can be pretended.
"""

from __future__ import annotations

import os
from pathlib import Path

#: The environment variable that names the directory of the pretended GPUs.
VARIABLE = "DS01_PRETEND_GPUS"
#: The stand-in's file name, by which pynvml loads the real one.
LIBRARY = "libnvidia-ml.so.1"
#: What the stand-in tells, in lines; see `ds01_spawner.pretend.state`.
STATE = "state"
#: A tree in the shape of /proc/driver/nvidia/capabilities.
CAPABILITIES = "capabilities"


def directory() -> Path | None:
    """Return where this process's pretended GPUs live, None if its GPUs are real."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None
