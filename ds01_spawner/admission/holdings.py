"""What a user's servers hold now, as Docker has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..gpus.occupancy import Container

#: What has ended uses nothing but its GPUs, until it is removed.
_ENDED = ("exited", "dead", "removing")


@dataclass(frozen=True)
class Holding:
    """What one server holds.

    Attributes
    ----------
    server
        The Hub's name of it; empty for the unnamed one.
    gpus
        GPU equivalents.
    cpus, memory_bytes, pids
        The container's own limits.
    ended
        Whether the server has ended, and only its container is left.
    """

    server: str
    gpus: float = 0.0
    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    ended: bool = False


def holding_labels(cpus: float, memory_bytes: int, pids: int) -> dict[str, str]:
    """Return the labels that say what a server may use."""
    return {"ds01.cpus": f"{cpus:g}", "ds01.memory": str(memory_bytes), "ds01.pids": str(pids)}


def holdings(user: str, own: Iterable[Container]) -> tuple[Holding, ...]:
    """Return what a user's servers hold, in the order of their names.

    Parameters
    ----------
    own
        The Hub's containers, whose labels mean what they say.
    """
    theirs = (_holding(c) for c in own if c.labels.get("ds01.user") == user)
    return tuple(sorted(theirs, key=lambda holding: holding.server))


def gpus_in_use(held: Iterable[Holding]) -> Mapping[str, float]:
    """Return server name -> GPU equivalents, of those servers that hold any."""
    return {holding.server: holding.gpus for holding in held if holding.gpus}


def _holding(container: Container) -> Holding:
    def number(label: str, read: Any) -> Any:
        return read(container.labels.get(label) or 0)

    return Holding(
        server=container.labels.get("ds01.server", ""),
        gpus=number("ds01.gpu.allocated", float),
        cpus=number("ds01.cpus", float),
        memory_bytes=number("ds01.memory", int),
        pids=number("ds01.pids", int),
        ended=container.state in _ENDED,
    )
