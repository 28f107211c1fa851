"""Whether the virtual machine is what the other tests take it for. Runs inside."""

import os
import subprocess
from pathlib import Path

import docker
import pytest

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def client():
    return docker.from_env()


def test_the_engine_leaves_cgroups_to_systemd(client):
    info = client.info()
    assert (info["CgroupDriver"], info["CgroupVersion"]) == ("systemd", "2")


def test_the_kernel_limits_processors_memory_and_tasks():
    assert {"cpu", "memory", "pids"} <= set((CGROUPS / "cgroup.controllers").read_text().split())


def test_a_container_runs_below_the_slice_it_is_given(client):
    container = client.containers.run(
        os.environ["DS01_SLICE_IMAGE"], "sleep infinity", cgroup_parent="ds01-x.slice", detach=True
    )
    try:
        container.reload()
        group = Path(f"/proc/{container.attrs['State']['Pid']}/cgroup").read_text().strip()
        assert group == f"0::/ds01.slice/ds01-x.slice/docker-{container.id}.scope"
    finally:
        container.remove(force=True)
        subprocess.run(["systemctl", "stop", "ds01-x.slice"], check=True)
