"""Idle servers are warned and stopped, busy ones are not: the real service, Hub, JupyterLab."""

from __future__ import annotations

import email
import email.policy
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from ds01_spawner.messages.mail import MailServer
from ds01_spawner.storage.records import StorageRecords
from tests.hub import Hub, Server, User, eventually
from tests.mail_server import Postbox, serving_in_thread

SMALL = {"memory": "1g", "cpus": 0.5}
#: Times that a test can wait for: the policy takes seconds as well as hours.
QUICK = {"idle_timeout_h": "20s", "policies": {"cpu_idle_threshold": 30}}
ROOM = {"idle_timeout_h": None, "storage_workspace": "30m", "storage_container": "30m"}
STALLED = {"policies": {"stalled_kernel_h": "25s"}}
EXEMPT = "- {username: eve, exempt_from: [idle_timeout_h], expires_on: 2999-01-01, reason: test}\n"

TRAINING = """
import signal, time
def save(*_):
    time.sleep(12)
    open("/workspace/checkpoint", "w").write("whole")
    raise SystemExit
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
while True: time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture(scope="module")
def mail_server(postbox) -> Iterator[MailServer]:
    with serving_in_thread(postbox) as server:
        yield server


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory, mail_server) -> Iterator[Hub]:
    deployment = Hub(tmp_path_factory.mktemp("hub"), "culler", portal=True, culler=True)
    deployment.write_policy(
        {
            "defaults": QUICK,
            "policies": {"grace_period_m": "1s"},
            "user_overrides": {"asking": STALLED, "pia": ROOM},
        },
        {"lifecycle-exemptions.yaml": EXEMPT},
    )
    deployment.configure(
        "c.DS01Spawner.cull_every_s = 1\nc.DS01Spawner.stop_notice_s = 5\n"
        f"c.JupyterHub.public_url = '{deployment.url}/'\n"
        f"c.DS01Spawner.smtp_host = '{mail_server.host}'\n"
        f"c.DS01Spawner.smtp_port = {mail_server.port}\n"
        "c.DS01Spawner.smtp_security = 'none'\n"
        "c.DS01Spawner.mail_sender = 'ds01@uni.example'\n"
        "c.DS01Spawner.mail_address = '{username}@uni.example'\n"
    )
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def started(hub: Hub, **work: Callable[[Server], object]) -> list[Server]:
    """Start a server for each name, all at once, and do something in it as soon as it is there."""

    def one(name: str) -> Server:
        server = hub.user(name).start(**SMALL)
        work[name](server)
        return server

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(one, work))


def nothing(server: Server) -> None:
    """Leave a server alone."""


def open_notebook(server: Server) -> None:
    """Install something, write files that would go, and leave the notebook open."""
    user = server.owner
    engine, container = user.hub.docker, user.container()
    assert container is not None
    place = ["install", "-d", "-m", "777", "/opt/x"]
    engine.exec_start(engine.exec_create(container["Id"], place, user="0")["Id"])
    server.run("!pip install --quiet toolz", within_s=120)
    server.run("!echo kept | tee /opt/x/notes /tmp/notes; truncate -s 2G /tmp/large")


def ask(user: User, method: str, path: str, **body: Any) -> requests.Response:
    return requests.request(
        method,
        f"{user.hub.url}/services/ds01/api/{path}",
        headers={"Authorization": f"token {user.token}"},
        json=body or None,
        timeout=60,
    )


def events(user: User) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(user, "GET", "events").json()["events"]
    return found


def letters_to(postbox: Postbox, user: str) -> list[tuple[str, str]]:
    """Return subject and text of what somebody has got."""
    got = [x for x in postbox.letters if x.rcpt_tos == [f"{user}@uni.example"]]
    read = [email.message_from_bytes(x.content, policy=email.policy.default) for x in got]
    return [(letter["Subject"], letter.get_content()) for letter in read]


def test_idle_servers_are_stopped_and_those_at_work_are_not(hub, postbox):
    assert ask(hub.user("asking"), "PUT", "mail", wanted=False).status_code == 200
    idle, asking, *at_work, exempt = started(
        hub,
        open=open_notebook,
        asking=lambda server: server.begin("input()"),
        computing=lambda server: server.begin("while True: pass"),
        sleeping=lambda server: server.begin("import time; time.sleep(600)"),
        loading=lambda server: server.type_in_terminal("sleep 600"),
        eve=nothing,
    )
    begun = time.monotonic()

    eventually(lambda: not idle.owner.is_active(), "the idle one is stopped", 90)
    eventually(lambda: not asking.owner.is_active(), "the one that asks is stopped", 90)
    while time.monotonic() - begun < 45:
        time.sleep(1)
    for server in (*at_work, exempt):
        assert server.owner.is_active(), server.owner.name

    warned, stopped = [
        e for e in reversed(events(idle.owner)) if e["kind"] in ("warned", "stopped")
    ][-2:]
    assert (warned["kind"], stopped["kind"], stopped["by"]) == ("warned", "stopped", "ds01-culler")
    assert "without activity" in stopped["why"]
    assert "cpu_percent" in stopped["numbers"]
    assert "may wait for an input" in events(asking.owner)[0]["why"]
    (first, text), *_, (last, stopped_text) = letters_to(postbox, "open")
    assert "Your server default will be stopped at" in first
    assert f"{hub.url}/hub/home" in text
    assert last == "Your server default was stopped"
    assert "without activity. Packages that you had installed went with it: toolz" in stopped_text
    # Who has switched it off, and who is at work, gets none.
    for server in (asking, *at_work, exempt):
        assert letters_to(postbox, server.owner.name) == []
    page = hub.logged_in("open").get(f"{hub.url}/hub/home").text
    assert "without activity" in page
    assert "Packages that you had installed went with it: toolz." in page
    assert "These could not be kept (too large): /tmp/large (2 GiB)." in page
    workspace = hub.data / "workspaces" / "open" / "default"
    (place,) = (workspace / "rescued").iterdir()
    assert (
        f"Files that you had outside /workspace and your home are in rescued/{place.name}." in page
    )
    files = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
    assert files == ["opt/x/notes", "tmp/notes"]
    for file in (place, place / "opt/x/notes"):
        assert file.stat().st_uid == workspace.stat().st_uid
    assert (place / "opt/x/notes").read_text() == "kept\n"
    assert "Your files in /workspace are safe." in page
    for server in (*at_work, exempt):
        server.owner.stop()


@pytest.mark.long
def test_an_idle_server_can_be_kept_and_is_stopped_when_that_ends(hub):
    (server,) = started(hub, kim=nothing)
    kim = server.owner
    eventually(lambda: events(kim)[0]["kind"] == "warned", "she is warned", 60)
    found = ask(kim, "GET", "servers/default/life").json()
    assert found["is_warned"]
    assert "if nothing runs in it" in found["words"]
    assert found["memory_limit_bytes"] == 1 << 30

    status, said = kim.execute(["/opt/ds01/commands/ds01", "keep", "30m"])
    assert status == 0, said
    assert "is kept until" in said
    time.sleep(15)
    assert kim.is_active()
    assert ask(kim, "GET", "servers/default/life").json()["words"] == ""
    jon = hub.user("jon")
    assert ask(jon, "DELETE", "servers/default/keep").status_code == 404
    assert ask(kim, "DELETE", "servers/default/keep").status_code == 204

    eventually(lambda: not kim.is_active(), "it is stopped", 60)
    kinds = [event["kind"] for event in events(kim)]
    assert kinds[0] == "stopped"
    # Its owner was warned again.
    assert "warned" in kinds[: kinds.index("keep-ended")]


@pytest.mark.long
def test_ds01s_file_keeps_a_server(hub):
    (server,) = started(hub, leo=lambda server: server.run("open('/workspace/.keep-alive', 'w')"))
    time.sleep(40)
    assert server.owner.is_active()
    assert server.owner.execute(["rm", "/workspace/.keep-alive"])[0] == 0
    eventually(lambda: not server.owner.is_active(), "it is stopped", 60)


def test_a_training_has_time_to_write_its_checkpoint(hub):

    def train(server: Server) -> None:
        server.run(f"open('/workspace/train.py', 'w').write({TRAINING!r})")
        server.type_in_terminal("python3 /workspace/train.py > /workspace/log")

    (server,) = started(hub, mia=train)
    folder = hub.data / "workspaces" / "mia" / "default"
    log = folder / "log"
    eventually(lambda: log.exists() and "ready" in log.read_text(), "it trains", 60)

    server.owner.stop()

    assert (folder / "checkpoint").read_text() == "whole"


@pytest.mark.long
def test_who_fills_the_disk_is_stopped_with_the_reason_and_gets_no_gpu(hub):

    def fill(server: Server) -> None:
        server.run(
            "import os\n"
            "for name in ('/var/tmp/big', '/workspace/big'):\n"
            "    open(name, 'wb').write(os.urandom(40 << 20))"
        )

    (server,) = started(hub, pia=fill)
    pia, records = server.owner, StorageRecords(hub.data / "ds01.sqlite")
    # Measured before it was full, perhaps, and anew only after minutes.
    records.forget(use for use in records.all() if use.user == "pia")

    eventually(lambda: not pia.is_active(), "it is stopped", 90)

    stopped, *before = [each for each in events(pia) if each["kind"] != "rescued"]
    assert stopped["kind"] == "stopped"
    assert "files outside /workspace and your home took more than 30 MiB" in stopped["why"]
    assert 40 << 20 < stopped["numbers"]["container_bytes"] < 60 << 20
    assert before[0]["kind"] == "warned"
    page = hub.logged_in("pia").get(f"{hub.url}/hub/home").text
    assert "files outside /workspace and your home took more than 30 MiB" in page
    assert "more than your 30 MiB" in page
    answer = pia.ask(gpu="full", **SMALL)
    assert answer.status_code == 403, answer.text
    assert "start a server without a GPU to delete some" in answer.json()["message"]
    (used,) = [
        limit
        for limit in ask(pia, "GET", "limits").json()["limits"]
        if limit["key"] == "storage_workspace"
    ]
    assert 40 << 20 < used["used"] < 60 << 20
    (hub.data / "workspaces" / "pia" / "default" / "big").unlink()


@pytest.mark.long
def test_a_restarted_service_begins_with_what_it_sees_itself(hub):
    (server,) = started(hub, nia=nothing)
    eventually(lambda: events(server.owner), "she is warned", 60)
    assert hub.culler is not None
    hub.culler.kill()
    hub.culler.wait()
    time.sleep(8)
    again = time.monotonic()
    hub.culler = hub.launch_culler()

    eventually(lambda: not server.owner.is_active(), "it is stopped", 60)
    # Nothing was known of the time between: it counts as work.
    assert time.monotonic() - again > 15


def test_two_services_do_not_run_at_once(hub):
    second = hub.launch_culler()
    assert second.wait(30) == 1
    assert "One runs already" in hub.log.read_text()


@pytest.mark.long
def test_nobody_is_stopped_while_the_hub_is_away(hub):
    (server,) = started(hub, oda=nothing)
    hub.kill()
    time.sleep(30)
    container = server.owner.container()
    assert container is not None
    assert container["State"]["Running"]
    assert "Nothing is stopped" in hub.log.read_text()
    hub.start()
    eventually(lambda: not server.owner.is_active(), "it is stopped", 90)
    assert json.dumps(events(server.owner)).count('"stopped"') == 1
