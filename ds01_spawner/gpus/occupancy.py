"""Who holds which device, from what Docker and NVML say at one moment. Pure functions.

The rule for everything here: what cannot be told holds everything, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from ..columns import printable
from .claims import Claims, Runtimes
from .devices import Device, Holder, Inventory, State
from .notation import Names

#: Of a container that is not ours, these states mean that it has ended and will not come back by
#: itself. One of ours has its devices until it is removed.
_ENDED = frozenset({"exited", "dead"})

#: Labels of a Hub's containers: the devices that were granted, and the GPU of each, in order.
GRANTED, GPUS = "ds01.gpu.uuids", "ds01.gpu.parents"

#: Longest piece of a container's own words in a warning.
_LONGEST_QUOTE = 80


@dataclass(frozen=True)
class Container:
    """A container as the engine lists it now, and what it was created with.

    Attributes
    ----------
    container_id, name
        The engine's id, and the name that it has now.
    state
        ``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited``, ``dead``.
    created
        When it was created; None if unknown.
    labels
        All of its labels. Anybody can write them.
    of_a_hub
        Whether a Hub created it, this one or another: it has a Hub's labels and a Hub's name.
    ours
        Whether this very Hub created it, so that its labels mean what they say.
    watcher
        Whether it only looks at GPUs, by the admin's word.
    claims
        What it has of the GPUs; None for a container that does not count.
    """

    container_id: str
    name: str
    state: str
    created: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    of_a_hub: bool = False
    ours: bool = False
    watcher: bool = False
    claims: Claims | None = None

    @property
    def counts(self) -> bool:
        """Whether it holds what it claims."""
        if self.of_a_hub:
            # Created is granted, and removed is given back. A user can choose a name that looks
            # like a watcher's.
            return True
        return self.state not in _ENDED and not self.watcher

    @property
    def holder(self) -> Holder:
        """The container as a device's holder."""
        return Holder(
            container=self.name,
            container_id=self.container_id,
            user=self.labels.get("ds01.user") if self.ours else None,
            server=self.labels.get("ds01.server") if self.ours else None,
            since=self.created,
        )


@dataclass(frozen=True)
class Process:
    """A process that NVML sees on a device.

    Attributes
    ----------
    pid, name
        On the host; the name as the kernel has it, empty if /proc does not have the process.
    uuid
        The device.
    cgroups
        Ids of the containers it may belong to, the outermost first, as its cgroup says.
    """

    pid: int
    name: str
    uuid: str
    cgroups: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name or 'not in /proc'})"


class _Books:
    """Notes who holds what, and returns it in an order that is the same every time."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._related = _related(inventory.devices)
        #: UUID -> (container's id or the holder's words) -> (rank, holder)
        self._notes: dict[str, dict[str, tuple[int, Holder]]] = {}
        self.warnings: set[str] = set()

    def has(self, uuid: str) -> bool:
        """Tell whether there is such a device."""
        return self._inventory.get(uuid) is not None

    def along_with(self, uuid: str) -> frozenset[str]:
        """Return a device and those that are held along with it."""
        return self._related.get(uuid, frozenset()) | {uuid}

    def hold(self, uuid: str, holder: Holder) -> None:
        """Note a holder of a device, and of those that this takes along."""
        self._note(uuid, 0, holder)
        for other in self.along_with(uuid) - {uuid}:
            self._note(other, 1, holder)

    def hold_everything(self, holder: Holder, warning: str) -> None:
        """Note a holder of nobody knows what."""
        self.warnings.add(warning)
        for device in self._inventory.devices:
            self._note(device.uuid, 2, holder)

    def _note(self, uuid: str, rank: int, holder: Holder) -> None:
        notes = self._notes.setdefault(uuid, {})
        key = holder.container_id or holder.detail
        if key not in notes or rank < notes[key][0]:
            notes[key] = (rank, holder)

    def holders(self) -> dict[str, tuple[Holder, ...]]:
        """Return each held device's holders, first the one to name."""
        return {
            device.uuid: tuple(holder for _, holder in sorted(notes.values(), key=_order))
            for device in self._inventory.devices
            if (notes := self._notes.get(device.uuid, {}))
        }


def occupancy(
    inventory: Inventory,
    containers: Iterable[Container],
    processes: Iterable[Process] = (),
    unasked: Mapping[str, str] | None = None,
    *,
    runtimes: Runtimes,
    names: Names | None = None,
) -> tuple[dict[str, tuple[Holder, ...]], tuple[str, ...]]:
    """Return who holds each device that is held, and what could not be understood.

    Parameters
    ----------
    inventory
        What there is.
    containers
        All that the engine lists.
    processes
        All that NVML sees on devices.
    unasked
        Devices whose processes NVML could not tell, and why.
    runtimes
        The engine's OCI runtimes, some of which give GPUs because of variables.
    names
        Tells what notations mean, with the machine's capability nodes; made from the inventory
        by default.

    Returns
    -------
    (dict, tuple)
        UUID -> its holders, and warnings for an admin. Neither depends on the order in which
        containers and processes are given.
    """
    books = _Books(inventory)
    names = names or Names(inventory)
    by_id = {container.container_id: container for container in containers}
    has = {id_: _hold_claims(books, names, c, runtimes) for id_, c in by_id.items() if c.counts}
    for process in _on_their_devices(processes, inventory):
        _hold_by_process(books, process, by_id, has)
    for uuid, reason in (unasked or {}).items():
        books.hold(uuid, Holder(detail=f"unknown processes: {reason}"))
        device = inventory.get(uuid)
        if device is None or device.state is State.OK:
            # What is broken is known to be, and says so itself.
            books.warnings.add(f"NVML does not tell the processes on {uuid}: {reason}")
    return books.holders(), tuple(sorted(books.warnings))


