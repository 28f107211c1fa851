"""What the Hub's pages tell of a user's projects, rendered as the Hub renders them.

Files, accounts and the store are real; only the Hub's user and servers are stand-ins.
"""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from sqlalchemy import event

from ds01_spawner import pages
from ds01_spawner.accounts import OwnAccounts
from ds01_spawner.endings import Cause, Ending
from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import Course, LifeRecords
from ds01_spawner.pages import PageInfo, template_path
from ds01_spawner.policy import GIB, Lifecycle
from ds01_spawner.storage.records import Kind, StorageRecords, Use
from ds01_spawner.store import Store
from ds01_spawner.workspaces import Workspaces

from .pages import Page

HOSTILE = "<script>alert(1)</script>"
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@dataclass
class Server:
    """A server as templates see it, a Hub's `Spawner` or the row of one."""

    name: str
    user_options: dict[str, Any] = field(default_factory=dict)
    last_activity: datetime | None = None
    pending: str | None = None
    ready: bool = False
    kills: int = 0

    @property
    def active(self):
        return bool(self.pending or self.ready)

    def memory_kills(self):
        return self.kills


class Someone:
    """A user of the Hub with real files."""

    name = escaped_name = json_escaped_name = "alice"

    def __init__(self, data: Path) -> None:
        self.store = Store(data / "ds01.sqlite")
        self.life_records = LifeRecords(data / "ds01.sqlite")
        self.storage_records = StorageRecords(data / "ds01.sqlite")
        self.lifecycle: Lifecycle | None = Lifecycle()
        self.accounts = OwnAccounts(data, 400_000, 400_009)
        self.servers = [Server("")]
        self.spawner = SimpleNamespace(
            user=self,
            store=self.store,
            life_records=self.life_records,
            storage_records=self.storage_records,
            share=self.share,
            accounts=self.accounts,
            workspaces=lambda account: Workspaces(self.name, account, self.store),
            in_thread=asyncio.to_thread,
            options_form="",
        )

    def share(self):
        if self.lifecycle is None:
            raise Refused("The lab's policy cannot be read.", reason="policy")
        limits = SimpleNamespace(lifecycle=self.lifecycle)
        return SimpleNamespace(resolved=SimpleNamespace(limits=limits))

    @property
    def orm_user(self):
        return SimpleNamespace(orm_spawners={server.name: server for server in self.servers})

    def all_spawners(self):
        return iter(self.servers)

    def server_url(self, name=""):
        return f"/user/alice/{name}"

    def make_folder(self, name):
        self.accounts.get(self.name)
        (self.accounts.get(self.name).workspaces / name).mkdir()

    def ended(self, project, cause=Cause.STOPPED, message="Stopped by you.", at=NOON):
        self.store.add_ending(Ending("alice", project, cause, message, at))


@pytest.fixture
def alice(tmp_path):
    someone = Someone(tmp_path)
    yield someone
    someone.store.close()


def projects(user):
    return {project.name: project for project in asyncio.run(PageInfo().projects(user))}


def render(name, user, viewer=None, **variables):
    """Render one of our templates over the Hub's, as `JupyterHub.init_tornado_settings` does."""
    hubs = str(Path(DATA_FILES_PATH) / "templates")
    loader = ChoiceLoader(
        [
            PrefixLoader({"templates": FileSystemLoader([hubs])}, "/"),
            FileSystemLoader([template_path(), hubs]),
        ]
    )
    environment = Environment(loader=loader, autoescape=True, enable_async=True)
    everywhere = {
        "user": user,
        "ds01": PageInfo()(viewer or user),
        "base_url": "/hub/",
        "prefix": "/",
        "static_url": lambda path, **_: f"/hub/static/{path}",
        "parsed_scopes": {},
        "named_server_limit_per_user": 50,
    }
    template = environment.get_template(name)
    return asyncio.run(template.render_async({**everywhere, **variables}))


# -- which projects there are ----------------------------------------------------------------------


def test_looking_makes_no_directories(alice, tmp_path):
    assert list(projects(alice)) == ["default"]
    assert {entry.name.partition("-")[0] for entry in tmp_path.iterdir()} == {"ds01.sqlite"}


def test_a_project_is_a_server_or_a_folder(alice):
    alice.servers += [Server("thesis"), Server("default")]
    alice.make_folder("thesis")
    alice.make_folder("old-data")
    alice.make_folder("default")
    found = projects(alice)
    assert set(found) == {"default", "thesis", "old-data"}
    assert found["thesis"].has_server
    assert not found["old-data"].has_server
    assert found["default"].server_name == ""


