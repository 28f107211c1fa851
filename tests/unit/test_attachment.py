"""What the engine is asked for: exactly the grant, and nothing that anybody else says."""

import copy

import pytest

from ds01_spawner.gpus.attachment import (
    BACKENDS,
    AttachmentError,
    Here,
    choose_backend,
)
from ds01_spawner.gpus.devices import Device, Inventory, State

GPU = Device("GPU-5c89852c", "0", "A100-SXM4-80GB", 80 << 30, 7, 1.0, minor=0)
PARTED = Device(
    "GPU-11aa22bb", "1", "A100-SXM4-80GB", 80 << 30, 7, 1.0, minor=1, state=State.PARTITIONED
)
MIG = Device(
    "MIG-3bd5c5b6",
    "1:0",
    "A100-SXM4-80GB",
    40 << 30,
    3,
    3 / 7,
    profile="3g.40gb",
    parent=PARTED.uuid,
    minor=1,
    gpu_instance=2,
    compute_instance=0,
)
INVENTORY = Inventory((GPU, PARTED, MIG))

#: As Docker 20.10 on a machine without NVIDIA's toolkit answers, shortened.
OLD = {
    "ServerVersion": "20.10.24",
    "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}},
    "DefaultRuntime": "runc",
}
WITH_RUNTIME = {
    **OLD,
    "Runtimes": {**OLD["Runtimes"], "nvidia": {"args": [], "path": "nvidia-container-runtime"}},
    "DefaultRuntime": "nvidia",
}


def cdi_info(*names):
    """Return what Docker 28.2 and newer answer (Engine API 1.50)."""
    devices = [{"Source": "cdi", "ID": name} for name in names]
    return {
        **WITH_RUNTIME,
        "ServerVersion": "28.3.0",
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "DiscoveredDevices": [*devices, {"Source": "cdi", "ID": "vendor.example/nic=0"}],
    }


BY_UUID = cdi_info(
    "nvidia.com/gpu=0",
    "nvidia.com/gpu=1:0",
    "nvidia.com/gpu=all",
    f"nvidia.com/gpu={GPU.uuid}",
    f"nvidia.com/gpu={MIG.uuid}",
)
HOOK = Here(has_hook=True)


@pytest.fixture
def body():
    """Return a request as `containers.create_arguments` makes them, shortened."""
    return {
        "Image": "sha256:1234",
        "Env": [
            "PATH=/usr/bin",
            "NVIDIA_REQUIRE_CUDA=",
            "DOCKER_RESOURCE_GPU=",
            "NVIDIA_VISIBLE_DEVICES=void",
        ],
        "HostConfig": {"Runtime": "runc", "Memory": 1 << 30, "Mounts": []},
    }


def backend(name, info=WITH_RUNTIME, here=HOOK):
    return choose_backend(info, INVENTORY, name, here=here)


def variables(body):
    pairs = [line.partition("=") for line in body["Env"]]
    assert len({key for key, _, _ in pairs}) == len(pairs), "a variable is there twice"
    return {key: value for key, _, value in pairs}


# -- the choice --------------------------------------------------------------------------------


def test_cdi_is_preferred_where_the_engine_lists_every_device_that_can_be_granted():
    assert choose_backend(BY_UUID, INVENTORY, here=HOOK).name == "cdi"


def test_cdi_is_not_used_when_a_device_is_not_listed_by_its_uuid():
    stale = cdi_info("nvidia.com/gpu=0", "nvidia.com/gpu=1:0", f"nvidia.com/gpu={GPU.uuid}")
    assert choose_backend(stale, INVENTORY, here=HOOK).name == "device-requests"


def test_a_partitioned_gpu_needs_no_cdi_device_as_it_is_never_granted():
    assert f"nvidia.com/gpu={PARTED.uuid}" not in str(BY_UUID)
    assert choose_backend(BY_UUID, INVENTORY, "cdi", here=HOOK).name == "cdi"


def test_a_device_that_cdi_lacks_keeps_no_other_from_being_given():
    stale = cdi_info(f"nvidia.com/gpu={GPU.uuid}")

    devices = choose_backend(stale, INVENTORY, "cdi", here=HOOK).attachable(INVENTORY).devices

    assert devices[:2] == (GPU, PARTED)
    assert devices[2].state is State.UNATTACHABLE
    assert f"lack {MIG.uuid}" in devices[2].detail
    # Where nothing else attaches more, CDI is used as far as it goes.
    without = {**stale, "Runtimes": OLD["Runtimes"]}
    assert choose_backend(without, INVENTORY, here=Here()).name == "cdi"


def test_the_hook_comes_before_the_runtime_and_the_runtime_is_better_than_nothing():
    assert choose_backend(WITH_RUNTIME, INVENTORY, here=HOOK).name == "device-requests"
    assert choose_backend(WITH_RUNTIME, INVENTORY, here=Here()).name == "nvidia-runtime"


