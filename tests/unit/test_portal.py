"""The portal's values: what is used of which limit, and what is not known."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from ds01_spawner.cgroups.usage import Usage
from ds01_spawner.policy import GIB, Machine, Policy, Share
from ds01_spawner.policy.schema import PolicyFile
from ds01_spawner.portal import answers, app
from ds01_spawner.portal.lately import Lately
from ds01_spawner.portal.limit_models import Limits
from ds01_spawner.portal.look import Overview
from ds01_spawner.portal.people import is_admin
from ds01_spawner.portal.rates import Measured, Rates
from ds01_spawner.portal.standing import Server, standing, total_of
from ds01_spawner.runtime.image.launch import command
from ds01_spawner.storage.records import Kind, Use, Uses
from ds01_spawner.storage.room import Disk

from .pages import Page

POLICY = Policy(
    PolicyFile.model_validate(
        {
            "default_group": "student",
            "groups": {
                "student": {
                    "max_gpu_equivalents": 4,
                    "aggregate": {"cpu_quota": "200%", "memory_max": "8g", "gpu_limit": 1.5},
                }
            },
        }
    )
)
NOTHING = Uses()
SERVER = Server(
    "", "running", "2026-06-01", ("MIG-1", "MIG-2"), "3g.40gb", 6 / 7, 2.0, 4 * GIB, 4096
)


def of(*servers, total=None, enforced="slice", uses=NOTHING):
    resolved = POLICY.resolve("ann", (), datetime(2026, 6, 1, tzinfo=timezone.utc))
    limits = resolved.limits.within(Machine(64, 512 * GIB))
    return standing(Share(resolved, ()), limits, servers, total, enforced, uses)


def as_json(found):
    return Limits.of(found).model_dump(mode="json")


def bars(found):
    return {bar.label: (bar.used, bar.limit, bar.source) for bar in found.bars}


def test_each_bar_names_the_layer_of_the_limit_that_counts():
    found = bars(of(SERVER, total=Measured(1.5, GIB, 30)))

    assert found == {
        "Servers": (1, 3, "built-in default"),
        "GPU": (pytest.approx(6 / 7), 1.5, "group student"),
        "CPU": (1.5, 2.0, "group student"),
        "Memory": (GIB, 8 * GIB, "group student"),
        "Processes and threads": (30, 32768, "built-in default"),
        "Files": (None, None, "built-in default"),
    }


def test_files_are_told_beside_their_limit():
    uses = Uses({"ann": Use(Kind.USER, "ann", "ann", "", GIB, datetime(2026, 6, 1))})
    assert bars(of(SERVER, uses=uses))["Files"] == (GIB, None, "built-in default")
    assert as_json(of(replace(SERVER, disk_bytes=7)))["servers"][0]["disk_bytes"] == 7


def test_where_the_sum_is_counted_at_a_start_what_servers_may_use_counts():
    second = replace(SERVER, name="two", cpus=0.5, memory_bytes=GIB, pids=512)
    found = bars(of(SERVER, second, total=Measured(0.1, GIB // 8, 30), enforced="admission"))

    assert [found[label][0] for label in ("CPU", "Memory", "Processes and threads")] == [
        2.5,
        5 * GIB,
        4608,
    ]


def test_what_cannot_be_read_is_not_known_and_not_zero():
    found = of(SERVER)
    cpu = found.bars[2]

    assert (cpu.used, cpu.used_in_words, cpu.is_full) == (None, "not known", False)
    answer = as_json(found)
    assert answer["servers"][0]["cpus"] == {"limit": 2.0, "used": None}
    assert [limit["used"] for limit in answer["limits"][2:]] == [None] * 4
    assert answer["servers"][0]["disk_bytes"] is None


def test_a_server_that_has_ended_holds_its_gpu_and_is_no_server_any_more():
    found = bars(of(SERVER, replace(SERVER, name="old", state="exited")))
    assert found["Servers"][0] == 1
    assert found["GPU"][0] == pytest.approx(12 / 7)


def test_a_sum_with_an_unknown_part_is_unknown():
    one = Measured(0.5, GIB, 10)
    assert total_of([one, one]) == Measured(1.0, 2 * GIB, 20)
    assert total_of([one, None]) is None
    assert total_of([]) == Measured(0, 0, 0)


def test_devices_share_a_servers_weight_in_the_answer():
    (server,) = as_json(of(SERVER))["servers"]
    assert [gpu["weight"] for gpu in server["gpus"]] == [pytest.approx(3 / 7)] * 2
    assert SERVER.gpus == "2 × 3g.40gb"


def test_only_who_may_list_all_users_is_an_admin():
    assert is_admin({"admin": False, "scopes": ["list:users", "self"]})
    assert not is_admin({"admin": True, "scopes": ["access:services!service=ds01"]})
    assert not is_admin({"scopes": ["list:users!user=ann"]})


def rendered(template, **values):
    page = {"prefix": "/services/ds01/", "hub_url": "/hub/", "viewer": "root", "xsrf": "x"}
    return Page(answers._ENVIRONMENT.get_template(template).render(page, is_admin=True, **values))


def test_an_admin_sees_which_disk_is_full_and_who_fills_it():
    at = datetime(2026, 6, 1, 8, 30)
    largest = (
        Use(Kind.USER, "ann/x", "ann/x", "", 9 * GIB, at, "At least that: not readable."),
        Use(Kind.CONTAINER, "c1", "bob", "thesis", 3 * GIB, at),
    )
    disk = Disk(Path("/srv/ds01"), GIB, 100 * GIB, is_low=True)
    overview = Overview((), (), "slice", (), (), (disk,), largest)

    page = rendered("admin.html", overview=overview)

    assert "/srv/ds01: 1 GiB of 100 GiB free. No server starts until more is" in page.text
    assert "ann/x workspaces and home 9 GiB 01 Jun, 08:30 UTC At least that" in page.text
    assert "bob server thesis 3 GiB" in page.text
    room = replace(overview, disks=(replace(disk, is_low=False),))
    assert "No server starts" not in rendered("admin.html", overview=room).text
    silent = rendered("admin.html", overview=replace(overview, disks=()))
    assert "do not say how much room they have" in silent.text


def test_my_limits_shows_what_files_and_servers_take():
    limits = {"storage_workspace": "10g", "storage_container": "5g"}
    resolved = Policy(PolicyFile.model_validate({"defaults": limits})).resolve(
        "ann", (), datetime(2026, 6, 1, tzinfo=timezone.utc)
    )
    at = datetime(2026, 6, 1, 8, 30, tzinfo=timezone.utc)
    uses = Uses({"ann": Use(Kind.USER, "ann", "ann", "", 11 * GIB, at)})
    server = replace(SERVER, disk_bytes=2 * GIB)
    found = standing(Share(resolved, ()), resolved.limits, (server,), None, "slice", uses)

    text = rendered("limits.html", standing=found, owner="ann", lives={}, mail=None).text

    assert "Files 11 GiB of 10 GiB" in text
    assert "start a server without a GPU to delete some. Measured on 1 June at 08:30 UTC" in text
    assert "2 GiB of 5 GiB" in text


# -- rates ----------------------------------------------------------------------------------------


class Counter:
    """A cgroup that uses half a CPU."""

    def __init__(self):
        self.reads = 0

    def __call__(self):
        self.reads += 1
        return Usage(time.monotonic() / 2, GIB, 7, 0)


async def test_a_rate_is_taken_between_two_readings():
    rates, counter = Rates(), Counter()
    first = (await rates.measure({"a": counter}))["a"]
    assert (first.memory_bytes, first.tasks) == (GIB, 7)
    assert first.cpus == pytest.approx(0.5, rel=0.05)
    assert counter.reads == 2

    second = (await rates.measure({"a": counter}))["a"]
    assert second.cpus == pytest.approx(0.5, rel=0.05)
    # The readings of before are recent enough.
    assert counter.reads == 3


async def test_what_is_gone_or_begins_anew_has_no_rate():
    rates = Rates()
    counts = iter([5.0, 1.0])
    found = await rates.measure(
        {"gone": lambda: None, "anew": lambda: Usage(next(counts), GIB, 7, 0)}
    )
    assert found == {"gone": None, "anew": None}


# -- answers of a moment ago ----------------------------------------------------------------------


async def test_many_who_ask_at_once_get_one_answer():
    asked, lately = [], Lately(60)

    async def ask():
        asked.append(1)
        await asyncio.sleep(0)
        return len(asked)

    assert await asyncio.gather(*(lately.get("a", ask) for _ in range(9))) == [1] * 9
    assert await lately.get("b", ask) == 2


async def test_a_failure_is_told_and_not_kept():
    lately = Lately(60)

    async def fail():
        raise OSError("no")

    async def answer():
        return "yes"

    with pytest.raises(OSError, match="no"):
        await lately.get("a", fail)
    assert await lately.get("a", answer) == "yes"


# -- a Hub that is away ---------------------------------------------------------------------------


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_hub_that_is_away_or_hangs_is_said_to_be_in_words(monkeypatch, hangs):
    monkeypatch.setattr(answers, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hub:
        port = hub.getsockname()[1]
        if not hangs:
            hub.close()
        site = SimpleNamespace(
            prefix="/services/ds01/",
            hub_url="/hub/",
            hub_host="",
            cookie_secret=b"x" * 32,
            auth=HubOAuth(
                api_url=f"http://127.0.0.1:{port}/hub/api",
                api_token="t",
                base_url="/services/ds01/",
                oauth_client_id="service-ds01",
            ),
        )
        (listener,) = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(app.make_app(site, None, None))
        server.add_socket(listener)
        for path in ("api/limits", ""):
            answer = await AsyncHTTPClient().fetch(
                f"http://127.0.0.1:{listener.getsockname()[1]}/services/ds01/{path}",
                headers={"Authorization": "token x"},
                raise_error=False,
            )
            assert answer.code == 503
            assert b"The Hub does not answer." in answer.body
            assert str(port).encode() not in answer.body
        server.stop()


# -- the Hub's own pages --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", "https://hub.example.org"])
async def test_a_page_of_the_hub_on_another_domain_may_ask_and_nobody_elses(host):
    site = SimpleNamespace(
        prefix="/services/ds01/",
        hub_url="/hub/",
        hub_host=host,
        cookie_secret=b"x" * 32,
        auth=HubOAuth(
            api_url="http://127.0.0.1:1/hub/api",
            api_token="t",
            base_url="/services/ds01/",
            oauth_client_id="service-ds01",
        ),
    )
    (listener,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app.make_app(site, None, None))
    server.add_socket(listener)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/services/ds01"

    async def answer(method, path):
        return await AsyncHTTPClient().fetch(f"{address}/{path}", method=method, raise_error=False)

    asked = await answer("OPTIONS", "api/servers/thesis/save")
    refused = await answer("GET", "api/servers/thesis/leaving")
    page = await answer("GET", "static/portal.js")
    server.stop()
    assert (asked.code, refused.code) == (204, 403)
    for each in (asked, refused):
        assert each.headers.get("Access-Control-Allow-Origin", "") == host
        assert "Access-Control-Allow-Credentials" not in each.headers
    assert "Access-Control-Allow-Origin" not in page.headers


# -- the command in a server ----------------------------------------------------------------------


def test_the_command_tells_what_the_portal_answers():
    lines = command.told(as_json(of(SERVER, total=Measured(1.5, GIB, 30))))

    assert lines[0] == "All servers of ann (group student):"
    assert lines[4].split() == ["CPU", "1.5", "2", "group", "student"]
    assert lines[5].split() == ["Memory", "1", "GiB", "8", "GiB", "group", "student"]
    server, empty, life = lines[-3:]
    assert server.split()[:4] == ["default", "3g.40gb,", "3g.40gb", "?"]
    assert empty == ""
    assert life == (
        "A server is stopped after 30 minutes in which nothing runs in it (an open page does not "
        "count), and after 1 day in any case."
    )


class Asked:
    """A portal that notes what it is asked."""

    project = "thesis"

    def __init__(self, **answer):
        self.answer, self.asked = answer, []

    def ask(self, method, path, body=None):
        self.asked.append((method, path, body))
        return self.answer


def keep(monkeypatch, capsys, *arguments, **answer):
    portal = Asked(**answer)
    monkeypatch.setattr(command, "Portal", lambda _: portal)
    assert command.main(["keep", *arguments]) == 0
    return portal.asked, capsys.readouterr().out


def test_the_command_keeps_a_server_and_ends_that(monkeypatch, capsys):
    at = {"keep_until": "2026-06-01T12:00:00Z", "keep_most_until": "2026-06-02T12:00:00Z"}
    asked, said = keep(monkeypatch, capsys, "90m", **at)
    assert asked == [("POST", "api/servers/thesis/keep", {"hours": 1.5})]
    assert "is kept until" in said
    assert "longest" not in said
    _, said = keep(monkeypatch, capsys, "99h", **at | {"keep_most_until": at["keep_until"]})
    assert "That is the longest that it can be kept." in said
    asked, said = keep(monkeypatch, capsys, "--end")
    assert asked == [("DELETE", "api/servers/thesis/keep", None)]
    assert "is kept no longer" in said


def test_the_command_says_when_there_is_no_portal(capsys, monkeypatch):
    monkeypatch.delenv("DS01_URL", raising=False)
    assert command.main(["limits"]) == 1
    assert "knows of no portal" in capsys.readouterr().err

    monkeypatch.setenv("DS01_URL", "http://127.0.0.1:9/services/ds01/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    assert command.main(["limits"]) == 1
    assert "the portal does not answer" in capsys.readouterr().err
