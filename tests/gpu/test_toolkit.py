"""The stand-ins have the holes of the real toolkit: what the other tests here rely on."""

import docker
import pytest

from .containers import asks, container, running, seen


@pytest.fixture(scope="module")
def image(gpu_engine):
    """Return a function that makes an image with these variables."""

    def make(name, *env):
        body = asks()
        client = gpu_engine.client
        with container(client, body) as made:
            client.commit(made, f"ds01-test/{name}", conf={"Env": list(env)})
        return f"ds01-test/{name}"

    return make


@pytest.fixture
def default_nvidia(gpu_engine):
    with gpu_engine.default_runtime("nvidia"):
        yield


def devices_in(engine, body):
    with running(engine, body) as made:
        return seen(engine, made)


@pytest.fixture
def all_nodes(machine):
    return {node for device in machine.devices for node in machine.nodes(device)}


@pytest.mark.usefixtures("default_nvidia")
def test_as_the_default_runtime_an_image_gets_all_gpus_without_any_request(
    engine, image, all_nodes
):
    assert devices_in(engine, asks(image("visible", "NVIDIA_VISIBLE_DEVICES=all"))) == all_nodes
    assert devices_in(engine, asks(image("legacy", "CUDA_VERSION=12.4"))) == all_nodes


@pytest.mark.usefixtures("default_nvidia")
def test_void_and_another_runtime_by_name_stop_it(engine, image):
    hostile = image("visible", "NVIDIA_VISIBLE_DEVICES=all")
    assert devices_in(engine, asks(hostile, ["NVIDIA_VISIBLE_DEVICES=void"])) == set()
    assert devices_in(engine, asks(hostile, Runtime="runc")) == set()


@pytest.mark.usefixtures("default_nvidia")
def test_a_swarm_variable_beats_void_and_a_request(gpu_engine, engine, image, machine, all_nodes):
    hostile = image("swarm", "DOCKER_RESOURCE_GPU=all")
    gpu_engine.toolkit.behave(swarm_resource=["DOCKER_RESOURCE_GPU"])
    request = {"DeviceIDs": [machine.gpu.uuid], "Capabilities": [["gpu"]]}
    assert devices_in(engine, asks(hostile, ["NVIDIA_VISIBLE_DEVICES=void"])) == all_nodes
    assert devices_in(engine, asks(hostile, DeviceRequests=[request])) == all_nodes


def test_only_the_last_of_two_requests_counts(engine, machine):
    requests = [
        {"DeviceIDs": [device.uuid], "Capabilities": [["gpu"]]}
        for device in (machine.gpu, machine.migs[0])
    ]
    assert devices_in(engine, asks(DeviceRequests=requests)) == machine.nodes(machine.migs[0])


def test_a_request_for_no_device_in_particular_gives_what_the_image_says(engine, image, all_nodes):
    request = {"Count": 0, "Capabilities": [["gpu"]]}
    hostile = image("visible", "NVIDIA_VISIBLE_DEVICES=all")
    assert devices_in(engine, asks(hostile, DeviceRequests=[request])) == all_nodes
    assert devices_in(engine, asks(DeviceRequests=[request])) == set()
    request["Count"] = -1
    assert devices_in(engine, asks(DeviceRequests=[request])) == all_nodes


def test_every_notation_is_understood(engine, machine):
    mig = machine.migs[1]
    for notation in (mig.uuid, mig.index, mig.uuid[:12]):
        request = {"DeviceIDs": [notation], "Capabilities": [["gpu"]]}
        assert devices_in(engine, asks(DeviceRequests=[request])) == machine.nodes(mig)


def test_a_toolkit_that_ignores_variables_gives_nothing_and_says_nothing(
    gpu_engine, engine, machine
):
    gpu_engine.toolkit.behave(accepts_variables=False)
    request = {"DeviceIDs": [machine.gpu.uuid], "Capabilities": [["gpu"]]}
    assert devices_in(engine, asks(DeviceRequests=[request])) == set()


def test_an_unknown_device_fails_and_leaves_the_container_created(engine):
    request = {"DeviceIDs": ["GPU-of-nobody"], "Capabilities": [["gpu"]]}
    with container(engine, asks(DeviceRequests=[request])) as made:
        with pytest.raises(docker.errors.APIError, match="unknown device"):
            engine.start(made)
        assert engine.inspect_container(made)["State"]["Status"] == "created"
