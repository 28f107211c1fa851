"""The machine that these tests pretend: one whole GPU, and one that is cut into seven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ds01_spawner.gpus.devices import Device, State
from ds01_spawner.gpus.nodes import device_nodes
from ds01_spawner.pretend import CAPABILITIES
from ds01_spawner.pretend.machine import Machine

SPEC = "a100-80gb:2,mig=7x1g.10gb@1"


class Pretended:
    """A pretended machine, and its devices as the rest of the product has them.

    The devices are told from how the machine was made and not read through NVML, so that the
    tests know by themselves what is right.

    Attributes
    ----------
    machine
        To be changed by tests, which change it back.
    """

    def __init__(self, folder: Path, spec: str = SPEC) -> None:
        self.machine = Machine(folder, spec)
        self.capabilities = folder / CAPABILITIES
        self.devices = tuple(self._devices())

    def partition(self, gpu: int, text: str) -> None:
        """Cut a GPU anew, while everything runs."""
        self.machine.partition(gpu, text)
        self.devices = tuple(self._devices())

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process finds these GPUs."""
        return self.machine.environment()

    @property
    def gpu(self) -> Device:
        """The first GPU that is not partitioned."""
        return next(device for device in self.devices if device.state is State.OK)

    @property
    def migs(self) -> tuple[Device, ...]:
        """All MIG devices."""
        return tuple(device for device in self.devices if device.kind == "mig")

    def nodes(self, *devices: Device) -> set[str]:
        """Return the nodes below ``/dev`` of these devices."""
        return {node for device in devices for node in device_nodes(device, self.capabilities)}

    def _devices(self) -> Iterator[Device]:
        for index, gpu in enumerate(self.machine.state.gpus):
            state = State.PARTITIONED if gpu.mig else State.OK
            yield Device(
                gpu.uuid,
                str(index),
                gpu.name,
                gpu.memory_bytes,
                7,
                1.0,
                minor=gpu.minor,
                state=state,
            )
            for mig in gpu.mig:
                yield Device(
                    mig.uuid,
                    f"{index}:{mig.index}",
                    gpu.name,
                    mig.memory_bytes,
                    mig.slices,
                    mig.slices / 7,
                    parent=gpu.uuid,
                    minor=gpu.minor,
                    gpu_instance=mig.instance,
                    compute_instance=mig.compute_instance,
                )