def _hold_claims(
    books: _Books, names: Names, container: Container, runtimes: Runtimes
) -> frozenset[str]:
    """Note what a container has, and return it."""
    claims = container.claims
    if claims is None:
        books.hold_everything(
            container.holder, f"Nothing is known of the container {container.name}."
        )
        return frozenset()
    words, nodes = claims.words(runtimes), claims.nodes
    if container.ours:
        # This Hub gives nodes for pretended devices only, and the label says which they stand for.
        words, nodes = _with_grant(books, container, words), ()
    named, opened = (
        _resolved(books, container, resolve, said)
        for resolve, said in ((names.named, words), (names.node, nodes))
    )
    has = names.together(opened).union(*named)
    for uuid in has:
        books.hold(uuid, container.holder)
    return has


def _with_grant(books: _Books, container: Container, words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a container of this Hub, and what it was granted.

    A MIG device that is not there any more was taken apart behind the container's back. Its nodes
    may open what was made in its place, or the whole GPU, so all of its GPU is held.
    """
    uuids, gpus = (
        [word for word in container.labels.get(label, "").split(",") if word]
        for label in (GRANTED, GPUS)
    )
    gpu_of = dict(zip(uuids, gpus, strict=False))
    gone = {uuid: gpu for uuid, gpu in gpu_of.items() if uuid != gpu and not books.has(uuid)}
    books.warnings |= {
        f"The container {container.name} was given {uuid}, which is not there any more. Nothing of "
        f"{gpu} is given to anybody until that server is stopped."
        for uuid, gpu in gone.items()
    }
    said = [*(part for word in words for part in word.split(",")), *uuids]
    still = [part for part in said if not any(uuid in part for uuid in gone)]
    return (*still, *gone.values())


def _resolved(
    books: _Books,
    container: Container,
    resolve: Callable[[str], frozenset[str]],
    said: Iterable[str],
) -> list[frozenset[str]]:
    """Return what a container's words mean; what cannot be told holds everything."""
    meant = []
    for word in said:
        try:
            meant.append(resolve(word))
        except ValueError as error:
            # `Unresolved`, or a number that Python does not read.
            detail = f"asks for {_quote(word)}: {_quote(str(error))}"
            books.hold_everything(
                replace(container.holder, detail=detail),
                f"The container {container.name} {detail}. As nobody knows which devices it "
                "has, none is given to anybody; remove it, or start it with UUIDs.",
            )
    return meant


def _hold_by_process(
    books: _Books,
    process: Process,
    containers: Mapping[str, Container],
    has: Mapping[str, frozenset[str]],
) -> None:
    container = next((containers[id_] for id_ in process.cgroups if id_ in containers), None)
    if container is None:
        books.hold(process.uuid, Holder(detail=str(process)))
        return
    if container.watcher and not container.counts:
        return
    books.hold(process.uuid, replace(container.holder, detail=str(process)))
    if not has.get(container.container_id, frozenset()) & books.along_with(process.uuid):
        books.warnings.add(
            f"The container {container.name} was not given {process.uuid}, and its {process} "
            "uses it."
        )


def _on_their_devices(processes: Iterable[Process], inventory: Inventory) -> list[Process]:
    """Return the processes in order, without those shown on a GPU and on its MIG device as well."""
    processes = sorted(processes, key=lambda process: (process.pid, process.uuid))
    parents = {device.uuid: device.parent for device in inventory.devices if device.parent}
    finer = {(process.pid, parents.get(process.uuid)) for process in processes}
    return [process for process in processes if (process.pid, process.uuid) not in finer]


def _related(devices: Iterable[Device]) -> dict[str, frozenset[str]]:
    """Return UUID -> what is held along with it: a GPU's MIG devices, a MIG device's GPU."""
    related: dict[str, set[str]] = {}
    for device in devices:
        if device.parent:
            related.setdefault(device.uuid, set()).add(device.parent)
            related.setdefault(device.parent, set()).add(device.uuid)
    return {uuid: frozenset(others) for uuid, others in related.items()}


def _order(note: tuple[int, Holder]) -> tuple[object, ...]:
    rank, holder = note
    since = holder.since or datetime.max.replace(tzinfo=timezone.utc)
    return rank, holder.user is None, since, holder.container, holder.container_id, holder.detail


def _quote(text: str) -> str:
    """Return somebody else's words for an admin's terminal: short, and nothing but text."""
    shown = printable(text)
    return shown if len(shown) <= _LONGEST_QUOTE else f"{shown[:_LONGEST_QUOTE]}…"
