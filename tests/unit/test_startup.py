"""What keeps a Hub from starting: GPUs decided in two places, no policy, no slices."""

import threading

import pytest
from jupyterhub.spawner import Spawner
from traitlets.config import Config

from ds01_spawner import startup
from ds01_spawner.gpus.devices import Device, Inventory
from ds01_spawner.policy import LivePolicy
from ds01_spawner.settings import DS01Settings
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


def test_a_variable_that_the_hub_hands_down_is_an_error_too():
    config = Config()
    config.Spawner.env_keep = ["LANG", "NVIDIA_VISIBLE_DEVICES"]
    with pytest.raises(ConfigurationError, match=r"Spawner\.env_keep sets 'NVIDIA_VISIBLE"):
        check(config)

    config = Config()
    config.Spawner.env_keep.insert(0, "DOCKER_RESOURCE_GPU")
    with pytest.raises(ConfigurationError, match="DOCKER_RESOURCE_GPU"):
        check(config)


def test_looking_at_a_setting_that_is_added_to_takes_nothing_from_it():
    config = Config()
    config.Spawner.env_keep.append("EDITOR")
    config.Spawner.environment.update({"EDITOR": "nano"})

    assert list(contradictions(config)) == []

    assert Spawner(config=config).env_keep == [*Spawner().env_keep, "EDITOR"]


@pytest.mark.parametrize(
    "described",
    [
        {"path": "/usr/bin/nvidia-container-runtime"},
        {
            "runtimeType": "io.containerd.runc.v2",
            "options": {"BinaryName": "/usr/bin/nvidia-container-runtime"},
        },
    ],
)
def test_an_oci_runtime_that_adds_gpus_by_itself_is_an_error(described):
    info = {"Runtimes": {"fast": described}}

    (said,) = impossible(info, Inventory(), oci_runtime="fast", gpu_backend="")

    assert "any image can ask for every GPU" in said


def test_a_back_end_that_the_engine_does_not_have_is_an_error():
    inventory = Inventory((Device("GPU-1", "0", "A100", 2**36, 7, 1.0),))

    (said,) = impossible({}, inventory, oci_runtime="runc", gpu_backend="cdi")
    assert "lists no CDI devices" in said
    # Nothing is forced, so servers without a GPU can start.
    assert list(impossible({}, inventory, oci_runtime="runc", gpu_backend="")) == []
    assert list(impossible({}, Inventory(), oci_runtime="runc", gpu_backend="cdi")) == []


def test_a_runtime_that_stands_in_the_way_of_the_back_end_is_an_error():
    inventory = Inventory((Device("GPU-1", "0", "A100", 2**36, 7, 1.0, minor=0),))
    info = {"Runtimes": {"crun": {"path": "crun"}, "nvidia": {"path": "nvidia-container-runtime"}}}

    (said,) = impossible(info, inventory, oci_runtime="crun", gpu_backend="nvidia-runtime")

    assert "oci_runtime" in said
    assert "needs 'nvidia'" in said


def test_a_driver_that_hangs_keeps_no_server_without_a_gpu_from_starting(monkeypatch, caplog):
    hangs = threading.Event()
    monkeypatch.setattr(startup, "NVML_PATIENCE_S", 0.1)
    monkeypatch.setattr(startup.Nvml, "read", lambda _: hangs.wait())

    assert startup._inventory().problem == startup.DRIVER_HANGS

    assert "can only start without a GPU" in caplog.text
    hangs.set()


def test_everything_else_may_be_configured():
    config = Config()
    harmless = {"LANG": "C.UTF-8", "NV_HOME": "/opt", "NVIDIA_TF32_OVERRIDE": "0"}
    config.Spawner.environment = harmless
    config.DockerSpawner.extra_host_config = {"dns": ["10.0.0.1"]}

    assert list(contradictions(config)) == []


# -- the policy and the users' slices -------------------------------------------------------------


def test_a_hub_does_not_start_with_a_policy_that_it_would_have_to_guess(tmp_path):
    file = tmp_path / "resource-limits.yaml"
    assert startup.unreadable(LivePolicy(file)) == [
        f"{file}: cannot be read: No such file or directory"
    ]
    file.write_text("defaults:\n  memori: 1g\n  max_cpus: 0\n")
    assert [line.split(": ")[0] for line in startup.unreadable(LivePolicy(file))] == [
        f"{file}:2",
        f"{file}:3",
    ]
    file.write_text("")
    assert startup.unreadable(LivePolicy(file)) == []
    file.with_name("storage.yaml").write_text("x")
    assert startup.unreadable(LivePolicy(file))


def test_an_engine_without_slices_is_an_error_with_both_ways_out():
    (problem,) = startup.no_slices(DS01Settings(), {"SecurityOptions": ["name=rootless"]})
    assert "runs rootless" in problem
    assert "c.DS01Spawner.aggregate_limits = 'admission'" in problem


def test_a_hub_that_counts_needs_no_slices_and_says_so(caplog):
    settings = DS01Settings(aggregate_limits="admission")
    assert list(startup.no_slices(settings, {"SecurityOptions": ["name=rootless"]})) == []
    assert "is counted when they start; no cgroup holds it" in caplog.text
