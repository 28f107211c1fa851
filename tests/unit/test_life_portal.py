"""The portal's pages and answers on servers' lives: what admins may do, and nobody else."""

from __future__ import annotations

import html
import json
import re
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from urllib.parse import urlencode

import docker.errors
import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle.events import Event
from ds01_spawner.lifecycle.keeping import Keeping
from ds01_spawner.lifecycle.leaving import Files, Rescued
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import ASKED, PROTECTED, Course, Kept, LifeRecords
from ds01_spawner.policy import Lifecycle
from ds01_spawner.portal import app
from ds01_spawner.portal.look import Overview
from ds01_spawner.portal.people import Person
from ds01_spawner.storage.records import Kind, StorageRecords, Use

NOW = datetime.now(timezone.utc)
HOUR = timedelta(hours=1)
USER = ["access:services!service=ds01", "custom:ds01:images"]
ADMIN = [*USER, "list:users"]
#: Of an admin's token that only looks.
LOOKS = [USER[0], "custom:ds01:images:read", "list:users"]


class HubAuth(HubOAuth):
    """A Hub that knows whoever names themselves."""

    async def get_user(self, handler, *, sync=True):
        name = handler.request.headers["Authorization"].partition(" ")[2]
        scopes = ADMIN if name == "root" else LOOKS if name.startswith("looks-") else USER
        name = name.removeprefix("looks-")
        return {"name": name, "kind": "user", "scopes": scopes}

    def check_xsrf_cookie(self, handler):
        pass

    def get_xsrf_token(self, *_):
        return b"x"


class Portal:
    """The portal of a Hub with one running server, alice's ``vision``."""

    prefix, hub_url, cookie_secret = "/services/ds01/", "/hub/", b"x" * 32
    hub_host = ""

    def __init__(self, records, storage):
        self.records = records
        self.lifecycle, self.rescued = Lifecycle(), Rescued("rescued/now", 1, 5, Files())
        self.settings = SimpleNamespace(
            life_records=records, storage_records=storage, share_of=self.share_of
        )
        self.leavings = self
        self.keeping = Keeping(self.engine, "hub", records, storage)
        self.auth = HubAuth(
            api_url="http://127.0.0.1:9/hub/api",
            api_token="t",
            base_url=self.prefix,
            oauth_client_id="service-ds01",
            access_scopes={USER[0]},
        )

    def share_of(self, _name, _groups):
        limits = SimpleNamespace(lifecycle=self.lifecycle)
        return SimpleNamespace(resolved=SimpleNamespace(limits=limits))

    async def keep(self, user, project, most_bytes, _now):
        assert (user, project) == ("alice", "vision")
        self.most_bytes = most_bytes
        if isinstance(self.rescued, Exception):
            raise self.rescued
        return self.rescued

    async def engine(self, method, name):
        assert method == "inspect_container"
        if name != "vision._.alice":
            raise docker.errors.NotFound("no")
        labels = {"ds01.user": "alice", "ds01.hub": "hub"}
        return {"Id": "c1", "Config": {"Labels": labels}, "State": {"Running": True, "Pid": 0}}

    async def find(self, name):
        return Person(name, ())

    async def kept(self):
        return self.keeping.all_kept({"c1"}, NOW)

    async def overview(self):
        return Overview((), (), "slice", (), tuple(await self.kept()), (), ())

    @asynccontextmanager
    async def serving(self):
        (listener,) = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(app.make_app(self, self, self))
        server.add_socket(listener)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}{self.prefix}"
        yield self
        server.stop()

    async def ask(self, who, method, path, body=None):
        return await AsyncHTTPClient().fetch(
            self.url + path,
            method=method,
            headers={"Authorization": f"token {who}"},
            body=body,
            raise_error=False,
            follow_redirects=False,
            allow_nonstandard_methods=True,
        )


@pytest.fixture
async def portal(tmp_path):
    path = tmp_path / "db"
    async with Portal(LifeRecords(path), StorageRecords(path)).serving() as portal:
        yield portal


