"""The service that stops idle servers: what it does when all is well, and when things fail."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import docker.errors
import pytest
import requests.exceptions
from sqlalchemy.exc import OperationalError

from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle import __main__ as program
from ds01_spawner.lifecycle import kernels, processes, service
from ds01_spawner.lifecycle.events import NONE_FREE, Event
from ds01_spawner.lifecycle.history import Kernels, Sample
from ds01_spawner.lifecycle.hub import HubServer, HubSilent
from ds01_spawner.lifecycle.meters import GpuLoad
from ds01_spawner.lifecycle.records import ASKED, PROTECTED, Kept, LifeRecords
from ds01_spawner.lifecycle.rules import rules_from
from ds01_spawner.lifecycle.service import Service
from ds01_spawner.messages.message import Message
from ds01_spawner.names import container_name, project_of
from ds01_spawner.policy import GIB, Lifecycle
from ds01_spawner.storage.records import Kind, Use, Uses

BEGAN = datetime(2026, 6, 1, 8, 0, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
NOTICE = timedelta(minutes=10)
LOCKED = OperationalError("INSERT", {}, Exception("database is locked"))


class Box:
    """A container as the engine shows it, and what it does."""

    def __init__(self, user, name="", *, hub="mine", gpus="", labels=None, called=None, number=0):
        self.user, self.name = user, name
        project = project_of(name)
        self.id = f"{user}-{name}-{number}"
        self.called = called or container_name(user, project)
        self.pid = 1000 + number
        self.cpu, self.restarted = 0.0, 0
        self.labels = {
            "ds01.hub": hub,
            "ds01.user": user,
            "ds01.project": project,
            "ds01.server": name,
            "ds01.gpu.uuids": gpus,
            "ds01.gpu.allocated": "1.0" if gpus else "0",
            **(labels or {}),
        }

    @property
    def listed(self):
        return {
            "Id": self.id,
            "Names": [f"/{self.called}"],
            "Labels": self.labels,
            "State": "running",
            "Created": 0,
        }

    @property
    def inspected(self):
        return {
            "Id": self.id,
            "Name": f"/{self.called}",
            "State": {"Pid": self.pid, "Running": True},
            "HostConfig": {"NanoCpus": 2_000_000_000},
            "NetworkSettings": {"Networks": {"ds01": {"IPAddress": "172.30.0.9"}}},
            "Config": {
                "Labels": self.labels,
                "Env": [
                    f"JUPYTERHUB_SERVICE_URL=http://0.0.0.0:8888/user/{self.user}/{self.name}/",
                    f"JUPYTERHUB_API_TOKEN=of-{self.user}",
                ],
            },
        }


class World:
    """A Hub, an engine, GPUs, a policy and servers, with a clock that nobody waits for."""

    def __init__(self, directory):
        self.directory = directory
        self.records = LifeRecords(directory / "ds01.sqlite")
        self.boxes: list[Box] = []
        self.pending: set[tuple[str, str]] = set()
        self.lifecycle = Lifecycle(grace=timedelta(0))
        self.gpu_percent: dict[str, float] = {}
        self.gpu_weight = 8.0
        self.oom_kills: dict[str, int] = {}
        self.kernels = Kernels()
        #: What fails: a name of a part, or of a part and a user, -> what it raises.
        self.fails: dict[str, BaseException] = {}
        self.asked: list[str] = []
        self.calls: list[str] = []
        self.stops: list[tuple[str, datetime]] = []
        self.messages: list[Message] = []
        self.refuses_stops = False
        self.before: set[str] = set()
        self.now = BEGAN
        self.uses = Uses()
        self.service = self.start()

    def start(self):
        """Start the service, anew."""
        self.before = set()
        return Service(
            self,
            self.engine,
            "mine",
            SimpleNamespace(load=self.load),
            self.rules_of,
            self.ask,
            self.records,
            SimpleNamespace(look=self.sweep),
            self.installed,
            SimpleNamespace(put=self.messages.append),
            MINUTE,
            NOTICE,
            self,
            uses=lambda _: self.uses,
        )

    def fail(self, part, user=""):
        for key in (part, f"{part} {user}"):
            if key in self.fails:
                raise self.fails[key]

    # -- the Hub

    async def servers(self):
        self.fail("hub")
        return [
            HubServer(
                *(box.user, box.name, ("staff",), f"/user/{box.user}/", BEGAN, None),
                is_ready=(box.user, box.name) not in self.pending,
            )
            for box in self.boxes
            if "stranger" not in box.labels
        ]

    async def stop(self, server):
        self.fail("stop", server.user)
        if self.refuses_stops:
            return False
        self.stops.append((server.user, self.now))
        self.boxes = [b for b in self.boxes if (b.user, b.name) != (server.user, server.name)]
        return True

    async def sweep(self, *_):
        return []

    async def installed(self, _inspected):
        return []

    # -- the engine

    async def engine(self, method, *args, **kwargs):
        self.calls.append(method)
        self.fail("engine")
        if method == "containers":
            assert kwargs == {"all": True, "filters": {"label": "ds01.hub=mine"}}
            # More than was asked for: the service is to look itself.
            return [box.listed for box in self.boxes]
        assert method == "inspect_container"
        for box in self.boxes:
            if box.id == args[0]:
                self.fail("inspect", box.user)
                return box.inspected
        raise docker.errors.NotFound("no such container")

    # -- GPUs, policy, notebook servers

    async def load(self):
        self.fail("gpus")
        return GpuLoad(self.gpu_percent, self.gpu_weight)

    def rules_of(self, user, groups):
        # Of nobody, for what no server owns.
        assert groups == (("staff",) if user else ())
        self.fail("policy", user)
        return self.lifecycle

    async def ask(self, server):
        self.asked.append(server.hub.user)
        self.fail("ask", server.hub.user)
        return self.kernels

    # -- meters

    def is_process_of(self, container_id, pid):
        return any(box.id == container_id and box.pid == pid for box in self.boxes)

    def sample(self, watched, gpu_percent, at):
        box = next(box for box in self.boxes if box.id == watched.container_id)
        known = [gpu_percent[uuid] for uuid in watched.gpu_uuids if uuid in gpu_percent]
        if box.id not in self.before:
            self.before.add(box.id)
            return None
        return Sample(at, box.cpu, max(known, default=None), len(known) == len(watched.gpu_uuids))

    def forget_others(self, ids):
        self.before &= ids

    # -- time

    async def _pass(self, minutes):
        for _ in range(minutes):
            self.now += MINUTE
            # As `Service.run` does.
            with suppress(HubSilent, OperationalError, RuntimeError, *service.UNREACHABLE):
                await self.service.look(self.now)
            await self.service.wait()

    def live(self, minutes):
        """Let minutes pass, with a look each."""
        asyncio.run(self._pass(minutes))

    def events(self, kind):
        return [event for event in self.records.events(most=1000) if event.kind == kind]

    def warnings(self, user):
        return [event.at for event in reversed(self.events("warned")) if event.user == user]

    def course(self, user):
        (found,) = self.records.courses(user)
        return found


@pytest.fixture
def world(monkeypatch):
    # Hours of looks, each of which writes.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory) as directory:
        yield from made_world(Path(directory), monkeypatch)


def made_world(directory, monkeypatch):
    made = World(directory)
    # Events are told as of the world's time.
    tell = LifeRecords.tell
    monkeypatch.setattr(
        LifeRecords, "tell", lambda own, event: tell(own, replace(event, at=event.at or made.now))
    )
    yield made


def stopped_at(world, user, within):
    """Return when a server was stopped, which happens."""
    for _ in range(within):
        world.live(1)
        for name, at in world.stops:
            if name == user:
                return at
    raise AssertionError(f"{user} is not stopped within {within} minutes")


# -- as it should be -------------------------------------------------------------------------------


def test_an_idle_server_is_warned_of_twice_and_stopped_with_a_reason(world):
    world.boxes = [Box("ada")]
    reasons = []
    note = world.records.note_stop
    world.records.note_stop = lambda key, words: (reasons.append((key, words)), note(key, words))

    assert stopped_at(world, "ada", 60) == BEGAN + 31 * MINUTE

    assert len(world.warnings("ada")) == 2
    assert world.stops[0][1] - world.warnings("ada")[0] >= NOTICE
    assert reasons == [("ada--0", "after 30 minutes without activity")]
    (event,) = world.events("stopped")
    assert event.why == "Stopped after 30 minutes without activity."
    assert event.by == "ds01-culler"
    assert event.numbers["cpu_percent"] == 0
    world.live(1)
    assert world.records.courses() == []


def test_a_busy_server_is_stopped_at_the_end_of_its_runtime_and_not_before(world):
    world.boxes = [box := Box("ada")]
    box.cpu = 90.0
    world.lifecycle = Lifecycle(max_runtime=timedelta(hours=2))
    assert stopped_at(world, "ada", 150) == BEGAN + timedelta(hours=2)
    assert "longest" in world.events("stopped")[0].why
    assert world.asked == []


def test_a_server_that_computes_again_after_a_warning_is_warned_anew(world):
    world.boxes = [box := Box("ada")]
    world.live(29)
    assert len(world.warnings("ada")) == 2
    box.cpu = 90.0
    world.live(5)
    box.cpu = 0.0
    busy = world.now
    at = stopped_at(world, "ada", 60)
    assert at - busy >= 30 * MINUTE
    assert len(world.warnings("ada")) == 4
    assert at - world.warnings("ada")[2] >= NOTICE


def test_who_asked_to_keep_a_server_is_warned_again_before_that_ends(world):
    world.boxes = [Box("ada")]
    world.live(29)
    assert len(world.warnings("ada")) == 2
    until = world.now + timedelta(hours=1)
    world.records.keep(Kept("ada--0", "ada", "default", ASKED, until, "ada"))
    world.live(5)
    assert world.course("ada").keep_until == until
    at = stopped_at(world, "ada", 80)
    assert at >= until
    assert len(world.warnings("ada")) == 4
    assert NOTICE <= at - world.warnings("ada")[2] <= 2 * NOTICE


def test_a_server_that_an_admin_protects_is_kept_until_that_ends(world):
    world.lifecycle = replace(world.lifecycle, max_runtime=40 * MINUTE)
    world.boxes = [Box("ada"), Box("bob", labels={"ds01.protected": "true"}, number=1)]
    until = world.now + 100 * MINUTE
    world.records.keep(Kept("ada--0", "ada", "default", PROTECTED, until, "admin"))
    world.live(99)
    # A label protects nobody.
    assert [user for user, _ in world.stops] == ["bob"]
    assert (world.course("ada").stop_at, world.warnings("ada")) == (None, [])
    at = stopped_at(world, "ada", 30)
    assert until + NOTICE <= at <= until + NOTICE + 2 * MINUTE


def takes(container=None, workspace=None) -> Uses:
    """Return what a server and its owner's files take, in GiB."""
    uses = Uses()
    if container:
        use = Use(Kind.CONTAINER, "ada--0", "ada", "default", container * GIB, BEGAN)
        uses.containers[use.name] = use
    if workspace:
        uses.users["ada"] = Use(Kind.USER, "ada", "ada", "", workspace * GIB, BEGAN)
    return uses


