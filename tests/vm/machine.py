"""A virtual machine for one run of something: booted, watched, and gone afterwards."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .image import Image

_MEMORY = "3G"
_PROCESSORS = 2
#: Debian's kernel stops for good at EDD under QEMU.
_KERNEL_OPTIONS = "root=/dev/vda rw console=ttyS0 edd=off"
_CONSOLE_LINES_SHOWN = 60

Output = Callable[[bytes], None]


class MachineError(Exception):
    """A machine that did not come up, or did not come to an end; with the end of its console."""


def command(image: Image, payload: Path, console: Path, status: Path) -> list[str]:
    """Return the command that boots an image with a payload as its second disk.

    What happens in the machine leaves the image as it is. The machine has no network. Processors
    are emulated in software: that works everywhere, and is the same everywhere.
    """
    return [
        # Gone when we are, however we end.
        *("setpriv", "--pdeathsig", "KILL"),
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-machine", "q35", "-cpu", "max", "-smp", str(_PROCESSORS), "-m", _MEMORY),
        *("-accel", "tcg,thread=multi,tb-size=512"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _KERNEL_OPTIONS),
        *("-serial", f"file:{console}"),
        *("-drive", f"id=root,if=none,format=raw,snapshot=on,cache=unsafe,file={image.disk}"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"id=payload,if=none,format=raw,readonly=on,file={payload}"),
        *("-device", "virtio-blk-pci,drive=payload,serial=ds01-payload"),
        *("-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", "file,id=output,path=/dev/stdout"),
        *("-device", "virtserialport,chardev=output,name=ds01.output"),
        *("-chardev", f"file,id=status,path={status}"),
        *("-device", "virtserialport,chardev=status,name=ds01.status"),
    ]


def watch(
    command: Sequence[str],
    console: Path,
    status: Path,
    *,
    boot_deadline_s: float,
    deadline_s: float,
    output: Output,
) -> int:
    """Run a machine to its end, and return the exit status that it left.

    Parameters
    ----------
    command
        Runs the machine; its standard output is that of what runs inside.
    console
        File with the machine's console, to show what went wrong.
    status
        File into which what ran inside has its exit status written.
    boot_deadline_s
        Within so many seconds there must be a first output.
    deadline_s
        Within so many seconds all must be over.
    output
        Called with each piece of output while it comes.

    Raises
    ------
    MachineError
        If the machine misses one of the deadlines, or ends without a status.
    """
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            if not _pass_on(process, began + boot_deadline_s, output, once=True):
                raise _trouble(f"did not come up within {boot_deadline_s:g} s", console)
            if not _pass_on(process, began + deadline_s, output):
                raise _trouble(f"was not done within {deadline_s:g} s", console)
        finally:
            process.kill()
    try:
        return int(status.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _trouble("ended without saying how that went which ran in it", console) from error


def _pass_on(
    process: subprocess.Popen[bytes], until: float, output: Output, *, once: bool = False
) -> bool:
    """Pass on output until it ends, or a first piece; return whether that was in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            piece = os.read(process.stdout.fileno(), 65536)
            output(piece)
            if once or not piece:
                return True
    return False


def _trouble(what: str, console: Path) -> MachineError:
    lines = console.read_text("utf-8", "replace").splitlines() if console.is_file() else []
    shown = [line for line in lines if line.strip()][-_CONSOLE_LINES_SHOWN:]
    return MachineError("\n".join([f"The virtual machine {what}. The end of its console:", *shown]))
