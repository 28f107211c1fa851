"""A machine with a whole GPU, two partitioned ones and one in no use, as values."""

from __future__ import annotations

from ds01_spawner.gpus.devices import Device, Inventory, State
from ds01_spawner.gpus.notation import Capabilities, Capability

GIB = 1024**3


def uuid(kind: str, number: int) -> str:
    """Return a complete UUID that begins with its number."""
    return f"{kind}-{number:08x}-1111-2222-3333-444444444444"


def gpu(index: int, state: State = State.OK) -> Device:
    """Return GPU `index`; its node has another number, as on a real machine it may."""
    return Device(
        uuid("GPU", 0xA0 + index),
        str(index),
        "A100",
        80 * GIB,
        7,
        1.0,
        minor=7 - index,
        state=state,
    )


def mig(parent: Device, position: int, gpu_instance: int) -> Device:
    """Return a MIG device of a GPU."""
    return Device(
        uuid("MIG", 0xB0 + 16 * int(parent.index) + position),
        f"{parent.index}:{position}",
        "A100",
        20 * GIB,
        2,
        2 / 7,
        profile="2g.20gb",
        parent=parent.uuid,
        minor=parent.minor,
        gpu_instance=gpu_instance,
        compute_instance=0,
    )


WHOLE, PARTED, OTHER, IDLE = gpu(0), gpu(1, State.PARTITIONED), gpu(2, State.PARTITIONED), gpu(3)
FIRST, SECOND, THIRD = mig(PARTED, 0, 1), mig(PARTED, 1, 5), mig(OTHER, 0, 1)
INVENTORY = Inventory((WHOLE, PARTED, FIRST, SECOND, OTHER, THIRD, IDLE))
EVERYTHING = frozenset(device.uuid for device in INVENTORY.devices)

#: As the driver numbers them: two for setting up and watching, then two for each MIG device.
CAPABILITIES = Capabilities(
    {
        1: Capability(),
        2: Capability(),
        21: Capability(6, 1),
        22: Capability(6, 1, 0),
        57: Capability(6, 5),
        58: Capability(6, 5, 0),
        156: Capability(5, 1),
        157: Capability(5, 1, 0),
    },
    major=237,
)
