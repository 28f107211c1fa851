"""What never changes about a device, asked of NVML: model, memory, slices, numbers."""

from __future__ import annotations

from typing import Any

import pynvml

from .devices import Device

_MIB = 2**20
_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
_MAKER = "NVIDIA "
#: Compute slices of GPUs whose driver tells them only in MIG mode; all but these have seven.
_SLICES_OF = {"A30": 4}
_MOST_SLICES = 7
#: Memory slices by which profiles are named: eighths of the GPU's memory.
_EIGHTHS = 8


def ask_gpu(uuid: str, handle: Any, has_mig: bool) -> Device:
    """Return a GPU with what NVML says about it; its index is left empty.

    Raises
    ------
    pynvml.NVMLError
        If anything of it cannot be told.
    """
    model = pynvml.nvmlDeviceGetName(handle).removeprefix(_MAKER)
    return Device(
        uuid=uuid,
        index="",
        model=model,
        memory_bytes=_memory(handle),
        slices=_slices(model, handle) if has_mig else 1,
        weight=1.0,
        minor=_minor(handle),
    )


def ask_mig(uuid: str, name: str, handle: Any, gpu: Device) -> Device:
    """Return a MIG device of `gpu` with what NVML says about it; its index is left empty.

    Raises
    ------
    pynvml.NVMLError
        If anything of it cannot be told.
    """
    attributes = pynvml.nvmlDeviceGetAttributes_v2(handle)
    slices = attributes.computeInstanceSliceCount
    memory_bytes = attributes.memorySizeMB * _MIB
    profile = name.partition(" MIG ")[2] or _compose_profile(
        slices, attributes.gpuInstanceSliceCount, memory_bytes, gpu.memory_bytes
    )
    return Device(
        uuid=uuid,
        index="",
        model=gpu.model,
        memory_bytes=memory_bytes,
        slices=slices,
        # A GPU that does not tell its slices now still has as many as its devices.
        weight=slices / max(gpu.slices, slices, 1),
        profile=profile,
        parent=gpu.uuid,
        minor=gpu.minor,
        gpu_instance=pynvml.nvmlDeviceGetGpuInstanceId(handle),
        compute_instance=pynvml.nvmlDeviceGetComputeInstanceId(handle),
    )


def unreadable(index: str, gpu: Device | None = None) -> Device:
    """Return what stands for a GPU, or for a MIG device of `gpu`, that tells nothing of itself."""
    return Device(
        uuid=f"unreadable-{index}",
        index=index,
        model=gpu.model if gpu else "",
        memory_bytes=0,
        slices=0 if gpu else 1,
        weight=0.0 if gpu else 1.0,
        parent=gpu.uuid if gpu else "",
        minor=gpu.minor if gpu else None,
    )


def _memory(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError as error:
        # GPUs that have no memory but the machine's.
        if error.value != _NOT_SUPPORTED:
            raise
        return 0


def _minor(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetMinorNumber(handle))
    except pynvml.NVMLError as error:
        if error.value != _NOT_SUPPORTED:
            raise
        return None


def _slices(model: str, handle: Any) -> int:
    """Return the compute slices of the largest GPU instance that this GPU can be cut into."""
    most = 0
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=1)
        except pynvml.NVMLError as error:
            # Profiles that this GPU does not have, or that an older driver does not know.
            if error.value not in (_NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                raise
            continue
        most = max(most, info.sliceCount)
    return most or _SLICES_OF.get(model, _MOST_SLICES)


def _compose_profile(slices: int, of_instance: int, memory_bytes: int, of_gpu: int) -> str:
    """Name a profile as NVIDIA does, with the memory slices' share of the whole memory in GB."""
    gib = 2**30
    eighths = -(-memory_bytes * _EIGHTHS // of_gpu) if of_gpu else 0
    # A half is rounded up: 71 of 141.
    gigabytes = int(-(-of_gpu // gib) * eighths / _EIGHTHS + 0.5) or round(memory_bytes / gib)
    part = f"{slices}c." if slices < of_instance else ""
    return f"{part}{of_instance or slices}g.{gigabytes}gb"
