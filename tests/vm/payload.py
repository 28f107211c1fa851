"""What a run takes into the virtual machine: the checkout's tests, its wheel, and what to do."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_RUN = Path(__file__).with_name("run.sh")


def pack(archive: Path, arguments: Sequence[str]) -> None:
    """Write the archive that becomes the machine's second disk.

    Parameters
    ----------
    archive
        Where to write it.
    arguments
        For pytest inside.
    """
    with tempfile.TemporaryDirectory() as directory, tarfile.open(archive, "w") as tar:
        for path in _files("tests", "setup.cfg"):
            tar.add(_REPOSITORY / path, path)
        wheel = build_wheel(Path(directory))
        tar.add(wheel, wheel.name)
        command = Path(directory) / "arguments"
        command.write_text("".join(f"{word}\0" for word in arguments), "utf-8")
        tar.add(command, "arguments")
        tar.add(_RUN, "run")


def _files(*paths: str) -> list[str]:
    """Return the files of the checkout below some paths, new ones too, without ignored ones."""
    command = ["git", "-C", str(_REPOSITORY), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard", "--deduplicate", "--", *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (_REPOSITORY / name).exists()]


def build_wheel(directory: Path) -> Path:
    """Build the checkout's wheel in a directory, and return its path."""
    # From a copy: what an earlier build left in the checkout would get into this one.
    source = directory / "source"
    for name in _files("ds01_spawner", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((_REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source)]
    subprocess.run(command, check=True)
    return next(directory.glob("*.whl"))
