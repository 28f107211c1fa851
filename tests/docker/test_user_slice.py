"""One cgroup around all servers of a user, from the policy to the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds01_spawner.cgroups.limits import SliceLimits
from ds01_spawner.cgroups.slices import choose_slices, slice_name
from ds01_spawner.policy import GIB
from tests.hub import Hub, eventually

SMALL = {"image": "python", "memory": "1g", "cpus": 0.5}
TOGETHER = {"cpu_quota": "150%", "memory_max": "1536m", "tasks_max": 3000}
#: Takes memory and keeps it, also when the kernel that started it is gone.
HOG = """
import subprocess, sys
program = "x = bytearray(700 << 20); x[::4096] = bytes([1]) * len(x[::4096]); print('had it')"
held = subprocess.Popen(
    [sys.executable, "-u", "-c", program + "; import time; time.sleep(600)"],
    stdout=subprocess.PIPE, start_new_session=True,
)
print(held.stdout.readline())
"""


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    deployment = Hub(tmp_path_factory.mktemp("hub"), "slices")
    try:
        deployment.write_policy({"defaults": {"aggregate": TOGETHER}})
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def slices(hub):
    """Return the slices as the kernel has them."""
    return choose_slices(hub.docker.info())


def test_a_server_is_under_its_users_slice_which_has_the_policys_limits(hub, slices):
    alice = hub.user("slice.d@Lice")
    name = slice_name(alice.name)
    alice.start(**SMALL)
    alice.start("second", **SMALL)

    assert slices.limits(name) == SliceLimits(1.5, 3 * GIB // 2, None, 3000)
    for project in ("default", "second"):
        pid = alice.container(project)["State"]["Pid"]
        assert f"/ds01.slice/{name}/" in Path(f"/proc/{pid}/cgroup").read_text()

    alice.stop("second")
    assert slices.limits(name) is not None
    alice.stop()
    eventually(lambda: slices.limits(name) is None, "the empty slice is gone")


def test_a_changed_policy_holds_for_servers_that_run(hub, slices):
    bert = hub.user("bert")
    bert.start(**SMALL)
    hub.write_policy({"defaults": {"aggregate": {**TOGETHER, "cpu_quota": "75%"}}})
    try:
        eventually(
            lambda: slices.limits(slice_name("bert")).cpus == 0.75, "the slice follows the policy"
        )
    finally:
        hub.write_policy({"defaults": {"aggregate": TOGETHER}})
    bert.stop()


def test_servers_that_together_want_too_much_lose_a_process_and_nobody_else_notices(hub, slices):
    carl, dora = hub.user("carl"), hub.user("dora")
    carls = [carl.start(project, **SMALL) for project in ("one", "two")]
    doras = dora.start(**SMALL)
    assert "had it" in doras.run(HOG)

    # Each is below its own gigabyte; together they would be above what the policy gives.
    before = slices.usage(slice_name("carl")).oom_kills
    said = [server.run(HOG) for server in carls]

    assert slices.usage(slice_name("carl")).oom_kills > before, said
    assert slices.usage(slice_name("carl")).memory_bytes <= 3 * GIB // 2
    assert slices.usage(slice_name("dora")).oom_kills == 0
    assert doras.run("print(1 + 1)") == "2\n"
    assert all(server.run("print(1 + 1)") == "2\n" for server in carls)


def test_a_killed_hub_leaves_slices_that_the_next_one_removes(hub, slices):
    emil = hub.user("emil")
    emil.start(**SMALL)
    hub.kill()
    hub.docker.remove_container(emil.container()["Id"], force=True)
    assert slices.limits(slice_name("emil")) is not None

    hub.start()
    eventually(lambda: slices.limits(slice_name("emil")) is None, "the empty slice is gone")
