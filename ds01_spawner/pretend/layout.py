"""What machine is to be pretended, read from one line such as ``a100-80gb:4,mig=7x1g.10gb@1``."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from .models import MODELS, Model
from .partition import GpuInstance, SpecError, parse_partition

#: More than any machine has; the stand-in has room for no more.
MOST_GPUS = 64
_GROUP = re.compile(r"([a-z0-9-]+)(?::([0-9]{1,4}))?")
_INDEXES = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?")


@dataclass(frozen=True)
class GpuPlan:
    """One GPU: its model's name in `MODELS`, and its GPU instances, None without MIG mode."""

    kind: str
    instances: tuple[GpuInstance, ...] | None = None

    @property
    def model(self) -> Model:
        """What is known of its kind."""
        return MODELS[self.kind]


@dataclass(frozen=True)
class Layout:
    """A machine: its GPUs, and how NVLink connects them.

    Attributes
    ----------
    gpus
        In the order of their indexes.
    links
        Pairs of indexes that are connected directly.
    switched
        Indexes of the GPUs that meet in an NVSwitch.
    """

    gpus: tuple[GpuPlan, ...]
    links: tuple[tuple[int, int], ...] = ()
    switched: tuple[int, ...] = ()


def parse_spec(spec: str) -> Layout:
    """Return the machine that a spec describes; docs/pretended-gpus.md has the grammar.

    Raises
    ------
    SpecError
        If it cannot be understood, or there can be no such machine.
    """
    gpus: list[GpuPlan] = []
    links: list[tuple[int, int]] = []
    switched: list[int] = []
    for group in spec.split(";"):
        head, *options = _split_options(group.strip())
        kind, count = _parse_head(head)
        if len(gpus) + count > MOST_GPUS:
            raise SpecError(f"{spec!r} has more than {MOST_GPUS} GPUs.")
        indexes = range(len(gpus), len(gpus) + count)
        gpus += [GpuPlan(kind)] * count
        for option in options:
            name, _, value = option.partition("=")
            if name == "mig":
                _partition(gpus, indexes, value)
            elif name == "nvlink":
                _connect(gpus, indexes, value, links, switched)
            else:
                raise SpecError(f"{option!r} is neither mig=... nor nvlink=...")
    _check_links(gpus, links, switched)
    return Layout(tuple(gpus), tuple(links), tuple(switched))


def _split_options(group: str) -> list[str]:
    """Split at commas, except within a list of indexes, as in ``mig=7x1g.10gb@1,2``."""
    parts: list[str] = []
    for part in group.split(","):
        if len(parts) > 1 and "@" in parts[-1] and _INDEXES.fullmatch(part):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _parse_head(head: str) -> tuple[str, int]:
    found = _GROUP.fullmatch(head)
    if not found:
        raise SpecError(f"{head!r} does not name GPUs: write for example a100-80gb:4.")
    if found[1] not in MODELS:
        raise SpecError(f"There is no GPU {found[1]!r} to pretend; there are {', '.join(MODELS)}.")
    count = int(found[2] or 1)
    if count < 1:
        raise SpecError(f"{head!r}: there must be one GPU at least.")
    return found[1], count


def _partition(gpus: list[GpuPlan], indexes: range, value: str) -> None:
    text, at, where = value.partition("@")
    chosen = _parse_indexes(where, indexes) if at else list(indexes)
    kind = gpus[indexes[0]].kind
    instances = parse_partition(MODELS[kind], text) if text else None
    if instances is None:
        raise SpecError("mig= needs MIG devices, as in mig=7x1g.10gb@1.")
    for index in chosen:
        if gpus[index].instances is not None:
            raise SpecError(f"GPU {index} is partitioned twice.")
        gpus[index] = GpuPlan(kind, instances)


def _parse_indexes(text: str, allowed: range) -> list[int]:
    """Return the indexes of ``1``, ``1,2`` or ``1-3``, as nvidia-smi counts on this machine."""
    chosen: list[int] = []
    for part in text.split(","):
        found = _INDEXES.fullmatch(part)
        if not found:
            raise SpecError(f"'@{text}' is no list of GPUs: write for example @1, @1,2 or @1-3.")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or first not in allowed or last not in allowed:
            raise SpecError(f"'@{text}': these GPUs are {allowed[0]} to {allowed[-1]}.")
        chosen += range(first, last + 1)
    return chosen


def _connect(
    gpus: list[GpuPlan],
    indexes: range,
    value: str,
    links: list[tuple[int, int]],
    switched: list[int],
) -> None:
    if not MODELS[gpus[indexes[0]].kind].nvlinks:
        raise SpecError(f"{MODELS[gpus[indexes[0]].kind].name} has no NVLink.")
    if value == "switch":
        switched += indexes
    elif value == "pairs":
        links += zip(indexes[::2], indexes[1::2], strict=False)
    elif value == "all":
        links += itertools.combinations(indexes, 2)
    else:
        raise SpecError(f"'nvlink={value}': it is pairs, all or switch.")


def _check_links(gpus: list[GpuPlan], links: list[tuple[int, int]], switched: list[int]) -> None:
    if len(set(links)) < len(links) or len(set(switched)) < len(switched):
        raise SpecError("nvlink= is given twice for the same GPUs.")
    if set(switched) & set(itertools.chain(*links)):
        raise SpecError("GPUs are connected to each other or to a switch, not both.")
    for index, gpu in enumerate(gpus):
        if sum(index in pair for pair in links) > gpu.model.nvlinks:
            raise SpecError(f"GPU {index}, {gpu.model.name}, has {gpu.model.nvlinks} NVLinks only.")
