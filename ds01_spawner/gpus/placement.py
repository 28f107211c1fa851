"""Which devices a request gets. Pure functions.

The steps, each a function: keep the free devices that are enough; score them by what those who
come next lose, by the NVLink connections that are cut, by what is left free on their GPU; take
the best. `refusal` says why there are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from . import links, refusal
from .demand import RecentDemand, losses
from .devices import Device, Inventory, State
from .request import FULL, GpuRequest, asks_for_whole, parse_request, sold_gb, suffices

__all__ = ["FULL", "Choice", "GpuRequest", "RecentDemand", "choose", "parse_request"]


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
        All that there is: for the links between GPUs, and for saying what is missing.
    demand
        What has been asked for lately; None if nothing is known.

    Returns
    -------
    Choice
        The same for the same arguments. It is a refusal only if fewer devices of `free` than
        asked for work and are enough.
    """
    working = [device for device in free if device.state is State.OK]
    makes = _by_make(working)
    enough = [suffices(make[0], request) for make in makes]
    if sum(len(make) for make, fits in zip(makes, enough, strict=True) if fits) < request.count:
        why = refusal.reason(request, working, inventory)
        return Choice((), why, refusal.alternative(request, makes))
    lost = losses(makes, demand)
    candidates = [
        _Make(devices, loss)
        for devices, loss, fits in zip(makes, lost, enough, strict=True)
        if fits
    ]
    if request.count > 1 and all(make.is_gpu for make in candidates):
        return _connected(request, candidates, inventory)
    return _one_by_one(request, candidates, working, inventory)


@dataclass(frozen=True)
class _Make:
    """Free devices that are alike, and what taking one of them costs others."""

    devices: Sequence[Device]
    loss: float

    @property
    def is_gpu(self) -> bool:
        return not self.devices[0].parent

    @property
    def size(self) -> tuple[bool, float, int]:
        device = self.devices[0]
        return self.is_gpu, device.weight, sold_gb(device)

    @property
    def cost(self) -> tuple[float, tuple[bool, float, int]]:
        return self.loss, self.size

    def without(self, uuid: str) -> _Make:
        return _Make([device for device in self.devices if device.uuid != uuid], self.loss)


def _by_make(devices: Iterable[Device]) -> list[list[Device]]:
    """Put devices together that differ in nothing that a request can ask for, in their order.

    Hundreds of devices are of a handful of makes, so what follows compares makes.
    """
    makes: dict[tuple[str, str, bool, int, int, float], list[Device]] = {}
    for device in devices:
        make = (
            device.model,
            device.profile,
            not device.parent,
            device.memory_bytes,
            device.slices,
            device.weight,
        )
        makes.setdefault(make, []).append(device)
    return list(makes.values())


def _connected(request: GpuRequest, makes: Sequence[_Make], inventory: Inventory) -> Choice:
    """Choose several whole GPUs: the set that is connected best."""
    gpus = [gpu for make in makes for gpu in make.devices]
    if len(makes) > 1:
        place = {device.uuid: place for place, device in enumerate(inventory.devices)}
        gpus.sort(key=lambda gpu: place.get(gpu.uuid, len(place)))
    lost = {gpu.uuid: make.loss for make in makes for gpu in make.devices}
    near = links.neighbours(gpus, inventory.links)
    chosen = links.best_connected(gpus, request.count, near, lost)
    inside = links.connections(chosen, near)
    models = " and ".join(dict.fromkeys(gpu.model for gpu in chosen))
    how = f"joined by {inside} NVLink connections" if inside else "not joined by NVLink"
    return Choice(chosen, f"GPUs {', '.join(gpu.index for gpu in chosen)} ({models}), {how}.")


def _one_by_one(
    request: GpuRequest, makes: Sequence[_Make], free: Sequence[Device], inventory: Inventory
) -> Choice:
    """Choose each device as if it were the only one: a program can use one MIG device only."""
    one = replace(request, count=1)
    chosen: list[Device] = []
    reasons: list[str] = []
    while len(chosen) < request.count:
        best = min(makes, key=lambda make: make.cost)
        smallest = min(make.size for make in makes)
        if best.is_gpu:
            gpus = [make for make in makes if make.is_gpu]
            device, why = _least_connected(gpus, free, inventory)
            if not asks_for_whole(request) and best.size == smallest:
                why = f"no smaller device that is enough for {one} is free; {why}"
        else:
            alike = [make for make in makes if make.cost == best.cost]
            device = _on_fullest_gpu(alike, free)
            why = _why_this_size(one, best, smallest)
        chosen.append(device)
        reasons.append(f"{_name(device)}: {why}.")
        free = [other for other in free if other.uuid != device.uuid]
        makes = [make for make in (make.without(device.uuid) for make in makes) if make.devices]
    return Choice(tuple(chosen), " ".join(dict.fromkeys(reasons)))


def _least_connected(
    makes: Sequence[_Make], free: Iterable[Device], inventory: Inventory
) -> tuple[Device, str]:
    """Choose one GPU: the one that the fewest NVLink connections to free GPUs are cut with."""
    near = links.neighbours((device for device in free if not device.parent), inventory.links)
    make_of = {gpu.uuid: make for make in makes for gpu in make.devices}

    best = min(
        (device for device in free if device.uuid in make_of),
        key=lambda gpu: (sum(near[gpu.uuid].values()), make_of[gpu.uuid].cost),
    )
    if not any(near.values()):
        return best, "a free GPU"
    return best, (
        "of the free GPUs the one with the fewest NVLink connections to others"
        if near[best.uuid]
        else "a free GPU with no NVLink connection to another free one"
    )


def _on_fullest_gpu(makes: Sequence[_Make], free: Iterable[Device]) -> Device:
    """Choose the MIG device on the GPU that has the fewest compute slices left free."""
    left = Counter[str]()
    for device in free:
        left[device.parent] += device.slices
    devices = (device for make in makes for device in make.devices)
    return min(devices, key=lambda device: left[device.parent])


def _why_this_size(request: GpuRequest, taken: _Make, smallest: tuple[bool, float, int]) -> str:
    if taken.devices[0].profile == request.profile:
        return "what was asked for"
    if taken.size == smallest:
        return f"the smallest free one that is enough for {request}"
    return f"of the free ones that are enough for {request} the one that others ask for least"


def _name(device: Device) -> str:
    name = f"GPU {device.index.partition(':')[0]} ({device.model})"
    return f"{device.profile} on {name}" if device.parent else name
