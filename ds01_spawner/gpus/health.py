"""What is wrong with a GPU, asked of NVML in every way that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pynvml

from .devices import State
from .library import describe

#: An answer that says nothing against a device: this kind of GPU does not have the feature.
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED

#: The worst first: what a device with several troubles is listed as.
_WORST_FIRST = (
    State.LOST,
    State.RESET_REQUIRED,
    State.UNHEALTHY,
    State.UNKNOWN,
    State.MIG_PENDING,
)
_RESET = "stop what uses it and run 'nvidia-smi --gpu-reset', or reboot the machine"

#: What NVML's field 230, the recovery action, asks for (nvml.h, nvmlDeviceGpuRecoveryAction_t).
_RECOVERY = {
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: (
        State.RESET_REQUIRED,
        f"the driver asks for a reset of the GPU: {_RESET}",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: (
        State.UNHEALTHY,
        "the driver asks for a reboot of the machine",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: (
        State.UNHEALTHY,
        "the driver asks to stop all programs that use NVLink between GPUs",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: (
        State.RESET_REQUIRED,
        f"a part of the GPU is out of use; the driver asks for a reset: {_RESET}",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: (
        State.UNHEALTHY,
        "the driver asks to restart the IMEX service of this group of machines",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: (
        State.RESET_REQUIRED,
        "the driver asks for a reset of the GPU's bus: reboot the machine",
    ),
    pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: (
        State.UNHEALTHY,
        "the driver asks for a reboot of the machine",
    ),
}
#: A driver that is older than the field does not know its number.
_FIELD_UNKNOWN = (NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT)
_RECOVERY_FIELD = [(pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 0)]


@dataclass(frozen=True)
class Trouble:
    """Something for which a device is not given to anybody."""

    state: State
    detail: str


def troubles_of_gpu(handle: Any) -> list[Trouble]:
    """Return all that NVML says against a GPU; empty if it is well."""
    found: list[Trouble] = []
    for asked, check in _CHECKS:
        try:
            found += check(handle)
        except pynvml.NVMLError as error:
            if error.value != NOT_SUPPORTED:
                found.append(trouble_of_error(error, asked))
    return found


def trouble_of_error(error: pynvml.NVMLError, asked: str) -> Trouble:
    """Say what it means that NVML answered with an error when it was asked for something."""
    if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
        return Trouble(
            State.LOST,
            "the GPU has fallen off the bus: reboot the machine; if it happens again, check the "
            "card and its power supply",
        )
    if error.value == pynvml.NVML_ERROR_RESET_REQUIRED:
        return Trouble(State.RESET_REQUIRED, f"the GPU does not work until it is reset: {_RESET}")
    return Trouble(State.UNKNOWN, f"NVML cannot tell its {asked}: {describe(error)}")


def mig_mode_troubles(current: int, pending: int) -> list[Trouble]:
    """Say whether MIG mode is about to be switched."""
    if current == pending:
        return []
    change = "on" if pending else "off"
    return [
        Trouble(
            State.MIG_PENDING, f"MIG mode is to be switched {change} by the next reset: {_RESET}"
        )
    ]


def worst(troubles: Iterable[Trouble], otherwise: State) -> tuple[State, str]:
    """Return the state of a device with these troubles, and all of them in words."""
    ordered = sorted(dict.fromkeys(troubles), key=lambda one: _WORST_FIRST.index(one.state))
    if not ordered:
        return otherwise, ""
    return ordered[0].state, "; ".join(one.detail for one in ordered)


def _remapped_rows(handle: Any) -> list[Trouble]:
    _, _, pending, failed = pynvml.nvmlDeviceGetRemappedRows(handle)
    found: list[Trouble] = []
    if failed:
        found.append(
            Trouble(
                State.UNHEALTHY,
                "broken memory could not be replaced by spare rows: have the GPU replaced",
            )
        )
    if pending:
        found.append(
            Trouble(
                State.RESET_REQUIRED,
                f"broken memory is replaced by spare rows at the next reset: {_RESET}",
            )
        )
    return found


def _retired_pages(handle: Any) -> list[Trouble]:
    if not pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle):
        return []
    return [
        Trouble(
            State.RESET_REQUIRED, f"broken memory is taken out of use at the next reset: {_RESET}"
        )
    ]


def _recovery_action(handle: Any) -> list[Trouble]:
    value = pynvml.nvmlDeviceGetFieldValues(handle, _RECOVERY_FIELD)[0]
    if value.nvmlReturn in _FIELD_UNKNOWN:
        return []
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    action = value.value.uiVal
    if action == pynvml.NVML_GPU_RECOVERY_ACTION_NONE:
        return []
    unknown = State.UNHEALTHY, f"the driver asks for recovery action {action}: see 'nvidia-smi -q'"
    return [Trouble(*_RECOVERY.get(action, unknown))]


_CHECKS: tuple[tuple[str, Callable[[Any], list[Trouble]]], ...] = (
    ("remapped rows", _remapped_rows),
    ("retired pages", _retired_pages),
    ("recovery action", _recovery_action),
)