def test_a_server_that_fills_the_disk_is_warned_and_stopped_however_busy(world):
    world.lifecycle = replace(world.lifecycle, container_bytes=10 * GIB)
    world.boxes = [box := Box("ada")]
    box.cpu = 90.0
    world.uses = takes(container=11)
    world.live(2)
    assert world.course("ada").is_warned
    # In time, and then once more.
    world.uses = takes(container=9)
    world.live(5)
    assert not world.course("ada").is_warned
    world.uses = Uses()
    world.live(15)
    assert world.stops == []
    world.uses = takes(container=12)
    begun = world.now
    assert stopped_at(world, "ada", 20) == begun + NOTICE + MINUTE
    (event,) = world.events("stopped")
    assert event.why.startswith("Stopped because its files outside /workspace")
    assert event.numbers["container_bytes"] == 12 * GIB
    assert len(world.warnings("ada")) == 3


def test_it_is_kept_once_that_a_limit_on_the_disk_is_almost_reached(world):
    world.lifecycle = Lifecycle(workspace_bytes=50 * GIB, container_bytes=10 * GIB)
    world.boxes = [Box("ada"), Box("ada", "other", number=1)]
    for container, workspace in ((9, 45), (9, 46), (1, 1), (1, 47)):
        world.uses = takes(container, workspace)
        world.live(3)
    told = [event.why for event in reversed(world.events("disk"))]
    assert [why.split(". ")[0].split(",")[0] for why in told] == [
        "Files outside /workspace and your home take 9 GiB of 10 GiB",
        "Your files take 45 GiB of 50 GiB",
        "Your files take 47 GiB of 50 GiB",
    ]


