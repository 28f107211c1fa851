"""What a server tells the page in JupyterLab of its own life, with and without the portal."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ds01_spawner.runtime.image.launch import memory
from ds01_spawner.runtime.image.launch.ask import Portal
from ds01_spawner.runtime.image.launch.life import Life
from ds01_spawner.runtime.image.launch.memory import Watch

MIB = 1 << 20
SAID = {
    "project": "thesis",
    "stop_at": "2026-06-01T12:00:00Z",
    "why": "idle",
    "is_warned": True,
    "words": "It will be stopped in 9 minutes if nothing runs in it.",
    "because": " if nothing runs in it.",
    "warnings": 1,
    "keep_until": None,
    "keep_most_until": "2026-06-02T12:00:00Z",
    "cpu_percent": 0.1,
    "gpu_percent": 35.0,
    "memory_limit_bytes": 300 * MIB,
    "memory_used_bytes": 1,
    "memory_kills": 7,
    "disk": {"workspace": "Your files take 9 GiB of 10 GiB."},
}


class StandIn:
    """A portal: answers what it is told to, and notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.answers = {"GET": (200, SAID), "POST": (200, {**SAID, "is_warned": False})}
        self.may_answer = threading.Event()
        self.may_answer.set()


@pytest.fixture
def portal():
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers["Authorization"]
            stand_in.asked.append((self.command, self.path, token, json.loads(body or "null")))
            if self.command == "GET":
                stand_in.may_answer.wait(20)
            status, content = stand_in.answers[self.command]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        stand_in.url = f"http://127.0.0.1:{server.server_port}/services/ds01/"
        yield stand_in
        stand_in.may_answer.set()
        server.shutdown()
        thread.join()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def cgroup_v2(root, kills=0, hits=0, limit=300 * MIB):
    write(
        root,
        current=f"{100 * MIB}\n",
        max=f"{limit}\n",
        stat=f"anon {60 * MIB}\ninactive_file {40 * MIB}\n",
        events=f"low 0\nhigh 0\nmax {hits}\noom {hits}\noom_kill {kills}\n",
    )


def cgroup_v1(root, kills=0, hits=0, limit=300 * MIB):
    write(
        root / "memory",
        usage_in_bytes=f"{100 * MIB}\n",
        max_usage_in_bytes=f"{(300 if hits else 299) * MIB - (4096 if hits else 1)}\n",
        limit_in_bytes=f"{limit}\n",
        stat=f"cache {50 * MIB}\ntotal_inactive_file {40 * MIB}\n",
        oom_control=f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n",
    )


def life_of(portal_url, root, every_s=15.0):
    environment = {
        "DS01_URL": portal_url,
        "JUPYTERHUB_API_TOKEN": "secret",
        "DS01_PROJECT": "thesis",
    }
    return Life(Portal(environment), Watch(root), every_s)