async def test_an_admin_sees_what_is_kept_and_ends_it(portal):
    records = portal.records
    records.keep(Kept("c1", "alice", "vision", ASKED, NOW + HOUR, "alice", NOW))
    answer = await portal.ask("root", "GET", "api/kept")
    (kept,) = json.loads(answer.body)["servers"]
    assert (kept["user"], kept["project"], kept["kind"]) == ("alice", "vision", "asked")
    assert datetime.fromisoformat(kept["until"].replace("Z", "+00:00")) == NOW + HOUR
    assert kept["by"] == "alice"

    for _ in range(2):
        answer = await portal.ask("root", "DELETE", "api/users/alice/servers/vision/keep")
    assert (answer.code, records.kept(NOW)) == (404, [])
    assert (records.events("alice")[0].kind, records.events("alice")[0].by) == (
        "keep-ended",
        "root",
    )


async def test_an_admin_protects_a_server_until_a_time_or_until_that_is_ended(portal):
    path = "api/users/alice/servers/vision/protection"
    answer = await portal.ask("root", "POST", path, json.dumps({"hours": 48}))
    assert answer.code == 204, answer.body
    assert portal.records.keeps(NOW, PROTECTED)["c1"] - NOW > 47 * HOUR
    assert (await portal.ask("root", "DELETE", path)).code == 204
    assert portal.records.kept(NOW) == []
    for body in ({}, {"hours": -1}, {"hours": 1e9}, {"days": 1}):
        assert (await portal.ask("root", "POST", path, json.dumps(body))).code == 400
    missing = path.replace("vision", "other")
    assert (await portal.ask("root", "POST", missing, json.dumps({"hours": 1}))).code == 404


async def test_the_admins_page_lists_ends_and_protects(portal):
    records = portal.records
    records.keep(Kept("c1", "alice", "vision", ASKED, NOW + HOUR, "alice"))
    page = (await portal.ask("root", "GET", "admin")).body.decode()
    assert "End it for alice / vision" in page
    assert "kept by alice" in page

    which = {"user": "alice", "project": "vision"}
    done = await portal.ask("root", "POST", "kept/end", urlencode({**which, "kind": ASKED}))
    assert (done.code, records.kept(NOW)) == (303, [])
    assert "No server is kept now." in (await portal.ask("root", "GET", "admin")).body.decode()

    done = await portal.ask("root", "POST", "protect", urlencode({**which, "days": 7}))
    assert (done.code, [kept.kind for kept in records.kept(NOW)]) == (303, [PROTECTED])
    for days in ("0", "366", "-1", "x", "", "1.5", "9" * 5000, "00011000", "0001" + "9" * 9):
        bad = await portal.ask("root", "POST", "protect", urlencode({**which, "days": days}))
        assert bad.code == 400
        assert "1 to 365 days" in bad.body.decode()


async def test_an_owner_ends_that_a_server_is_kept(portal):
    records = portal.records
    records.keep(Kept("c1", "alice", "vision", ASKED, NOW + HOUR, "alice"))
    answer = await portal.ask("alice", "POST", "servers/vision/keep/end", urlencode({}))
    assert (answer.code, records.kept(NOW)) == (303, [])
    # Nothing is kept any more, and an admin's protection is not its owner's to end.
    records.keep(Kept("c1", "alice", "vision", PROTECTED, NOW + HOUR, "root"))
    answer = await portal.ask("alice", "POST", "servers/vision/keep/end", urlencode({}))
    assert (answer.code, len(records.kept(NOW))) == (404, 1)


async def test_files_are_kept_as_far_as_there_is_room_and_that_is_told(portal):
    storage = portal.settings.storage_records
    portal.lifecycle = Lifecycle(rescue_bytes=100, workspace_bytes=1000)
    storage.keep(Use(Kind.USER, "alice", "alice", bytes=970, at=NOW))
    answer = await portal.ask("alice", "POST", "api/servers/vision/rescue", "{}")
    assert (answer.code, json.loads(answer.body)["place"]) == (200, "rescued/now")
    assert portal.most_bytes == 30
    (event,) = portal.records.events("alice")
    assert (event.kind, event.by) == ("rescued", "alice")
    assert "are in rescued/now" in event.why
    # It counts from now on, also if only some of it was kept.
    assert [use.is_wanted for use in storage.all()] == [True]
    storage.keep(Use(Kind.USER, "alice", "alice", bytes=970, at=NOW))
    portal.rescued = Refused("it takes too long", reason="rescue", status_code=503)
    assert (await portal.ask("alice", "POST", "api/servers/vision/rescue", "{}")).code == 503
    assert [use.is_wanted for use in storage.all()] == [True]

    storage.keep(Use(Kind.USER, "alice", "alice", bytes=2000, at=NOW))
    answer = await portal.ask("alice", "POST", "api/servers/vision/rescue", "{}")
    assert answer.code == 409
    assert "Delete some of them first." in answer.body.decode()


