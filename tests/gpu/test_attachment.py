"""What a container has on a real engine, after it was asked for by each back end."""

import docker
import pytest

from ds01_spawner.gpus import attachment, verification
from ds01_spawner.gpus.devices import Inventory

from .containers import asks, container, pid_of, running, seen

BACKENDS = ("device-requests", "nvidia-runtime", "pretend")
DEFAULTS = ("runc", "nvidia")

#: What an image may say to get GPUs, as `ds01_spawner.containers.environment` answers it.
EMPTIED = ["CUDA_VERSION=12.8.0.038", "NVIDIA_REQUIRE_CUDA=", "DOCKER_RESOURCE_GPU="]


@pytest.fixture
def apply(engine, machine):
    """Return a function that adds devices to a request by a back end."""

    def add(name, body, devices):
        inventory = Inventory(machine.devices)
        here = attachment.Here(True, name == "pretend", machine.capabilities)
        backend = attachment.choose_backend(engine.info(), inventory, name, here=here)
        return backend.apply(body, devices)

    return add


@pytest.fixture
def problem(engine, machine):
    """Return a function that looks at what a running container has."""

    def look(made, devices):
        pid = pid_of(engine, made)
        return verification.problem(pid, devices, capabilities=machine.capabilities)

    return look


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_container_has_exactly_what_was_granted(
    name, default, gpu_engine, engine, machine, apply, problem
):
    grants = ((), (machine.gpu,), (machine.migs[0],), tuple(machine.migs[1:3]))
    with gpu_engine.default_runtime(default):
        for devices in grants:
            with running(engine, apply(name, asks(env=EMPTIED), devices)) as made:
                nodes = {node for device in devices for node in machine.nodes(device)}
                assert seen(engine, made) == nodes
                assert problem(made, devices) == ""


@pytest.mark.parametrize("name", ["device-requests", "nvidia-runtime"])
def test_a_swarm_variable_takes_nothing_from_a_grant_and_adds_nothing(
    name, gpu_engine, engine, machine, apply, problem
):
    gpu_engine.toolkit.behave(swarm_resource=["DOCKER_RESOURCE_GPU"])
    for devices in ((), (machine.gpu,)):
        with running(engine, apply(name, asks(env=EMPTIED), devices)) as made:
            assert problem(made, devices) == ""


@pytest.mark.parametrize("name", ["device-requests", "nvidia-runtime"])
def test_of_the_driver_only_computing_comes_along(name, gpu_engine, engine, machine, apply):
    with running(engine, apply(name, asks(env=EMPTIED), (machine.gpu,))) as made:
        (call,) = gpu_engine.toolkit.calls(made)
    assert call.capabilities == ("compute", "utility")
    assert call.wanted == [machine.gpu.uuid]


def test_without_a_grant_the_toolkit_is_not_even_called(gpu_engine, engine, apply):
    with (
        gpu_engine.default_runtime("nvidia"),
        running(engine, apply("device-requests", asks(env=EMPTIED), ())) as made,
    ):
        assert gpu_engine.toolkit.calls(made) == []


@pytest.mark.parametrize("name", ["device-requests", "nvidia-runtime"])
@pytest.mark.parametrize(
    ("how", "word"), [("nothing", "it lacks /dev/nvidia0"), ("one too many", "it has /dev/nvidia1")]
)
def test_a_toolkit_that_gives_something_else_is_caught(
    name, how, word, gpu_engine, engine, machine, apply, problem
):
    gpu_engine.toolkit.behave(how)
    with running(engine, apply(name, asks(), (machine.gpu,))) as made:
        assert word in problem(made, (machine.gpu,))


def test_a_toolkit_that_ignores_requests_is_caught(gpu_engine, engine, machine, apply, problem):
    gpu_engine.toolkit.behave(accepts_variables=False)
    with running(engine, apply("device-requests", asks(), (machine.gpu,))) as made:
        assert "it lacks /dev/nvidia0" in problem(made, (machine.gpu,))


def test_a_hook_that_fails_leaves_a_container_that_does_not_run(gpu_engine, engine, machine, apply):
    gpu_engine.toolkit.behave("fails")
    with container(engine, apply("device-requests", asks(), (machine.gpu,))) as made:
        with pytest.raises(docker.errors.APIError, match="the driver has gone"):
            engine.start(made)
        assert engine.inspect_container(made)["State"]["Status"] == "created"


def test_a_container_that_has_ended_cannot_be_looked_into(engine, machine, apply, problem):
    with running(engine, apply("device-requests", asks(), (machine.gpu,))) as made:
        engine.kill(made)
        engine.wait(made)
        with pytest.raises(OSError, match="does not run"):
            problem(made, (machine.gpu,))
