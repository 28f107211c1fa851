"""Who holds which GPU, as a real engine tells it; the devices are values."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys

import pytest

from ds01_spawner.gpus.devices import Device, GpuProcess, Inventory, Reading, State
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.names import container_name
from ds01_spawner.pretend.machine import Machine as PretendedMachine
from tests.hub import eventually

IMAGE = "ds01/debian:12"
HUB = "hub-of-a-test"


def device(kind: str, number: int, index: str, **more) -> Device:
    uuid = f"{kind}-{secrets.token_hex(4)}-0000-0000-0000-00000000000{number}"
    return Device(uuid, index, "A100", 80 << 30, 7, 1.0, **more)


GPU = device("GPU", 0, "0", minor=0)
PARTED = device("GPU", 1, "1", minor=1, state=State.PARTITIONED)
MIG = device("MIG", 2, "1:0", parent=PARTED.uuid, minor=1, gpu_instance=1, compute_instance=0)
SPARE = device("MIG", 3, "1:1", parent=PARTED.uuid, minor=1, gpu_instance=2, compute_instance=0)
INVENTORY = Inventory((GPU, PARTED, MIG, SPARE))


@pytest.fixture
def machine(engine, built):
    """Return a machine on which containers can be made with Docker's own command."""
    machine = Machine(engine)
    yield machine
    for container in machine.made:
        engine.remove_container(container, force=True)


