"""A machine with pretended GPUs, as a directory; tests change it while a Hub runs on it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from . import CAPABILITIES, LIBRARY, STATE, VARIABLE, build
from .layout import GpuPlan, Layout, parse_spec
from .models import MODELS
from .partition import GpuInstance, parse_partition
from .state import (
    LINK_TO_GPU,
    LINK_TO_SWITCH,
    NO_INSTANCE,
    Event,
    Gpu,
    Mig,
    Process,
    State,
    mib,
)

#: UUIDs are made from this, the model and the index: the same spec makes the same UUIDs.
_NAMESPACE = uuid.UUID("9d2c7b4e-4d8e-5a0f-9c57-d5014e70aded")
#: The stand-in keeps no more events than these.
_MOST_EVENTS = 200
#: Minor numbers of capabilities, as the driver counts: 15 GPU instances for each GPU, each with
#: its own number and those of 8 compute instances; the first three are others'.
_FIRST_CAPABILITY, _INSTANCES, _PER_INSTANCE = 3, 15, 9


class Machine:
    """A directory that stands for a machine with GPUs.

    It holds the stand-in library, what the library tells, and a tree of capabilities. Every
    method that changes something writes it at once, and every process that uses the library sees
    it in its next call.

    Parameters
    ----------
    directory
        Made if it is not there; what an earlier machine left in it is replaced.
    spec
        Such as ``a100-80gb:2,mig=7x1g.10gb@1``; see docs/pretended-gpus.md.

    Raises
    ------
    SpecError
        If there can be no such machine; nothing is made then.
    BuildError
        If the library cannot be compiled.
    """

    def __init__(self, directory: Path | str, spec: str) -> None:
        layout = parse_spec(spec)
        library = build.build()
        self.directory = Path(directory).absolute()
        self.spec = spec
        self.state = State([_gpu(index, plan) for index, plan in enumerate(layout.gpus)])
        _connect(self.state.gpus, layout)
        self._events = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        build.put(library, self.directory / LIBRARY)
        self.write()
        self._write_capabilities()

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process finds these GPUs instead of real ones."""
        paths = [str(self.directory), os.environ.get("LD_LIBRARY_PATH", "")]
        return {VARIABLE: str(self.directory), "LD_LIBRARY_PATH": ":".join(filter(None, paths))}

    # -- What there is --------------------------------------------------------------------------

    def gpu(self, index: int) -> str:
        """Return a GPU's UUID."""
        return self.state.gpus[index].uuid

    def mig(self, index: int) -> tuple[str, ...]:
        """Return the UUIDs of a GPU's MIG devices, in their order."""
        return tuple(device.uuid for device in self.state.gpus[index].mig)

    @property
    def uuids(self) -> tuple[str, ...]:
        """UUIDs of all devices, each GPU before its MIG devices."""
        indexes = range(len(self.state.gpus))
        return tuple(one for index in indexes for one in (self.gpu(index), *self.mig(index)))

    def device(self, uuid_or_index: str | int) -> Gpu | Mig:
        """Return what is told of a device, to be changed, followed by `write`.

        Raises
        ------
        KeyError
            If there is no such device.
        """
        if isinstance(uuid_or_index, int):
            return self.state.gpus[uuid_or_index]
        for gpu in self.state.gpus:
            if gpu.uuid == uuid_or_index:
                return gpu
            for device in gpu.mig:
                if device.uuid == uuid_or_index:
                    return device
        raise KeyError(uuid_or_index)

    # -- Use --------------------------------------------------------------------------------------

    def add_process(
        self, device: str | int, pid: int, memory_bytes: int | None = 2**28, kind: str = "compute"
    ) -> None:
        """Put a process on a device; `kind` is ``compute``, ``graphics`` or ``mps``."""
        self.device(device).processes.append(Process(pid, memory_bytes, kind))
        self.write()

    def remove_process(self, pid: int) -> None:
        """Take a process off all devices."""
        for one in self.uuids:
            device = self.device(one)
            device.processes = [process for process in device.processes if process.pid != pid]
        self.write()

    def set_utilisation(self, device: str | int, share: float) -> None:
        """Set how busy a device is, from 0 to 1."""
        self.device(device).utilisation_percent = round(100 * share)
        self.write()

    # -- Trouble ----------------------------------------------------------------------------------

    def fail(self, call: str, error: int, device: str | int | None = None) -> None:
        """Make an NVML function return an error, for a device or, without one, for all.

        Parameters
        ----------
        call
            The name in the library, such as ``nvmlDeviceGetMigMode``, or ``*``; see
            `ds01_spawner.pretend.state.Common`.
        error
            NVML's number of the error.
        """
        self._errors(device)[call] = error
        self.write()

    def mend(self, call: str = "", device: str | int | None = None) -> None:
        """Let a function work again, all of them if none is named."""
        if call:
            self._errors(device).pop(call, None)
        else:
            self._errors(device).clear()
        self.write()

    def lose(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""
        self.fail("*", 15, gpu)

    def set_health(
        self,
        gpu: int,
        *,
        remap_pending: bool = False,
        remap_failure: bool = False,
        retired_pending: bool = False,
        recovery_action: int = 0,
    ) -> None:
        """Say what is wrong with a GPU's memory, and what NVML says is to be done about it.

        Raises
        ------
        ValueError
            If this kind of GPU has no such trouble.
        """
        one = self.state.gpus[gpu]
        if (remap_pending or remap_failure) and one.remapped is None:
            raise ValueError(f"{one.name} remaps no rows")
        if retired_pending and one.retired_pending is None:
            raise ValueError(f"{one.name} retires no pages")
        if one.remapped is not None:
            one.remapped = (0, int(remap_pending or remap_failure), remap_pending, remap_failure)
        if one.retired_pending is not None:
            one.retired_pending = retired_pending
        one.recovery_action = recovery_action
        self.write()

    def emit_xid(self, device: str | int, xid: int, *, of_whole_instance: bool = False) -> None:
        """Let the driver report an Xid, of a whole GPU or of a MIG device.

        Parameters
        ----------
        of_whole_instance
            Report it for the MIG device's GPU instance, with all compute instances in it.
        """
        self._events += 1
        found = self.device(device)
        if isinstance(found, Mig):
            parent = next(i for i, gpu in enumerate(self.state.gpus) if found in gpu.mig)
            compute_instance = NO_INSTANCE if of_whole_instance else found.compute_instance
            event = Event(self._events, parent, xid, found.instance, compute_instance)
        else:
            event = Event(self._events, self.state.gpus.index(found), xid)
        self.state.events = [*self.state.events, event][-_MOST_EVENTS:]
        self.write()

    # -- MIG --------------------------------------------------------------------------------------

    def partition(self, gpu: int, text: str) -> None:
        """Cut a GPU anew, as in ``3g.40gb+2x2g.20gb``; nothing between the quotes ends MIG mode.

        Raises
        ------
        SpecError
            If the driver would not do it.
        """
        one = self.state.gpus[gpu]
        instances = parse_partition(one.model, text) if text else None
        one.mode = one.pending_mode = None if not one.model.profiles else instances is not None
        one.mig = _mig_devices(one, instances or ())
        self.state.generation += 1
        self.write()
        self._write_capabilities()

    def remove_mig(self, device: str) -> None:
        """Destroy one MIG device; the others keep their indexes, and there is a gap."""
        for gpu in self.state.gpus:
            gpu.mig = [one for one in gpu.mig if one.uuid != device]
        self.state.generation += 1
        self.write()
        self._write_capabilities()

    def set_mig_mode(self, gpu: int, current: bool, pending: bool) -> None:
        """Say whether a GPU is in MIG mode, and whether it will be after its next reset.

        Raises
        ------
        ValueError
            If this kind of GPU has no MIG.
        """
        one = self.state.gpus[gpu]
        if one.mode is None:
            raise ValueError(f"{one.name} has no MIG")
        one.mode, one.pending_mode = current, pending
        self.write()

    # -- Files ------------------------------------------------------------------------------------

    def write(self) -> None:
        """Let all processes see `state` as it is now."""
        with tempfile.NamedTemporaryFile("w", dir=self.directory, delete=False) as file:
            file.write(self.state.text())
        os.chmod(file.name, 0o644)
        # The clock of file systems is coarse, and two changes must not look the same.
        now = time.time_ns()
        os.utime(file.name, ns=(now, now))
        os.replace(file.name, self.directory / STATE)

    def _errors(self, device: str | int | None) -> dict[str, int]:
        return self.state.errors if device is None else self.device(device).errors

    def _write_capabilities(self) -> None:
        """Write a tree in the shape of /proc/driver/nvidia/capabilities."""
        made = Path(tempfile.mkdtemp(dir=self.directory))
        made.chmod(0o755)
        _write_capability(made / "mig" / "config", 1)
        _write_capability(made / "mig" / "monitor", 2)
        for gpu in self.state.gpus:
            for device in gpu.mig:
                number = _FIRST_CAPABILITY + _PER_INSTANCE * (
                    _INSTANCES * gpu.minor + device.instance
                )
                instance = made / f"gpu{gpu.minor}" / "mig" / f"gi{device.instance}"
                compute = instance / f"ci{device.compute_instance}"
                _write_capability(instance / "access", number)
                _write_capability(compute / "access", number + 1 + device.compute_instance)
        there = self.directory / CAPABILITIES
        if there.exists():
            old = Path(tempfile.mkdtemp(dir=self.directory), "old")
            there.rename(old)
            made.rename(there)
            shutil.rmtree(old.parent)
        else:
            made.rename(there)


def _write_capability(path: Path, minor: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 256\nDeviceFileModify: 1\n")


def _gpu(index: int, plan: GpuPlan) -> Gpu:
    model = MODELS[plan.kind]
    gpu = Gpu(
        uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{plan.kind}/{index}')}",
        name=model.name,
        memory_bytes=mib(model.memory_mib),
        model=model,
        minor=index,
        bus=f"00000000:{7 + index:02x}:00.0",
        # What remaps rows does not retire pages, and a card for games does neither.
        remapped=(0, 0, False, False) if model.profiles else None,
        retired_pending=False if model.retires_pages else None,
    )
    if model.profiles:
        gpu.mode = gpu.pending_mode = plan.instances is not None
        gpu.mig = _mig_devices(gpu, plan.instances or ())
    return gpu


def _mig_devices(gpu: Gpu, instances: tuple[GpuInstance, ...]) -> list[Mig]:
    devices: list[Mig] = []
    for instance in instances:
        for part in instance.compute:
            whole = part.slices == instance.profile.slices
            profile = instance.profile.name if whole else f"{part.slices}c.{instance.profile.name}"
            place = f"{gpu.uuid}/{instance.number}/{part.number}/{profile}"
            devices.append(
                Mig(
                    uuid=f"MIG-{uuid.uuid5(_NAMESPACE, place)}",
                    name=f"{gpu.name} MIG {profile}",
                    memory_bytes=mib(instance.profile.memory_mib),
                    index=len(devices),
                    instance=instance.number,
                    compute_instance=part.number,
                    instance_slices=instance.profile.slices,
                    slices=part.slices,
                )
            )
    return devices


def _connect(gpus: list[Gpu], layout: Layout) -> None:
    for index in layout.switched:
        # Switches have addresses of their own; which link leads to which one does not matter.
        bus = "00000000:c1:00.0"
        gpus[index].links = [(LINK_TO_SWITCH, bus)] * gpus[index].model.nvlinks
    neighbours: dict[int, list[int]] = {}
    for one, other in layout.links:
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    for index, others in neighbours.items():
        each = gpus[index].model.nvlinks // max(len(neighbours[i]) for i in (index, *others))
        gpus[index].links = [(LINK_TO_GPU, gpus[other].bus) for other in others] * each
