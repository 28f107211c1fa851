"""What JupyterLab tells of a server's life: in the status bar, and when something happens."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from ds01_spawner import runtime
from ds01_spawner.cgroups.memory import oom_kills
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import Course, LifeRecords
from ds01_spawner.storage.records import Kind, StorageRecords, Use

from ..hub import REPOSITORY, Hub, eventually
from .people import Person

MINUTE = timedelta(minutes=1)
HOG = "hog = []\nwhile True:\n    hog.append(bytearray(10_000_000))"
#: From the kill to the words on the screen.
TOLD_WITHIN_MS = 5000
#: The portal is asked so often; the page asks its server more often.
NEWS_WITHIN_MS = 25_000


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    """Return a running Hub with its portal, and nothing that stops servers."""
    deployment = Hub(tmp_path_factory.mktemp("hub"), "lab", portal=True)
    room = {"storage_workspace": "100m", "storage_container": "100m"}
    deployment.write_policy({"defaults": {"memory": "2g", "memory_swap": "2g", **room}})
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def records(hub):
    """Return what the service that stops servers writes, and the portal reads."""
    return LifeRecords(hub.data / "ds01.sqlite")


@pytest.fixture
def quick_hub(built, tmp_path):
    """Return a running Hub whose service warns after half a minute, and stops after one."""
    deployment = Hub(tmp_path / "hub", "labquick", portal=True, culler=True)
    idle = {"idle_timeout_h": "60s", "policies": {"cpu_idle_threshold": 60}}
    deployment.write_policy({"defaults": idle, "policies": {"grace_period_m": "1s"}})
    deployment.configure("c.DS01Spawner.cull_every_s = 1\nc.DS01Spawner.stop_notice_s = 30\n")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def will_stop(user, now, warnings=1, **more):
    """Return the course of a user's server that is stopped in nine minutes."""
    memory = Memory(now, now - 60 * MINUTE, now - 60 * MINUTE, (now,) * warnings)
    course = Course(
        user.container()["Id"],
        user.name,
        "default",
        memory,
        stop_at=now + 9 * MINUTE,
        why="idle",
        is_warned=True,
    )
    return replace(course, **more)


def open_lab(someone, **options):
    """Start the unnamed server over REST, and open it."""
    user = someone.hub.user(someone.name)
    user.start(image="python", **options)
    someone.go(f"/user/{someone.name}/lab")
    someone.wait_for_lab()
    return user


def item(someone):
    return someone.page.locator("#jp-main-statusbar .ds01-Life")


def notice(someone, words):
    return someone.page.locator(".Toastify__toast").filter(has_text=words)


def stops_at(time):
    """Return how a warning begins, by the browser's clock, which is this machine's."""
    return f"This server stops at {time.astimezone():%H:%M}"


def test_a_student_sees_what_the_server_uses(person):
    ylva = person("ylva")
    outside = []
    ylva.page.on("request", lambda request: outside.append(request.url))
    open_lab(ylva, memory="1g")
    expect(item(ylva)).to_have_text(re.compile(r"^Memory 0\.\d of 1 GiB$"))
    assert all(url.startswith((ylva.hub.url, "data:", "blob:")) for url in outside)


def test_a_disk_that_fills_is_told_until_there_is_room(person, hub):
    yelda = person("yelda")
    user = open_lab(yelda, memory="1g")
    storage, now = StorageRecords(hub.data / "ds01.sqlite"), datetime.now(timezone.utc)
    container = user.container()["Id"]
    used = Use(Kind.CONTAINER, container, "yelda", "default", bytes=90 << 20, at=now)
    storage.keep(used)
    storage.keep(Use(Kind.USER, "yelda", "yelda", bytes=85 << 20, at=now))

    files = notice(yelda, "Your files take 85 MiB of 100 MiB.")
    expect(files).to_be_visible(timeout=NEWS_WITHIN_MS)
    expect(notice(yelda, "90 MiB of 100 MiB. Above that, the server is stopped.")).to_have_count(1)
    files.get_by_role("button", name="Hide notification").click()
    storage.keep(replace(used, bytes=10 << 20))

    expect(notice(yelda, "MiB")).to_have_count(0, timeout=NEWS_WITHIN_MS)


def test_a_warning_is_told_once_and_the_button_keeps_the_server(person, records):
    yara = person("yara")
    user = open_lab(yara, memory="1g")
    expect(item(yara)).to_contain_text("Memory")
    now = datetime.now(timezone.utc)
    records.keep_courses([will_stop(user, now)])

    warning = notice(yara, stops_at(now + 9 * MINUTE) + " if nothing runs in it.")
    expect(warning).to_be_visible(timeout=NEWS_WITHIN_MS)
    expect(item(yara).get_by_role("button")).to_have_text(re.compile("^Stops in [89] min$"))
    # Put away, it does not come back by itself; the item brings it back, also with the keyboard.
    warning.get_by_role("button", name="Hide notification").click()
    expect(warning).to_have_count(0)
    yara.page.wait_for_timeout(7000)
    expect(warning).to_have_count(0)
    item(yara).get_by_role("button").press("Enter")
    expect(notice(yara, "This server stops")).to_be_visible()
    # The second warning takes the first one's place.
    records.keep_courses([will_stop(user, now, warnings=2, stop_at=now + 3 * MINUTE)])
    warning = notice(yara, stops_at(now + 3 * MINUTE))
    expect(warning).to_be_visible(timeout=NEWS_WITHIN_MS)
    expect(notice(yara, "This server stops")).to_have_count(1)

    warning.get_by_role("button", name="Keep it running").press("Enter")

    expect(notice(yara, "This server is kept until")).to_be_visible()
    expect(warning).to_have_count(0)
    expect(item(yara).get_by_role("button")).to_be_hidden()
    until = records.keeps(now)[user.container()["Id"]]
    assert now + timedelta(hours=4) <= until <= now + timedelta(hours=4, minutes=2)


