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

    Fewer of the same size, or as many as possible (not more than asked for) of a smaller one;
    the largest is the one of the most GPU equivalents, then the one of more devices. If the
    model that was asked for leaves nothing, the same size of another model.
    """
    same = [make for make in makes if suffices(make[0], request)]
    found = []
    if same:
        fewer = sum(len(make) for make in same)
        weight = min(make[0].weight for make in same)
        found.append((fewer * weight, fewer, replace(request, count=fewer)))
    for make in makes:
        smaller = like(make[0], request)
        if is_smaller(make[0], request) and suffices(make[0], smaller):
            serving = sum(len(other) for other in makes if suffices(other[0], smaller))
            count = min(request.count, serving)
            found.append((count * make[0].weight, count, replace(smaller, count=count)))
    if found:
        return max(found, key=lambda one: one[:2])[2]
    if request.model:
        other = replace(request, model="")
        if sum(len(make) for make in makes if suffices(make[0], other)) >= request.count:
            return other
    return None
