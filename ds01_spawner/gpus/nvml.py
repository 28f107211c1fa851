"""The GPUs of this machine, asked of NVIDIA's driver each time anew."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

import pynvml

from . import library
from .devices import GpuProcess, Inventory, Reading, State
from .enumeration import Enumerator, Found
from .health import trouble_of_error
from .nvlink import read_links
from .running import processes_on
from .utilisation import Meter

log = logging.getLogger(__name__)

#: Seconds for which the NVLinks of the same GPUs are taken to be the same: a link that goes down
#: makes a choice less good and never wrong, and there are many to ask.
_LINKS_LAST_S = 60.0


class Nvml:
    """What NVML says, through pynvml.

    - Its methods never raise: what cannot be told is said in the answer.
    - Nothing that can change is remembered from one reading to the next, so that a reading is
      true when it begins.
    - Any thread may call it; its calls block, for a long time if the driver hangs.
    - It keeps the driver's library open, and opens it again after the driver was reloaded.

    Parameters
    ----------
    faults
        Gives UUID -> reason, in words, of devices that are broken although NVML may say nothing,
        such as those of which an Xid was reported.
    """

    def __init__(self, faults: Callable[[], Mapping[str, str]] = dict) -> None:
        self._faults = faults
        self._lock = threading.RLock()
        self._metering = threading.Lock()
        self._open = False
        self._forget()

    def read(self) -> Reading:
        """Return all devices, their states, and the processes on them."""
        with self._lock:
            try:
                return self._read_patiently()
            except pynvml.NVMLError as error:
                self.close()
                return Reading(Inventory(problem=library.problem(error)))
            except Exception as error:
                # Whatever it is, it must not look like a machine on which everything is free.
                log.exception("The GPUs could not be read")
                self.close()
                return Reading(Inventory(problem=f"The GPUs could not be read: {error!r}"))

    def utilisation(self) -> Mapping[str, float]:
        """Return UUID -> share of the time in which a device was busy lately, from 0 to 1.

        Devices that cannot tell are left out: MIG devices before Hopper, and whatever is broken.
        """
        # It may take a while, and no grant is to wait for it.
        with self._metering:
            try:
                with self._lock:
                    meter, found = self._meter, self._enumerate()
                return meter.read(found)
            except pynvml.NVMLError:
                # The next reading says why.
                self.close()
                return {}

    def close(self) -> None:
        """Let go of the driver's library, as its admin needs it to reset a GPU; a call opens it."""
        with self._lock:
            if self._open:
                self._open = False
                # It may be closed already, which is what is wanted.
                with contextlib.suppress(pynvml.NVMLError):
                    pynvml.nvmlShutdown()
            self._forget()

    def _forget(self) -> None:
        self._enumerator = Enumerator()
        self._meter = Meter()
        self._links: tuple[tuple[str, ...], float, Mapping[frozenset[str], int]] | None = None

    def _read_patiently(self) -> Reading:
        if self._open:
            try:
                return self._read()
            except pynvml.NVMLError:
                # The driver was reloaded, or somebody else in this process let go of the library.
                self.close()
        return self._read()

    def _read(self) -> Reading:
        found = self._enumerate()
        driver = pynvml.nvmlSystemGetDriverVersion()
        links = self._read_links(found)
        processes, unasked = _read_processes(found)
        # Whatever single devices said: if the driver went away meanwhile, all of it is void.
        pynvml.nvmlDeviceGetCount()
        devices = tuple(one.device for one in found)
        return Reading(Inventory(devices, links, driver), processes, unasked)

    def _enumerate(self) -> list[Found]:
        if not self._open:
            library.initialise()
            self._open = True
        return self._enumerator.read(pynvml.nvmlDeviceGetCount(), self._faults())

    def _read_links(self, found: list[Found]) -> Mapping[frozenset[str], int]:
        handles = {
            one.device.uuid: one.handle
            for one in found
            if one.device.kind == "gpu" and one.handle is not None
        }
        uuids = tuple(handles)
        if self._links is None or self._links[0] != uuids or time.monotonic() > self._links[1]:
            self._links = uuids, time.monotonic() + _LINKS_LAST_S, read_links(handles)
        return self._links[2]


def _read_processes(found: list[Found]) -> tuple[tuple[GpuProcess, ...], dict[str, str]]:
    processes: list[GpuProcess] = []
    unasked: dict[str, str] = {}
    cut = {one.device.parent for one in found}
    for one in found:
        device = one.device
        # A GPU in MIG mode runs nothing but what runs on its MIG devices.
        if device.state is State.PARTITIONED or device.uuid in cut:
            continue
        if one.handle is None:
            unasked[device.uuid] = device.detail
            continue
        try:
            processes += processes_on(device.uuid, one.handle)
        except pynvml.NVMLError as error:
            unasked[device.uuid] = trouble_of_error(error, "processes").detail
    return tuple(processes), unasked