def test_an_engine_that_can_do_nothing_is_an_error_that_says_what_is_missing():
    with pytest.raises(AttachmentError) as caught:
        choose_backend(OLD, INVENTORY, here=Here())
    for word in ("cdi", "nvidia-container-toolkit", "nvidia-ctk runtime configure"):
        assert word in str(caught.value)
    assert "pretend" not in str(caught.value)


def test_real_gpus_are_never_pretended():
    for info in (OLD, WITH_RUNTIME, BY_UUID):
        with pytest.raises(AttachmentError, match="not pretended"):
            choose_backend(info, INVENTORY, "pretend", here=HOOK)


def test_pretended_gpus_need_nothing_of_the_engine_and_ask_no_real_toolkit():
    assert choose_backend(OLD, INVENTORY, here=Here(pretended=True)).name == "pretend"
    here = Here(has_hook=True, pretended=True)
    assert choose_backend(BY_UUID, INVENTORY, here=here).name == "pretend"


def test_this_machine_is_looked_at_for_the_hook_and_for_pretended_gpus(tmp_path, monkeypatch):
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DS01_PRETEND_GPUS", raising=False)
    assert choose_backend(OLD, INVENTORY).name == "device-requests"
    monkeypatch.setenv("DS01_PRETEND_GPUS", str(tmp_path))
    assert Here.look().capabilities == tmp_path / "capabilities"
    assert choose_backend(OLD, INVENTORY).name == "pretend"


@pytest.mark.parametrize(
    ("name", "info", "here", "advice"),
    [
        ("cdi", WITH_RUNTIME, HOOK, "28.2"),
        ("cdi", cdi_info("nvidia.com/gpu=0"), HOOK, f"lack {GPU.uuid}"),
        ("device-requests", BY_UUID, Here(), "install nvidia-container-toolkit"),
        ("nvidia-runtime", OLD, HOOK, "nvidia-ctk runtime configure"),
        ("gpu", BY_UUID, HOOK, "choose one of cdi, device-requests, nvidia-runtime, pretend"),
    ],
)
def test_a_forced_back_end_that_is_not_there_is_an_error_with_advice(name, info, here, advice):
    with pytest.raises(AttachmentError, match=advice):
        choose_backend(info, INVENTORY, name, here=here)


def test_without_gpus_nothing_is_needed_and_nothing_is_attached(body):
    none = choose_backend(OLD, Inventory(), here=Here())
    assert variables(none.apply(body, ()))["NVIDIA_VISIBLE_DEVICES"] == "void"
    with pytest.raises(ValueError, match="no way of attaching"):
        none.apply(body, (GPU,))


# -- with a grant ------------------------------------------------------------------------------


