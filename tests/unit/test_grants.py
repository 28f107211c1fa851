"""A Hub that dies in the middle of a grant, and the one that grants next."""

import asyncio

import docker.errors
import pytest

from ds01_spawner.admission.grants import Applicant, Grants
from ds01_spawner.admission.lock import GrantLock, Pending
from ds01_spawner.errors import Refused
from ds01_spawner.gpus.devices import Device, Inventory, Reading
from ds01_spawner.gpus.request import parse_request
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.policy import GIB, Limits

from .test_engine import api_error

GPU = Device("GPU-5c89852c-f6f3-4d0b-9c5a-0f7a3f0b1c11", "0", "A100", 80 * GIB, 7, 1.0)
LIMITS = Limits(4, GIB, GIB, GIB, 100)
IMAGE = "sha256:image"


class Engine:
    """Creates when it is told to: reserves the name at the beginning, lists at the end."""

    def __init__(self):
        self.listed, self.reserved = {}, set()
        self.may_finish = asyncio.Event()
        self.began = asyncio.Event()
        self.working = []

    async def __call__(self, method, *args, **kwargs):
        if method == "create_container_from_config":
            # Goes on when its caller has gone away, as the real one does.
            work = asyncio.ensure_future(self._create(*args))
            self.working.append(work)
            return await asyncio.shield(work)
        return getattr(self, method)(*args, **kwargs)

    async def in_thread(self, call, *args):
        return call(*args)

    async def _create(self, body, name):
        if name in self.listed or name in self.reserved:
            raise api_error(409)
        if "ds01.gpu.uuids" not in body["Labels"]:
            self.listed[name] = body
            return {"Id": name}
        self.reserved.add(name)
        self.began.set()
        await self.may_finish.wait()
        self.reserved.discard(name)
        self.listed[name] = body
        return {"Id": name}

    def containers(self, **_):
        return [
            {
                "Id": name,
                "Names": [f"/{name}"],
                "State": "created",
                "Created": 0,
                "Labels": body["Labels"],
            }
            for name, body in self.listed.items()
        ]

    def inspect_container(self, name):
        if name not in self.listed:
            raise docker.errors.NotFound("no")
        body = self.listed[name]
        return {
            "Id": name,
            "Name": f"/{name}",
            "State": {"Status": "created"},
            "Config": {"Labels": body["Labels"], "Env": []},
            "HostConfig": body["HostConfig"],
        }

    def remove_container(self, name, **_):
        self.listed.pop(name)

    def images(self):
        return [{"Id": IMAGE, "RepoTags": None}]

    def info(self):
        return {"Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}


class Store:
    def gpu_uses(self, _):
        return []


def hub(engine, lock_file, name):
    """Return another Hub's grants; both share the engine and the lock."""
    reading = Reading(Inventory((GPU,)))
    snapshots = Snapshots(engine, lambda: reading, engine.in_thread, name)
    return Grants(engine, snapshots, GrantLock(lock_file), Store(), "nvidia-runtime")


def ask(grants, engine, hub_id, user):
    """Ask for the GPU, as a start does."""
    name = f"default._.{user}"

    async def create(_backend, devices):
        uuids = [device.uuid for device in devices]
        request = {"Driver": "nvidia", "DeviceIDs": uuids, "Capabilities": [["gpu"]]}
        labels = {"ds01.hub": hub_id, "ds01.gpu.uuids": ",".join(uuids)}
        body = {"Image": IMAGE, "Labels": labels, "HostConfig": {"DeviceRequests": [request]}}
        return (await engine("create_container_from_config", body, name))["Id"]

    applicant = Applicant(user, LIMITS, lambda: True)
    return grants.grant(parse_request("full"), applicant, Pending(name, IMAGE), create)


@pytest.fixture
def lock_file(tmp_path):
    return tmp_path / "gpus.lock"


async def test_a_create_that_a_dead_hub_left_under_way_holds_its_device(lock_file):
    engine = Engine()
    dying = asyncio.ensure_future(ask(hub(engine, lock_file, "one"), engine, "one", "anna"))
    await engine.began.wait()
    dying.cancel()
    await asyncio.wait({dying})

    next_ = asyncio.ensure_future(ask(hub(engine, lock_file, "two"), engine, "two", "ben"))
    tried = len(engine.working)
    while len(engine.working) < tried + 2:
        await asyncio.sleep(0.01)
    assert not next_.done()
    engine.may_finish.set()

    with pytest.raises(Refused, match="not free"):
        await next_
    assert list(engine.listed) == ["default._.anna"]


async def test_a_create_that_came_to_nothing_holds_nothing(lock_file):
    engine = Engine()
    dying = asyncio.ensure_future(ask(hub(engine, lock_file, "one"), engine, "one", "anna"))
    await engine.began.wait()
    dying.cancel()
    await asyncio.wait({dying})
    # The engine has restarted and knows nothing of it any more.
    engine.working[0].cancel()
    engine.reserved.clear()
    engine.may_finish.set()

    made, _ = await ask(hub(engine, lock_file, "two"), engine, "two", "ben")

    assert made == "default._.ben"
    assert list(engine.listed) == ["default._.ben"]
    assert lock_file.read_text() == ""


async def test_nobody_waits_in_vain_behind_somebody_who_has_gone(lock_file):
    engine = Engine()
    engine.may_finish.set()
    grants = hub(engine, lock_file, "one")
    first = asyncio.ensure_future(ask(grants, engine, "one", "anna"))
    gone = asyncio.ensure_future(ask(grants, engine, "one", "ben"))
    last = asyncio.ensure_future(ask(grants, engine, "one", "carl"))
    gone.cancel()

    await first
    with pytest.raises(Refused, match="not free"):
        await last
    assert list(engine.listed) == ["default._.anna"]
