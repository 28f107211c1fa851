"""How much GPU one user may have: what is left of it, and why something is too much. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..gpus.devices import Device
from ..gpus.request import GpuRequest, suffices
from ..policy import Limits

#: Weights are sums of fractions such as 1/7.
_ROUNDING = 1e-6


def allowed(
    request: GpuRequest, devices: Sequence[Device], limits: Limits, used: Mapping[str, float]
) -> tuple[Device, ...]:
    """Return the devices that this user may be given for a request, whoever holds them.

    A MIG device's name asks for a MIG device: a whole GPU would be far more than was asked for.

    Parameters
    ----------
    used
        Server name -> GPU equivalents that the user holds in it now.
    """
    left = _left(limits, used)
    return tuple(
        device
        for device in of_kind(request, devices, limits)
        if left is None or device.weight * request.count <= left + _ROUNDING
    )


def of_kind(request: GpuRequest, devices: Sequence[Device], limits: Limits) -> tuple[Device, ...]:
    """Return the devices of the kind that this user may have for a request, MIG or whole."""
    whole = limits.full_gpu and not request.profile
    return tuple(device for device in devices if whole or device.kind == "mig")


def objection(request: GpuRequest, limits: Limits) -> str:
    """Return why a request can never be granted under these limits; empty if it can."""
    if limits.gpus_per_server is not None and request.count > limits.gpus_per_server:
        most = limits.gpus_per_server
        return (
            f"{request.count} GPUs or MIG devices are more than your limit of {most} per server. "
            + (f"Choose at most {most}." if most else "Start without a GPU.")
        )
    if request.whole and not limits.full_gpu:
        return "You may not have a whole GPU. Choose a MIG device."
    most_weight = limits.gpu_equivalents
    if request.whole and most_weight is not None and request.count > most_weight + _ROUNDING:
        return (
            f"{request.count} whole GPUs are more than your limit of {most_weight:g} GPU "
            "equivalents. Choose less."
        )
    return ""


def larger(
    request: GpuRequest, free: Sequence[Device], limits: Limits, used: Mapping[str, float]
) -> Device | None:
    """Return a free whole GPU that the user may have in place of one MIG device; None if none."""
    if request.count > 1 or not request.profile:
        return None
    whole = replace(request, profile="", whole=True)
    fits = (d for d in allowed(whole, free, limits, used) if d.kind == "gpu")
    return next((device for device in fits if suffices(device, request)), None)


def misfit(request: GpuRequest, working: Sequence[Device], limits: Limits) -> str:
    """Return why no MIG device here would do where only one may be given; empty if one would.

    Parameters
    ----------
    working
        All devices that would do, whoever holds them.
    """
    if len(of_kind(request, working, limits)) >= request.count or len(working) < request.count:
        return ""
    if request.extras:
        return (
            "This server has no MIG device that is large enough for that and has "
            f"{request.extras!r}. Ask for one without."
        )
    what = "ask for 'full'" if limits.full_gpu else "you may not have one"
    return f"On this server only a whole GPU is large enough for that; {what}."


def refusal(
    request: GpuRequest, working: Sequence[Device], limits: Limits, used: Mapping[str, float]
) -> str:
    """Return why the limit rules this request out at present, whatever is free; empty if not.

    The parameters are those of `misfit` and `allowed`.
    """
    if len(of_kind(request, working, limits)) < request.count:
        return ""
    if len(allowed(request, working, limits, {})) < request.count:
        return (
            f"{_capital(str(request))} is more than your limit of {limits.gpu_equivalents:g} GPU "
            "equivalents. Choose less."
        )
    if len(allowed(request, working, limits, used)) < request.count:
        return f"{_in_use(limits, used)} Stop one of them, or choose less."
    return ""


def beyond(
    request: GpuRequest, free: Sequence[Device], limits: Limits, used: Mapping[str, float]
) -> str:
    """Say that what is free would do, and is more than the limit leaves; empty if it is not so."""
    would_do = [device for device in free if suffices(device, request)]
    if not used or len(of_kind(request, would_do, limits)) < request.count:
        return ""
    if len(allowed(request, would_do, limits, used)) >= request.count:
        return ""
    return f"What is free is more than you have left. {_in_use(limits, used)}"


def in_words(used: Mapping[str, float]) -> str:
    """Name the servers and what each uses: ``default (0.43), thesis (0.14)``."""
    return ", ".join(f"{name or 'default'} ({weight:.2g})" for name, weight in used.items())


def _in_use(limits: Limits, used: Mapping[str, float]) -> str:
    return (
        f"Your servers already use {sum(used.values()):.2g} of your {limits.gpu_equivalents:g} GPU "
        f"equivalents: {in_words(used)}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _left(limits: Limits, used: Mapping[str, float]) -> float | None:
    if limits.gpu_equivalents is None:
        return None
    return limits.gpu_equivalents - sum(used.values())
