"""Slices that systemd makes, for an engine with the systemd driver.

They are transient units, made over D-Bus with the command ``busctl``, which is a part of systemd.
The manager is never reloaded: a reload takes GPUs away from containers that run. Whether it has
done what it was asked is read from the kernel.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from .files_v1 import FilesV1
from .files_v2 import FilesV2
from .limits import SliceError, SliceLimits, differences
from .usage import Usage

#: Seconds for which the kernel's files are awaited; the manager may have to reclaim memory.
_PATIENCE_S = 30.0
_RETRY_S = 0.01

#: What systemd understands as no limit.
_INFINITY = 2**64 - 1


class SystemdSlices:
    """See `slices.Slices`.

    Parameters
    ----------
    kernel
        What the kernel has of the same slices.
    """

    def __init__(self, kernel: FilesV1 | FilesV2) -> None:
        self._kernel = kernel
        self.knows_memory_high = kernel.knows_memory_high

    def parent(self, name: str) -> str:
        """Return what Docker is given as a container's parent."""
        return name

    def set(self, name: str, limits: SliceLimits) -> None:
        """Make the slice, or change its limits, and wait until the kernel has them.

        Raises
        ------
        SliceError
            If systemd refuses, or the kernel has other limits some time later.
        """
        if isinstance(self._kernel, FilesV1) and limits.cpus is not None:
            self._kernel.lower_containers(name, limits.cpus)
        properties = _properties(limits)
        if self._kernel.limits(name) is not None or not _try_start(name, properties):
            # A name that the engine has used before is known to the manager, running or not.
            _call("SetUnitProperties", "sba(sv)", name, "true", *properties)
            _call("StartUnit", "ss", name, "replace")
        _wait(lambda: not self._problems(name, limits))
        if problems := self._problems(name, limits):
            raise SliceError(
                f"systemd was asked to limit {name}, and {_PATIENCE_S:.0f} s later "
                f"{', '.join(problems)}. See `journalctl -b _PID=1` for why."
            )

    def close_devices(self, name: str) -> None:
        """Hold a slice that exists from all devices but the harmless ones, such as /dev/null.

        The kernel's files do not show it; see `devices.may_open`.

        Raises
        ------
        SliceError
            If systemd refuses.
        """
        # Source: systemd.resource-control(5).
        policy = ("1", "DevicePolicy", "s", "closed")
        _call("SetUnitProperties", "sba(sv)", name, "true", *policy)

    def limits(self, name: str) -> SliceLimits | None:
        """Return the limits that the kernel has, None if there is no such slice."""
        return self._kernel.limits(name)

    def usage(self, name: str) -> Usage | None:
        """Return what all containers of the slice use, None if there is no such slice."""
        return self._kernel.usage(name)

    def remove_if_empty(self, name: str) -> bool:
        """Remove the slice unless a container is under it; tell whether it is gone."""
        # Stopping a slice ends all that is in it.
        if self._kernel.is_occupied(name):
            return False
        if not self._exists(name):
            return True
        _call("StopUnit", "ss", name, "replace")
        _wait(lambda: not self._exists(name))
        return not self._exists(name)

    def names(self) -> list[str]:
        """Return the names of the slices that exist."""
        return self._kernel.names()

    def _exists(self, name: str) -> bool:
        return self._kernel.limits(name) is not None

    def _problems(self, name: str, limits: SliceLimits) -> list[str]:
        found = self._kernel.limits(name)
        if found is None:
            return ["there is no such slice"]
        return differences(limits, found, memory_high=self.knows_memory_high)


def _properties(limits: SliceLimits) -> list[str]:
    """Return the unit's properties as `busctl` takes an array: its length, then the values."""
    cpus = None if limits.cpus is None else round(limits.cpus * 1e6)
    numbers = {
        "MemoryMax": limits.memory_bytes,
        "MemoryHigh": limits.memory_high_bytes,
        # CPU time in microseconds per second.
        "CPUQuotaPerSecUSec": cpus,
        "TasksMax": limits.tasks,
    }
    # The controllers are on also where nothing is limited, so that usage is counted.
    words = [
        word
        for what in ("MemoryAccounting", "CPUAccounting", "TasksAccounting")
        for word in (what, "b", "true")
    ]
    for what, number in numbers.items():
        words += [what, "t", str(_INFINITY if number is None else number)]
    return [str(len(words) // 3), *words]


def _try_start(name: str, properties: list[str]) -> bool:
    """Make a new transient unit; tell whether systemd did, which it does not for a known name."""
    try:
        _call("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", *properties, "0")
    except SliceError:
        return False
    return True


def _call(method: str, signature: str, *arguments: str) -> None:
    """Call a method of systemd's manager.

    Raises
    ------
    SliceError
        With what systemd says against it.
    """
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
    command = ["busctl", "--system", "--quiet", "call", *manager, f"{manager[0]}.Manager"]
    try:
        subprocess.run(
            [*command, method, signature, *arguments],
            check=True,
            timeout=_PATIENCE_S,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise SliceError(
            "The Docker engine uses the systemd cgroup driver, and the command busctl, a part of "
            "systemd, is not on the Hub's PATH. Install systemd or mend the PATH."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SliceError(f"systemd has not answered {method} of {arguments[0]} in time.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or f"exit status {error.returncode}"
        raise SliceError(
            f"systemd refuses {method} of {arguments[0]}: {said} (the Hub must run as root)"
        ) from error


def _wait(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, or patience ends."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(_RETRY_S)
