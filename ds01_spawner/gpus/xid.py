"""Xids: what the driver reports at the moment when something goes wrong on a GPU."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pynvml

from ..clock import utc_now
from . import library

log = logging.getLogger(__name__)

#: Xids that are the program's fault and not the GPU's, as NVIDIA's list of Xids says: 13 and 31 an
#: invalid access, 43 and 45 a program that was stopped, 68 a video decoder's, 109 a time-out.
OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})

#: Milliseconds after which a wait looks whether it should go on.
_WAIT_MS = 500
#: Seconds until a driver that gave an error is asked again.
_RETRY_S = 5.0
#: Seconds between two looks for GPUs that could not be watched before.
_LOOK_AGAIN_S = 60.0
_ANY_INSTANCE = 0xFFFFFFFF

_XID = pynvml.nvmlEventTypeXidCriticalError


class XidWatch:
    """Waits for Xids in a thread of its own.

    - An Xid of a program's own making is left out.
    - One that the driver puts down to a GPU instance is reported for its MIG devices only, any
      other for the GPU.
    - A driver that goes away is waited for; what happens meanwhile is not reported.

    Parameters
    ----------
    on_fault
        Called in that thread with the device's UUID, the Xid and the time.
    """

    def __init__(self, on_fault: Callable[[str, int, datetime], None]) -> None:
        self._on_fault = on_fault
        self._stopping = threading.Event()
        self._watching = threading.Event()
        self._thread = threading.Thread(target=self._run, name="xid-watch", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, which takes half a second at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10 * _WAIT_MS / 1000)

    def wait_until_watching(self, timeout_s: float) -> bool:
        """Wait until Xids of at least one GPU are reported; return whether they are."""
        return self._watching.wait(timeout_s)

    def _run(self) -> None:
        said = ""
        while not self._stopping.is_set():
            try:
                self._watch()
            except pynvml.NVMLError as error:
                # A machine without GPUs has no Xids to wait for.
                problem = library.problem(error)
                if problem and problem != said:
                    log.warning("Xids of the GPUs cannot be watched for now. %s", problem)
                said = problem
            self._watching.clear()
            self._stopping.wait(_RETRY_S)

    def _watch(self) -> None:
        library.initialise()
        try:
            events = pynvml.nvmlEventSetCreate()
            try:
                self._wait_for(events)
            finally:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlEventSetFree(events)
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _wait_for(self, events: Any) -> None:
        watched: set[str] = set()
        look_again = time.monotonic()
        while not self._stopping.is_set():
            if time.monotonic() >= look_again:
                _register_new(events, watched)
                look_again = time.monotonic() + _LOOK_AGAIN_S
                if watched:
                    self._watching.set()
            try:
                event = pynvml.nvmlEventSetWait(events, _WAIT_MS)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    raise
                continue
            if event.eventType == _XID and event.eventData not in OF_PROGRAMS:
                self._report(event)

    def _report(self, event: Any) -> None:
        at = utc_now()
        for uuid in _devices_of(event):
            try:
                self._on_fault(uuid, int(event.eventData), at)
            except Exception:
                log.exception("Xid %d of %s could not be noted", event.eventData, uuid)


def _register_new(events: Any, watched: set[str]) -> None:
    """Register all GPUs that are not registered; one that cannot be is tried again later."""
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(gpu)
            if uuid in watched or not pynvml.nvmlDeviceGetSupportedEventTypes(gpu) & _XID:
                continue
            pynvml.nvmlDeviceRegisterEvents(gpu, _XID, events)
            watched.add(uuid)
        except pynvml.NVMLError as error:
            log.info("Xids of GPU %d are not watched: %s", index, library.describe(error))


def _devices_of(event: Any) -> list[str]:
    """Return the MIG devices that an event is about, or else the GPU."""
    try:
        uuid = pynvml.nvmlDeviceGetUUID(event.device)
    except pynvml.NVMLError as error:
        # A GPU that cannot even say who it is shows up as broken in every reading.
        log.warning("Xid %d of an unknown GPU: %s", event.eventData, library.describe(error))
        return []
    if event.gpuInstanceId == _ANY_INSTANCE:
        return [uuid]
    # Without an answer it is the whole GPU's: too many devices held back, and not too few.
    with suppress(pynvml.NVMLError):
        return _mig_devices_of(event) or [uuid]
    return [uuid]


def _mig_devices_of(event: Any) -> list[str]:
    found: list[str] = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(event.device)):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(event.device, index)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_FOUND:
                raise
            continue
        if pynvml.nvmlDeviceGetGpuInstanceId(part) != event.gpuInstanceId:
            continue
        compute_instance = pynvml.nvmlDeviceGetComputeInstanceId(part)
        if event.computeInstanceId in (_ANY_INSTANCE, compute_instance):
            found.append(pynvml.nvmlDeviceGetUUID(part))
    return found
