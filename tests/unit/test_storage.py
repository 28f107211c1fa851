"""Whose files are measured when, what follows from what they take, and what their owners read."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from sqlalchemy.exc import OperationalError

from ds01_spawner.accounts import Account
from ds01_spawner.endings import start_failed
from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle.__main__ import make_rounds
from ds01_spawner.policy import GIB, Lifecycle
from ds01_spawner.settings import DS01Settings
from ds01_spawner.storage import check, places, room, words
from ds01_spawner.storage.measure import Measured, NotMeasured, Place
from ds01_spawner.storage.records import Kind, StorageRecords, Use, Uses, largest
from ds01_spawner.storage.rounds import OTHERS, RUNNING, Rounds, Running, next_due

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LIMITS = Lifecycle(workspace_bytes=50 * GIB, container_bytes=10 * GIB)
BROKEN = OperationalError("SELECT", {}, Exception("database is locked"))


def of_user(name="ada", gib=1.0, ago=MINUTE, **more) -> Use:
    at = NOW - ago
    return Use(Kind.USER, name, name, "", int(gib * GIB), at, tried_at=at, **more)


def of_container(name="c1", user="ada", project="thesis", gib=1.0, ago=MINUTE) -> Use:
    at = NOW - ago
    return Use(Kind.CONTAINER, name, user, project, int(gib * GIB), at, tried_at=at)


@pytest.fixture
def records(tmp_path):
    return StorageRecords(tmp_path / "ds01.sqlite")


# -- what is kept ---------------------------------------------------------------------------------


def test_what_was_measured_is_there_after_a_restart(records, tmp_path):
    kept = [
        of_user(gib=3, problem="At least that: late.", took=timedelta(seconds=4)),
        of_container(),
    ]
    for use in kept:
        records.keep(use)
    again = StorageRecords(tmp_path / "ds01.sqlite")
    assert again.all() == kept
    assert again.uses(NOW).of_user("ada") == 3 * GIB
    assert again.uses(NOW, "ada").of_container("c1") == GIB
    assert again.uses(NOW, "bob") == Uses()


def test_what_was_measured_long_ago_says_nothing(records):
    records.keep(of_user(ago=25 * HOUR))
    records.keep(Use(Kind.USER, "bob", "bob", tried_at=NOW, problem="Not measured: no."))
    assert records.uses(NOW) == Uses()
    assert [use.name for use in largest(records.all(), Kind.USER, 5)] == ["ada"]


def test_the_largest_come_first():
    uses = [of_user(str(n), n) for n in (1, 9, 4)] + [of_container(gib=100)]
    assert [use.name for use in largest(uses, Kind.USER, 2)] == ["9", "4"]


# -- whose turn it is -----------------------------------------------------------------------------


def turn(*uses: Use, owners=(), now=NOW) -> str | None:
    found = next_due(uses, owners, now)
    return found.name if found else None


def test_who_waits_longest_is_next_and_who_has_a_server_sooner():
    assert turn() is None
    assert turn(of_user("ada", ago=RUNNING)) is None
    assert turn(of_user("ada", ago=RUNNING), owners={"ada"}) == "ada"
    assert turn(of_user("ada", ago=OTHERS), of_user("bob", ago=OTHERS + MINUTE)) == "bob"
    assert turn(of_container("c1", ago=RUNNING)) == "c1"
    never = Use(Kind.USER, "new", "new")
    assert turn(of_user("ada", ago=2 * OTHERS), never) == "new"


def test_who_was_refused_is_measured_before_all_others():
    asked = of_user("ada", ago=2 * MINUTE, is_wanted=True)
    assert turn(of_user("bob", ago=9 * OTHERS), asked) == "ada"
    assert turn(replace(asked, tried_at=NOW)) is None


def test_what_takes_long_to_measure_is_measured_less_often():
    large = of_user("ada", ago=HOUR, took=10 * MINUTE)
    assert turn(large, owners={"ada"}) is None
    assert turn(large, owners={"ada"}, now=NOW + 3 * HOUR) == "ada"
    assert turn(replace(large, is_wanted=True)) == "ada"
    assert turn(replace(large, is_wanted=True, tried_at=NOW - 30 * MINUTE)) is None


class World:
    """Users, their places, servers, and what measuring them gives."""

    def __init__(self, records):
        self.records = records
        self.users = {"ada", "bob"}
        self.boxes: list[Running] = []
        self.takes: dict[str, object] = {}
        self.measured: list[tuple[Place, ...]] = []
        self.sizes: object = [{"SizeRw": 5}]
        self.rounds = Rounds(
            *(records, self.measure, self.engine, self.places_of),
            *(lambda: self.users, lambda: self.boxes),
        )

    async def measure(self, where):
        self.measured.append(tuple(where))
        found = self.takes.get(where[0].name, Measured(7))
        if isinstance(found, BaseException):
            raise found
        return found

    async def engine(self, method, **asked):
        assert (method, asked) == ("containers", {"size": True, "filters": {"id": "c1"}})
        return self.sizes

    def places_of(self, user):
        if user == "ldap":
            raise OSError("no answer")
        return (Place(Path("/data"), user),)

    def measure_all(self, now=NOW):
        count = 0
        while asyncio.run(self.rounds.one(now)):
            count += 1
        return count

    def use(self, name):
        (found,) = [use for use in self.records.all() if use.name == name]
        return found


def box(driver=True, container_id="c1", user="ada"):
    data = {"UpperDir": "/docker/layer"} if driver else None
    mounts = [
        {"Type": "volume", "RW": True, "Source": "/docker/volume"},
        {"Type": "volume", "RW": False, "Source": "/docker/runtime"},
        {"Type": "bind", "RW": True, "Source": "/data/ada/thesis"},
    ]
    return Running(container_id, user, "thesis", {"GraphDriver": {"Data": data}, "Mounts": mounts})


def test_users_and_servers_are_measured_each_by_itself(records):
    world = World(records)
    world.boxes = [box()]
    assert world.measure_all() == 3
    assert set(world.measured) == {
        (Place(Path("/data"), "ada"),),
        (Place(Path("/data"), "bob"),),
        (Place(Path("/docker/layer")), Place(Path("/docker/volume"))),
    }
    assert world.use("ada").bytes == world.use("c1").bytes == 7
    assert world.measure_all() == 0
    # After a restart it goes on from what is known.
    assert World(records).measure_all(NOW + MINUTE) == 0
    assert world.measure_all(NOW + RUNNING) == 2


def test_what_cannot_be_measured_keeps_no_other_waiting(records):
    world = World(records)
    records.keep(of_user("ada", 3, ago=OTHERS))
    world.users.add("ldap")
    world.takes = {"ada": NotMeasured("the disk did not answer"), "bob": Measured(9, "late")}
    assert world.measure_all() == 3
    # What was known still holds.
    ada = world.use("ada")
    assert (ada.bytes, ada.at, ada.tried_at) == (3 * GIB, NOW - OTHERS, NOW)
    assert ada.problem == "Not measured: the disk did not answer."
    assert world.use("ldap").bytes is None
    assert "no answer" in world.use("ldap").problem
    assert (world.use("bob").bytes, world.use("bob").problem) == (9, "At least that: late.")


def test_who_asks_during_a_measurement_is_measured_once_more(records):
    world = World(records)
    records.keep(of_user("ada", ago=OTHERS))
    world.users = {"ada"}
    measure = world.measure

    async def asked_meanwhile(where):
        records.want("ada")
        return await measure(where)

    world.rounds._measure = asked_meanwhile
    assert world.measure_all() == 1
    assert world.use("ada").is_wanted
    world.rounds._measure = measure
    assert world.measure_all(NOW + MINUTE) == 1
    assert not world.use("ada").is_wanted


def test_an_engine_that_does_not_tell_where_layers_lie_tells_how_large_they_are(records):
    world = World(records)
    world.users, world.boxes = set(), [box(driver=False)]
    world.measure_all()
    assert world.use("c1").bytes == 5 + 7
    world.sizes = [{}]
    world.measure_all(NOW + HOUR)
    assert world.use("c1").bytes == 12
    assert "does not tell" in world.use("c1").problem


def test_a_server_that_has_gone_is_forgotten_and_one_that_is_not_found_yet_is_not(records):
    world = World(records)
    world.users, world.boxes = set(), [box()]
    world.measure_all()
    world.boxes = []
    world.measure_all(NOW + MINUTE)
    assert world.use("c1").bytes == 7
    world.measure_all(NOW + 2 * HOUR)
    assert [use.name for use in records.all()] == ["ada"]


async def test_two_are_measured_at_once_and_never_the_same(records):
    world, going, both = World(records), set(), asyncio.Event()

    async def measure(where):
        assert where not in going
        going.add(where)
        if len(going) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 30)
        return Measured(1)

    rounds = Rounds(records, measure, None, world.places_of, lambda: world.users, list)
    assert sorted(await asyncio.gather(*(rounds.one(NOW) for _ in range(4)))) == [0, 0, 1, 1]
    assert sorted(use.name for use in records.all()) == ["ada", "bob"]


@pytest.mark.parametrize("owns", [True, False])
def test_a_users_places_begin_where_no_user_can_put_a_link(owns):
    home = Path("/home/ada/.ds01/home" if owns else "/data/homes/ada")
    work = Path("/home/ada/workspace" if owns else "/data/workspaces/ada")
    found = places.of_user(Account("ada", 1000, 1000, (), home, work, owns_workspaces=owns))
    if owns:
        base = Path("/home/ada")
        assert found == (Place(base, "workspace"), Place(base, ".ds01/home"))
    else:
        assert found == (Place(work.parent, "ada"), Place(home.parent, "ada"))


@pytest.mark.skipif(os.geteuid() != 0, reason="makes accounts")
def test_the_service_measures_the_files_of_all_who_had_a_server(tmp_path):
    settings = DS01Settings(data_dir=str(tmp_path))
    account = settings.accounts.get("ada")
    (account.workspaces / "thesis").mkdir()
    for directory in (account.workspaces / "thesis", account.home):
        (directory / "file").write_bytes(os.urandom(GIB // 1024))
    for user in ("ada", "never.came"):
        settings.store.add_ending(start_failed(user, "thesis", "for a test"))
    service = SimpleNamespace(running=list)

    rounds = make_rounds(settings, service, None)
    assert [asyncio.run(rounds.one(NOW)) for _ in range(3)] == [True, True, False]

    found = settings.storage_records.uses(NOW)
    assert 2 * (GIB // 1024) < found.of_user("ada") < 3 * (GIB // 1024)
    assert found.of_user("never.came") == 0


# -- what follows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gib", "told", "refused"),
    [(39, "", ""), (41, "of 50 GiB", ""), (52, "more than", "more than")],
)
def test_a_user_is_told_before_the_limit_and_gets_no_gpu_above_it(gib, told, refused):
    uses = Uses({"ada": of_user(gib=gib)})
    for words_, part in (
        (words.of_user(uses, "ada", LIMITS), told),
        (words.too_full_for_gpu(uses, "ada", LIMITS), refused),
    ):
        assert part in words_
        assert bool(words_) == bool(part)
        assert not part or "at 11:59 UTC" in words_
    assert words.of_user(uses, "ada", Lifecycle()) == ""
    assert words.of_user(uses, "bob", LIMITS) == ""


def test_a_server_is_told_of_before_the_limit():
    uses = Uses({}, {"c1": of_container(gib=7), "c2": of_container("c2", gib=8)})
    told = words.of_servers(uses, LIMITS)
    assert list(told) == ["c2"]
    assert "8 GiB of 10 GiB" in told["c2"]
    assert words.of_servers(uses, Lifecycle()) == {}


class Spawner:
    """As much of a spawner as the check needs."""

    data_dir, accounts_from, lowest_free_disk_for_servers = "/", "hub", 0
    log = logging.getLogger("tests")

    def __init__(self, records, gpus="a GPU", root="/"):
        self.storage_records, self.root = records, root
        self.user, self.options = SimpleNamespace(name="ada"), SimpleNamespace(gpus=gpus)

    def limits(self):
        return SimpleNamespace(lifecycle=LIMITS)

    async def docker(self, method):
        assert method == "info"
        return {"DockerRootDir": self.root}

    async def in_thread(self, call, *args):
        return call(*args)


@pytest.fixture
def over(records):
    use = of_user(gib=52)
    records.keep(replace(use, at=datetime.now(timezone.utc)))
    return Spawner(records)


async def test_who_takes_too_much_gets_no_gpu_and_is_measured_anew(over):
    with pytest.raises(Refused, match="without a GPU") as refused:
        await check.check_room(over)
    assert refused.value.status_code == 403
    assert over.storage_records.all()[0].is_wanted
    over.options.gpus = None
    await check.check_room(over)


async def test_what_is_not_known_refuses_nobody(over, caplog):
    over.storage_records.keep(of_user(gib=52, ago=25 * HOUR))
    await check.check_room(over)
    over.storage_records = SimpleNamespace(uses=lambda *_: (_ for _ in ()).throw(BROKEN))
    await check.check_room(over)
    assert "Cannot read what the files of ada take" in caplog.text


async def test_below_the_floor_nothing_starts(records, caplog):
    spawner = Spawner(records, gpus=None)
    spawner.lowest_free_disk_for_servers = 1 << 60
    with pytest.raises(Refused, match="almost full") as refused:
        await check.check_room(spawner)
    assert (refused.value.status_code, refused.value.reason) == (503, "disk")
    assert "is left at /" in caplog.text


async def test_a_disk_that_does_not_say_has_no_room(records, monkeypatch):
    spawner = Spawner(records, gpus=None)
    spawner.data_dir = "/no such disk"
    with pytest.raises(Refused, match="does not answer"):
        await check.check_room(spawner)

    answers = threading.Event()
    monkeypatch.setattr(check, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(room, "look", lambda *_: answers.wait(60))
    with pytest.raises(Refused, match="does not answer"):
        await check.check_room(spawner)
    answers.set()


async def test_an_engine_that_does_not_answer_is_not_taken_for_a_disk():
    async def docker(_):
        raise requests.ConnectionError("no engine")

    with pytest.raises(requests.ConnectionError):
        await room.disks(Spawner(None), docker, 10.0)


def test_each_disk_is_looked_at_once(tmp_path):
    (disk,) = room.look(str(tmp_path), "hub", str(tmp_path), 0)
    assert disk.path == tmp_path
    left = os.statvfs(tmp_path)
    assert disk.total_bytes == left.f_blocks * left.f_frsize
    assert not disk.is_low
    # An engine that has its disk elsewhere.
    assert len(room.look(str(tmp_path), "hub", "/no such directory", 0)) == 1
    assert len(room.look("/proc", "hub", str(tmp_path), 0)) == 2