def test_files_that_take_too_much_end_a_gpu_and_no_other_server(world):
    world.lifecycle = Lifecycle(idle_timeout=None, workspace_bytes=50 * GIB)
    world.boxes = [Box("ada", gpus="GPU-1"), Box("ada", "cpu", number=1)]
    world.uses = takes(workspace=51)
    assert stopped_at(world, "ada", 90) == BEGAN + timedelta(hours=1) + 2 * MINUTE
    world.live(120)
    assert [box.name for box in world.boxes] == ["cpu"]


def test_a_warning_of_a_full_disk_outlives_a_restart_of_the_service(world):
    world.lifecycle = Lifecycle(idle_timeout=None, container_bytes=10 * GIB)
    world.boxes = [Box("ada")]
    world.uses = takes(container=11)
    world.live(6)
    world.service = world.start()
    world.live(6)
    assert [at for _, at in world.stops] == [BEGAN + NOTICE + 2 * MINUTE]
    assert len(world.warnings("ada")) == 2


def test_the_owner_sees_when_and_why_it_will_be_stopped(world):
    world.boxes = [box := Box("ada")]
    world.live(10)
    course = world.course("ada")
    assert (course.stop_at, course.why) == (BEGAN + 31 * MINUTE, "idle")
    assert not course.is_warned
    world.live(12)
    assert world.course("ada").is_warned
    box.cpu = 50.0
    world.live(3)
    course = world.course("ada")
    assert course.stop_at == world.now + 30 * MINUTE
    assert not course.is_warned
    assert course.cpu_percent == 50


