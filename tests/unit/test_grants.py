"""A Hub that dies in the middle of a grant, and the one that grants next."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import docker.errors
import pytest

from ds01_spawner.admission.grants import Applicant, Grants, grant_labels
from ds01_spawner.admission.lock import GrantLock, Pending
from ds01_spawner.errors import Refused
from ds01_spawner.gpus.devices import Device, Inventory, Reading, State
from ds01_spawner.gpus.request import parse_request
from ds01_spawner.gpus.snapshot import Snapshots
from ds01_spawner.policy import GIB, Limits
from ds01_spawner.store import Store

from .test_engine import api_error

GPU = Device("GPU-5c89852c-f6f3-4d0b-9c5a-0f7a3f0b1c11", "0", "A100", 80 * GIB, 7, 1.0)
PARTED = replace(GPU, uuid="GPU-6", index="1", state=State.PARTITIONED)
HALVES = tuple(
    Device(f"MIG-{n}", f"1:{n}", "A100", 40 * GIB, 3, 3 / 7, "3g.40gb", PARTED.uuid, 1, n, 0)
    for n in (0, 1)
)
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
                "Created": time.time(),
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


def hub(engine, lock_file, name, devices=(GPU,)):
    """Return another Hub's grants; both share the engine and the lock."""
    reading = Reading(Inventory(devices))
    snapshots = Snapshots(engine, lambda: reading, engine.in_thread, name)
    store = Store(lock_file.with_name(f"{name}.sqlite"))
    return Grants(engine, snapshots, GrantLock(lock_file), store, "nvidia-runtime")


def ask(grants, engine, hub_id, user, size="full", limits=LIMITS):
    """Ask for the GPU, as a start does."""
    name = f"default._.{user}"

    async def create(_backend, devices):
        uuids = [device.uuid for device in devices]
        request = {"Driver": "nvidia", "DeviceIDs": uuids, "Capabilities": [["gpu"]]}
        labels = {
            "ds01.hub": hub_id,
            "ds01.user": user,
            "ds01.project": "default",
            **grant_labels(devices),
        }
        body = {"Image": IMAGE, "Labels": labels, "HostConfig": {"DeviceRequests": [request]}}
        return (await engine("create_container_from_config", body, name))["Id"]

    # It is under way as long as nobody says otherwise.
    grants.starts.add(None)
    applicant = Applicant(user, "", limits, 1.0, GIB, lambda: True)
    return grants.grant(parse_request(size), applicant, Pending(name, IMAGE), create)


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


async def test_a_refusal_says_when_by_how_long_earlier_servers_had_such_a_device(lock_file):
    engine = Engine()
    engine.may_finish.set()
    grants = hub(engine, lock_file, "one")
    for hours in (2, 2, 2, 3, 3):
        grants._store.add_gpu_use("full", timedelta(hours=hours))
        # Of another size: it does not count.
        grants._store.add_gpu_use("1g.10gb", timedelta(minutes=1))
    await ask(grants, engine, "one", "anna")

    with pytest.raises(Refused) as refused:
        await ask(grants, engine, "one", "ben")

    assert "it takes about 2 hours until that changes" in refused.value.jupyterhub_message


async def test_a_refusal_speaks_of_what_this_user_may_have(lock_file):
    engine = Engine()
    engine.may_finish.set()
    grants = hub(engine, lock_file, "one", (GPU, PARTED, *HALVES))
    half = replace(LIMITS, gpu_equivalents=0.5)
    for user in ("anna", "ben"):
        await ask(grants, engine, "one", user, "3g.40gb", half)
        engine.may_finish.set()

    with pytest.raises(Refused) as refused:
        await ask(grants, engine, "one", "carl", ">=20g", half)

    assert "both devices that would do are in use" in refused.value.jupyterhub_message


async def test_a_lock_file_of_another_version_grants_nothing_and_is_left_as_it_is(
    lock_file, caplog
):
    lock_file.write_text('{"container": "default._.anna"}')

    with pytest.raises(Refused, match="No GPU can be given"):
        await ask(hub(Engine(), lock_file, "one"), Engine(), "one", "ben")

    assert "default._.anna" in caplog.text
    assert lock_file.read_text() == '{"container": "default._.anna"}'


async def test_half_a_line_in_the_lock_file_asked_for_nothing(lock_file):
    lock_file.write_text('{"name": "default._.an')
    engine = Engine()
    engine.may_finish.set()

    assert await ask(hub(engine, lock_file, "one"), engine, "one", "ben")


async def test_a_refusal_tells_what_is_out_of_order_from_what_is_not_there(lock_file):
    engine = Engine()
    engine.may_finish.set()
    broken = replace(GPU, state=State.LOST)
    grants = hub(engine, lock_file, "one", (broken, PARTED, *HALVES))
    await ask(grants, engine, "one", "anna", "3g.40gb")
    grants._turns.clear()

    with pytest.raises(Refused, match="1 of them out of order") as refused:
        await ask(grants, engine, "one", "anna")

    assert refused.value.status_code == 409