@pytest.mark.long
def test_the_real_service_warns_keeps_and_stops_and_the_home_page_says_why(quick_hub, chromium):
    page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    yola = Person(quick_hub, "yola", page)
    yola.log_in()
    open_lab(yola, memory="1g")
    warning = notice(yola, "This server stops")
    expect(warning).to_be_visible(timeout=90_000)
    warning.get_by_role("button", name="Keep it running").click()
    expect(notice(yola, "This server is kept until")).to_be_visible()
    # Past the time at which it would have been stopped, and past the portal's next answers.
    page.wait_for_timeout(40_000)
    assert quick_hub.user("yola").is_active()
    expect(warning).to_have_count(0)
    expect(item(yola)).to_contain_text("of 1 GiB")
    expect(item(yola).get_by_role("button")).to_be_hidden()

    user = quick_hub.user("yola")
    address = f"{quick_hub.url}/services/ds01/api/servers/default/keep"
    token = {"Authorization": f"token {user.token}"}
    assert requests.delete(address, headers=token, timeout=30).status_code == 204
    eventually(lambda: not user.is_active(), "it is stopped", 120)
    yola.go("/hub/home")
    why = r"Stopped after \d+ minutes? without activity\. Your files in /workspace are safe\."
    expect(yola.row("default")).to_contain_text(re.compile(why))
    page.context.close()


@pytest.mark.long
def test_the_longest_runtime_cannot_be_put_off(person, records):
    yann = person("yann")
    user = open_lab(yann, memory="1g")
    now = datetime.now(timezone.utc)
    course = will_stop(user, now, why="runtime")
    records.keep_courses([replace(course, memory=replace(course.memory, warned_runtime=(now,)))])
    warning = notice(yann, "then it has run as long as a server may")
    expect(warning).to_be_visible(timeout=NEWS_WITHIN_MS)
    expect(warning.get_by_role("button", name="Keep it running")).to_have_count(0)


def test_memory_that_ran_out_is_told_within_seconds_and_once(person):
    yusuf = person("yusuf")
    user = open_lab(yusuf, memory="512m")
    yusuf.open_notebook()
    expect(item(yusuf)).to_contain_text("of 0.5 GiB")
    pid = user.container()["State"]["Pid"]
    yusuf.page.locator(".jp-Notebook .cm-content").last.click()
    yusuf.page.keyboard.insert_text(HOG)
    yusuf.page.keyboard.press("Shift+Enter")
    eventually(lambda: oom_kills(pid), "the system ends the kernel")
    killed = time.monotonic()

    words = notice(yusuf, "Memory ran out (limit 0.5 GiB).")
    expect(words).to_be_visible(timeout=TOLD_WITHIN_MS)
    print(f"told {time.monotonic() - killed:.1f} s after the kill")
    expect(words).to_contain_text("Your files are safe.")
    expect(words).to_contain_text("start the server with more memory.")
    # The server lives on, and nobody hears of the same again.
    yusuf.page.reload()
    expect(item(yusuf)).to_contain_text("of 0.5 GiB", timeout=60_000)
    yusuf.page.wait_for_timeout(4000)
    expect(notice(yusuf, "Memory ran out")).to_have_count(0)


@pytest.mark.long
def test_the_item_lives_through_a_restart_of_its_server(person):
    yoko = person("yoko")
    user = open_lab(yoko, memory="1g")
    expect(item(yoko)).to_contain_text("of 1 GiB")
    user.stop()
    expect(item(yoko)).not_to_contain_text("Memory", timeout=10_000)
    user.start(image="python", memory="2g")
    # Its cookie is the old server's, until the page is loaded anew.
    yoko.page.goto(f"{yoko.hub.url}/user/yoko/lab")
    expect(item(yoko)).to_contain_text("of 2 GiB", timeout=60_000)


def test_a_page_that_is_only_open_is_no_work_and_strangers_learn_nothing(hub):
    server = hub.user("yves").start(image="python", memory="1g")
    before = server.request("GET", "api/status").json()["last_activity"]
    for _ in range(3):
        told = server.request("GET", "ds01/life")
        assert told.status_code == 200, told.text
    assert told.json()["portal"], told.text
    assert told.json()["memory_limit_bytes"] == 1 << 30
    assert server.request("GET", "api/status").json()["last_activity"] == before
    assert server.request("POST", "ds01/keep", json={}).status_code == 400

    stranger = replace(server, owner=replace(hub.user("yeter"), name="yves"))
    for method, path in (("GET", "ds01/life"), ("POST", "ds01/keep")):
        assert stranger.request(method, path, json={"hours": 1}).status_code == 403


@pytest.mark.long
def test_the_same_source_gives_the_same_files(tmp_path):
    subprocess.run([REPOSITORY / "scripts/build_labextension.sh", tmp_path / "built"], check=True)
    assert contents(tmp_path / "built") == contents(runtime.CONTEXT / "labextension")


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
