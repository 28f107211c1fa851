"""Renew the runtime's lock files: ``python -m ds01_spawner.runtime.relock``.

Every version is resolved for the Python that will run it, never for the one that runs this.
"""

import subprocess
from pathlib import Path

LOCKS = Path(__file__).parent / "image" / "locks"
SERVER_PYTHON = "3.11"
KERNEL_PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
# The oldest C library whose images get a kernel pack: Debian 10, Ubuntu 20.04, RHEL 8.
PLATFORM = "x86_64-manylinux_2_28"


def resolve(requirements: str, lock: str, python: str, *options: str) -> None:
    """Write `lock` with the versions and hashes that `requirements` needs on `python`."""
    command = ["uv", "pip", "compile", requirements, "--output-file", lock]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    command += ["--only-binary", ":all:", "--generate-hashes", "--upgrade"]
    command += ["--no-header", "--no-annotate", "--quiet", *options]
    subprocess.run(command, cwd=LOCKS, check=True)


def main() -> None:
    """Renew every lock."""
    resolve("server.in", "server.lock", SERVER_PYTHON, "--override", "server-overrides.txt")
    for python in KERNEL_PYTHONS:
        resolve("kernel.in", f"cp{python.replace('.', '')}.lock", python)
    resolve("pip.in", "pip.lock", KERNEL_PYTHONS[0])
    resolve("uv.in", "uv.lock", SERVER_PYTHON)


if __name__ == "__main__":
    main()
