"""The processes that NVML sees on a device."""

from __future__ import annotations

from typing import Any

import pynvml

from .devices import GpuProcess

#: A list may outgrow the room that was made for it between two calls; it seldom does so twice.
_TRIES = 3
_TOO_SMALL = pynvml.NVML_ERROR_INSUFFICIENT_SIZE


def processes_on(uuid: str, handle: Any) -> list[GpuProcess]:
    """Return all processes that use a device, in the order of their numbers.

    A device without graphics or without MPS has no such processes, which is no failure; one that
    cannot tell what computes on it cannot tell whether it is free.

    Raises
    ------
    pynvml.NVMLError
        If NVML cannot tell.
    """
    memory: dict[int, int | None] = {}
    for function in _LISTS:
        for process in _ask(function, handle):
            # One that computes and draws is in two lists, with the same memory.
            memory[process.pid] = process.usedGpuMemory or memory.get(process.pid)
    return [GpuProcess(pid, uuid, memory[pid]) for pid in sorted(memory)]


# By their versions: the names without one turn a missing function into another kind of exception.
_COMPUTE = pynvml.nvmlDeviceGetComputeRunningProcesses_v3
_LISTS = (
    _COMPUTE,
    pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
)


def _ask(function: Any, handle: Any) -> list[Any]:
    for tries_left in reversed(range(_TRIES)):
        try:
            processes: list[Any] = function(handle)
            return processes
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED and function is not _COMPUTE:
                return []
            if error.value != _TOO_SMALL or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")
