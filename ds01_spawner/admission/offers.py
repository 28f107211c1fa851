"""The sizes of GPU that a user can choose from, and how many of each are free now. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..gpus.devices import Device, Snapshot, State
from ..gpus.placement import choose
from ..gpus.request import model_to_ask_for, parse_request, sold_gb
from ..policy import GIB, Limits
from .quota import allowed

#: Parts of a model's name that say how a GPU is built in, not which one it is.
_BUILT_IN = re.compile(r"\d+GB|SXM\d*|PCIE|HBM\d\w*|NVL", re.IGNORECASE)


@dataclass(frozen=True)
class Offer:
    """One size of GPU or MIG device.

    Attributes
    ----------
    value
        What a request calls it, such as ``3g.40gb`` or ``full@H100``.
    label
        The same for people.
    free, total
        How many are free now, and how many there are that work.
    weight
        GPU equivalents of one.
    within
        Whether what the user holds leaves room for one.
    instead
        What a request would get now in place of one, as none is free; empty if nothing.
    """

    value: str
    label: str
    free: int
    total: int
    weight: float = 1.0
    within: bool = True
    instead: str = ""

    @property
    def note(self) -> str:
        """What it counts, and how many are free, for people."""
        share = "whole GPU" if self.weight == 1 else f"{self.weight:.2g} of a GPU"
        note = f"{share}, {self.free} of {self.total} free"
        if not self.within:
            return f"{note}, more than you have left"
        return f"{note}, you would get a {self.instead}" if self.instead else note

    @property
    def can_be_had(self) -> bool:
        """Whether a request for one would be granted now."""
        return self.within and bool(self.free or self.instead)


def offers(
    snapshot: Snapshot, limits: Limits, used: Mapping[str, float] = MappingProxyType({})
) -> tuple[Offer, ...]:
    """Return the sizes on this machine that the limits allow, smallest first.

    What works and is held counts in the total; what does not work is not counted.

    Parameters
    ----------
    used
        Server name -> GPU equivalents that the user holds in it now.
    """
    if limits.gpus_per_server == 0:
        return ()
    free = {device.uuid for device in snapshot.free}
    devices = [device for device in snapshot.inventory.devices if device.state is State.OK]
    several_models = len({device.model for device in devices}) > 1
    groups: dict[tuple[float, int, str], list[Device]] = {}
    for device in filter(lambda device: _is_allowed(device, limits), devices):
        # As it is sold: two drivers' figures make no second size.
        size = (device.weight, sold_gb(device), _value(device, several_models))
        groups.setdefault(size, []).append(device)
    found = []
    for (_, _, value), members in sorted(groups.items()):
        request, available = parse_request(value), sum(device.uuid in free for device in members)
        larger = () if available else allowed(request, snapshot.free, limits, used)
        instead = choose(request, larger, snapshot.inventory).devices if larger else ()
        found.append(
            Offer(
                value=value,
                label=_label(members[0], several_models),
                free=available,
                total=len(members),
                weight=members[0].weight,
                within=bool(allowed(request, members, limits, used)),
                instead=_label(instead[0], several_models) if instead else "",
            )
        )
    return tuple(found)


def largest_count(found: Iterable[Offer], limits: Limits) -> int:
    """Return how many devices of one size a server may have, as far as there are so many."""
    most = max((_most_of(offer, limits) for offer in found), default=0)
    return most if limits.gpus_per_server is None else min(most, limits.gpus_per_server)


def _most_of(offer: Offer, limits: Limits) -> int:
    if limits.gpu_equivalents is None:
        return offer.total
    return min(offer.total, int((limits.gpu_equivalents + 1e-6) / offer.weight))


def short_model(device: Device) -> str:
    """Return a GPU's name as people say it: ``A100`` for ``A100-SXM4-80GB``."""
    words = [word for word in re.split(r"[ -]", device.model) if not _BUILT_IN.fullmatch(word)]
    return " ".join(words) or device.model


def _is_allowed(device: Device, limits: Limits) -> bool:
    if device.kind == "gpu" and not limits.full_gpu:
        return False
    return limits.gpu_equivalents is None or device.weight <= limits.gpu_equivalents + 1e-6


def _value(device: Device, several_models: bool) -> str:
    return (device.profile or "full") + (f"@{model_to_ask_for(device)}" if several_models else "")


def _label(device: Device, several_models: bool) -> str:
    if device.kind == "mig":
        return device.profile + (f" of {short_model(device)}" if several_models else "")
    return f"{short_model(device)} {round(device.memory_bytes / GIB)} GB"
