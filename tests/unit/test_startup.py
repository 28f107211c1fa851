"""A configuration that would decide about GPUs in two places."""

import pytest
from traitlets.config import Config

from ds01_spawner.startup import ConfigurationError, check


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


def test_everything_else_may_be_configured():
    config = Config()
    config.Spawner.environment = {"LANG": "C.UTF-8", "NV_HOME": "/opt"}
    config.DockerSpawner.extra_host_config = {"dns": ["10.0.0.1"]}

    check(config)
