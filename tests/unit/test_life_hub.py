"""What the Hub and notebook servers answer, over real connections, and what is made of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from datetime import datetime, timezone

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from ds01_spawner.lifecycle import hub as hub_module
from ds01_spawner.lifecycle import kernels
from ds01_spawner.lifecycle.history import Kernels
from ds01_spawner.lifecycle.hub import Hub, HubServer, HubSilent

EIGHT = datetime(2026, 6, 1, 8, 0, tzinfo=timezone.utc)


class Peer:
    """A Hub or a server that answers as it is told to, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []
        self.headers = {}

    async def __aenter__(self):
        peer = self

        class Handler(RequestHandler):
            async def any(self):
                request = self.request
                peer.asked.append((request.method, request.uri))
                peer.headers = dict(request.headers)
                status, body = peer.answer(self)
                if asyncio.iscoroutine(body):
                    body = await body
                self.set_status(status)
                if status not in (204, 304):
                    self.finish(body if isinstance(body, str | bytes) else json.dumps(body))

            get = delete = any

        sockets = bind_sockets(0, "127.0.0.1")
        self.server = HTTPServer(Application([(r"/.*", Handler)]))
        self.server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.stop()
        await self.server.close_all_connections()


def ask_hub(answer, call):
    """Return what a call of a `Hub` gives, and its peer."""

    async def scene():
        async with Peer(answer) as peer:
            return await call(Hub(f"{peer.url}/hub/api/", "secret")), peer

    return asyncio.run(scene())


def model(name="", **more):
    known = {
        "name": name,
        "last_activity": "2026-06-01T08:00:00.000000Z",
        "started": "2026-06-01T08:00:00Z",
        "pending": None,
        "ready": True,
        "url": f"/user/ada/{name}",
    }
    return {**known, **more}


def user(name="ada", servers=None, groups=("staff",)):
    servers = [model()] if servers is None else servers
    named = {server["name"]: server for server in servers}
    return {"name": name, "groups": list(groups), "servers": named}


def paged(users):
    """Answer as the Hub does: by pages of what is asked for, or less."""

    def answer(handler, most=150):
        offset, limit = (int(handler.get_argument(name)) for name in ("offset", "limit"))
        limit = min(limit, most)
        following = {"offset": offset + limit} if offset + limit < len(users) else None
        return 200, {"items": users[offset : offset + limit], "_pagination": {"next": following}}

    return answer


def one_page(*users):
    return lambda _: (200, {"items": users, "_pagination": {"next": None}})


def servers_of(answer):
    return ask_hub(answer, lambda hub: hub.servers())[0]


# -- which servers there are -----------------------------------------------------------------------


def test_all_servers_of_many_users_are_found_page_by_page():
    users = [user(f"user-{number}") for number in range(1000)]
    found, peer = ask_hub(paged(users), lambda hub: hub.servers())
    assert [server.user for server in found] == [each["name"] for each in users]
    assert len(peer.asked) == 7
    assert peer.headers["Authorization"] == "token secret"
    assert peer.headers["Accept"] == "application/jupyterhub-pagination+json"


def test_a_server_is_read_as_the_hub_has_it():
    assert servers_of(one_page(user(groups=["b", "a"]))) == [
        HubServer("ada", "", ("b", "a"), "/user/ada/", EIGHT, EIGHT, is_ready=True)
    ]


@pytest.mark.parametrize(
    ("more", "is_ready"),
    [
        ({}, True),
        ({"pending": "stop"}, False),
        ({"pending": "check"}, False),
        ({"pending": "spawn", "ready": False}, False),
        ({"ready": False}, False),
    ],
)
def test_a_server_that_comes_or_goes_is_not_ready(more, is_ready):
    assert [s.is_ready for s in servers_of(one_page(user(servers=[model(**more)])))] == [is_ready]


def test_a_server_that_was_never_started_is_none():
    never = model("draft", started=None)
    assert [s.name for s in servers_of(one_page(user(servers=[model(), never])))] == [""]


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-01T08:00:00Z",
        "2026-06-01T08:00:00.000000Z",
        "2026-06-01T08:00:00+00:00",
        "2026-06-01T10:00:00.000000+02:00",
        # The Hub's own are in UTC.
        "2026-06-01T08:00:00",
    ],
)
def test_times_in_all_their_forms_are_one_moment(text):
    (server,) = servers_of(one_page(user(servers=[model(started=text, last_activity=None)])))
    assert server.started == EIGHT
    assert server.started.tzinfo is not None
    assert server.last_activity is None