def test_cdi_asks_by_uuid_and_gives_no_variable_to_follow(body):
    made = backend("cdi", BY_UUID).apply(body, (GPU, MIG))
    ids = ["nvidia.com/gpu=GPU-5c89852c", "nvidia.com/gpu=MIG-3bd5c5b6"]
    assert made["HostConfig"]["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ids}]
    assert made["HostConfig"]["Runtime"] == "runc"
    assert variables(made)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_all_devices_are_in_one_device_request(body):
    made = backend("device-requests").apply(body, (GPU, MIG))
    (request,) = made["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-5c89852c", "MIG-3bd5c5b6"]
    assert request["Capabilities"] == [["gpu"]]
    # A count beside ids is refused by the engine; without ids it would mean all.
    assert "Count" not in request
    assert made["HostConfig"]["Runtime"] == "runc"


def test_the_runtime_is_named_and_told_the_devices(body):
    made = backend("nvidia-runtime").apply(body, (GPU, MIG))
    assert made["HostConfig"]["Runtime"] == "nvidia"
    assert "DeviceRequests" not in made["HostConfig"]
    assert variables(made)["NVIDIA_VISIBLE_DEVICES"] == "GPU-5c89852c,MIG-3bd5c5b6"


@pytest.mark.parametrize("name", ["device-requests", "nvidia-runtime"])
def test_a_swarm_variable_of_the_image_names_the_grant_too(name, body):
    # The toolkit takes it before all others where it is configured, and emptied it means nothing.
    assert variables(backend(name).apply(body, (GPU,)))["DOCKER_RESOURCE_GPU"] == GPU.uuid


@pytest.mark.parametrize("name", ["device-requests", "nvidia-runtime"])
def test_a_requirement_that_was_emptied_is_not_evaluated(name, body):
    assert variables(backend(name).apply(body, (GPU,)))["NVIDIA_DISABLE_REQUIRE"] == "true"


def test_pretended_devices_are_nodes_that_do_nothing(body, tmp_path):
    instance = tmp_path / "gpu1" / "mig" / "gi2"
    (instance / "ci0").mkdir(parents=True)
    (instance / "access").write_text("DeviceFileMinor: 21\nDeviceFileMode: 292\n")
    (instance / "ci0" / "access").write_text("DeviceFileMinor: 22\nDeviceFileMode: 292\n")
    body["HostConfig"]["Devices"] = [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse"}]
    pretend = backend("pretend", OLD, Here(pretended=True, capabilities=tmp_path))
    devices = pretend.apply(body, (GPU, MIG))["HostConfig"]["Devices"]
    assert [device["PathInContainer"] for device in devices] == [
        "/dev/fuse",
        "/dev/nvidia-caps/nvidia-cap21",
        "/dev/nvidia-caps/nvidia-cap22",
        "/dev/nvidia0",
        "/dev/nvidia1",
    ]
    assert {device["PathOnHost"] for device in devices[1:]} == {"/dev/null"}


def test_the_driver_is_limited_to_computing_unless_told_otherwise(body):
    made = backend("device-requests").apply(body, (GPU,))
    assert variables(made)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    wider = choose_backend(WITH_RUNTIME, INVENTORY, "", "compute,utility,video", here=HOOK)
    made = wider.apply(body, (GPU,))
    assert variables(made)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"


@pytest.mark.parametrize("name", list(BACKENDS))
def test_nothing_is_said_with_cuda_visible_devices(name, body):
    here = Here(has_hook=True, pretended=name == "pretend")
    made = backend(name, BY_UUID, here).apply(body, (GPU,))
    assert "CUDA_VISIBLE_DEVICES" not in variables(made)


# -- without a grant, and whatever else the body says ------------------------------------------


@pytest.mark.parametrize("name", list(BACKENDS))
def test_without_a_grant_nothing_is_attached_under_a_runtime_that_is_named(name, body):
    here = Here(has_hook=True, pretended=name == "pretend")
    del body["HostConfig"]["Runtime"], body["Env"]
    made = backend(name, BY_UUID, here).apply(body, ())
    assert made["HostConfig"]["Runtime"] == "runc"
    assert variables(made) == {"NVIDIA_VISIBLE_DEVICES": "void"}
    assert not made["HostConfig"].get("DeviceRequests")
    assert not made["HostConfig"].get("Devices")


@pytest.mark.parametrize("name", list(BACKENDS))
def test_the_request_that_is_given_is_not_changed(name, body):
    before = copy.deepcopy(body)
    here = Here(has_hook=True, pretended=name == "pretend")
    made = backend(name, BY_UUID, here).apply(body, (GPU,))
    assert body == before
    assert made["Image"] == body["Image"]
    assert made["HostConfig"]["Memory"] == body["HostConfig"]["Memory"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DeviceRequests", [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]),
        ("DeviceRequests", [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]),
        ("Runtime", "nvidia"),
        ("Runtime", "gpus-for-all"),
        ("Privileged", True),
        ("DeviceCgroupRules", ["c 195:* rmw"]),
        ("Devices", [{"PathOnHost": "/dev/nvidia0", "PathInContainer": "/dev/x"}]),
        ("Devices", [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nvidia0"}]),
        ("Mounts", [{"Source": "/dev/nvidia0", "Target": "/x"}]),
        ("Mounts", [{"Source": "/dev", "Target": "/host/dev"}]),
        ("Mounts", [{"Source": "/dev/null", "Target": "/var/run/nvidia-container-devices/all"}]),
        ("Binds", ["/dev/../:/host:ro"]),
        ("Binds", ["/srv:/var/run/x/../nvidia-container-devices/0"]),
        ("Annotations", {"cdi.k8s.io/gpus": "nvidia.com/gpu=all"}),
    ],
)
@pytest.mark.parametrize("devices", [(), (GPU,)], ids=["no grant", "grant"])
def test_what_asks_for_gpus_beside_the_grant_is_an_error(key, value, devices, body):
    info = {**WITH_RUNTIME, "Runtimes": {"gpus-for-all": {"path": "/opt/nvidia-ctk-runtime"}}}
    body["HostConfig"][key] = value
    with pytest.raises(ValueError, match="beside what is granted"):
        backend("device-requests", info).apply(body, devices)


@pytest.mark.parametrize(
    "line",
    [
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_VISIBLE_DEVICES=GPU-5c89852c",
        "NVIDIA_DRIVER_CAPABILITIES=all",
        "NVIDIA_MIG_CONFIG_DEVICES=all",
        "DOCKER_RESOURCE_GPU=all",
    ],
)
@pytest.mark.parametrize("devices", [(), (GPU,)], ids=["no grant", "grant"])
def test_a_variable_that_asks_for_gpus_is_an_error(line, devices, body):
    body["Env"].append(line)
    with pytest.raises(ValueError, match=line):
        backend("device-requests").apply(body, devices)


def test_a_variable_for_cudas_libraries_is_no_conflict(body):
    body["Env"].append("NVIDIA_TF32_OVERRIDE=0")
    made = backend("device-requests").apply(body, (GPU,))
    assert variables(made)["NVIDIA_TF32_OVERRIDE"] == "0"


def test_an_oci_runtime_of_the_sites_own_is_kept_and_cannot_be_combined_with_nvidias(body):
    body["HostConfig"]["Runtime"] = "runsc"
    assert backend("device-requests").apply(body, (GPU,))["HostConfig"]["Runtime"] == "runsc"
    with pytest.raises(ValueError, match="runsc"):
        backend("nvidia-runtime").apply(body, (GPU,))