def test_a_folder_that_no_server_can_be_named_after_is_shown_with_its_name(alice):
    alice.make_folder("Über uns & <b>more")
    (slug,) = set(projects(alice)) - {"default"}
    assert projects(alice)[slug].folder == "Über uns & <b>more"
    html = render("home.html", alice)
    assert "Folder: Über uns &amp; &lt;b&gt;more" in html
    assert f'href="/hub/spawn/alice/{slug}"' in html


def test_a_disk_that_cannot_be_read_does_not_take_the_page_along(alice, caplog):
    alice.servers.append(Server("thesis"))
    alice.make_folder("old-data")
    account = alice.accounts.get("alice")
    account.workspaces.rename(account.workspaces.with_name("elsewhere"))
    account.workspaces.write_text("not a directory")
    assert set(projects(alice)) == {"default", "thesis"}
    assert "Cannot list the project folders of alice" in caplog.text


def test_a_disk_that_does_not_answer_does_not_take_the_page_along(alice, caplog, monkeypatch):
    monkeypatch.setattr("ds01_spawner.pages._DISK_PATIENCE_S", 0.01)
    asked = []

    async def without_disk(call, *arguments):
        if call is pages._existing_projects:
            asked.append(arguments)
            await asyncio.Event().wait()
        return await asyncio.to_thread(call, *arguments)

    alice.servers.append(Server("thesis"))
    alice.ended("thesis")
    alice.spawner.in_thread = without_disk
    found = projects(alice)
    assert set(found) == {"default", "thesis"}
    assert found["thesis"].ending is not None
    assert asked
    assert "Cannot list the project folders of alice" in caplog.text


def test_a_page_costs_the_store_the_same_however_many_projects_there_are(alice):
    alice.servers += [Server(f"project-{number}") for number in range(9)]
    for server in alice.servers:
        alice.ended(server.name or "default")
    with reading_threads(alice) as threads:
        assert len(projects(alice)) == 10
    assert len(threads) == 2


def test_the_hubs_loop_waits_for_no_disk_and_no_kernel(alice):
    alice.servers = [Server("", ready=True)]
    with reading_threads(alice) as threads:
        render("home.html", alice)
        render("not_running.html", alice, server_name="", spawn_url="/hub/spawn/alice")
    assert len(threads) == 4
    assert threading.main_thread() not in threads


@contextmanager
def reading_threads(user):
    """List the thread of each query of the store and each look at a server's memory."""
    threads = []

    def note(*_):
        threads.append(threading.current_thread())
        return 0

    for server in user.servers:
        server.memory_kills = note
    event.listen(user.store._engine, "before_cursor_execute", note)
    yield threads
    event.remove(user.store._engine, "before_cursor_execute", note)


def test_a_server_that_went_during_the_reading_is_not_shown(alice):
    alice.servers.append(Server("thesis", ready=True))

    async def slowly(call, *arguments):
        found = await asyncio.to_thread(call, *arguments)
        alice.servers = [server for server in alice.servers if server.name != "thesis"]
        return found

    alice.spawner.in_thread = slowly
    assert set(projects(alice)) == {"default"}


# -- what is said of them --------------------------------------------------------------------------


def test_the_newest_ending_of_each_project_counts(alice):
    alice.ended("default", message="first")
    alice.ended("thesis", message="of the thesis")
    alice.ended("default", message="second")
    alice.store.add_ending(Ending("bob", "default", Cause.STOPPED, "of Bob", NOON))
    alice.servers.append(Server("thesis"))
    told = {name: project.ending.message for name, project in projects(alice).items()}
    assert told == {"default": "second", "thesis": "of the thesis"}


@pytest.mark.parametrize(
    ("server", "state"),
    [
        (Server("", ready=True), "running"),
        (Server("", pending="spawn"), "starting"),
        (Server("", pending="stop"), "stopping"),
        (Server("", pending="check"), "running"),
        (Server(""), "stopped"),
    ],
)
def test_the_state_is_the_hubs(alice, server, state):
    alice.servers = [server]
    assert projects(alice)["default"].state == state


