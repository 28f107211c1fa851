"""A finished image is tried: what its container may touch, and that nothing stays of it."""

from __future__ import annotations

import asyncio
import json

import docker.errors
import pytest
import requests

from ds01_spawner import engine, runtime
from ds01_spawner.errors import Refused
from ds01_spawner.images import checks, shelf
from ds01_spawner.images.checks import CheckFailed, Room, check_image

ROOM = Room("hub", "/builds", 1024**3, 1.0, 100, 30.0)
UID = 54321


def api_error(status, text=""):
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("", response, text)


def not_found():
    return docker.errors.NotFound("no", api_error(404).response)


class Engine:
    """Has one image and one container; `silences` are told instead of the answer to a create."""

    def __init__(self, *volumes, silences=(), listed_after=0, start_error=None):
        self.volumes, self.silences = volumes, list(silences)
        self.listed_after, self.start_error = listed_after, start_error
        self.body, self.removed, self.looked = None, [], 0
        self.is_there = False

    async def __call__(self, method, *args, **kwargs):
        return getattr(self, method)(*args, **kwargs)

    def inspect_image(self, image):
        labels = {shelf.OWNER: "alice", "org.example": "x"}
        return {"Config": {"Volumes": {v: {} for v in self.volumes}, "Labels": labels}}

    def create_container_from_config(self, body, name):
        self.body, self.name = body, name
        if self.silences:
            raise self.silences.pop(0)
        self.is_there = True
        return {"Id": "c1"}

    def start(self, container):
        if self.start_error:
            raise self.start_error

    def inspect_container(self, container):
        self.looked += 1
        if self.looked == self.listed_after:
            self.is_there = True
        if not self.is_there:
            raise not_found()
        labels = self.body["Labels"]
        return {"Id": "c1", "Config": {"Labels": labels}, "State": {"Running": False}}

    def logs(self, container, stdout, stderr, tail=0):
        nonce = json.loads(self.body["Cmd"][0])["nonce"]
        report = {"kernel": "ok", "imports": [], "packages": {}}
        return f"\n{nonce}{json.dumps(report)}\n".encode()

    def remove_container(self, container, v, force):
        self.removed.append((container, v, force))
        self.is_there = False


async def tried(docker_call):
    return await check_image(docker_call, "sha256:1", (), UID, ROOM)


async def test_what_runs_in_a_trial_writes_to_memory_of_its_own_and_nowhere_else():
    found = Engine("/data", "/tmp", "/workspace", "/home/alice", runtime.MOUNT)

    assert (await tried(found)).kernel == "ok"

    host = found.body["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] == host["MemorySwap"] == ROOM.memory_bytes
    assert {"/tmp", "/var/tmp", "/workspace", "/opt/temporary", "/data"} < host["Tmpfs"].keys()
    for options in host["Tmpfs"].values():
        assert {"size=1073741824", f"uid={UID}", "exec"} < set(options.split(","))
    assert runtime.MOUNT not in host["Tmpfs"]


async def test_the_engine_copies_nothing_of_an_image_into_its_volumes():
    found = Engine("/data", "/tmp", "/workspace", "/home/alice", runtime.MOUNT)
    await tried(found)

    host = found.body["HostConfig"]
    mounts = {mount["Target"]: mount for mount in host["Mounts"]}
    assert mounts.keys() == {"/data", "/tmp", "/workspace", "/home/alice", runtime.MOUNT}
    assert all(mount["VolumeOptions"] == {"NoCopy": True} for mount in mounts.values())
    assert [m["Target"] for m in mounts.values() if m["ReadOnly"]] == [runtime.MOUNT]
    # In the place of each there is memory, which has a size.
    assert mounts.keys() - host["Tmpfs"].keys() == {runtime.MOUNT}


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        (["/data", "/usr"], "'/usr' would hide"),
        (["/workspace/results"], "'/workspace/results' would hide"),
        (["/home/alice/x"], "'/home/alice/x' would hide"),
        ([f"/v{at}" for at in range(17)], "17 volumes are too many"),
    ],
)
async def test_an_image_whose_volumes_no_server_takes_is_not_tried(volumes, words):
    found = Engine(*volumes)

    with pytest.raises(CheckFailed, match=words):
        await tried(found)
    assert found.body is None


async def test_a_trial_is_told_apart_by_a_label_of_its_own_and_removed_with_its_volumes():
    found = Engine()
    await tried(found)

    assert found.body["Labels"]["ds01.start"]
    assert found.body["Labels"][checks.LABEL] == "hub"
    assert found.body["Labels"]["org.example"] == ""
    assert found.removed == [("c1", True, True)]
    assert not checks._removals


async def test_a_trial_whose_create_got_no_answer_is_found_again():
    """The engine had made it."""
    found = Engine(silences=[requests.exceptions.ReadTimeout(), api_error(409)], listed_after=1)

    assert (await tried(found)).kernel == "ok"
    assert not found.is_there


async def test_a_container_that_the_engine_lists_much_later_is_removed_then(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 0.0)
    found = Engine(silences=[requests.exceptions.ReadTimeout()], listed_after=3)

    with pytest.raises(requests.exceptions.ReadTimeout):
        await tried(found)
    assert found.removed == []
    (removing,) = checks._removals
    await asyncio.wait_for(removing, 10)

    assert found.removed == [("c1", True, True)]
    assert not found.is_there


async def test_a_create_that_the_engine_refuses_leaves_nobody_looking():
    found = Engine(silences=[api_error(400)])

    with pytest.raises(docker.errors.APIError):
        await tried(found)
    assert not checks._removals


async def test_a_container_of_somebody_elses_is_not_removed(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 0.0)
    monkeypatch.setattr(engine, "LONG_PATIENCE_S", 0.2)
    found = Engine(silences=[api_error(409)])
    other = {"Id": "c2", "Config": {"Labels": {}}, "State": {"Status": "running"}}
    found.inspect_container = lambda container: other

    with pytest.raises(Refused):
        await tried(found)
    await asyncio.gather(*checks._removals)
    assert found.removed == []


async def test_a_cancelled_trial_is_removed():
    found = Engine()
    found.inspect_container, looked = _running(found), found.inspect_container
    trial = asyncio.ensure_future(tried(found))
    while not found.is_there:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    found.inspect_container = looked
    trial.cancel()

    with pytest.raises(asyncio.CancelledError):
        await trial
    assert not found.is_there


def _running(found):
    return lambda container: {"State": {"Running": True}}


async def test_an_image_of_which_no_container_starts_is_told_to_its_owner():
    found = Engine(start_error=api_error(500, "mounting tmpfs to rootfs at /proc/x: not allowed"))

    with pytest.raises(CheckFailed, match=r"no container of it starts: .*/proc/x"):
        await tried(found)
    assert not found.is_there
