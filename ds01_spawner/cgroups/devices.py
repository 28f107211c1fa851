"""Whether a cgroup's processes may open the machine's devices, found by trying.

The kernel shows no filter of devices in the files of cgroup v2: it is a program that hangs there.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from .limits import SliceError

#: A block device of a number that the kernel leaves to experiments: there is none, or a harmless
#: look at one. Source: Linux, Documentation/admin-guide/devices.txt.
_NUMBER = (120, 1)
_PATIENCE_S = 30.0

#: Joins the cgroup, tries, and prints what came of it; its status is 1 for any accident.
_TRY = """\
import os, sys
cgroup, node = sys.argv[1:]
with open(cgroup, "w") as file:
    file.write("0")
try:
    os.open(node, os.O_RDONLY)
    print(0)
except OSError as error:
    print(error.errno)
"""


def may_open(cgroup: Path) -> bool:
    """Tell whether processes in a cgroup of v2 may open a block device.

    Raises
    ------
    SliceError
        If that cannot be found out.
    """
    try:
        # What is mounted below /dev has devices; /tmp may not.
        with tempfile.TemporaryDirectory(prefix="ds01-", dir="/dev") as directory:
            node = Path(directory, "none")
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*_NUMBER))
            # By itself this opens no device, so that only a filter says EPERM.
            command = [sys.executable, "-I", "-S", "-c", _TRY, str(cgroup / "cgroup.procs")]
            done = subprocess.run(
                [*command, str(node)], capture_output=True, text=True, timeout=_PATIENCE_S
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SliceError(f"Whether {cgroup} is held from devices is not known: {error}") from error
    said = done.stdout.strip()
    if said == str(errno.EPERM):
        return False
    if said in ("0", str(errno.ENXIO)):
        return True
    said = said or done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}"
    raise SliceError(f"Whether {cgroup} is held from devices is not known: {said:.200}")