def test_active_projects_come_first_then_the_ones_used_last(alice):
    used = NOON.replace(tzinfo=None)
    alice.servers += [
        Server("old", last_activity=used - timedelta(days=9)),
        Server("recent", last_activity=used),
        Server("zebra", ready=True, last_activity=used - timedelta(days=99)),
    ]
    alice.ended("middle", at=NOON - timedelta(days=3))
    alice.make_folder("middle")
    assert list(projects(alice)) == ["zebra", "recent", "middle", "old", "default"]


def test_memory_kills_are_told_of_servers_that_run(alice):
    alice.servers = [Server("", {"memory": 2 * GIB}, ready=True, kills=2), Server("b", kills=3)]
    found = projects(alice)
    assert (found["default"].memory_kills, found["default"].memory) == (2, "2 GiB")
    assert found["b"].memory_kills == 0


@pytest.mark.parametrize("options", [None, {}, {"memory": "much"}, {"memory": None}])
def test_stored_options_of_another_version_are_no_harm(alice, options):
    alice.servers = [Server("", options)]
    assert projects(alice)["default"].memory == ""


# -- the home page ---------------------------------------------------------------------------------


def test_the_home_page_offers_what_can_be_done_with_each_project(alice):
    alice.servers = [
        Server("", ready=True),
        Server("busy", pending="spawn"),
        Server("idle", {"profile": "python · 2 CPU · 8 GiB"}),
    ]
    alice.make_folder("files")
    alice.ended("idle")
    html = render("home.html", alice)
    rows = {name: Page(row) for name, row in rows_of(html).items()}
    assert actions(rows["default"]) == {"/user/alice/", "stop"}
    assert actions(rows["busy"]) == {"/hub/spawn-pending/alice/busy", "stop"}
    assert actions(rows["idle"]) == {"/hub/spawn/alice/idle", "delete"}
    assert actions(rows["files"]) == {"/hub/spawn/alice/files"}
    assert "python · 2 CPU · 8 GiB Stopped by you. (2026-03-01 12:00 UTC)" in rows["idle"].text
    assert "A folder with files" in rows["files"].text


def rows_of(html):
    parts = html.split('data-server="')[1:]
    return {part.partition('"')[0] or "default": part.partition(">")[2] for part in parts}


def actions(row):
    links = {attributes["href"] for tag, attributes in row.elements if tag == "a"}
    return links | {
        attributes["data-action"] for _, attributes in row.elements if "data-action" in attributes
    }


def test_the_home_page_warns_of_memory_kills_with_the_limit(alice):
    alice.servers = [Server("", {"memory": 2 * GIB}, ready=True, kills=1)]
    text = Page(render("home.html", alice)).text
    assert "Memory ran out. A program of this server was ended by the system" in text
    assert "the server may use 2 GiB." in text
    alice.servers[0].kills = 0
    assert "Memory ran out" not in Page(render("home.html", alice)).text


def test_the_home_page_tells_of_a_stop_that_comes(alice):
    now = datetime.now(timezone.utc)
    memory = Memory(now, now, now)
    stop_at = now + timedelta(minutes=9, seconds=5)
    course = Course("c1", "alice", "default", memory, stop_at, "idle", is_warned=True)
    alice.life_records.keep_courses([course])
    alice.servers = [Server("", ready=True)]

    text = Page(render("home.html", alice)).text
    assert "It will be stopped in 9 minutes if nothing runs in it." in text
    alice.servers[0].ready = False
    assert "It will be stopped" not in Page(render("home.html", alice)).text


def test_a_stop_asks_the_portal_where_there_is_one(alice):
    alice.servers = [Server("", ready=True)]
    portal = {"name": "ds01", "href": "https://ds01.hub.example.org/services/ds01/"}

    html = render("home.html", alice, services=[portal])
    dialogs = [found for tag, found in Page(html).elements if tag == "dialog"]
    assert [found["data-portal"] for found in dialogs] == [portal["href"]]
    assert "window.ds01AskBeforeStop = " in html
    html = render("home.html", alice)
    assert "<dialog" not in html
    assert "window.ds01AskBeforeStop = " not in html


def test_the_home_page_shows_text_as_text(alice):
    alice.servers = [Server("x", {"profile": HOSTILE})]
    alice.ended("x", message=HOSTILE)
    html = render("home.html", alice)
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_a_full_list_says_so_instead_of_offering_a_new_project(alice):
    alice.servers = [Server(""), Server("a"), Server("b")]
    html = render("home.html", alice, named_server_limit_per_user=2)
    assert "You have 2 projects, as many as you may." in Page(html).text
    assert 'id="new-project"' not in html
    assert 'id="new-project"' in render("home.html", alice, named_server_limit_per_user=0)


