"""Compiles the stand-in library, once for each version of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import LIBRARY

_HERE = Path(__file__).parent
SOURCES = tuple(_HERE / name for name in ("nvml.c", "state.c", "use.c"))
_HEADER = _HERE / "nvml.h"
_COMPILE = ("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", f"-Wl,-soname,{LIBRARY}")


class BuildError(Exception):
    """The library could not be compiled; the text says why and what to do."""


def build() -> Path:
    """Return the compiled library, made now if this version of it was not made before.

    Raises
    ------
    BuildError
        If there is no compiler, or it fails.
    """
    content = b"".join(path.read_bytes() for path in (_HEADER, *SOURCES))
    content += " ".join(_COMPILE).encode()
    library = _cache() / f"nvml-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        _compile(library)
    return library


def put(library: Path, path: Path) -> None:
    """Copy the library to `path`, in one step: a running process may have the old one open."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(library.read_bytes())
    os.chmod(file.name, 0o755)
    os.replace(file.name, path)


def command(library: Path) -> list[str]:
    """Return the command that compiles the library."""
    return [*_COMPILE, "-o", str(library), *map(str, SOURCES), "-ldl", "-lpthread"]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ds01"


def _compile(library: Path) -> None:
    if shutil.which("gcc") is None:
        raise BuildError("Pretended GPUs need a C compiler: apt-get install gcc libc6-dev.")
    # Several processes may do this at once; each renames its own, and they are all the same.
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch, "library")
        done = subprocess.run(command(made), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise BuildError(
                "The library of the pretended GPUs cannot be compiled; it needs gcc and libc6-dev."
                f"\n{done.stderr}"
            )
        os.replace(made, library)
