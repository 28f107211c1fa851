"""The runtime: the notebook server that is mounted into every container, whatever its image."""

from functools import cache
from pathlib import Path

from ..buildkit import content_hash

#: Where the runtime's volume is mounted, read-only.
MOUNT = "/opt/ds01"

#: What a container runs.
COMMAND = [f"{MOUNT}/bin/python3", "-I", "-X", "utf8", "-m", "ds01_launch"]

#: A directory of the container that belongs to the user: packages installed in a server go there.
TEMPORARY = "/opt/temporary"

#: What the runtime is built from.
CONTEXT = Path(__file__).parent / "image"


@cache
def version() -> str:
    """Return twelve hexadecimal digits that stand for everything that goes into the runtime."""
    return content_hash(CONTEXT)[:12]


def volume_name() -> str:
    """Return the name of the volume that holds this version."""
    return f"ds01-runtime-{version()}"
