"""Whatever an image says of GPUs, its server has exactly the devices that it was granted."""

import io
import itertools
import json

import docker
import pytest

from .conftest import PYTHON

#: What an image says, in a Dockerfile's words.
HOSTILE = {
    "visible": "ENV NVIDIA_VISIBLE_DEVICES=all",
    "legacy": "ENV CUDA_VERSION=12.4",
    "ngc": "ENV CUDA_VERSION=12.8.0.038 NVIDIA_REQUIRE_CUDA=cuda>=9.0 NVIDIA_VISIBLE_DEVICES=all",
    "swarm": "ENV DOCKER_RESOURCE_GPU=all",
    "driver": "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all",
    "preload": "ENV LD_PRELOAD=/evil.so LD_AUDIT=/evil.so",
    "labels": "LABEL ds01.gpu.uuids=GPU-1 ds01.protected=true",
}

LOOK = """
import json, pathlib
nodes = sorted(path for path in pathlib.Path("/dev").rglob("nvidia*[0-9]")
               if path.is_char_device())
opened = [path for path in nodes if path.open("rb")]
print(json.dumps({"nodes": [str(path)[len("/dev/"):] for path in nodes],
                  "opened": [str(path)[len("/dev/"):] for path in opened]}))
"""


@pytest.fixture(scope="module")
def images(gpu_engine):
    """Build an image for each."""
    client = docker.DockerClient(gpu_engine.url)
    for name, says in HOSTILE.items():
        dockerfile = io.BytesIO(f"FROM {PYTHON}\n{says}\n".encode())
        client.images.build(fileobj=dockerfile, tag=f"ds01-test/{name}:1")


@pytest.fixture(params=["runc", "nvidia"])
def hub(request, images, gpu_engine, make_gpu_hub):
    """Return a running Hub, under each default runtime, on an engine with the toolkit's holes."""
    deployment = make_gpu_hub()
    for name in HOSTILE:
        deployment.add_image(name, f"ds01-test/{name}:1")
    gpu_engine.toolkit.behave(swarm_resource=["DOCKER_RESOURCE_GPU"])
    with gpu_engine.default_runtime(request.param):
        deployment.start()
        yield deployment
        # Its containers cannot be removed by an engine that has another default meanwhile.
        deployment.close()


def devices_of(container, machine):
    """Return the devices that a container was granted, by our labels."""
    uuids = container["Config"]["Labels"].get("ds01.gpu.uuids", "").split(",")
    return [device for device in machine.devices if device.uuid in uuids]


@pytest.mark.parametrize("sizes", [(None,), ("full", "1g.10gb")], ids=["no grant", "grant"])
def test_a_server_sees_exactly_what_it_was_granted(sizes, hub, gpu_engine):
    for name, size in zip(HOSTILE, itertools.cycle(sizes)):
        user = hub.user(f"likes-{name}")
        user.start(image=name, memory="512m", **({"gpu": size} if size else {}))
        container = user.container()
        granted = devices_of(container, hub.machine)
        assert len(granted) == (1 if size else 0), name

        code, printed = user.execute(["python3", "-c", LOOK])
        assert code == 0, printed
        seen = json.loads(printed)
        assert set(seen["nodes"]) == hub.machine.nodes(*granted), name
        assert seen["opened"] == seen["nodes"], name

        # Without a grant the toolkit is not even called, whatever the engine's default is.
        calls = gpu_engine.toolkit.calls(container["Id"])
        assert [call.wanted for call in calls] == [[device.uuid] for device in granted], name
        assert {call.capabilities for call in calls} <= {("compute", "utility")}, name
        assert not container["Config"]["Labels"].get("ds01.protected"), name
        user.stop()


@pytest.mark.parametrize(
    ("how", "told", "answered"),
    [
        ("nothing", "it lacks /dev/nvidia0", "did not get exactly the GPUs"),
        ("one too many", "it has /dev/nvidia1", "did not get exactly the GPUs"),
        ("fails", "the driver has gone", "could not be started with its GPU"),
    ],
)
def test_a_server_that_got_something_else_is_stopped_and_its_device_is_free_again(
    how, told, answered, gpu_hub, gpu_engine
):
    gpu_hub.start()
    user = gpu_hub.user("unlucky")
    gpu_engine.toolkit.behave(how)
    answer = user.ask(gpu="full")
    assert answer.status_code == 500
    assert answered in answer.json()["message"]
    assert gpu_hub.containers() == []
    assert told in gpu_hub.log.read_text()
    assert told not in answer.text
    gpu_engine.toolkit.behave()
    user.start(gpu="full")


@pytest.mark.parametrize("backend", ["nvidia-runtime", ""], ids=["nvidia-runtime", "pretend"])
def test_every_back_end_gives_a_server_its_device(backend, make_gpu_hub):
    hub = make_gpu_hub(backend=backend)
    hub.start()
    user = hub.user("ann")
    seen = json.loads(user.start(gpu="1g.10gb").run(LOOK))
    (granted,) = devices_of(user.container(), hub.machine)
    assert set(seen["nodes"]) == hub.machine.nodes(granted)
