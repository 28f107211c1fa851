"""What somebody may have and has: the values behind a page and an answer of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lifecycle import words as life_words
from ..names import project_of
from ..policy import Limits, Share, explain, format_bytes
from ..storage import words
from ..storage.records import Uses
from .rates import Measured


@dataclass(frozen=True)
class Server:
    """One server with what it may use, and what it uses now if that can be read.

    Attributes
    ----------
    name
        The Hub's name of it; empty for the unnamed one.
    state
        In Docker's words, such as ``running``.
    started
        When its container was created, in ISO format.
    gpu_uuids, gpu_size, gpu_weight
        What it holds in GPUs: their UUIDs, a profile or ``full``, and GPU equivalents.
    cpus, memory_bytes, pids
        Its limits.
    disk_bytes
        What it takes on the disk outside of its owner's files; None if that is not known.
    """

    name: str
    state: str
    started: str
    gpu_uuids: tuple[str, ...] = ()
    gpu_size: str = ""
    gpu_weight: float = 0.0
    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    now: Measured | None = None
    disk_bytes: int | None = None

    @property
    def project(self) -> str:
        """The project that it works on."""
        return project_of(self.name)

    @property
    def gpus(self) -> str:
        """What it has in GPUs, for people."""
        if not self.gpu_uuids:
            return "none"
        size = "GPU" if self.gpu_size == "full" else self.gpu_size
        return f"{len(self.gpu_uuids)} × {size}" if len(self.gpu_uuids) > 1 else size


@dataclass(frozen=True)
class Bar:
    """How much of one limit is used, over all servers.

    Attributes
    ----------
    key
        The policy's key, or what the API calls it.
    used, limit
        In `unit`; `used` is None if it cannot be read, `limit` is None if there is none.
    source
        Where the limit comes from.
    """

    key: str
    label: str
    used: float | None
    limit: float | None
    unit: str
    source: str

    @property
    def used_in_words(self) -> str:
        """What is used, for people."""
        return "not known" if self.used is None else _in_words(self.used, self.unit)

    @property
    def limit_in_words(self) -> str:
        """The limit, for people."""
        return "no limit" if self.limit is None else _in_words(self.limit, self.unit)

    @property
    def is_full(self) -> bool:
        """Whether nothing or almost nothing is left."""
        return self.limit is not None and (self.used or 0) >= 0.95 * self.limit


@dataclass(frozen=True)
class Standing:
    """What one user may have and has.

    Attributes
    ----------
    enforced
        What holds the sum over all servers: ``slice`` or ``admission``.
    life
        How long servers go on.
    files, of_servers
        What to tell of the room that the user's files take, and of what servers take, by their
        containers' ids.
    """

    share: Share
    servers: tuple[Server, ...]
    bars: tuple[Bar, ...]
    enforced: str
    life: str
    files: str
    of_servers: Mapping[str, str]

    @property
    def container_bytes(self) -> int | None:
        """What each server may take on the disk outside of its owner's files."""
        return self.share.resolved.limits.lifecycle.container_bytes

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """All of the policy's keys with value and source."""
        return list(explain.rows(self.share.resolved))


def standing(
    share: Share,
    limits: Limits,
    servers: Sequence[Server],
    total: Measured | None,
    enforced: str,
    uses: Uses,
) -> Standing:
    """Put together what a user may have and has.

    Parameters
    ----------
    limits
        Those of `share`, cut to the machine.
    total
        What all of the user's servers use now; None if that cannot be read.
    uses
        What the user takes on the disk, as far as that is known.
    """
    user, lifecycle = share.resolved.user, limits.lifecycle
    values = share.resolved.values
    running = [server for server in servers if server.state not in ("exited", "dead")]
    gpu_key = _lower(values, "max_gpu_equivalents", "aggregate.gpu_limit")
    tasks_key = _lower(values, "max_tasks", "aggregate.tasks_max")
    most = limits.aggregate
    cpus: float | None = None
    memory: int | None = None
    tasks: int | None = None
    if enforced == "admission":
        # What each may use counts, whether it does or not.
        cpus = sum(server.cpus for server in running)
        memory = sum(server.memory_bytes for server in running)
        tasks = sum(server.pids for server in running)
    elif total is not None:
        cpus, memory, tasks = total.cpus, total.memory_bytes, total.tasks

    def bar(key: str, label: str, used: float | None, limit: float | None, unit: str) -> Bar:
        return Bar(key, label, used, limit, unit, values[key].source)

    bars = (
        bar("max_containers_per_user", "Servers", len(running), limits.servers, "servers"),
        bar(
            gpu_key, "GPU", sum(s.gpu_weight for s in servers), limits.gpu_equivalents, "GPU share"
        ),
        bar("aggregate.cpu_quota", "CPU", cpus, most.cpus, "CPUs"),
        bar("aggregate.memory_max", "Memory", memory, most.memory_bytes, "B"),
        bar(tasks_key, "Processes and threads", tasks, most.tasks, "tasks"),
        bar("storage_workspace", "Files", uses.of_user(user), lifecycle.workspace_bytes, "B"),
    )
    of_user, of_servers = words.of_user(uses, user, lifecycle), words.of_servers(uses, lifecycle)
    life = life_words.limits(lifecycle)
    return Standing(share, tuple(servers), bars, enforced, life, of_user, of_servers)


def total_of(measured: Iterable[Measured | None]) -> Measured | None:
    """Return the sum; None if any part of it is not known."""
    cpus, memory, tasks = 0.0, 0, 0
    for one in measured:
        if one is None:
            return None
        cpus, memory, tasks = cpus + one.cpus, memory + one.memory_bytes, tasks + one.tasks
    return Measured(cpus, memory, tasks)


def _lower(values: Mapping[str, Any], first: str, second: str) -> str:
    """Return which of two keys limits more, as null is no limit."""
    one, other = values[first].value, values[second].value
    return second if one is None or (other is not None and other < one) else first


def _in_words(number: float, unit: str) -> str:
    if unit == "B":
        return format_bytes(int(number)) if number >= 1 else "0"
    return few_digits(number)


def few_digits(number: float) -> str:
    """Return a number for people, with two decimals at most."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
