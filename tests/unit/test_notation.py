"""Every way of naming a GPU means the right device, and what is unclear means none for nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.gpus.capabilities import read_capabilities
from ds01_spawner.gpus.claims import Claims, Runtimes
from ds01_spawner.gpus.devices import Inventory
from ds01_spawner.gpus.notation import Capability, Names, Unresolved

from .machine import (
    CAPABILITIES,
    EVERYTHING,
    FIRST,
    IDLE,
    INVENTORY,
    PARTED,
    SECOND,
    THIRD,
    WHOLE,
    uuid,
)

NAMES = Names(INVENTORY, lambda: CAPABILITIES)
NOTHING = frozenset()
RUNTIMES = Runtimes(
    {
        "runc": ("runc",),
        "io.containerd.runc.v2": ("runc",),
        "crun": ("/usr/bin/crun",),
        "nvidia": ("nvidia-container-runtime",),
        "mine": ("/opt/mine",),
        "wrapped": ("io.containerd.runc.v2", "/usr/bin/nvidia-container-runtime"),
        "toolkit": ("/usr/local/nvidia/toolkit/runc",),
        "shim": ("io.containerd.runc.v2", "/usr/bin/crun"),
    }
)


def those(*devices):
    return frozenset(device.uuid for device in devices)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("0", those(WHOLE)),
        ("0,1", those(WHOLE, PARTED)),
        ("0, 1:0", those(WHOLE, FIRST)),
        ("1:1", those(SECOND)),
        (WHOLE.uuid, those(WHOLE)),
        (WHOLE.uuid.upper(), those(WHOLE)),
        (THIRD.uuid, those(THIRD)),
        (f"{FIRST.uuid},{THIRD.uuid}", those(FIRST, THIRD)),
        ("GPU-000000a0", those(WHOLE)),
        ("MIG-000000c0-", those(FIRST)),
        (f"MIG-{PARTED.uuid}/5/0", those(SECOND)),
        (f"MIG-{uuid('GPU', 1)}/5/0", NOTHING),
        ("nvidia.com/gpu=0", those(WHOLE)),
        ("nvidia.com/gpu=1:0", those(FIRST)),
        (f"nvidia.com/gpu={THIRD.uuid}", those(THIRD)),
        ("nvidia.com/gpu=all", EVERYTHING),
        (f"k8s.device-plugin.nvidia.com/gpu={IDLE.uuid}", those(IDLE)),
        ("nvidia.com/gds=all", NOTHING),
        ("nvidia.com/nvswitch=all", NOTHING),
        ("amd.com/gpu=all", NOTHING),
        ("all", EVERYTHING),
        ("none", NOTHING),
        ("void", NOTHING),
        ("", NOTHING),
        ("0,", those(WHOLE)),
        (uuid("GPU", 1), NOTHING),
    ],
)
def test_a_name_means_its_device(name, means):
    assert NAMES.named(name) == means


@pytest.mark.parametrize(
    "name",
    [
        "4",
        "1:2",
        "-1",
        "00",
        "٣",
        "GPU-0",
        "GPU-",
        "MIG-ffff",
        "GPU-000000a0-zzz",
        "0,9",
        f"MIG-{PARTED.uuid}/9/0",
        "nvidia.com/gpu=9",
        "nvidia.com/pgpu=0",
        "nvidia.com/gpu=",
        "nvidia.com/gpu=all=",
        "device=0",
        "ALL",
        "/dev/sda",
        "c 8:0 rwm",
        WHOLE.uuid.removeprefix("GPU-"),
        uuid("MIG", 1),
    ],
)
def test_a_name_that_could_mean_anything_is_no_answer(name):
    with pytest.raises(Unresolved):
        NAMES.named(name)


@pytest.mark.parametrize(
    ("node", "means"),
    [
        ("/dev/nvidia7", those(WHOLE)),
        ("//dev/./nvidia7", those(WHOLE)),
        ("/dev/nvidia6", those(PARTED)),
        ("/dev/char/195:4", those(IDLE)),
        ("/dev/nvidia-caps/nvidia-cap58", those(SECOND)),
        ("/dev/nvidia-caps/nvidia-cap57", those(SECOND)),
        ("/dev/nvidia-caps/nvidia-cap1", NOTHING),
        ("/dev/nvidiactl", NOTHING),
        ("/dev/nvidia-uvm", NOTHING),
        ("/dev/nvidia-uvm-tools", NOTHING),
        ("/dev/nvidia-modeset", NOTHING),
        ("/dev/nvidia-nvswitch0", NOTHING),
        ("/dev/nvidia-caps-imex-channels/channel0", NOTHING),
        ("/dev/nvidia-caps", EVERYTHING),
        ("/dev", EVERYTHING),
        ("/dev/fuse", NOTHING),
        ("c 195:* rwm", EVERYTHING),
        ("c 195:7 rw", those(WHOLE)),
        ("c 195:255 rwm", NOTHING),
        ("c 195:254 rwm", NOTHING),
        ("c *:* rwm", EVERYTHING),
        ("a *:* rwm", EVERYTHING),
        ("b *:* rwm", NOTHING),
        ("c 237:22 rw", those(FIRST)),
        ("c 237:* rw", EVERYTHING),
        ("c 10:229 rwm", NOTHING),
    ],
)
def test_a_node_opens_its_device(node, means):
    assert NAMES.node(node) == means


@pytest.mark.parametrize(
    "node",
    ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap99", "/dev/nvidia-new", "c 195:9 rwm", "nonsense"],
)
def test_a_node_that_is_not_known_is_no_answer(node):
    with pytest.raises(Unresolved):
        NAMES.node(node)


@pytest.mark.parametrize(
    ("nodes", "means"),
    [
        (
            ["/dev/nvidia6", "/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22"],
            [FIRST],
        ),
        (["/dev/nvidia6"], [PARTED]),
        (["/dev/nvidia6", "/dev/nvidia-caps/nvidia-cap157"], [PARTED, THIRD]),
        (["/dev/nvidia7", "/dev/nvidia-caps/nvidia-cap22"], [WHOLE, FIRST]),
    ],
)
def test_the_gpus_node_beside_a_mig_devices_own_is_only_its_entrance(nodes, means):
    assert NAMES.together(map(NAMES.node, nodes)) == those(*means)


def test_all_devices_beside_one_of_them_stay_all():
    rule = NAMES.node("c 195:* rwm")

    assert NAMES.together([rule, NAMES.node("/dev/nvidia-caps/nvidia-cap22")]) == EVERYTHING


@given(st.text())
def test_no_text_means_nothing_unless_it_says_so(text):
    try:
        meant = NAMES.named(text)
    except Unresolved:
        return
    # Another maker's CDI device has an equals sign.
    words = {word.strip() for word in text.split(",")}
    assert meant or words <= {"", "none", "void"} or "=" in text


@given(st.lists(st.sampled_from(INVENTORY.devices), min_size=1), st.data())
def test_a_device_that_is_named_is_meant_in_every_notation(devices, data):
    words = [data.draw(st.sampled_from(notations(device))) for device in devices]

    assert NAMES.named(",".join(words)) == those(*devices)


def notations(device):
    """Return all ways of naming a device."""
    names = [device.uuid, device.index, device.uuid[:13], device.uuid.lower()]
    if device.parent:
        names.append(f"MIG-{device.parent}/{device.gpu_instance}/{device.compute_instance}")
    return [*names, *(f"nvidia.com/gpu={name}" for name in names)]


def test_the_capability_nodes_are_the_drivers(tmp_path):
    def capability(path, number):
        file = tmp_path / "capabilities" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")

    capability("mig/config", 1)
    capability("gpu6/mig/gi5/access", 57)
    capability("gpu6/mig/gi5/ci0/access", 58)
    capability("fabric-imex-mgmt", 3)
    (tmp_path / "devices").write_text("Character devices:\n195 nvidia\n237 nvidia-caps\n")

    found = read_capabilities(tmp_path / "capabilities", tmp_path / "devices")

    assert found.nodes == {
        1: Capability(),
        3: Capability(),
        57: Capability(6, 5),
        58: Capability(6, 5, 0),
    }
    assert found.major == 237


def test_without_a_driver_there_are_no_capability_nodes(tmp_path):
    assert read_capabilities(tmp_path / "nothing").nodes == {}


# -- what a container says -------------------------------------------------------------------


def claims(env=(), mounts=(), **host):
    host.setdefault("Runtime", "runc")
    return Claims.from_inspect(
        {"HostConfig": host, "Config": {"Env": list(env)}, "Mounts": list(mounts)}
    )


def request(driver="", count=0, ids=None):
    return {"Driver": driver, "Count": count, "DeviceIDs": ids, "Capabilities": [["gpu"]]}


@pytest.mark.parametrize(
    ("requests", "means"),
    [
        ([request(count=-1)], EVERYTHING),
        ([request(count=0)], EVERYTHING),
        ([request(count=2)], those(WHOLE, PARTED)),
        ([request("nvidia", ids=["0", SECOND.uuid])], those(WHOLE, SECOND)),
        ([request(ids=["0"]), request(ids=["1:0"])], those(WHOLE, FIRST)),
        ([request("cdi", ids=["nvidia.com/gpu=3"])], those(IDLE)),
        ([request("cdi", ids=["amd.com/gpu=0"])], NOTHING),
        ([request("amd", count=-1)], NOTHING),
    ],
)
def test_a_device_request_is_understood_as_docker_does(requests, means):
    assert all_named(claims(DeviceRequests=requests)) == means


def all_named(claim):
    return frozenset().union(*map(NAMES.named, claim.words(RUNTIMES)))


@pytest.mark.parametrize("requests", [[request("new", ids=["0"])], [request(count=5)]])
def test_a_request_that_is_not_understood_is_no_answer(requests):
    with pytest.raises(Unresolved):
        all_named(claims(DeviceRequests=requests))


def test_an_absurd_number_of_gpus_is_not_counted_out():
    assert len(claims(DeviceRequests=[request(count=2**62)]).words(RUNTIMES)) < 1000


@pytest.mark.parametrize(
    ("runtime", "heeds"),
    [
        ("runc", False),
        ("io.containerd.runc.v2", False),
        ("crun", False),
        ("shim", False),
        ("", False),
        ("nvidia", True),
        ("wrapped", True),
        ("mine", True),
        ("toolkit", True),
        ("forgotten", True),
    ],
)
def test_variables_count_where_the_runtime_may_heed_them(runtime, heeds):
    claim = claims(["NVIDIA_VISIBLE_DEVICES=0"], Runtime=runtime)

    assert all_named(claim) == (those(WHOLE) if heeds else NOTHING)


def test_the_engines_default_runtime_is_the_one_that_counts():
    claim = claims(["NVIDIA_VISIBLE_DEVICES=0"], Runtime="")
    plain, toolkit = {"path": "runc"}, {"path": "/usr/bin/nvidia-container-runtime"}
    for runtimes, default, words in (
        ({"runc": plain, "gpu": toolkit}, "gpu", ("0",)),
        ({"runc": toolkit}, "runc", ("0",)),
        ({"runc": plain, "gpu": toolkit}, "runc", ()),
        ({"gpu": {"runtimeType": "io.containerd.runc.v2"}}, "gpu", ()),
        ({"gpu": {"options": {"BinaryName": "/usr/bin/toolkit"}}}, "gpu", ("0",)),
    ):
        engine = Runtimes.from_info({"Runtimes": runtimes, "DefaultRuntime": default})
        assert claim.words(engine) == words


@pytest.mark.parametrize(
    ("env", "means"),
    [
        (["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=0"], those(WHOLE)),
        (["NVIDIA_VISIBLE_DEVICES=void", "CUDA_VERSION=12"], NOTHING),
        (["NVIDIA_VISIBLE_DEVICES=", "CUDA_VERSION=12"], NOTHING),
        (["CUDA_VERSION=12"], EVERYTHING),
        (["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES", "CUDA_VERSION=12"], EVERYTHING),
        (["NVIDIA_VISIBLE_DEVICES=void", "DOCKER_RESOURCE_GPU=all"], EVERYTHING),
        (["NVIDIA_VISIBLE_DEVICES=void", "DOCKER_RESOURCE_GPU="], NOTHING),
        (["PATH=/bin"], NOTHING),
    ],
)
def test_variables_mean_what_the_nvidia_runtime_makes_of_them(env, means):
    assert all_named(claims(env, Runtime="nvidia")) == means


def test_a_request_beats_the_images_variable_but_not_swarms():
    env = ["NVIDIA_VISIBLE_DEVICES=all"]
    one = [request(ids=["0"])]

    assert all_named(claims(env, Runtime="nvidia", DeviceRequests=one)) == those(WHOLE)
    env = ["DOCKER_RESOURCE_GPU=1:0"]
    assert all_named(claims(env, Runtime="runc", DeviceRequests=one)) == those(WHOLE, FIRST)


def test_a_cdi_request_does_not_beat_the_variable_of_the_nvidia_runtime():
    cdi = [request("cdi", ids=["nvidia.com/gpu=3"])]
    claim = claims(["NVIDIA_VISIBLE_DEVICES=0"], Runtime="nvidia", DeviceRequests=cdi)

    assert all_named(claim) == those(WHOLE, IDLE)


def mount(target, source="/dev/null"):
    return {"Source": source, "Destination": target}


def test_devices_listed_as_mounts_count_under_the_nvidia_runtime():
    folder = "/var/run/nvidia-container-devices"
    env = [f"NVIDIA_VISIBLE_DEVICES={folder}"]
    mounts = [mount(f"{folder}/0"), mount(f"{folder}/cdi/nvidia.com/gpu/1:0"), mount("/data")]

    assert all_named(claims(env, mounts, Runtime="nvidia")) == those(WHOLE, FIRST)
    assert all_named(claims(env, mounts, Runtime="runc")) == NOTHING


def test_an_images_volume_names_no_device():
    volume = mount("/var/run/nvidia-container-devices/all", "/var/lib/docker/volumes/x/_data")

    env = ["NVIDIA_VISIBLE_DEVICES=void"]
    assert all_named(claims(env, [volume], Runtime="nvidia")) == NOTHING


def test_cdi_annotations_count_under_the_nvidia_runtime():
    annotations = {"cdi.k8s.io/mine": "nvidia.com/gpu=0,nvidia.com/gpu=3", "other": "all"}

    claim = claims(Runtime="nvidia", Annotations=annotations)
    assert all_named(claim) == those(WHOLE, IDLE)


def test_a_devices_node_is_followed_and_a_pretended_one_is_known_by_its_name():
    found = Claims.from_inspect(
        {
            "HostConfig": {
                "Devices": [
                    {"PathOnHost": "/dev/my-gpu", "PathInContainer": "/dev/nvidia0"},
                    {"PathOnHost": "/dev/null", "PathInContainer": "/dev/nvidia4"},
                ]
            },
            "Config": {},
        },
        {"/dev/my-gpu": "/dev/nvidia7", "/dev/null": "/dev/null"}.__getitem__,
    )

    assert found.nodes == ("/dev/nvidia7", "/dev/nvidia4")


def test_names_on_a_machine_without_gpus_mean_nothing_that_is_there():
    names = Names(Inventory())

    assert names.named("all") == NOTHING
    assert names.named(WHOLE.uuid) == NOTHING
