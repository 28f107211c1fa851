"""Which GPUs belong together: NVLink between those that are free. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import comb

from .devices import Device
from .request import sold_gb

#: Up to here every set is looked at (8 GPUs have at most 70 of a size), which takes a
#: millisecond. More GPUs are collected one by one, each time the best connected next.
_SETS_LOOKED_AT = 300
_COLLECTED_FROM = 8

Neighbours = Mapping[str, Mapping[str, int]]


def neighbours(gpus: Iterable[Device], links: Mapping[frozenset[str], int]) -> Neighbours:
    """Give each of these GPUs' UUIDs its neighbours among them -> number of links."""
    found: dict[str, dict[str, int]] = {gpu.uuid: {} for gpu in gpus}
    for pair, count in links.items():
        if count > 0 and len(pair) == 2:
            one, other = pair
            if one in found and other in found:
                found[one][other] = found[other][one] = count
    return found


def connections(gpus: Sequence[Device], near: Neighbours) -> int:
    """Count the links that join these GPUs with each other."""
    return sum(near[one.uuid].get(other.uuid, 0) for one, other in combinations(gpus, 2))


def best_connected(
    gpus: Sequence[Device], count: int, near: Neighbours, lost: Mapping[str, float]
) -> tuple[Device, ...]:
    """Choose `count` of the GPUs.

    Fewest models, then most links among the chosen, then fewest links cut to those left over,
    then the least `lost` to others (by UUID), then the least memory, then the order given.
    All sets are compared where there are few. Among many GPUs sets are grown from a few of
    them, which finds whole NVLink groups and may miss the best set of irregular ones.
    """
    if comb(len(gpus), count) <= _SETS_LOOKED_AT:
        sets: Iterable[tuple[int, ...]] = combinations(range(len(gpus)), count)
    else:
        sets = (_grown(start, gpus, count, near) for start in _starts(gpus, count, near))
    best = min(sets, key=lambda chosen: (_badness([gpus[i] for i in chosen], near, lost), chosen))
    return tuple(gpus[i] for i in best)


def _badness(
    chosen: Sequence[Device], near: Neighbours, lost: Mapping[str, float]
) -> tuple[int, int, int, float, int]:
    names = {gpu.uuid for gpu in chosen}
    inside = cut = 0
    for gpu in chosen:
        for other, count in near[gpu.uuid].items():
            if other in names:
                inside += count
            else:
                cut += count
    models = len({gpu.model for gpu in chosen})
    loss = sum(lost[gpu.uuid] for gpu in chosen)
    return models, -inside, cut, loss, sum(sold_gb(gpu) for gpu in chosen)


def _starts(gpus: Sequence[Device], count: int, near: Neighbours) -> list[int]:
    """Choose where to grow sets from: one GPU of each group, groups that just suffice first."""
    seen: set[str] = set()
    groups: list[tuple[bool, int, int]] = []
    models: dict[str, int] = {}
    for place, gpu in enumerate(gpus):
        models.setdefault(gpu.model, place)
        if gpu.uuid not in seen:
            group = _group(gpu.uuid, near)
            seen |= group
            too_small = len(group) < count
            groups.append((too_small, -len(group) if too_small else len(group), place))
    places = [*models.values(), *(place for *_, place in sorted(groups))]
    return list(dict.fromkeys(places))[:_COLLECTED_FROM]


def _group(uuid: str, near: Neighbours) -> set[str]:
    """Collect all that hangs together with a GPU."""
    group, waiting = {uuid}, [uuid]
    while waiting:
        new = near[waiting.pop()].keys() - group
        group |= new
        waiting.extend(new)
    return group


def _grown(start: int, gpus: Sequence[Device], count: int, near: Neighbours) -> tuple[int, ...]:
    """Collect a set from one GPU on, each time the one with the most links into the set."""
    places = {gpu.uuid: place for place, gpu in enumerate(gpus)}
    links_in = dict.fromkeys(range(len(gpus)), 0)
    chosen: list[int] = []
    model = gpus[start].model
    following = start
    while True:
        chosen.append(following)
        del links_in[following]
        for other, links in near[gpus[following].uuid].items():
            if places[other] in links_in:
                links_in[places[other]] += links
        if len(chosen) == count:
            return tuple(sorted(chosen))
        following = min(
            links_in, key=lambda place: (gpus[place].model != model, -links_in[place], place)
        )
