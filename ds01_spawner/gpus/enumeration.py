"""All GPUs and MIG devices that NVML lists, each with what is wrong with it.

NVML's handles and indexes are good for one reading only: they change when a GPU is partitioned
anew. What is remembered from one reading to the next is remembered by UUID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import pynvml

from . import facts
from .devices import Device, State
from .health import (
    NOT_SUPPORTED,
    Trouble,
    mig_mode_troubles,
    trouble_of_error,
    troubles_of_gpu,
    worst,
)

_NOTHING_MADE = "MIG mode is on, and no MIG device has been made: see 'nvidia-smi mig'"


class _MigMode(Enum):
    NONE = "this kind of GPU has no MIG"
    OFF = "off"
    ON = "on"
    UNKNOWN = "NVML cannot tell"


@dataclass(frozen=True)
class Found:
    """A device, and NVML's handle of it for now; None if it cannot be reached."""

    device: Device
    handle: Any = None


@dataclass
class _Draft:
    """A device while it is read: what it is, and what was said against it so far."""

    device: Device
    handle: Any = None
    troubles: list[Trouble] = field(default_factory=list)


class Enumerator:
    """Lists devices again and again, and remembers what makes that quick and lossless.

    - What never changes for a UUID, such as the memory, is asked once.
    - A GPU that could be read before and cannot now keeps its UUID and its MIG devices: who has
      them still has them.
    """

    def __init__(self) -> None:
        self._facts: dict[tuple[object, ...], Device] = {}
        self._last: dict[int, tuple[Device, ...]] = {}

    def read(self, count: int, faults: Mapping[str, str]) -> list[Found]:
        """Return all devices of the GPUs 0 to `count` - 1, each GPU before its MIG devices.

        Parameters
        ----------
        faults
            UUID -> what is known against a device from elsewhere, in words.
        """
        reached = [_reach(index) for index in range(count)]
        listed = {gpu.device.uuid for gpu in reached}
        found: list[Found] = []
        last: dict[int, tuple[Device, ...]] = {}
        for index, gpu in enumerate(reached):
            known = _still_known(gpu, self._last.get(index, ()), listed)
            here = self._read_gpu(gpu, known, faults)
            last[index] = tuple(one.device for one in here)
            found += here
        self._last = last
        return found

    def _read_gpu(
        self, gpu: _Draft, known: tuple[Device, ...], faults: Mapping[str, str]
    ) -> list[Found]:
        if gpu.troubles:
            mode = _MigMode.UNKNOWN
            gpu.device = known[0] if known else gpu.device
        else:
            mode = _ask_mig_mode(gpu)
            gpu.troubles += troubles_of_gpu(gpu.handle)
            self._describe_gpu(gpu, mode, known)
        parts = self._find_parts(gpu, mode, known)
        if gpu.device.uuid in faults:
            gpu.troubles.append(Trouble(State.UNHEALTHY, faults[gpu.device.uuid]))
        for part in parts:
            part.troubles += gpu.troubles
            if part.device.uuid in faults:
                part.troubles.append(Trouble(State.UNHEALTHY, faults[part.device.uuid]))
        is_cut = mode is _MigMode.ON or bool(parts)
        whole = _finish(gpu, State.PARTITIONED if is_cut else State.OK)
        if is_cut and not parts and not whole.device.detail:
            whole = replace(whole, device=replace(whole.device, detail=_NOTHING_MADE))
        return [whole, *(_finish(part, State.OK) for part in parts)]

    def _describe_gpu(self, gpu: _Draft, mode: _MigMode, known: tuple[Device, ...]) -> None:
        uuid, index = gpu.device.uuid, gpu.device.index
        # Some drivers tell the number of slices only in MIG mode.
        key = (uuid, mode)
        device = self._facts.get(key)
        if device is None:
            try:
                device = facts.ask_gpu(uuid, gpu.handle, mode is not _MigMode.NONE)
                if mode is not _MigMode.UNKNOWN:
                    self._facts[key] = device
            except pynvml.NVMLError as error:
                gpu.troubles.append(trouble_of_error(error, "model and memory"))
                device = known[0] if known else gpu.device
        gpu.device = replace(device, index=index)

    def _find_parts(self, gpu: _Draft, mode: _MigMode, known: tuple[Device, ...]) -> list[_Draft]:
        """Return the MIG devices; those of the last reading if they cannot be listed now."""
        remembered = [_Draft(device) for device in known[1:]]
        if mode is _MigMode.UNKNOWN:
            return remembered
        if mode is not _MigMode.ON:
            return []
        try:
            count = pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)
        except pynvml.NVMLError as error:
            gpu.troubles.append(trouble_of_error(error, "MIG devices"))
            return remembered
        parts: list[_Draft] = []
        for number in range(count):
            index = f"{gpu.device.index}:{number}"
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
                parts.append(self._describe_part(gpu, index, handle))
            except pynvml.NVMLError as error:
                # Indexes may have gaps.
                if error.value != pynvml.NVML_ERROR_NOT_FOUND:
                    last = next((one for one in remembered if one.device.index == index), None)
                    part = last or _Draft(facts.unreadable(index, gpu.device))
                    part.troubles.append(trouble_of_error(error, "MIG device"))
                    parts.append(part)
        return parts

    def _describe_part(self, gpu: _Draft, index: str, handle: Any) -> _Draft:
        # With the name, as a UUID could come back for another profile at the same place.
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        key = (uuid, name, gpu.device.uuid, gpu.device.slices)
        device = self._facts.get(key)
        if device is None:
            device = facts.ask_mig(uuid, name, handle, gpu.device)
            # What it has from its GPU counts only if the GPU could tell.
            if not gpu.troubles:
                self._facts[key] = device
        return _Draft(replace(device, index=index), handle)


def _reach(index: int) -> _Draft:
    gpu = _Draft(facts.unreadable(str(index)))
    try:
        gpu.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(gpu.handle)
        gpu.device = replace(gpu.device, uuid=uuid)
    except pynvml.NVMLError as error:
        gpu.troubles.append(trouble_of_error(error, "UUID"))
    return gpu


def _still_known(gpu: _Draft, last: tuple[Device, ...], listed: set[str]) -> tuple[Device, ...]:
    """Return what the last reading had at this index, if that is this GPU."""
    if not last:
        return ()
    if gpu.troubles:
        # It cannot say who it is; it is not one that answers at another index.
        return () if last[0].uuid in listed else last
    return last if last[0].uuid == gpu.device.uuid else ()


def _ask_mig_mode(gpu: _Draft) -> _MigMode:
    try:
        current, pending = pynvml.nvmlDeviceGetMigMode(gpu.handle)
    except pynvml.NVMLError as error:
        if error.value == NOT_SUPPORTED:
            return _MigMode.NONE
        gpu.troubles.append(trouble_of_error(error, "MIG mode"))
        return _MigMode.UNKNOWN
    gpu.troubles += mig_mode_troubles(current, pending)
    return _MigMode.ON if current else _MigMode.OFF


def _finish(draft: _Draft, healthy: State) -> Found:
    state, detail = worst(draft.troubles, healthy)
    return Found(replace(draft.device, state=state, detail=detail), draft.handle)
