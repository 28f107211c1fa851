"""How much one user may have: what is left of it, and why something is too much. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..gpus.devices import Device
from ..gpus.request import GpuRequest, suffices
from ..policy import Limits, format_bytes
from .holdings import Holding

#: Weights are sums of fractions such as 1/7.
_ROUNDING = 1e-6


def too_many(limits: Limits, held: Iterable[Holding], server: str) -> str:
    """Return why the user may have no more servers now; empty if they may.

    Parameters
    ----------
    held
        What the user's servers hold.
    server
        The one to start: what is left of an earlier run of it does not count.
    """
    running = _others(held, server)
    if len(running) < limits.servers:
        return ""
    if not limits.servers:
        return "You may not have servers here. Please ask an admin."
    names = ", ".join(_shown(holding.server) for holding in running)
    return (
        f"You have {len(running)} of at most {limits.servers} servers: {names}. Stop one of them "
        "to start another."
    )


def left(limits: Limits, held: Iterable[Holding], server: str) -> Limits:
    """Return the limits for one more server where the sum over a user's servers is counted.

    Needed only where no slice holds the sum. The parameters are those of `too_many`.
    """
    running, most = _others(held, server), limits.aggregate
    cpus = _at_most(limits.cpus, most.cpus, (holding.cpus for holding in running))
    memory = _at_most(limits.memory_bytes, most.memory_bytes, (h.memory_bytes for h in running))
    return replace(
        limits,
        cpus=cpus,
        memory_bytes=memory,
        memory_swap_bytes=memory + limits.memory_swap_bytes - limits.memory_bytes,
        shm_bytes=min(limits.shm_bytes, memory),
        pids=_at_most(limits.pids, most.tasks, (holding.pids for holding in running)),
    )


def beyond_the_sum(
    cpus: float, memory_bytes: int, limits: Limits, held: Iterable[Holding], server: str
) -> str:
    """Return why a server would take the user above their sum; empty if it would not.

    Parameters
    ----------
    cpus, memory_bytes
        What is asked for.
    limits
        The user's, not what is left of them; the other parameters are those of `too_many`.
    """
    running = _others(held, server)
    rest = left(limits, running, server)
    if memory_bytes > rest.memory_bytes:
        used = ", ".join(f"{_shown(h.server)} ({format_bytes(h.memory_bytes)})" for h in running)
        return _sum_is_full(
            f"{format_bytes(memory_bytes)} of memory",
            format_bytes(limits.aggregate.memory_bytes or 0),
            used,
            format_bytes(rest.memory_bytes) if rest.memory_bytes else "",
        )
    if cpus > rest.cpus + _ROUNDING:
        used = ", ".join(f"{_shown(h.server)} ({h.cpus:g})" for h in running)
        most = f"{limits.aggregate.cpus:g} CPUs"
        return _sum_is_full(f"{cpus:g} CPUs", most, used, f"{rest.cpus:g}" if rest.cpus else "")
    if rest.pids < limits.pids:
        used = ", ".join(f"{_shown(h.server)} ({h.pids})" for h in running)
        most = f"{limits.aggregate.tasks} processes"
        return _sum_is_full("One more server", most, used, "")
    return ""


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
        instead = (
            f"Choose at most {int(most_weight)}" if most_weight >= 1 else "Choose a MIG device"
        )
        return (
            f"{request.count} whole GPUs are more than your limit of {most_weight:g} GPU "
            f"equivalents. {instead}."
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
    request: GpuRequest,
    working: Sequence[Device],
    limits: Limits,
    used: Mapping[str, float],
    largest: str = "",
) -> str:
    """Return why the limit rules this request out at present, whatever is free; empty if not.

    Parameters
    ----------
    largest
        The largest size that the limit leaves room for; empty if there is none. The others are
        those of `misfit` and `allowed`.
    """
    instead = f"choose at most {largest}" if largest else "start without a GPU"
    if len(of_kind(request, working, limits)) < request.count:
        return ""
    if len(allowed(request, working, limits, {})) < request.count:
        return (
            f"{_capital(str(request))} is more than your limit of {limits.gpu_equivalents:g} GPU "
            f"equivalents. {_capital(instead)}."
        )
    if len(allowed(request, working, limits, used)) < request.count:
        return f"{_in_use(limits, used)} Stop one of them, or {instead}."
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
    return ", ".join(f"{_shown(name)} ({weight:.2g})" for name, weight in used.items())


def _in_use(limits: Limits, used: Mapping[str, float]) -> str:
    return (
        f"Your servers already use {sum(used.values()):.2g} of your {limits.gpu_equivalents:g} GPU "
        f"equivalents: {in_words(used)}."
    )


def _others(held: Iterable[Holding], server: str) -> list[Holding]:
    return [holding for holding in held if holding.server != server and not holding.ended]


def _shown(server: str) -> str:
    return server or "default"


def _at_most(limit: Any, together: Any, used: Iterable[Any]) -> Any:
    """Return what is left for one more server of what all may have together."""
    return limit if together is None else max(0, min(limit, together - sum(used)))


def _sum_is_full(asked: str, most: str, used: str, rest: str) -> str:
    choose = f"Choose at most {rest}, or stop one of them." if rest else "Stop one of them first."
    return (
        f"{asked} would be more than your servers may have together, {most}. They have now: "
        f"{used}. {choose}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _left(limits: Limits, used: Mapping[str, float]) -> float | None:
    if limits.gpu_equivalents is None:
        return None
    return limits.gpu_equivalents - sum(used.values())