# -- a start and its end ---------------------------------------------------------------------------


def test_the_pending_page_is_about_the_server_that_starts(alice):
    server = Server("thesis", {"profile": "python · 1 CPU"}, pending="spawn")
    html = render("spawn_pending.html", alice, spawner=server, progress_url="/p?a=1&b=</script>")
    assert 'data-server="thesis"' in html
    assert "python · 1 CPU" in html
    assert 'const progressUrl = "/p?a=1\\u0026b=\\u003c/script\\u003e";' in html
    assert 'href="/hub/spawn/alice/thesis"' in html
    assert 'href="/hub/spawn/alice/thesis#safe-start"' in html


def not_running(user, **variables):
    known = {"server_name": "thesis", "spawn_url": "/hub/spawn/alice/thesis"}
    return Page(render("not_running.html", user, **known, **variables))


def test_a_failed_start_says_why_and_offers_safe_start(alice):
    page = not_running(alice, failed=True, failed_message=HOSTILE)
    assert HOSTILE in page.text
    assert page.text.count("thesis did not start") == 1
    assert "/hub/spawn/alice/thesis#safe-start" in actions(page)


def test_the_home_page_tells_of_files_that_take_much(alice):
    alice.lifecycle = Lifecycle(workspace_bytes=10 * GIB, container_bytes=10 * GIB)
    at = now = datetime.now(timezone.utc)
    alice.life_records.keep_courses([Course("c1", "alice", "default", Memory(now, now, now))])
    alice.servers = [Server("", ready=True)]
    assert " take " not in Page(render("home.html", alice)).text
    alice.storage_records.keep(Use(Kind.USER, "alice", "alice", "", 9 * GIB, at))
    alice.storage_records.keep(Use(Kind.CONTAINER, "c1", "alice", "default", 8 * GIB, at))

    page = Page(render("home.html", alice))

    assert "Your files take 9 GiB of 10 GiB." in page.text
    assert "Files outside /workspace and your home take 8 GiB" in page.text
    assert "Keep it running" not in page.text
    # Without a policy there is a page all the same.
    alice.lifecycle = None
    assert "take 9 GiB" not in Page(render("home.html", alice)).text


def test_a_failed_start_without_words_is_told_from_what_was_kept(alice):
    alice.ended("thesis", Cause.START_FAILED, "The disk is full.")
    assert "The disk is full." in not_running(alice, failed=True).text


def test_a_server_that_is_not_running_says_how_it_ended(alice):
    assert "It has not been started yet." in not_running(alice).text
    alice.ended("thesis")
    page = not_running(alice)
    assert "Stopped by you. (2026-03-01 12:00 UTC)" in page.text
    assert "/hub/spawn/alice/thesis" in actions(page)
    assert "/hub/spawn/alice/thesis#safe-start" not in actions(page)


def test_an_admin_is_not_told_that_they_stopped_it(alice):
    alice.ended("thesis")
    text = not_running(alice, viewer=SimpleNamespace(name="admin")).text
    assert "Stopped by the owner. (2026-03-01 12:00 UTC)" in text


def test_the_stopping_page_says_which_server(alice):
    text = Page(render("stop_pending.html", alice, spawner=Server("thesis", pending="stop"))).text
    assert "thesis is stopping" in text


# -- the form's page -------------------------------------------------------------------------------


def form_page(user, for_user, **variables):
    known = {"for_user": for_user, "spawner_options_form": "<p>fields</p>", "url": "/x?a=1&b=2"}
    return Page(render("spawn.html", user, **known, **variables))


def test_a_refused_form_shows_the_reason_whichever_way_the_hub_hands_it_over(alice):
    assert "No such image." in form_page(alice, alice, error_message="No such image.").text
    assert form_page(alice, alice, html_error_message="<b>No</b>").has("b")
    assert HOSTILE in form_page(alice, alice, error_message=HOSTILE).text
    assert "Nothing was started" not in form_page(alice, alice).text


def test_an_admin_is_told_whose_server_it_will_be(alice):
    bob = SimpleNamespace(name="bob")
    text = form_page(alice, bob).text
    assert "You are starting a server for bob, with their files and their limits." in text
    assert "starting a server for" not in form_page(alice, alice).text