def test_memory_that_ran_out_is_told_once_and_not_what_was_before_the_first_look(world):
    world.boxes = [Box("ada"), Box("bob", number=1)]
    world.oom_kills = {"ada--0": 2, "bob--1": 0}
    world.live(2)
    assert world.records.events() == []
    world.oom_kills["ada--0"] = 5
    world.live(2)
    (told,) = world.records.events()
    assert (told.kind, told.user, told.numbers) == ("out-of-memory", "ada", {"kills": 3})


# -- what owners are told beside the pages ---------------------------------------------------------


def test_an_owner_gets_a_message_for_each_stage_and_for_the_stop(world):
    world.boxes = [Box("ada", "thesis")]
    stop = stopped_at(world, "ada", 60)
    first, second, last = world.messages
    assert (first.kind, first.user, first.project) == ("warned", "ada", "thesis")
    assert (first.reason, first.stop_at, first.at) == ("idle", stop, world.warnings("ada")[0])
    assert "if nothing runs in it" in first.why
    assert (second.kind, second.at) == ("warned", world.warnings("ada")[1])
    assert (last.kind, last.why) == ("stopped", "Stopped after 30 minutes without activity.")
    assert len({first.key, second.key, last.key}) == 3


def test_a_warning_that_is_given_again_after_a_crash_is_the_same_message(world):
    world.boxes = [Box("ada")]
    world.live(20)
    keep = world.records.keep_courses

    def crash(_):
        raise LOCKED

    world.records.keep_courses = crash
    while not world.messages:
        world.live(1)
    world.records.keep_courses = keep
    world.service = world.start()
    while len(world.messages) < 2:
        world.live(1)
    first, again = world.messages
    assert (again.key, again.stop_at) == (first.key, first.stop_at + (again.at - first.at))


def test_a_warning_after_work_or_a_keep_is_another_message(world):
    world.boxes = [box := Box("ada")]
    world.live(29)
    box.cpu = 90.0
    world.live(5)
    box.cpu = 0.0
    world.live(29)
    world.records.keep(
        Kept("ada--0", "ada", "default", ASKED, world.now + timedelta(hours=1), "ada")
    )
    stopped_at(world, "ada", 80)
    kinds = [message.kind for message in world.messages]
    assert kinds == ["warned"] * 6 + ["stopped"]
    assert len({message.key for message in world.messages}) == 7