async def test_a_file_that_keeps_a_server_has_no_button(portal):
    memory = Memory(NOW, NOW, NOW)
    portal.records.keep_courses([Course("c1", "alice", "vision", memory, keep_until=NOW + HOUR)])
    page = (await portal.ask("root", "GET", "admin")).body.decode()
    assert "<code>.keep-alive</code>" in page
    assert "until its owner removes the file" in page
    assert "kept/end" not in page


def tell(portal, *whose, kind="warned"):
    for number, user in enumerate(whose):
        why = f"number {number} of {user}"
        portal.records.tell(Event(kind, user, "vision", "ds01-culler", why))


async def page_of_events(portal, who, path):
    answer = await portal.ask(who, "GET", path)
    assert answer.code == 200, answer.body
    page = html.unescape(answer.body.decode())
    older = re.search(r'href="[^"]*/(events[^"]*)">Older', page)
    return re.findall(r"number (\d+) of (\w+)", page), older[1] if older else ""


async def test_everybody_reads_their_own_events_in_pages(portal):
    tell(portal, *["alice"] * 230, "bob")
    path, seen = "events", []
    while path:
        found, path = await page_of_events(portal, "alice", path)
        assert len(found) <= 100
        seen += found
    assert seen == [(str(number), "alice") for number in reversed(range(230))]
    # What only admins may ask for changes nothing.
    found, older = await page_of_events(portal, "bob", "events?all=yes&user=alice&kind=warned")
    assert (found, older) == ([("230", "bob")], "")
    for before in ("x", "-1", "9" * 30, "1.5"):
        assert (await portal.ask("bob", "GET", f"events?before={before}")).code == 400


async def test_an_admin_chooses_whose_events_and_which(portal):
    tell(portal, *["alice"] * 120, *["bob"] * 3)
    tell(portal, "bob", kind="stopped")
    found, older = await page_of_events(portal, "root", "events?all=yes")
    assert (len(found), found[0]) == (100, ("0", "bob"))
    found, older = await page_of_events(portal, "root", "events?all=yes&user=bob&kind=warned")
    assert [user for _, user in found] == ["bob"] * 3
    found, older = await page_of_events(portal, "root", "events?all=yes&user=alice&kind=")
    found, older = await page_of_events(portal, "root", older)
    assert (len(found), {user for _, user in found}, older) == (20, {"alice"}, "")
    page = (await portal.ask("root", "GET", "events?all=yes&user=cyd")).body.decode()
    assert "Nothing like that." in page
    assert "<option>stopped</option>" in page


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api/kept"),
        ("GET", "admin"),
        ("DELETE", "api/users/alice/servers/vision/keep"),
        ("POST", "api/users/alice/servers/vision/protection"),
        ("DELETE", "api/users/alice/servers/vision/protection"),
        ("POST", "kept/end"),
        ("POST", "protect"),
    ],
)
async def test_nobody_but_an_admin_sees_or_changes_what_others_keep(portal, method, path):
    portal.records.keep(Kept("c1", "alice", "vision", ASKED, NOW + HOUR, "alice"))
    before = portal.records.kept(NOW)
    for who in ("alice", "bob"):
        answer = await portal.ask(who, method, path, "{}" if method == "POST" else None)
        assert answer.code == 403
        assert "vision" not in answer.body.decode()
    assert portal.records.kept(NOW) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "api/servers/vision/keep"),
        ("DELETE", "api/servers/vision/keep"),
        ("POST", "api/servers/vision/rescue"),
        ("PUT", "api/mail"),
        ("DELETE", "api/users/alice/servers/vision/keep"),
        ("POST", "api/users/alice/servers/vision/protection"),
        ("DELETE", "api/users/alice/servers/vision/protection"),
        ("POST", "servers/vision/keep"),
        ("POST", "mail"),
        ("POST", "kept/end"),
        ("POST", "protect"),
    ],
)
async def test_a_token_that_only_looks_changes_nothing(portal, method, path):
    body = "{}" if method in ("POST", "PUT") else None
    answer = await portal.ask("looks-alice", method, path, body)
    assert answer.code == 403
    assert "needs the scope custom:ds01:images." in answer.body.decode()
    assert (await portal.ask("looks-alice", "GET", "api/events")).code == 200
