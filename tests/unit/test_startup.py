"""A configuration that would decide about GPUs in two places."""

import pytest
from traitlets.config import Config

from ds01_spawner.gpus.devices import Device, Inventory
from ds01_spawner.startup import ConfigurationError, check, contradictions, impossible


@pytest.mark.parametrize(
    "key", ["device_requests", "DeviceRequests", "runtime", "Runtime", "devices", "privileged"]
)
def test_what_decides_about_gpus_is_an_error_in_extra_host_config(key):
    config = Config()
    config.DockerSpawner.extra_host_config = {key: "something", "mem_limit": "1g"}

    with pytest.raises(ConfigurationError, match=f"DockerSpawner.extra_host_config sets '{key}'"):
        check(config)


def test_it_is_found_also_where_a_setting_is_only_added_to():
    config = Config()
    config.DS01Spawner.extra_host_config.update({"device_requests": []})

    with pytest.raises(ConfigurationError, match=r"DS01Spawner\.extra_host_config"):
        check(config)


@pytest.mark.parametrize("key", ["NVIDIA_VISIBLE_DEVICES", "DOCKER_RESOURCE_GPU"])
def test_a_variable_that_decides_about_gpus_is_an_error(key):
    config = Config()
    config.Spawner.environment = {key: "all", "LANG": "C.UTF-8"}

    with pytest.raises(ConfigurationError, match=key):
        check(config)


def test_an_oci_runtime_that_adds_gpus_by_itself_is_an_error():
    info = {"Runtimes": {"fast": {"path": "/usr/bin/nvidia-container-runtime"}}}

    (said,) = impossible(info, Inventory(), oci_runtime="fast", gpu_backend="")

    assert "any image can ask for every GPU" in said


def test_a_back_end_that_the_engine_does_not_have_is_an_error():
    inventory = Inventory((Device("GPU-1", "0", "A100", 2**36, 7, 1.0),))

    (said,) = impossible({}, inventory, oci_runtime="runc", gpu_backend="cdi")
    assert "lists no CDI devices" in said
    # Nothing is forced, so servers without a GPU can start.
    assert list(impossible({}, inventory, oci_runtime="runc", gpu_backend="")) == []
    assert list(impossible({}, Inventory(), oci_runtime="runc", gpu_backend="cdi")) == []


def test_everything_else_may_be_configured():
    config = Config()
    config.Spawner.environment = {"LANG": "C.UTF-8", "NV_HOME": "/opt"}
    config.DockerSpawner.extra_host_config = {"dns": ["10.0.0.1"]}

    assert list(contradictions(config)) == []
