"""The Hub's own admin page, as an admin's tool: look, start, stop, enter."""

import re

import pytest
from playwright.sync_api import expect

from ..hub import eventually


@pytest.fixture
def admin(person):
    return person("admin")


def row(admin, server):
    """Return the admin page's row of a server, such as ``gus`` or ``gus-thesis``."""
    return admin.page.get_by_test_id(f"user-row-{server}")


def sees_who_stopped_it(student, project="default"):
    """Check that a user's own home page says that the admin stopped a server."""
    student.go("/hub/home")
    expect(student.row(project)).to_contain_text("Stopped by admin admin.", timeout=30_000)


def test_an_admin_starts_a_server_for_somebody_and_stops_it(hub, person, admin):
    student = hub.user("gus")
    admin.go("/hub/admin")
    row(admin, "gus").get_by_role("button", name="Start Server").click()
    expect(row(admin, "gus").get_by_role("button", name="Stop Server")).to_be_visible(
        timeout=60_000
    )
    assert student.container()["Config"]["Labels"]["ds01.user"] == "gus"
    assert student.execute(["id", "-un"])[1] == "gus\n"
    admin.page.reload()
    expect(row(admin, "gus")).to_contain_text("python · 2 CPU · 8 GiB")

    row(admin, "gus").get_by_role("button", name="Stop Server").click()
    eventually(lambda: student.container() is None, "the server has stopped")
    sees_who_stopped_it(person("gus"))


def test_the_spawn_page_says_whose_server_it_will_be(hub, admin):
    student = hub.user("gia")
    admin.go("/hub/admin")
    row(admin, "gia").get_by_role("button", name="Spawn Page").click()
    expect(admin.page.get_by_text("You are starting a server for gia")).to_be_visible()
    admin.choose("Memory", "1 GiB")
    admin.press_start()
    eventually(lambda: student.ready(), "the server is ready", 90)
    assert student.execute(["id", "-un"])[1] == "gia\n"
    assert hub.user("admin").container() is None


def test_an_admin_cancels_somebody_elses_start_and_no_other(hub, admin, held):
    student = hub.user("ida")
    admin.go("/hub/spawn/ida/late")
    admin.press_start()
    admin.page.wait_for_url("**/hub/spawn-pending/ida/late**")
    admin.page.get_by_role("button", name="Cancel the start").click()
    admin.page.wait_for_url("**/hub/home")
    eventually(lambda: not student.model("late")["pending"], "the start was cancelled")
    assert not student.model("late")["ready"]


def test_the_details_show_the_servers_state(hub, admin):
    student = hub.user("hal")
    student.start("thesis", memory="1g")
    admin.go("/hub/admin")
    server = row(admin, "hal-thesis")
    expect(server).to_contain_text("python · 2 CPU · 1 GiB")
    server.get_by_role("button").first.click()
    details = admin.page.get_by_test_id("hal-thesis-td")
    state = details.get_by_role("row", name=re.compile("^state"))
    expect(state).to_contain_text("python · 2 CPU · 1 GiB")
    expect(state).to_contain_text(student.container("thesis")["Id"][:12])


def test_an_admin_enters_a_users_server(hub, admin):
    hub.user("ivy").start(memory="1g")
    admin.go("/hub/admin")
    row(admin, "ivy").get_by_role("button", name="Access Server").click()
    admin.page.get_by_role("button", name="Authorize").click()
    admin.page.wait_for_url("**/user/ivy/lab**", timeout=60_000)


def test_stop_all_stops_every_server_of_everybody(hub, person, admin):
    hub.user("jan").start(memory="1g")
    hub.user("kay").start("thesis", memory="1g")
    admin.go("/hub/admin")
    expect(row(admin, "kay-thesis")).to_be_visible()
    admin.page.get_by_role("button", name="Stop All").click()
    eventually(lambda: not hub.containers(), "all servers have stopped")
    admin.page.reload()
    for server in ("jan", "kay-thesis"):
        expect(row(admin, server).get_by_role("button", name="Start Server")).to_be_visible()
    sees_who_stopped_it(person("kay"), "thesis")