@contextmanager
def within(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("write_cgroup", [cgroup_v1, cgroup_v2])
def test_memory_is_read_from_the_containers_own_cgroup(tmp_path, write_cgroup):
    write_cgroup(tmp_path, kills=2, hits=2)
    assert memory.look(tmp_path) == memory.Memory(60 * MIB, 300 * MIB, kills=2, hits=2)


@pytest.mark.parametrize(
    ("write_cgroup", "limit"), [(cgroup_v1, 9223372036854771712), (cgroup_v2, "max")]
)
def test_no_limit_is_none(tmp_path, write_cgroup, limit):
    write_cgroup(tmp_path, limit=limit)
    assert memory.look(tmp_path).limit_bytes is None


def test_a_kernel_that_does_not_say_is_no_memory(tmp_path):
    assert memory.look(tmp_path) is None
    assert Watch(tmp_path).look() is None


@pytest.mark.parametrize("write_cgroup", [cgroup_v1, cgroup_v2])
@pytest.mark.parametrize("is_shared", [True, False])
def test_it_is_known_whose_limit_ended_a_program(tmp_path, write_cgroup, is_shared):
    write_cgroup(tmp_path)
    watch = Watch(tmp_path)
    assert not watch.is_shared
    write_cgroup(tmp_path, kills=1, hits=0 if is_shared else 1)
    for _ in range(2):
        watch.look()
        assert watch.is_shared is is_shared


def test_of_two_kills_the_last_one_counts(tmp_path):
    cgroup_v2(tmp_path)
    watch = Watch(tmp_path)
    for kills, hits, is_shared in ((1, 1, False), (2, 1, True), (3, 2, False)):
        cgroup_v2(tmp_path, kills, hits)
        watch.look()
        assert watch.is_shared is is_shared


async def test_the_portals_answer_comes_with_what_is_read_here(portal, tmp_path):
    cgroup_v2(tmp_path, kills=3)
    told = await life_of(portal.url, tmp_path).now()
    own = {
        "memory_used_bytes": 60 * MIB,
        "memory_limit_bytes": 300 * MIB,
        "memory_kills": 3,
        "is_memory_shared": False,
        "portal": True,
    }
    assert {**told, "server": "", "now": ""} == {**SAID, **own, "server": "", "now": ""}
    assert portal.asked == [("GET", "/services/ds01/api/servers/thesis/life", "token secret", None)]


async def test_what_cannot_be_read_here_comes_from_the_portal(portal, tmp_path):
    told = await life_of(portal.url, tmp_path).now()
    assert told["memory_kills"] == 7
    assert told["memory_used_bytes"] == 1
    cgroup_v2(tmp_path, limit="max")
    told = await life_of(portal.url, tmp_path).now()
    assert told["memory_limit_bytes"] == 300 * MIB


async def test_many_pages_ask_the_portal_once_and_see_the_memory_of_now(portal, tmp_path):
    cgroup_v2(tmp_path)
    life = life_of(portal.url, tmp_path)
    told = await asyncio.gather(*(life.now() for _ in range(20)))
    cgroup_v2(tmp_path, kills=1)
    assert (await life.now())["memory_kills"] == 1
    assert len(portal.asked) == 1
    assert all(one["portal"] for one in told)


async def test_the_portal_is_asked_again_after_a_while(portal, tmp_path):
    life = life_of(portal.url, tmp_path, every_s=0.05)
    await life.now()
    portal.answers["GET"] = (200, {**SAID, "is_warned": False})
    await asyncio.sleep(0.06)
    assert not (await life.now())["is_warned"]


async def test_without_a_portal_a_server_tells_of_itself(portal, tmp_path):
    cgroup_v2(tmp_path, kills=1)
    portal.answers["GET"] = (404, {"message": "There is no such server."})
    for url in ("", "http://127.0.0.1:9/services/ds01/", portal.url):
        told = await life_of(url, tmp_path).now()
        assert told["portal"] is False
        assert told["project"] == "thesis"
        assert (told["memory_kills"], told["stop_at"], told["is_warned"]) == (1, None, False)


async def test_a_portal_that_hangs_holds_no_page_up_and_is_heard_later(portal, tmp_path):
    cgroup_v2(tmp_path)
    portal.may_answer.clear()
    life = life_of(portal.url, tmp_path)
    with within(5):
        told = await asyncio.gather(life.now(), life.now())
    assert [one["portal"] for one in told] == [False, False]
    portal.may_answer.set()
    assert (await life.now())["portal"]
    assert len(portal.asked) == 1


async def test_a_restarted_server_is_another(portal, tmp_path):
    first, again = (life_of(portal.url, tmp_path) for _ in range(2))
    told = [(await life.now())["server"] for life in (first, first, again)]
    assert told[0] == told[1] != told[2]


async def test_keeping_passes_the_hours_on_and_is_seen_at_once(portal, tmp_path):
    life = life_of(portal.url, tmp_path)
    assert (await life.now())["is_warned"]
    status, told = await life.keep({"hours": 1.5})
    assert (status, told["is_warned"]) == (200, False)
    path = "/services/ds01/api/servers/thesis/keep"
    assert portal.asked[-1] == ("POST", path, "token secret", {"hours": 1.5})
    assert not (await life.now())["is_warned"]


async def test_an_answer_from_before_a_keep_does_not_come_after_it(portal, tmp_path):
    portal.may_answer.clear()
    life = life_of(portal.url, tmp_path)
    before = asyncio.create_task(life.now())
    while not portal.asked:
        await asyncio.sleep(0.01)
    assert (await life.keep({"hours": 1}))[0] == 200
    portal.may_answer.set()
    assert not (await before)["is_warned"]
    assert not (await life.now())["is_warned"]


async def test_why_it_cannot_be_kept_is_passed_on(portal, tmp_path):
    portal.answers["POST"] = (409, {"status": 409, "message": "It has been idle for 24 hours."})
    answer = await life_of(portal.url, tmp_path).keep({"hours": 4})
    assert answer == (409, {"status": 409, "message": "It has been idle for 24 hours."})


async def test_a_portal_that_is_away_is_said_and_does_not_look_like_a_lost_server(tmp_path):
    status, answer = await life_of("http://127.0.0.1:9/", tmp_path).keep({"hours": 4})
    assert status == 502
    assert answer["message"].startswith("The portal does not answer")


@pytest.mark.parametrize("body", [None, [], {}, {"hours": "4"}, {"hours": True}])
async def test_no_hours_are_asked_of_nobody(portal, tmp_path, body):
    status, _ = await life_of(portal.url, tmp_path).keep(body)
    assert (status, portal.asked) == (400, [])
