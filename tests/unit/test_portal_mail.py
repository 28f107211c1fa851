"""The switch for e-mail on My limits and over the API: one's own, and nobody else's."""

from __future__ import annotations

import json
from threading import Lock
from types import SimpleNamespace

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from traitlets.config import Config

from ds01_spawner.portal import app, wishes
from ds01_spawner.portal.people import Person
from ds01_spawner.portal.wishes import Wishes
from ds01_spawner.startup import settings_of

ACCESS = "access:services!service=ds01"
MAIL = {"smtp_host": "mail.uni.example", "mail_address": "{username}@uni.example"}


class People:
    async def find(self, name):
        return Person(name, ())


class Portal:
    """A portal whose Hub knows each token by its user's name."""

    def __init__(self, directory, traits):
        self.settings = settings_of(Config(DS01Spawner={"data_dir": str(directory), **traits}))
        auth = HubOAuth(
            api_url="http://127.0.0.1:9/hub/api",
            api_token="t",
            base_url="/services/ds01/",
            oauth_client_id="service-ds01",
            access_scopes={ACCESS},
        )

        async def get_user(handler, sync=False):
            name = handler.request.headers["Authorization"].removeprefix("token ")
            return {"kind": "user", "name": name, "scopes": [ACCESS, "custom:ds01:images"]}

        auth.get_user = get_user
        site = SimpleNamespace(
            prefix="/services/ds01/",
            hub_url="/hub/",
            hub_host="",
            cookie_secret=b"x" * 32,
            auth=auth,
            settings=self.settings,
        )
        look = SimpleNamespace(wishes=Wishes(self.settings))
        (listener,) = bind_sockets(0, "127.0.0.1")
        self.port = listener.getsockname()[1]
        self.server = HTTPServer(app.make_app(site, People(), look))
        self.server.add_socket(listener)

    async def ask(self, user, method="GET", body=None):
        answer = await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{self.port}/services/ds01/api/mail",
            method=method,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"token {user}"},
            raise_error=False,
        )
        return answer.code, json.loads(answer.body)


@pytest.fixture
def portal(tmp_path):
    made = []

    def make(**traits):
        made.append(Portal(tmp_path, traits))
        return made[-1]

    yield make
    for each in made:
        each.server.stop()


async def test_one_switches_ones_own_e_mail_off_and_on(portal):
    portal = portal(**MAIL)
    here = {"sent_here": True, "address": "ada@uni.example"}
    assert await portal.ask("ada") == (200, {**here, "wanted": True})
    off = (200, {**here, "wanted": False})
    assert await portal.ask("ada", "PUT", {"wanted": False}) == off
    assert await portal.ask("ada") == off
    assert not portal.settings.message_records.wants_mail("ada")
    assert (await portal.ask("bob"))[1]["wanted"]
    assert (await portal.ask("ada", "PUT", {"wanted": True}))[1]["wanted"]


@pytest.mark.parametrize("body", [{}, {"wanted": "no"}, {"wanted": True, "user": "bob"}, []])
async def test_what_makes_no_sense_changes_nothing(portal, body):
    portal = portal(**MAIL)
    portal.settings.message_records.set_wants_mail("ada", False)
    status, said = await portal.ask("ada", "PUT", body)
    assert status == 400, said
    assert not portal.settings.message_records.wants_mail("ada")


async def test_a_site_that_sends_none_says_so(portal):
    portal = portal()
    none = {"sent_here": False, "wanted": False, "address": None}
    assert await portal.ask("ada") == (200, none)
    status, said = await portal.ask("ada", "PUT", {"wanted": True})
    assert (status, said["message"]) == (409, "This site sends no e-mail.")


async def test_an_address_that_is_none_or_cannot_be_found_keeps_nobody_from_the_switch(
    portal, monkeypatch, caplog
):
    monkeypatch.setattr(wishes, "_PATIENCE_S", 0.2)

    def find(name):
        if name == "odd":
            raise LookupError("no directory")
        if name == "slow":
            released.acquire()
        return None

    released = Lock()
    released.acquire()
    made = portal(**{**MAIL, "mail_address": find})
    try:
        for user in ("ada", "odd", "slow"):
            status, said = await made.ask(user, "PUT", {"wanted": False})
            assert (status, said["address"], said["wanted"]) == (200, None, False)
        monkeypatch.setattr(wishes, "_PATIENCE_S", 20)
        found = Wishes(made.settings)
        assert (await found.of("ada")).address == ""
        assert (await found.of("odd")).address is None
    finally:
        released.release()
    assert "no directory" in caplog.text
