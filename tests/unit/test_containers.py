"""What Docker is asked for, whatever the image says."""

from pathlib import Path

import pytest

from ds01_spawner import runtime
from ds01_spawner.accounts import Account
from ds01_spawner.containers import (
    Hardening,
    Image,
    Plan,
    create_arguments,
    environment,
    server_mounts,
)
from ds01_spawner.policy import GIB

ACCOUNT = Account("alice", 400_001, 400_001, (50, 60), Path("/d/h"), Path("/d/w"), False)

HOSTILE = Image.from_inspect(
    "sha256:1",
    {
        "Config": {
            "Env": [
                "NVIDIA_VISIBLE_DEVICES=all",
                "NVIDIA_DRIVER_CAPABILITIES=all",
                "DOCKER_RESOURCE_GPU=all",
                "LD_PRELOAD=/evil.so",
                "LD_LIBRARY_PATH=/opt/lib",
                "JUPYTERHUB_API_TOKEN=stolen",
                "DS01_SAFE_START=1",
                "PATH=/venv/bin:/usr/bin",
                "KEEP=me",
            ],
            "Labels": {"ds01.protected": "true", "ds01.user": "root", "traefik.enable": "true"},
            "Entrypoint": ["/evil"],
            "Cmd": ["evil"],
        }
    },
)


@pytest.fixture
def body():
    return create_arguments(
        Plan(
            name="default._.alice",
            hostname="default",
            image=HOSTILE,
            account=ACCOUNT,
            cpus=1.5,
            memory_bytes=2 * GIB,
            memory_swap_bytes=2 * GIB,
            shm_bytes=GIB,
            pids=100,
            env={"JUPYTERHUB_API_TOKEN": "ours"},
            labels={"ds01.user": "alice"},
            mounts=server_mounts(ACCOUNT, Path("/d/w/p"), "runtime-1", Path("/ca.crt")),
            network="ds01",
            hardening=Hardening(),
            log_bytes=1000,
            cgroup_parent="/ds01.slice/ds01-alice.slice",
        )
    )


def env_of(body):
    return dict(line.split("=", 1) for line in body["Env"])


def test_limits_stand_at_creation(body):
    host = body["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 2 * GIB
    assert host["NanoCpus"] == 1_500_000_000
    assert host["PidsLimit"] == 100
    assert host["ShmSize"] == GIB
    assert host["LogConfig"]["Config"]["max-size"] == "1000"


def test_the_container_is_put_under_the_users_slice(body):
    assert body["HostConfig"]["CgroupParent"] == "/ds01.slice/ds01-alice.slice"


def test_an_ordinary_user_without_capabilities_in_a_named_runtime(body):
    host = body["HostConfig"]
    assert body["User"] == "400001:400001"
    assert host["GroupAdd"] == ["50", "60"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == []
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Runtime"] == "runc"
    assert host["Init"] is True


def test_the_image_brings_no_behaviour_of_its_own(body):
    assert body["Entrypoint"] == list(runtime.COMMAND)
    assert body["Cmd"] == []
    assert body["Healthcheck"] == {"Test": ["NONE"]}
    assert body["StopSignal"] == "SIGTERM"
    assert body["WorkingDir"] == "/workspace"
    assert body["Labels"] == {"ds01.protected": "", "ds01.user": "alice", "traefik.enable": ""}


def test_variables_that_ask_for_gpus_or_load_code_are_overridden(body):
    env = env_of(body)
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert env["NVIDIA_DRIVER_CAPABILITIES"] == env["DOCKER_RESOURCE_GPU"] == ""
    assert env["LD_PRELOAD"] == ""
    assert env["DS01_IMAGE_LD_PRELOAD"] == "/evil.so"
    assert env["JUPYTERHUB_API_TOKEN"] == "ours"
    assert env["DS01_SAFE_START"] == ""
    assert env["PATH"] == "/venv/bin:/usr/bin"
    # Untouched ones stay the image's own.
    assert "KEEP" not in env
    assert "LD_LIBRARY_PATH" not in env


def test_nothing_we_set_can_ask_for_a_gpu():
    assert (
        environment(HOSTILE, {"NVIDIA_VISIBLE_DEVICES": "all"})["NVIDIA_VISIBLE_DEVICES"] == "void"
    )


def test_an_image_without_variables_still_has_a_path():
    image = Image.from_inspect("x", {"Config": {"Env": None, "Labels": None}})
    assert "/usr/bin" in environment(image, {})["PATH"].split(":")


def test_the_runtime_and_the_certificates_are_read_only(body):
    mounts = {mount["Target"]: mount for mount in body["HostConfig"]["Mounts"]}
    assert mounts["/opt/ds01"]["ReadOnly"] is True
    assert mounts["/opt/ds01"]["Type"] == "volume"
    assert mounts["/etc/ds01/ca-certificates.crt"]["ReadOnly"] is True
    assert mounts["/workspace"] == {
        "Type": "bind",
        "Source": "/d/w/p",
        "Target": "/workspace",
        "ReadOnly": False,
    }
    assert mounts["/home/alice"]["Source"] == "/d/h"