def without(key):
    made = user()
    del made[key]
    return made


@pytest.mark.parametrize(
    "answer",
    [
        (200, "no JSON"),
        (200, b"\xff\xfe"),
        (200, "[" * 100_000),
        (200, []),
        (200, {"items": []}),
        (200, None),
        (200, {"items": None, "_pagination": {"next": None}}),
        (200, {"items": [user()], "_pagination": {"next": {"offset": 0}}}),
        (200, {"items": [user()], "_pagination": {"next": {"offset": "x"}}}),
        (200, {"items": ["ada"], "_pagination": {"next": None}}),
        (200, {"items": [without("servers")], "_pagination": {"next": None}}),
        # Nobody's groups are known: they might give a server more time.
        (200, {"items": [without("groups")], "_pagination": {"next": None}}),
        (200, {"items": [user(servers=[model(started="soon")])], "_pagination": {"next": None}}),
        (200, {"items": [user(servers=[{"name": "", "started": 1}])], "_pagination": {"next": 0}}),
        (302, ""),
        (403, {"message": "Forbidden"}),
        (404, {}),
        (500, "oops"),
        (503, "starting"),
    ],
)
def test_a_hub_that_does_not_say_of_all_servers_says_of_none(answer):
    with pytest.raises(HubSilent):
        servers_of(lambda _: answer)


def test_a_second_page_that_fails_is_not_the_end_of_the_list():
    users = [user(f"user-{number}") for number in range(300)]

    def answer(handler):
        return (500, "") if handler.get_argument("offset") != "0" else paged(users)(handler)

    with pytest.raises(HubSilent):
        servers_of(answer)


