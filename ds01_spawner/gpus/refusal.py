"""Why a request gets nothing now, and what smaller one would be granted. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from .devices import Device, Inventory, State
from .request import GpuRequest, is_smaller, like, suffices

Makes = Sequence[Sequence[Device]]


def reason(request: GpuRequest, free: Collection[Device], inventory: Inventory) -> str:
    """Say in a sentence what is missing: the size, devices that work, or free ones."""
    if inventory.problem:
        return f"No GPU can be given out now: {inventory.problem.rstrip('.')}."
    if not inventory.devices:
        return "This server has no GPU."
    enough = [device for device in inventory.devices if suffices(device, request)]
    there = [device for device in enough if device.state is not State.PARTITIONED]
    working = sum(device.state is State.OK for device in there)
    available = sum(suffices(device, request) for device in free)
    if not there and enough:
        return f"No GPU of this server is given out whole that is enough for {request}."
    if len(there) < request.count:
        return f"This server has {_devices(len(there), request)}."
    if working < request.count:
        broken = len(there) - working
        return f"This server has {_devices(len(there), request)}, {broken} of them out of order."
    if not available:
        return f"All devices that are enough for {request} are in use or not open to you."
    return (
        f"{available} of the {working} devices that are enough for {request} "
        f"{'is' if available == 1 else 'are'} free for you now."
    )


def _devices(count: int, request: GpuRequest) -> str:
    if not count:
        return f"nothing that is enough for {request}"
    return f"{count} device{'s' * (count > 1)} that would do for {request}"


def alternative(request: GpuRequest, makes: Makes) -> GpuRequest | None:
    """Find the largest smaller request that these free devices would serve.

    Fewer of the same size if there are any. Otherwise the smaller size that gives the most GPU
    equivalents, with as many as there are and not more than asked for. If the model that was
    asked for leaves nothing, the same size of another model.
    """
    if fewer := _serving(request, makes):
        return replace(request, count=fewer)
    best, most = None, (0.0, 0)
    for device in (make[0] for make in makes):
        smaller = like(device, request)
        if is_smaller(device, request) and suffices(device, smaller):
            count = min(request.count, _serving(smaller, makes))
            if (count * device.weight, count) > most:
                best, most = replace(smaller, count=count), (count * device.weight, count)
    other = replace(request, model="")
    if not best and request.model and _serving(other, makes) >= request.count:
        return other
    return best


def _serving(request: GpuRequest, makes: Makes) -> int:
    """Count the free devices that are enough."""
    return sum(len(make) for make in makes if suffices(make[0], request))