def test_nobody_gets_a_message_of_a_warning_or_a_stop_that_is_none(world, monkeypatch):
    world.boxes = [Box("ada")]

    def fail(*_):
        raise LOCKED

    monkeypatch.setattr(LifeRecords, "tell", fail)
    world.live(60)
    assert world.messages == []
    monkeypatch.undo()
    world.refuses_stops = True
    world.live(60)
    assert {message.kind for message in world.messages} == {"warned"}


# -- nothing that fails is idleness, or lets a server be stopped -----------------------------------


def unreadable_cpu(world, fails):
    world.boxes[0].cpu = None if fails else 0.0


def silent_driver(world, fails):
    world.gpu_percent = {} if fails else {"GPU-1": 0.0}


def silent_server(world, fails):
    world.kernels = None if fails else Kernels()


def failing(part, error):
    def change(world, fails):
        world.fails = {part: error} if fails else {}

    change.__name__ = f"{part.replace(' ', '_')}_{type(error).__name__}"
    return change


FAILURES = [
    unreadable_cpu,
    silent_driver,
    silent_server,
    failing("gpus", RuntimeError("no library")),
    failing("ask", RuntimeError("odd")),
    failing("hub", HubSilent("down")),
    failing("engine", requests.exceptions.ConnectionError("refused")),
    failing("engine", docker.errors.DockerException("odd")),
    failing("inspect ada", docker.errors.APIError("broken")),
    failing("inspect ada", requests.exceptions.ReadTimeout("slow")),
    failing("policy", Refused("cannot be read", reason="policy")),
    failing("stop", HubSilent("refused")),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_what_fails_stops_no_server_and_when_it_works_again_there_is_notice(world, failure):
    world.boxes = [Box("ada", gpus="GPU-1")]
    silent_driver(world, fails=False)
    world.live(25)
    failure(world, fails=True)
    world.live(60)
    assert world.stops == []
    assert world.records.stop_reason("ada--0") == ""

    failure(world, fails=False)
    at = stopped_at(world, "ada", 60)

    assert at - world.warnings("ada")[0] >= NOTICE


def test_a_server_that_does_not_tell_is_reported_once_and_told_no_time_of_its_stop(world):
    world.boxes = [Box("ada")]
    world.kernels = None
    world.live(100)
    assert len(world.events("silent")) == 1
    course = world.course("ada")
    assert (course.stop_at, course.why) == (None, "")
    world.kernels = Kernels(last_activity=world.now)
    world.live(3)
    world.kernels = None
    world.live(120)
    assert len(world.events("silent")) == 2


def test_a_warning_that_could_not_be_given_is_none(world, monkeypatch):
    world.boxes = [Box("ada")]
    tell = LifeRecords.tell

    def fail(*_):
        raise LOCKED

    monkeypatch.setattr(LifeRecords, "tell", fail)
    world.live(120)
    assert world.stops == []
    monkeypatch.setattr(LifeRecords, "tell", tell)
    mended = world.now
    at = stopped_at(world, "ada", 60)
    assert world.warnings("ada")[0] > mended
    assert at - world.warnings("ada")[0] >= NOTICE


def test_a_reason_that_cannot_be_kept_is_tried_again_with_the_stop(world, monkeypatch):
    world.boxes = [Box("ada")]
    note = world.records.note_stop

    def fail(*_):
        raise LOCKED

    world.records.note_stop = world.records.forget_stop = fail
    world.live(60)
    assert world.stops == []
    world.records.note_stop = note
    stopped_at(world, "ada", 3)


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_a_stop_that_the_hub_does_not_do_is_tried_again_and_its_reason_forgotten(world, how):
    world.boxes = [Box("ada")]
    world.refuses_stops = how == "refuses"
    if how == "is silent":
        world.fails = {"stop ada": HubSilent("overloaded")}
    world.live(40)
    assert world.stops == []
    assert world.events("stopped") == []
    assert world.records.stop_reason("ada--0") == ""
    world.refuses_stops, world.fails = False, {}
    stopped_at(world, "ada", 3)


def test_a_server_that_was_started_anew_since_the_look_is_not_stopped(world):
    world.boxes = [Box("ada")]
    world.live(30)
    ask = world.service._ask

    async def slow(server):
        found = await ask(server)
        # The owner has stopped it meanwhile, and started another one.
        world.boxes = [Box("ada", number=1)]
        return found

    world.service._ask = slow
    world.live(1)
    world.service._ask = ask
    world.live(5)
    assert world.stops == []
    assert world.records.stop_reason("ada--0") == ""


def test_a_machine_whose_weight_is_not_known_takes_no_time_from_anybody(world):
    world.gpu_percent, world.gpu_weight = {"GPU-1": 0.0}, 0.0
    world.boxes = [Box("ada", gpus="GPU-1")]
    assert stopped_at(world, "ada", 60) == BEGAN + 31 * MINUTE


@pytest.mark.parametrize("why", ["held", "refused"])
def test_idle_servers_with_a_gpu_have_less_time_while_many_want_one(world, why):
    world.gpu_percent = {"GPU-1": 0.0}
    world.boxes = [Box("ada", gpus="GPU-1"), Box("bob", number=1)]
    if why == "held":
        world.gpu_weight = 1.0
    for minute in range(20):
        if why == "refused" and minute == 3:
            world.records.tell(Event(NONE_FREE, "cyd", "default", "cyd", "none free"))
        world.live(1)
    assert [user for user, _ in world.stops] == (["ada"] if why == "held" else [])
    assert len(world.warnings("ada")) >= 1
    assert world.warnings("bob") == []


# -- one for all, and all for one ------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        {"inspect bad": docker.errors.APIError("broken")},
        {"inspect bad": requests.exceptions.ReadTimeout("it hangs")},
        {"policy bad": Refused("unknown group", reason="policy")},
        {"policy bad": KeyError("bad")},
        {"ask bad": RuntimeError("odd")},
        {"stop bad": RuntimeError("odd")},
    ],
    ids=str,
)
def test_a_server_that_fails_alone_keeps_no_other_from_being_looked_at(world, error):
    world.boxes = [Box("bad"), Box("ada", number=1), Box("bob", number=2)]
    world.fails = error
    world.live(60)
    assert sorted(user for user, _ in world.stops) == ["ada", "bob"]


