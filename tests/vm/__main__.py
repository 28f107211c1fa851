"""Runs pytest in the virtual machine; the words that follow are its arguments."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from . import image, machine, payload

_BOOT_DEADLINE_S = 300
_DEADLINE_S = 40 * 60


def main(arguments: list[str]) -> int:
    """Make the image if need be, boot it with this checkout, and return pytest's exit status."""
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:3.0f} s] {line}", flush=True)

    built = image.obtain(say)
    with tempfile.TemporaryDirectory(prefix="ds01-vm-") as name:
        directory = Path(name)
        console, status, disk = directory / "console", directory / "status", directory / "disk"
        payload.pack(disk, arguments)
        say("Booting the virtual machine")
        try:
            result = machine.watch(
                machine.command(built, disk, console, status),
                console,
                status,
                boot_deadline_s=_BOOT_DEADLINE_S,
                deadline_s=_DEADLINE_S,
                output=_write,
            )
        except machine.MachineError as error:
            print(error, file=sys.stderr)
            return 1
    say("The virtual machine is off")
    return result


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
