"""NVIDIA's management library (NVML): getting it to work, and saying why it does not."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pynvml

from .. import pretend

#: The kernel's module is loaded if this is there.
MODULE = Path("/proc/driver/nvidia/version")
_NAME = "libnvidia-ml.so.1"

_PROBLEMS = {
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "The Hub may not use NVIDIA's device files: run it as root, and see /dev/nvidiactl."
    ),
    pynvml.NVML_ERROR_NOT_FOUND: (
        "NVIDIA's driver is loaded and finds no GPU: 'dmesg | grep NVRM' says more."
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "NVIDIA's driver is not loaded: run 'modprobe nvidia', or install the driver for this "
        "kernel; 'dmesg | grep NVRM' says more."
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "NVIDIA's library and the loaded kernel module are of different versions, as after an "
        "update of the driver: reboot, or stop all that uses the GPUs and reload the module."
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "NVIDIA's driver is too old for DS01, as its library lacks a function: install version "
        "510 or newer."
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "A GPU has fallen off the bus and NVIDIA's driver lists none any more: reboot the machine."
    ),
}


def initialise() -> None:
    """Make NVML ready; each call needs a `pynvml.nvmlShutdown` of its own.

    Raises
    ------
    pynvml.NVMLError
        If it cannot be; `problem` says it in words.
    """
    pretended = pretend.directory()
    if pretended:
        # From here on the library's name stands for this one.
        try:
            ctypes.CDLL(str(pretended / pretend.LIBRARY))
        except OSError as error:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND) from error
    pynvml.nvmlInit()


def problem(error: pynvml.NVMLError, module: Path = MODULE) -> str:
    """Say in words for an admin why NVML tells nothing, and what to do.

    Returns
    -------
    str
        Empty if this machine just has no driver: there is no GPU then, and nothing is wrong.
    """
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return _missing_library(module)
    known = _PROBLEMS.get(error.value)
    return (
        known or f"NVIDIA's driver gives no answer: {describe(error)}. 'nvidia-smi' may say more."
    )


def describe(error: pynvml.NVMLError) -> str:
    """Return an error as NVML names it, with its number."""
    return f"{str(error).rstrip('.')} (NVML error {error.value})"


def _missing_library(module: Path) -> str:
    """Tell a machine without the library from one where it is broken or was forgotten."""
    pretended = pretend.directory()
    try:
        ctypes.CDLL(str(pretended / pretend.LIBRARY) if pretended else _NAME)
    except OSError as error:
        if pretended or "No such file" not in str(error):
            return (
                f"NVIDIA's library cannot be loaded: {error}. Install the driver's packages anew."
            )
    else:
        return "NVIDIA's library was missing a moment ago, and is there now."
    if module.exists():
        return (
            f"NVIDIA's kernel module is loaded and its library {_NAME} is not installed: install "
            "the driver's package with it (Debian: libnvidia-ml1)."
        )
    return ""
