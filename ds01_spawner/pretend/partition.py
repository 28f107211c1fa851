"""How a GPU is cut into MIG devices: what the driver would accept, and where it would lie."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .models import Model, Profile

_ENTRY = re.compile(r"(?:([0-9]+)x)?([0-9]+g\.[0-9]+gb(?:\+me)?)(?:/([0-9]+c(?:\.[0-9]+c)*))?")
#: Entries are joined by a plus, which also belongs to the names that end in "+me".
_PLUS = re.compile(r"\+(?!me\b)")


class SpecError(ValueError):
    """A spec that describes no machine there could be; the text says why and what would do."""


@dataclass(frozen=True)
class ComputeInstance:
    """A part of a GPU instance with compute slices of its own: a MIG device."""

    number: int
    slices: int


@dataclass(frozen=True)
class GpuInstance:
    """A part of a GPU with memory of its own; its compute instances are MIG devices."""

    number: int
    profile: Profile
    start: int
    compute: tuple[ComputeInstance, ...]


#: A profile, and the compute slices of each compute instance in it.
_Wanted = tuple[Profile, tuple[int, ...]]


def parse_partition(model: Model, text: str) -> tuple[GpuInstance, ...]:
    """Return the GPU instances that a text such as ``1x3g.40gb+2x2g.20gb`` makes of a GPU.

    They come in the order of their numbers, as the driver lists them.

    Raises
    ------
    SpecError
        If the driver would not cut this GPU so.
    """
    if not model.profiles:
        raise SpecError(f"{model.name} cannot be cut into MIG devices.")
    wanted = [item for entry in _PLUS.split(text) for item in _parse_entry(model, entry)]
    placed = _place(model, wanted)
    if placed is None:
        raise SpecError(_does_not_fit(model, [profile for profile, _ in wanted]))
    instances = (
        GpuInstance(
            number=_number(model, profile, start),
            profile=profile,
            start=start,
            compute=tuple(ComputeInstance(n, slices) for n, slices in enumerate(parts)),
        )
        for (profile, parts), start in placed
    )
    return tuple(sorted(instances, key=lambda instance: instance.number))


def _parse_entry(model: Model, entry: str) -> list[_Wanted]:
    found = _ENTRY.fullmatch(entry)
    if not found:
        raise SpecError(
            f"{entry!r} is no MIG device: write for example 2x{model.profiles[0].name}."
        )
    count = int(found[1] or 1)
    profile = model.profile(found[2])
    if profile is None:
        names = ", ".join(profile.name for profile in model.profiles)
        raise SpecError(f"{model.name} has no profile {found[2]}; it has {names}.")
    if not 1 <= count <= profile.limit:
        raise SpecError(
            f"{count}x{profile.name} is not possible: {model.name} takes {profile.limit} at most."
        )
    parts = tuple(int(part[:-1]) for part in found[3].split(".")) if found[3] else (profile.slices,)
    if min(parts) < 1 or sum(parts) > profile.slices:
        raise SpecError(
            f"{entry} is not possible: {profile.name} has {profile.slices} compute slices."
        )
    return [(profile, parts)] * count


def _place(model: Model, wanted: Sequence[_Wanted]) -> list[tuple[_Wanted, int]] | None:
    """Find places for all, None if there are none."""
    counts = Counter(profile.name for profile, _ in wanted)
    if any(counts[profile.name] > profile.limit for profile, _ in wanted):
        return None
    # One set of media engines, whichever profile takes it.
    if sum(profile.has_all_media for profile, _ in wanted) > 1:
        return None
    if sum(profile.slices for profile, _ in wanted) > model.slices:
        return None
    # Those with the fewest places first; the search is then short.
    ordered = sorted(wanted, key=lambda item: (-item[0].memory_slices, len(item[0].starts)))
    return _search(ordered, (1 << model.memory_slices) - 1)


def _search(wanted: Sequence[_Wanted], free: int) -> list[tuple[_Wanted, int]] | None:
    """Place one after the other in the free memory slices, given as bits."""
    if not wanted:
        return []
    profile = wanted[0][0]
    for start in profile.starts:
        needed = ((1 << profile.memory_slices) - 1) << start
        if needed & free == needed:
            rest = _search(wanted[1:], free & ~needed)
            if rest is not None:
                return [(wanted[0], start), *rest]
    return None


def _does_not_fit(model: Model, profiles: Sequence[Profile]) -> str:
    """Say which is the first that is too much, and what would still fit instead."""
    fitting: list[Profile] = []
    for profile in profiles:
        if _fits(model, [*fitting, profile]):
            fitting.append(profile)
            continue
        others = [p.name for p in model.profiles if _fits(model, [*fitting, p])]
        instead = f"there is still room for {' or '.join(others)}" if others else "it is full then"
        return f"{profile.name} does not fit beside {_sum(fitting)} on {model.name}; {instead}."
    raise AssertionError("called for a partition that fits")


def _fits(model: Model, profiles: Sequence[Profile]) -> bool:
    return _place(model, [(profile, (profile.slices,)) for profile in profiles]) is not None


def _sum(profiles: Sequence[Profile]) -> str:
    counts = Counter(profile.name for profile in profiles)
    return "+".join(f"{count}x{name}" for name, count in counts.items())


def _number(model: Model, profile: Profile, start: int) -> int:
    """Return the instance's number: the whole is 0, the halves 1 and 2, the quarters 3 and on."""
    parts = model.memory_slices // profile.memory_slices
    return parts - 1 + start // profile.memory_slices