@pytest.mark.parametrize(
    "labels",
    [{"ds01.gpu.allocated": "many"}, {"ds01.server": None}, {"ds01.user": "", "ds01.server": ""}],
    ids=str,
)
def test_a_container_with_odd_labels_keeps_no_other_from_being_looked_at(world, labels):
    odd = Box("odd", labels=labels)
    odd.labels = {key: value for key, value in odd.labels.items() if value is not None}
    world.boxes = [odd, Box("ada", number=1)]
    world.live(60)
    assert [user for user, _ in world.stops] == ["ada"]


@pytest.mark.parametrize("odd", ["env", "networks", "port"])
def test_a_container_that_is_inspected_oddly_keeps_no_other_from_being_looked_at(world, odd):
    class Odd(Box):
        @property
        def inspected(self):
            found = super().inspected
            if odd == "env":
                found["Config"]["Env"] = None
            elif odd == "networks":
                found["NetworkSettings"] = None
            else:
                found["Config"]["Env"] = ["JUPYTERHUB_SERVICE_URL=http://x:99999/"]
            return found

    world.boxes = [Odd("odd"), Box("ada", number=1)]
    world.live(60)
    assert [user for user, _ in world.stops] == ["ada"]


def test_an_engine_that_inspects_nothing_ends_the_look(world):
    world.boxes = [Box("ada"), Box("bob", number=1)]
    world.fails = {"inspect": requests.exceptions.ReadTimeout("it hangs")}
    with pytest.raises(requests.exceptions.ReadTimeout):
        asyncio.run(world.service.look(BEGAN))


def test_a_server_that_is_left_out_keeps_what_was_known_of_it(world):
    world.boxes = [Box("ada")]
    world.live(20)
    before = world.course("ada")
    world.fails = {"policy": Refused("cannot be read", reason="policy")}
    world.live(2)
    assert world.course("ada") == before
    world.service = world.start()
    world.fails = {}
    world.live(5)
    assert world.course("ada").memory.busy_until == before.memory.busy_until == BEGAN + MINUTE


def test_all_are_measured_before_one_has_answered_and_few_are_asked_at_once(world):
    world.boxes = [Box(f"user{n}", number=n) for n in range(30)]
    measured = []
    sample = world.sample

    def measure(watched, *args):
        measured.append(watched.container_id)
        return sample(watched, *args)

    world.sample = measure
    world.live(18)
    measured.clear()

    running, most, when_answered = 0, 0, []

    async def slow(_server):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        when_answered.append(len(measured))
        return Kernels()

    world.service._ask = slow
    world.live(1)
    assert when_answered == [30] * 30
    assert 0 < most <= 20


