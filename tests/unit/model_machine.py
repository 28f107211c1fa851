"""The GPUs of a modelled machine, and what others do with them, each with what it really means."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ds01_spawner.gpus.devices import Device, GpuProcess, Inventory, Reading, State
from ds01_spawner.gpus.occupancy import Process

from .model_engine import IMAGE

GB = 10**9
FIRST, SECOND = (f"GPU-{uuid.UUID(int=number)}" for number in (0x1111 << 112, 0x2222 << 112))
#: How the second GPU can be cut: profiles with their compute slices.
LAYOUTS: tuple[tuple[tuple[str, int], ...], ...] = (
    (),
    (("3g.40gb", 3), ("2g.20gb", 2), ("2g.20gb", 2)),
    (("4g.40gb", 4), ("3g.40gb", 3)),
)


def mig_uuid(layout: int, place: int) -> str:
    return f"MIG-{uuid.UUID(int=(0x33 << 120) + (layout << 8) + place)}"


def relatives(device: str, inventory: Inventory) -> set[str]:
    """Return a device, its parts and what it is a part of."""
    found = inventory.get(device)
    if found is None:
        return set()
    parts = {other.uuid for other in inventory.devices if other.parent == device}
    return {device, *parts} | ({found.parent} if found.parent else set())


def opened(labels: Mapping[str, str], inventory: Inventory) -> set[str]:
    """Return what the container of a start may use: of a GPU that was cut anew, all of it."""
    uuids, gpus = (labels[f"ds01.gpu.{key}"].split(",") for key in ("uuids", "parents"))
    return set().union(
        *(
            {uuid} if inventory.get(uuid) else relatives(gpu, inventory)
            for uuid, gpu in zip(uuids, gpus, strict=True)
        )
    )


@dataclass
class Machine:
    """Two GPUs, the second of which can be cut, and their processes."""

    layout: int = 1
    broken: set[str] = field(default_factory=set)
    problem: str = ""
    unasked: dict[str, str] = field(default_factory=dict)
    #: Process number -> device, and container id or nothing.
    processes: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Devices that the engine's list for attaching them lacks.
    unattachable: set[str] = field(default_factory=set)

    def inventory(self) -> Inventory:
        if self.problem:
            return Inventory(problem=self.problem)
        cut = LAYOUTS[self.layout]
        devices = [
            self._gpu(FIRST, 0, State.OK),
            self._gpu(SECOND, 1, State.PARTITIONED if cut else State.OK),
        ]
        for place, (profile, slices) in enumerate(cut):
            own = mig_uuid(self.layout, place)
            down = {own, SECOND} & self.broken
            devices.append(
                Device(
                    uuid=own,
                    index=f"1:{place}",
                    model="A100-SXM4-80GB",
                    memory_bytes=int(profile.split(".")[1][:-2]) * GB,
                    slices=slices,
                    weight=slices / 7,
                    profile=profile,
                    parent=SECOND,
                    minor=1,
                    gpu_instance=place + 1,
                    compute_instance=0,
                    state=State.UNHEALTHY if down else State.OK,
                )
            )
        return Inventory(tuple(devices), driver="550.54.15")

    def _gpu(self, own: str, number: int, state: State) -> Device:
        return Device(
            uuid=own,
            index=str(number),
            model="A100-SXM4-80GB",
            memory_bytes=80 * GB,
            slices=7,
            weight=1.0,
            minor=number,
            state=State.UNHEALTHY if own in self.broken else state,
        )

    def read(self) -> Reading:
        known = {device.uuid for device in self.inventory().devices}
        return Reading(
            self.inventory(),
            tuple(GpuProcess(pid, on) for pid, (on, _) in self.processes.items() if on in known),
            {device: why for device, why in self.unasked.items() if device in known},
        )

    def toggle_process(self, pid: int, device: str) -> None:
        if not self.processes.pop(pid, None):
            self.processes[pid] = (device, "")

    def locate(self, processes: tuple[GpuProcess, ...]) -> list[Process]:
        """Stand in for a look into /proc."""
        return [
            Process(
                process.pid,
                "python3",
                process.uuid,
                tuple(filter(None, [self.processes.get(process.pid, ("", ""))[1]])),
            )
            for process in processes
        ]

    def info(self) -> dict[str, object]:
        """Return how the engine describes itself: it attaches by CDI."""
        attachable = {device.uuid for device in self.inventory().devices} - self.unattachable
        return {
            "Runtimes": {
                "runc": {"path": "runc"},
                "nvidia": {"path": "/usr/bin/nvidia-container-runtime"},
            },
            "DefaultRuntime": "runc",
            "DiscoveredDevices": [
                {"Source": "cdi", "ID": f"nvidia.com/gpu={one}"} for one in sorted(attachable)
            ],
        }


def _everything(inventory: Inventory) -> set[str]:
    return {device.uuid for device in inventory.devices}


def _index(index: str) -> Callable[[Inventory], set[str]]:
    def meaning(inventory: Inventory) -> set[str]:
        named = [device.uuid for device in inventory.devices if device.index == index]
        # An index that nothing has may be anything.
        return relatives(named[0], inventory) if named else _everything(inventory)

    return meaning


def _device(own: str) -> Callable[[Inventory], set[str]]:
    def meaning(inventory: Inventory) -> set[str]:
        # Nobody knows what the nodes of a MIG device that was taken apart open now.
        gone = own.startswith("MIG-") and inventory.get(own) is None
        return _everything(inventory) if gone else relatives(own, inventory)

    return meaning


def _requests(*ids: str, driver: str = "", count: int = 0) -> dict[str, object]:
    request = {"Driver": driver, "Count": count, "DeviceIDs": list(ids), "Capabilities": [["gpu"]]}
    return {"HostConfig": {"DeviceRequests": [request]}}


def _node(path: str) -> dict[str, object]:
    return {"HostConfig": {"Devices": [{"PathOnHost": path, "PathInContainer": path}]}}


#: What somebody else's container is created with, and the devices that it thereby has.
NOTATIONS: tuple[tuple[dict[str, object], Callable[[Inventory], set[str]]], ...] = (
    ({}, lambda _: set()),
    ({"Labels": {"ds01.gpu.uuids": FIRST, "ds01.user": "eve"}}, lambda _: set()),
    (_requests("0"), _index("0")),
    (_requests("1:0"), _index("1:0")),
    (_requests(FIRST), _device(FIRST)),
    (_requests(FIRST[:9]), _device(FIRST)),
    (_requests(mig_uuid(1, 0), driver="nvidia"), _device(mig_uuid(1, 0))),
    (_requests(mig_uuid(2, 1), driver="nvidia"), _device(mig_uuid(2, 1))),
    (_requests("nvidia.com/gpu=0", driver="cdi"), _index("0")),
    (_requests(count=-1), _everything),
    (_requests("the-big-one"), _everything),
    (_node("/dev/nvidia0"), _device(FIRST)),
    (_node("/dev/nvidia7"), _everything),
    (
        {"HostConfig": {"Runtime": "nvidia"}, "Env": ["NVIDIA_VISIBLE_DEVICES=1"]},
        _index("1"),
    ),
)


def foreign_body(number: int) -> dict[str, object]:
    return {"Image": IMAGE, **NOTATIONS[number][0]}
