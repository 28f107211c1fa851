"""Which devices a request gets: filters, then scores. Pure functions.

The order of the steps, each a function:

1. *filter*: free devices that work and are at least what is asked for;
2. *score*: MIG devices before GPUs, the smallest first, on the GPU with the least left free;
   a GPU that leaves NVLink pairs whole; several GPUs as the best connected set;
3. *explain*: one sentence of what was taken and why, or of what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from . import links
from .demand import RecentDemand
from .devices import Device, Inventory, State
from .request import FULL, GpuRequest, parse_request, suffices

__all__ = ["FULL", "Choice", "GpuRequest", "choose", "parse_request"]


@dataclass(frozen=True)
class Choice:
    """What a request gets.

    Attributes
    ----------
    devices
        As many as were asked for; empty if it is refused.
    reason
        Why these, or why none: a sentence for whoever asked.
    alternative
        With a refusal, the largest smaller request that would be granted now; None if there
        is none.
    """

    devices: tuple[Device, ...]
    reason: str
    alternative: GpuRequest | None = None


def choose(
    request: GpuRequest,
    free: Sequence[Device],
    inventory: Inventory,
    demand: RecentDemand | None = None,
) -> Choice:
    """Choose devices for a request.

    Parameters
    ----------
    free
        Devices that nobody holds and that this user may have, in the inventory's order.
    inventory
        All that there is, for the links and for saying what is missing.
    demand
        What has been asked for lately; None: nothing is known.

    Returns
    -------
    Choice
        The same for the same arguments. Refused only if too few of `free` suffice.
    """
    working = [device for device in free if device.state is State.OK]
    candidates = _sufficient(request, working)
    if len(candidates) < request.count:
        return _refusal(request, working, inventory)
    if request.count > 1 and all(device.kind == "gpu" for device in candidates):
        near = links.neighbours(candidates, inventory.links)
        devices = links.best_connected(candidates, request.count, near)
        return Choice(devices, _why_set(devices, near))
    devices = _one_by_one(request, candidates, working, inventory)
    return Choice(devices, _why(request, devices, candidates))


# -- filter -----------------------------------------------------------------------------


def _sufficient(request: GpuRequest, devices: Iterable[Device]) -> list[Device]:
    """Keep the devices that are at least what is asked for, in their order."""
    known: dict[tuple[str, str, int, int, bool], bool] = {}
    kept = []
    for device in devices:
        # Devices of one make are alike: 448 of them are 448 look-ups and a few comparisons.
        make = (
            device.model,
            device.profile,
            device.memory_bytes,
            device.slices,
            bool(device.parent),
        )
        fits = known.get(make)
        if fits is None:
            fits = known[make] = suffices(device, request)
        if fits:
            kept.append(device)
    return kept


# -- score ------------------------------------------------------------------------------


def _one_by_one(
    request: GpuRequest, candidates: list[Device], free: list[Device], inventory: Inventory
) -> tuple[Device, ...]:
    """Choose each device as if it were the only one; a program uses one MIG device anyway."""
    gpus = [device for device in free if device.kind == "gpu"]
    near = links.neighbours(gpus, inventory.links)
    left_on = Counter[str]()
    for device in free:
        left_on[device.gpu] += device.slices
    chosen: list[Device] = []
    while len(chosen) < request.count:
        # Any device is better than one of a further size, so most are compared by size alone.
        best_size = min(_size(device) for device in candidates)
        alike = [device for device in candidates if _size(device) == best_size]
        taken = {device.uuid for device in chosen}
        best = min(
            alike,
            key=lambda device: (
                sum(
                    count
                    for other, count in near.get(device.uuid, {}).items()
                    if other not in taken
                ),
                left_on[device.gpu],
            ),
        )
        chosen.append(best)
        candidates = [device for device in candidates if device is not best]
        left_on[best.gpu] -= best.slices
    return tuple(chosen)


def _size(device: Device) -> tuple[bool, float, int]:
    return (device.kind == "gpu", device.weight, device.memory_bytes)


# -- explain ----------------------------------------------------------------------------


def _why(request: GpuRequest, devices: Sequence[Device], candidates: Sequence[Device]) -> str:
    names = " and ".join(dict.fromkeys(_name(device) for device in devices))
    return f"{names}: the smallest free that is enough for {request}."


def _why_set(devices: Sequence[Device], near: links.Neighbours) -> str:
    return f"{len(devices)} × {_name(devices[0])}: the best connected GPUs that are free."


def _name(device: Device) -> str:
    return f"{device.profile} of {device.model}" if device.profile else device.model


def _refusal(request: GpuRequest, free: Sequence[Device], inventory: Inventory) -> Choice:
    return Choice((), _missing(request, inventory), _alternative(request, free))


def _missing(request: GpuRequest, inventory: Inventory) -> str:
    if inventory.problem:
        return f"No GPU can be given out now: {inventory.problem}."
    if not inventory.devices:
        return "This server has no GPU."
    there = [
        device
        for device in _sufficient(request, inventory.devices)
        if device.state is not State.PARTITIONED
    ]
    if len(there) < request.count:
        return f"This server does not have {request}."
    broken = sum(device.state is not State.OK for device in there)
    if len(there) - broken < request.count:
        return f"This server's devices for {request} are out of order ({broken} of {len(there)})."
    return f"Fewer than {request.count} of the {len(there)} devices for {request} are free for you."


def _alternative(request: GpuRequest, free: Sequence[Device]) -> GpuRequest | None:
    """Find the largest request below this one that would be granted."""
    smaller = []
    fewer = len(_sufficient(request, free))
    if fewer:
        smaller.append(replace(request, count=fewer))
    for device in free:
        size = GpuRequest(
            request.count, device.profile, whole=device.kind == "gpu", model=request.model
        )
        if size not in smaller and len(_sufficient(size, free)) >= request.count:
            smaller.append(size)
    return smaller[0] if smaller else None