def test_a_hub_that_is_not_there_or_hangs_is_silent(monkeypatch):
    monkeypatch.setattr(hub_module, "_PATIENCE_S", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Hub(f"http://127.0.0.1:{unused.getsockname()[1]}", "secret")
        with pytest.raises(HubSilent):
            asyncio.run(nobody.servers())
    with pytest.raises(HubSilent):
        servers_of(lambda _: (200, asyncio.sleep(5, "")))


# -- a stop ----------------------------------------------------------------------------------------


def stop(answer, user="ada", name=""):
    server = HubServer(user, name, (), "/", EIGHT, None, is_ready=True)
    return ask_hub(lambda _: answer, lambda hub: hub.stop(server))


@pytest.mark.parametrize(
    ("user", "name", "place"),
    [
        ("ada", "", "users/ada/server"),
        ("ada", "draft", "users/ada/servers/draft"),
        ("a b/c", "", "users/a%20b%2Fc/server"),
        ("../admin", "x", "users/..%2Fadmin/servers/x"),
        ("zoë", "größe", "users/zo%C3%AB/servers/gr%C3%B6%C3%9Fe"),
        ("a?b#c%41", "", "users/a%3Fb%23c%2541/server"),
        ("a@b.org", "", "users/a%40b.org/server"),
    ],
)
def test_the_request_to_stop_names_this_very_server(user, name, place):
    done, peer = stop((202, ""), user, name)
    assert done
    assert peer.asked == [("DELETE", f"/hub/api/{place}")]


@pytest.mark.parametrize(("status", "done"), [(202, True), (204, True), (400, False), (404, False)])
def test_it_is_told_whether_the_hub_stops_a_server(status, done):
    assert stop((status, ""))[0] is done


@pytest.mark.parametrize("status", [302, 403, 409, 424, 500, 503])
def test_a_hub_that_does_not_take_a_stop_has_not_done_it(status):
    with pytest.raises(HubSilent):
        stop((status, ""))


def test_many_stops_at_once_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(hub_module, "_PATIENCE_S", 5.0)
    server = HubServer("ada", "", (), "/", EIGHT, None, is_ready=True)

    async def all_of_them(hub):
        return await asyncio.gather(*(hub.stop(server) for _ in range(30)))

    loop_time = asyncio.run(_timed(all_of_them))
    assert loop_time < 2.5


async def _timed(call):
    loop = asyncio.get_running_loop()
    async with Peer(lambda _: (202, asyncio.sleep(1, ""))) as peer:
        began = loop.time()
        assert all(await call(Hub(f"{peer.url}/hub/api", "secret")))
        return loop.time() - began


# -- kernels ---------------------------------------------------------------------------------------


def kernel(state, at="2026-06-01T08:00:00.000000Z"):
    return {"id": "1", "execution_state": state, "last_activity": at, "connections": 1}


def test_no_kernel_is_no_activity():
    assert kernels.read([]) == Kernels()


@pytest.mark.parametrize(
    "state", ["busy", "restarting", "autorestarting", "unknown", "terminating"]
)
def test_a_kernel_executes_unless_it_says_that_it_waits(state):
    assert kernels.read([kernel(state)]) == Kernels(executing_since=EIGHT)


@pytest.mark.parametrize("state", ["idle", "starting", "dead"])
def test_a_kernel_that_waits_was_active_when_it_says(state):
    assert kernels.read([kernel(state)]) == Kernels(last_activity=EIGHT)


def test_of_several_kernels_the_latest_counts_in_whatever_form_it_tells_the_time():
    found = kernels.read(
        [
            kernel("busy", "2026-06-01T07:00:00.000000Z"),
            kernel("busy", "2026-06-01T10:00:00+02:00"),
            kernel("idle", "2026-06-01T08:00:00"),
            kernel("idle", "2026-06-01T09:30:00.123456+02:00"),
        ]
    )
    assert found == Kernels(executing_since=EIGHT, last_activity=EIGHT)
    assert found.last_activity.tzinfo is not None


ODD = [
    {},
    None,
    "",
    0,
    {"message": "Forbidden"},
    ["busy"],
    [None],
    [{}],
    [{"execution_state": "idle"}],
    [{"last_activity": "2026-06-01T08:00:00Z"}],
    [kernel("idle", None)],
    [kernel("idle", "yesterday")],
    [kernel(["busy"], "0")],
]


@pytest.mark.parametrize("answer", ODD)
def test_an_odd_answer_is_not_taken_for_no_kernels(answer):
    with pytest.raises((ValueError, TypeError, LookupError)):
        kernels.read(answer)


def ask_server(answer):
    async def scene():
        async with Peer(answer) as peer:
            return await kernels.ask(f"{peer.url}/user/ada/", "own"), peer

    return asyncio.run(scene())


def test_a_server_is_asked_with_its_token_and_that_is_no_activity():
    found, peer = ask_server(lambda _: (200, [kernel("idle")]))
    assert found == Kernels(last_activity=EIGHT)
    assert peer.asked == [("GET", "/user/ada/api/kernels?no_track_activity=1")]
    assert peer.headers["Authorization"] == "token own"


@pytest.mark.parametrize(
    "answer",
    [
        *((200, odd) for odd in ODD),
        (200, b"\xff\xfe"),
        (200, "[" * 100_000),
        (200, "[" + " " * 2**21 + "]"),
        (200, gzip.compress(b"[" + b" " * 2**21 + b"]")),
        (204, ""),
        (302, ""),
        (403, []),
        (404, []),
        (500, []),
    ],
)
def test_a_server_that_gives_no_usable_answer_is_silent_and_not_idle(answer):
    assert ask_server(lambda _: answer)[0] is None


def test_a_server_that_hangs_is_silent_and_waited_for_no_longer_than_it_should(monkeypatch):
    monkeypatch.setattr(kernels, "_PATIENCE_S", 0.3)
    assert ask_server(lambda _: (200, asyncio.sleep(3, "[]")))[0] is None


def test_a_redirect_gives_nobody_the_token():
    def answer(handler):
        if "elsewhere" in handler.request.uri:
            return 200, []
        handler.set_header("Location", "/elsewhere")
        return 302, ""

    found, peer = ask_server(answer)
    assert found is None
    assert len(peer.asked) == 1


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "http://127.0.0.1:99999/", "http://[/"])
def test_a_server_without_an_address_is_silent(url):
    assert asyncio.run(kernels.ask(url, "own")) is None