def test_a_look_that_fails_is_followed_by_another(world, caplog):
    looks = []

    async def look(_now):
        looks.append(1)
        if len(looks) > 4:
            raise asyncio.CancelledError
        raise [HubSilent("down"), requests.exceptions.ReadTimeout(), KeyError("odd"), LOCKED][
            len(looks) - 1
        ]

    world.service._cycle = timedelta(0)
    world.service.look = look
    with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
        asyncio.run(world.service.run())
    assert len(looks) == 5
    assert "Nothing is stopped: down" in caplog.text


# -- whose containers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        # Somebody's own container, with labels as ours.
        {"called": "experiment"},
        {"called": "default._.ada-2"},
        # Of a name that fits, for a server that it is not.
        {"called": "other._.ada", "labels": {"ds01.project": "other"}},
        # Another Hub's, whatever the engine lists.
        {"hub": "theirs"},
    ],
    ids=str,
)
def test_no_container_but_the_servers_own_says_that_it_is_idle(world, foreign):
    own, other = Box("ada"), Box("ada", number=1, **foreign)
    own.cpu = 90.0
    other.labels["stranger"] = "yes"
    for boxes in ([own, other], [other, own]):
        world.boxes = boxes
        world.live(60)
    assert world.stops == []
    assert [course.container_id for course in world.records.courses()] == [own.id]


def test_a_container_whose_server_the_hub_does_not_have_is_left_alone(world):
    world.boxes = [orphan := Box("gone")]
    orphan.labels["stranger"] = "yes"
    world.live(120)
    assert world.stops == []
    assert world.records.courses() == []
    assert world.asked == []


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [1, 2])
def test_a_short_restart_keeps_what_was_known_and_needs_a_window_of_its_own(world, away):
    world.boxes = [Box("ada")]
    world.live(30)
    warned = len(world.warnings("ada"))
    assert warned == 2

    world.service = world.start()
    world.now += away * MINUTE
    begun = world.now
    at = stopped_at(world, "ada", 60)

    # One look begins the counters, and three samples are a window.
    assert at == begun + 4 * MINUTE
    assert len(world.warnings("ada")) == warned


def test_a_long_restart_knows_nothing_and_stops_nobody_for_the_time_between(world):
    world.boxes = [Box("ada")]
    world.live(30)
    world.service = world.start()
    world.now += timedelta(hours=5)
    begun = world.now
    at = stopped_at(world, "ada", 60)
    assert at - begun >= 30 * MINUTE
    new = [moment for moment in world.warnings("ada") if moment > begun]
    assert at - new[0] >= NOTICE


def test_a_service_that_is_restarted_again_and_again_stops_nobody(world):
    world.boxes = [Box("ada")]
    world.live(30)
    for _ in range(40):
        world.service = world.start()
        world.live(3)
    assert world.stops == []


def test_the_end_of_the_runtime_after_a_restart_comes_with_a_notice(world):
    world.boxes = [box := Box("ada")]
    box.cpu = 90.0
    world.live(5)
    world.now = BEGAN + timedelta(hours=30)
    world.service = world.start()
    begun = world.now
    at = stopped_at(world, "ada", 30)
    assert at - begun >= NOTICE
    assert at - world.warnings("ada")[0] >= NOTICE


def test_a_hub_that_starts_again_makes_no_server_younger(world):
    world.boxes = [Box("ada")]
    world.live(10)
    # While it looks at its servers, none is ready.
    world.pending = {("ada", "")}
    world.live(2)
    assert world.course("ada").stop_at == BEGAN + 31 * MINUTE
    world.pending = set()
    assert stopped_at(world, "ada", 30) == BEGAN + 31 * MINUTE


def test_a_server_that_comes_or_goes_is_not_looked_at(world):
    world.boxes = [Box("ada")]
    world.pending = {("ada", "")}
    world.live(120)
    assert world.asked == world.stops == world.events("warned") == []


