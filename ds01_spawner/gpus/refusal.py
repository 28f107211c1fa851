"""Why a request gets nothing now, and what smaller one would be granted. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from .devices import Device, Inventory, State
from .request import GpuRequest, is_smaller, like, suffices

Makes = Sequence[Sequence[Device]]


def reason(request: GpuRequest, free: Collection[Device], inventory: Inventory) -> str:
    """Say in a sentence what is missing: the size, devices that work, or free ones.

    Parameters
    ----------
    free
        What works and is free, of the inventory.
    inventory
        All that this user may have; what is not free of it is in use.
    """
    if inventory.problem:
        return f"No GPU can be given out now: {inventory.problem.rstrip('.')}."
    if not inventory.devices:
        return "This server has no GPU."
    one = replace(request, count=1)
    enough = [device for device in inventory.devices if suffices(device, request)]
    there = [device for device in enough if device.state is not State.PARTITIONED]
    broken = sum(device.state is not State.OK for device in there)
    available = sum(suffices(device, request) for device in free)
    if enough and not there:
        return f"Every GPU of this server that is enough for {one} is partitioned."
    if not there:
        return f"This server has nothing that is enough for {one}."
    working = len(there) - broken
    if working < request.count:
        but = f", {broken} of them out of order" if broken else ""
        return f"This server has {_devices(len(there))} enough for {one}{but}{_asked(request)}."
    text = str(request)
    begin = f"{text[:1].upper()}{text[1:]} {'is' if request.count == 1 else 'are'} not free"
    if available:
        verb = "is" if available == 1 else "are"
        return f"{begin} at the moment: only {available} of {working} devices {verb}."
    if working == 1:
        return f"{begin} at the moment: the one device that would do is in use."
    count = "both" if working == 2 else f"all {working}"
    return f"{begin} at the moment: {count} devices that would do are in use."


def _devices(count: int) -> str:
    return f"{count} device{'s' * (count > 1)}"


def _asked(request: GpuRequest) -> str:
    return f"; {request.count} were asked for" if request.count > 1 else ""


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