class Machine:
    """What stands in for a person at the machine's shell, and for the Hub that looks at it."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.made: list[str] = []
        self.processes: tuple[GpuProcess, ...] = ()
        self.snapshots = Snapshots(
            self._call, lambda: Reading(INVENTORY, self.processes), asyncio.to_thread, HUB
        )

    async def _call(self, method, *args, **kwargs):
        return await asyncio.to_thread(getattr(self.engine, method), *args, **kwargs)

    def docker(self, verb: str, *words: str, command: str = "true") -> str:
        """Create or run a container and return its id."""
        line = ["docker", verb, *words, IMAGE, *command.split()]
        made = subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()
        self.made.append(made)
        return made

    def held(self, container: str) -> set[Device]:
        """Return what a container holds; other tests may use the engine meanwhile."""
        holders = asyncio.run(self.snapshots.take()).snapshot.holders
        return {
            device
            for device in INVENTORY.devices
            if any(h.container_id == container for h in holders.get(device.uuid, ()))
        }


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        (["--gpus", "all"], {GPU, PARTED, MIG, SPARE}),
        (["--gpus", "1"], {GPU}),
        (["--gpus", f"device={GPU.uuid}"], {GPU}),
        (["--gpus", '"device=0,1:0"'], {GPU, PARTED, MIG}),
        (["--gpus", f"device={MIG.uuid[:9]}"], {PARTED, MIG}),
        (["-e", "NVIDIA_VISIBLE_DEVICES=all"], set()),
        (["-e", "NVIDIA_VISIBLE_DEVICES=all", "--gpus", "device=0"], {GPU}),
        (["--device-cgroup-rule", "c 195:0 rwm"], {GPU}),
        (["--device-cgroup-rule", "c 195:* rwm"], {GPU, PARTED, MIG, SPARE}),
        (["--device", "/dev/null:/dev/nvidia0"], {GPU}),
        (["--device", "/dev/fuse", "-v", "/dev:/host"], set()),
        (["--gpus", "device=9"], {GPU, PARTED, MIG, SPARE}),
        (["--label", f"ds01.gpu.uuids={GPU.uuid}"], set()),
    ],
)
def test_a_container_made_by_hand_holds_what_docker_would_give_it(machine, words, devices):
    assert machine.held(machine.docker("create", *words)) == devices


def test_a_container_holds_until_it_has_ended_and_again_when_it_is_started(machine):
    job = machine.docker("run", "-d", "--device", "/dev/null:/dev/nvidia0", command="sleep 600")
    assert machine.held(job) == {GPU}
    machine.engine.pause(job)
    assert machine.held(job) == {GPU}
    machine.engine.unpause(job)
    machine.engine.kill(job)
    eventually(lambda: not machine.held(job), "an ended container holds nothing")

    machine.engine.start(job)
    assert machine.held(job) == {GPU}


def test_a_server_of_ours_holds_also_when_it_has_ended_and_is_known_by_its_name(machine):
    user = f"alice{secrets.token_hex(3)}"
    labels = {
        "ds01.hub": HUB,
        "ds01.user": user,
        "ds01.project": "thesis",
        "ds01.server": "thesis",
        "ds01.start": "s1",
        "ds01.gpu.uuids": MIG.uuid,
    }
    words = [word for label in labels.items() for word in ("--label", "=".join(label))]
    server = machine.docker("run", "-d", "--name", container_name(user, "thesis"), *words)
    eventually(
        lambda: machine.engine.inspect_container(server)["State"]["Status"] == "exited",
        "it has ended",
    )

    snapshot, own, _ = asyncio.run(machine.snapshots.take())

    (holder,) = (h for h in snapshot.holders[MIG.uuid] if h.container_id == server)
    assert (holder.user, holder.server) == (user, "thesis")
    assert [(c.container_id, c.state) for c in own] == [(server, "exited")]
    # Under another name it is anybody's: anybody can write labels.
    machine.engine.rename(server, f"not-ours-{user}")
    assert machine.held(server) == set()
    assert asyncio.run(machine.snapshots.take()).own == ()


def test_an_image_cannot_hold_a_device_by_its_labels(machine, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nLABEL ds01.gpu.uuids={GPU.uuid} ds01.hub={HUB} ds01.user=x\n"
        "ENV NVIDIA_VISIBLE_DEVICES=all CUDA_VERSION=12 DOCKER_RESOURCE_GPU=all\n"
        "VOLUME /var/run/nvidia-container-devices/all\n"
    )
    tag = f"ds01-test/labels:{secrets.token_hex(4)}"
    subprocess.run(["docker", "build", "-q", "-t", tag, tmp_path], check=True, capture_output=True)
    try:
        made = machine.engine.create_container(tag, "true")["Id"]
        machine.made.append(made)
        assert machine.held(made) == set()
    finally:
        machine.engine.remove_container(machine.made.pop(), force=True)
        machine.engine.remove_image(tag)


def test_a_process_is_told_by_the_container_that_it_runs_in(machine):
    job = machine.docker("run", "-d", "--device", "/dev/null:/dev/nvidia0", command="sleep 600")
    pid = machine.engine.inspect_container(job)["State"]["Pid"]
    machine.processes = (GpuProcess(pid, MIG.uuid),)

    assert machine.held(job) == {GPU, PARTED, MIG}
    warnings = asyncio.run(machine.snapshots.take()).snapshot.warnings
    assert any(f"process {pid} (sleep)" in warning for warning in warnings)


def test_a_process_of_the_machine_holds_until_it_ends(machine):
    process = subprocess.Popen(["sleep", "600"])
    machine.processes = (GpuProcess(process.pid, SPARE.uuid),)
    try:
        holders = asyncio.run(machine.snapshots.take()).snapshot.holders
    finally:
        process.kill()
        process.wait()

    assert f"process {process.pid} (sleep)" in [h.detail for h in holders[SPARE.uuid]]


def test_the_command_shows_who_holds_what_nvml_lists(machine, tmp_path):
    pretended = PretendedMachine(tmp_path / "gpus", "a100-80gb:2,mig=2x3g.40gb@1")
    first, second = pretended.mig(1)
    name = f"job-{secrets.token_hex(4)}"
    job = machine.docker("create", "--name", name, "--gpus", f"device={first}")
    process = subprocess.Popen(["sleep", "600"])
    pretended.add_process(pretended.gpu(0), process.pid)
    try:
        line = [sys.executable, "-m", "ds01_spawner.cli", "gpus", "--json", "--data", tmp_path]
        environment = {**os.environ, **pretended.environment()}
        shown = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
    finally:
        process.kill()
        process.wait()

    objects = {entry["uuid"]: entry for entry in json.loads(shown.stdout)}
    assert list(objects) == list(pretended.uuids)
    assert objects[first]["holder"]["container"] == name
    assert objects[first]["held_since"] <= machine.engine.inspect_container(job)["Created"]
    assert objects[first]["profile"] == "3g.40gb"
    assert (objects[second]["holder"] or {}).get("container") != name
    assert objects[pretended.gpu(1)]["state"] == "partitioned"
    assert objects[pretended.gpu(0)]["holder"]["detail"] == f"process {process.pid} (sleep)"