def test_a_container_that_is_started_again_is_looked_at_with_its_new_process(world):
    world.boxes = [box := Box("ada")]
    world.live(5)
    seen = []
    sample = world.sample
    world.sample = lambda watched, *args: (seen.append(watched.pid), sample(watched, *args))[1]
    box.pid = 4711
    world.live(2)
    assert seen == [4711, 4711]
    box.pid = 0
    world.live(1)
    assert seen == [4711, 4711]


# -- many ------------------------------------------------------------------------------------------


def test_a_thousand_servers_are_not_asked_before_it_matters(world):
    world.boxes = [Box(f"user{n}", number=n) for n in range(1000)]
    world.live(2)
    assert world.calls.count("inspect_container") == 1000
    world.calls.clear()
    world.live(5)
    assert world.calls == ["containers"] * 5
    assert world.asked == []
    assert len(world.records.courses()) == 1000


def test_many_stops_are_begun_a_few_at_a_time_and_all_are_done(world):
    world.boxes = [Box(f"user{n}", number=n) for n in range(45)]
    most, running = 0, 0
    stop = world.stop

    async def slow(server):
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await stop(server)

    world.stop = slow
    world.live(31)
    assert 0 < most <= 20
    world.live(4)
    assert len({user for user, _ in world.stops}) == 45
    assert len(world.stops) == 45


def test_a_stop_that_takes_long_is_asked_for_once(world):
    world.boxes = [Box("ada")]
    world.live(30)
    asked = []

    async def scene():
        done = asyncio.Event()

        async def slow(server):
            asked.append(server.user)
            await done.wait()
            return True

        world.stop = slow
        for _ in range(3):
            world.now += MINUTE
            await world.service.look(world.now)
            await asyncio.sleep(0)
        done.set()
        await world.service.wait()

    asyncio.run(scene())
    assert asked == ["ada"]


# -- the address, and what is asked there ----------------------------------------------------------


def asked_server(world, box):
    world.boxes = [box]
    roster = world.service._roster

    async def servers():
        return await roster.servers(*await roster.listed())

    return asyncio.run(servers())[0]


def test_a_server_is_asked_with_its_own_token_at_its_own_address(world, monkeypatch):
    server = asked_server(world, Box("ada", "draft", gpus="GPU-1,MIG-2"))
    assert server.address == "http://172.30.0.9:8888/user/ada/draft/"
    assert server.watched.gpu_uuids == ("GPU-1", "MIG-2")
    assert server.watched.cpus == 2
    assert "of-ada" not in repr(server)
    given = []

    async def ask(url, token):
        given.append((url, token))
        return Kernels()

    monkeypatch.setattr(kernels, "ask", ask)
    monkeypatch.setattr(processes, "executing_in", lambda container_id, pid: BEGAN)
    assert asyncio.run(program.ask(server)) == Kernels(executing_since=BEGAN)
    assert given == [(server.address, "of-ada")]


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd"), KeyError("pids")])
def test_terminals_that_cannot_be_read_are_a_silent_server(world, monkeypatch, error):
    async def ask(_url, _token):
        return Kernels()

    def fail(*_):
        raise error

    monkeypatch.setattr(kernels, "ask", ask)
    monkeypatch.setattr(processes, "executing_in", fail)
    assert asyncio.run(program.ask(asked_server(world, Box("ada")))) is None


def test_the_policy_is_what_is_decided_by():
    lifecycle = Lifecycle(
        max_runtime=timedelta(hours=1),
        idle_timeout=timedelta(hours=2),
        gpu_idle_percent=3,
        cpu_idle_percent=4,
        network_idle_bytes=5,
        idle_checks=6,
        stalled_kernel=timedelta(hours=7),
        grace=timedelta(hours=8),
        high_demand_factor=0.25,
        container_bytes=9,
        workspace_bytes=10,
    )
    rules = rules_from(lifecycle, NOTICE)
    assert (rules.max_runtime, rules.idle_timeout) == (timedelta(hours=1), timedelta(hours=2))
    idle = rules.idle
    assert (idle.gpu_percent, idle.cpu_percent, idle.network_bytes, idle.checks) == (3, 4, 5, 6)
    assert (rules.stalled_after, rules.grace) == (timedelta(hours=7), timedelta(hours=8))
    assert (rules.high_demand_factor, rules.notice) == (0.25, NOTICE)
    assert (rules.container_bytes, rules.workspace_bytes) == (9, 10)
