"""The pages in every hand: keyboard, phone, no JavaScript, wrong names, refused sizes."""

import re

import pytest
from playwright.sync_api import expect

from ..hub import eventually

PHONE = {"viewport": {"width": 360, "height": 740}}


# -- projects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "Give the project a name."),
        ("My Project", "Use only lower-case letters, digits and hyphens."),
        ("../etc", "Use only lower-case letters, digits and hyphens."),
        ("naïve", "Use only lower-case letters, digits and hyphens."),
        ("2nd", "Begin with a letter."),
        ("two--hyphens", "Use single hyphens, and none at the end."),
        ("x" * 300, "Use at most 30 characters; these are 300."),
    ],
)
def test_a_name_that_cannot_be_a_project_is_explained_at_once(person, name, told):
    nina = person("nina")
    nina.go("/hub/home")
    nina.page.get_by_label("New project").fill(name)
    nina.page.get_by_role("button", name="Create").click()
    expect(nina.page.get_by_role("alert").filter(has_text=told)).to_be_visible()
    expect(nina.page.get_by_label("New project")).to_be_focused()
    assert nina.page.url.endswith("/hub/home")


def test_a_name_that_the_browser_let_through_is_explained_by_the_hub(person):
    nina = person("nina")
    answer = nina.page.goto(f"{nina.hub.url}/hub/spawn/nina/Bad_Name")
    assert answer.status == 400
    expect(
        nina.page.get_by_text("A project's name has up to 30 lower-case letters")
    ).to_be_visible()


def test_a_new_project_gets_a_form_with_its_name_and_then_a_row(hub, person):
    nina = person("nina")
    nina.go("/hub/home")
    nina.page.get_by_label("New project").fill("thesis-2")
    nina.page.get_by_role("button", name="Create").click()
    expect(nina.page.get_by_role("heading", level=1)).to_have_text("Start project thesis-2")
    nina.choose("Memory", "1 GiB")
    nina.press_start()
    nina.wait_for_lab("thesis-2")
    assert nina.hub.user("nina").container("thesis-2")["Config"]["Hostname"] == "thesis-2"
    nina.go("/hub/home")
    expect(nina.row("thesis-2")).to_contain_text("python · 2 CPU · 1 GiB")
    nina.row("thesis-2").get_by_role("link", name="Open").click()
    nina.wait_for_lab("thesis-2")


def test_a_user_name_with_special_characters_is_no_obstacle(hub, person, held):
    owen = person("o'neil@lab & co")
    owen.go("/hub/home")
    owen.page.get_by_label("New project").fill("thesis")
    owen.page.get_by_role("button", name="Create").click()
    expect(owen.page.get_by_role("heading", level=1)).to_have_text("Start project thesis")
    owen.press_start()
    owen.page.get_by_role("button", name="Cancel the start").click()
    owen.page.wait_for_url("**/hub/home")
    expect(owen.row("thesis")).to_contain_text("stopped", timeout=30_000)
    owen.page.once("dialog", lambda dialog: dialog.accept())
    owen.row("thesis").get_by_role("button", name="Delete").click()
    expect(owen.row("thesis")).to_have_count(0)


def test_a_server_called_default_leaves_the_one_without_a_name_alone(hub, person):
    nils = person("nils")
    student = hub.user("nils")
    student.start(memory="1g")
    container = student.container()["Id"]
    nils.go("/hub/spawn/nils/default")
    nils.press_start()
    expect(nils.page.get_by_role("alert")).to_contain_text(
        "The project 'default' belongs to your server without a name."
    )
    assert student.container()["Id"] == container
    assert student.ready()
    nils.go("/hub/home")
    expect(nils.row("default")).to_have_count(1)
    expect(nils.row("default")).to_contain_text("running")


def test_a_deleted_project_keeps_its_files_and_its_place_in_the_list(hub, person):
    omar = person("omar")
    student = hub.user("omar")
    student.start("old", memory="1g")
    student.execute(["sh", "-c", "echo kept > /workspace/kept.txt"], "old")
    student.stop("old")
    omar.go("/hub/home")
    asked = []
    omar.page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    omar.row("old").get_by_role("button", name="Delete").click()
    expect(omar.row("old").get_by_role("button", name="Delete")).to_have_count(0)
    assert "Its files stay" in asked[0]
    assert (hub.data / "workspaces" / "omar" / "old" / "kept.txt").read_text() == "kept\n"
    expect(omar.row("old").get_by_role("link", name="Start")).to_be_visible()


def test_the_list_follows_what_happens_elsewhere(hub, person, held):
    omar = person("omar")
    student = hub.user("omar")
    omar.go("/hub/spawn/omar/live")
    omar.choose("Memory", "1 GiB")
    omar.press_start()
    omar.page.wait_for_url("**/spawn-pending/**")
    omar.go("/hub/home")
    expect(omar.row("live")).to_contain_text("starting")
    expect(omar.row("live").get_by_role("link", name="Progress")).to_be_visible()
    held.unlink()
    expect(omar.row("live")).to_contain_text("running", timeout=60_000)
    student.stop("live")
    expect(omar.row("live")).to_contain_text("Stopped by you.", timeout=60_000)


def test_a_stop_that_does_not_work_says_so_and_can_be_tried_again(person, held):
    ines = person("ines")
    ines.go("/hub/spawn/ines/thesis")
    ines.choose("Memory", "1 GiB")
    ines.press_start()
    ines.page.wait_for_url("**/spawn-pending/**")
    stop = re.compile(r"/hub/api/users/ines/servers/thesis\?")
    ines.page.route(stop, lambda route: route.abort())
    ines.page.get_by_role("button", name="Cancel the start").click()
    expect(ines.page.get_by_role("alert").filter(visible=True)).to_have_text(
        "The start could not be cancelled: The Hub does not answer."
    )
    # The page still follows the start.
    held.unlink()
    ines.wait_for_lab("thesis")

    ines.go("/hub/home")
    ines.page.unroute(stop)
    refusal = {"status": 503, "json": {"message": "Not just now."}}
    ines.page.route(stop, lambda route: route.fulfill(**refusal))
    ines.page.on("dialog", lambda dialog: dialog.accept())
    ines.row("thesis").get_by_role("button", name="Stop").click()
    expect(ines.page.get_by_role("alert").filter(visible=True)).to_have_text(
        "That did not work: Not just now."
    )
    ines.page.unroute(stop)
    ines.row("thesis").get_by_role("button", name="Stop").click()
    expect(ines.row("thesis")).to_contain_text("Stopped by you.", timeout=30_000)


# -- the form ----------------------------------------------------------------------------------


def test_a_refused_form_is_shown_again_for_its_own_project(hub, person):
    pia = person("pia")
    pia.go("/hub/spawn/pia/thesis")
    pia.choose("Image", "datascience")
    pia.choose("CPUs", "0.5")
    # As by hand: the form itself offers nothing above the limit.
    pia.choice("Memory", "1 GiB").evaluate("radio => { radio.value = '900g'; }")
    pia.choose("Memory", "1 GiB")
    with pia.page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        pia.press_start()
    assert answer.value.status == 403
    expect(pia.page.get_by_role("alert")).to_contain_text(
        "900 GiB of memory is more than your limit of 8 GiB per server. Choose less."
    )
    expect(pia.page.get_by_role("heading", level=1)).to_have_text("Start project thesis")
    expect(pia.choice("Image", "datascience")).to_be_checked()
    expect(pia.choice("CPUs", "0.5")).to_be_checked()
    expect(pia.choice("Memory", "8 GiB")).to_be_checked()
    assert hub.user("pia").container("thesis") is None
    pia.choose("Memory", "1 GiB")
    pia.press_start()
    pia.wait_for_lab("thesis")


def test_the_form_works_without_javascript(hub, person):
    rosa = person("rosa", java_script_enabled=False)
    rosa.go("/hub/spawn/rosa/plain")
    rosa.choose("Image", "datascience")
    rosa.choose("Memory", "1 GiB")
    rosa.press_start()
    student = hub.user("rosa")
    eventually(lambda: student.ready("plain"), "the server is ready", 90)
    assert student.container("plain")["HostConfig"]["Memory"] == 1024**3
    # The page looks again by itself, and opens the server.
    rosa.page.wait_for_url("**/user/rosa/plain/**", timeout=60_000)


def test_the_form_works_with_the_keyboard_alone(hub, person, held):
    kim = person("kim")
    kim.go("/hub/spawn/kim/keys")
    keys = kim.page.keyboard
    kim.choice("Image", "python").focus()
    keys.press("ArrowRight")
    expect(kim.choice("Image", "datascience")).to_be_checked()
    assert outline(kim) != "none"
    keys.press("Tab")
    keys.press("ArrowLeft")
    expect(kim.choice("CPUs", "1")).to_be_checked()
    assert outline(kim) != "none"
    keys.press("Tab")
    for _ in range(3):
        keys.press("ArrowLeft")
    expect(kim.choice("Memory", "1 GiB")).to_be_checked()
    keys.press("Tab")
    keys.press("Enter")
    keys.press("Tab")
    keys.press("Space")
    expect(kim.page.get_by_role("checkbox", name="Safe start")).to_be_checked()
    keys.press("Tab")
    expect(kim.page.get_by_role("button", name="Start", exact=True)).to_be_focused()
    keys.press("Enter")
    kim.page.wait_for_url("**/spawn-pending/kim/keys**")
    stored = hub.user("kim").model("keys")["user_options"]
    assert stored["profile"] == "datascience · 1 CPU · 1 GiB · safe start"
    kim.page.get_by_role("button", name="Cancel the start").press("Enter")
    kim.page.wait_for_url("**/hub/home")


def outline(someone):
    """Return how the focus is drawn around the focused choice."""
    return someone.page.evaluate(
        "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    )


def test_another_user_cannot_see_the_form_or_the_pages_of_a_user(hub, person):
    hub.user("omar")
    eve = person("eve")
    for path in ("/hub/spawn/omar/thesis", "/hub/spawn-pending/omar"):
        answer = eve.page.goto(hub.url + path)
        assert answer.status in (403, 404), path


# -- small screens -----------------------------------------------------------------------------


def test_no_page_is_wider_than_a_phone(hub, person, held):
    lin = person("lin", **PHONE)
    long_name = "a-project-with-the-longest-nam"
    fits(lin, "/hub/home")
    lin.page.get_by_label("New project").fill("x" * 300)
    lin.page.get_by_role("button", name="Create").click()
    fits(lin)
    fits(lin, f"/hub/spawn/lin/{long_name}")
    lin.choose("Image", "vanished")
    lin.press_start()
    lin.page.wait_for_url("**/spawn-pending/**")
    fits(lin)
    fits(lin, "/hub/home")
    lin.go(f"/hub/spawn-pending/lin/{long_name}")
    held.unlink()
    expect(lin.page.get_by_role("link", name="Try again")).to_be_visible()
    fits(lin)
    fits(lin, f"/hub/spawn-pending/lin/{long_name}")
    fits(lin, f"/user/lin/{long_name}/")
    fits(lin, "/hub/home")
    fits(lin, "/hub/spawn/lin/Bad_Name")
    lin.page.context.clear_cookies()
    fits(lin, "/hub/login")


def fits(someone, path=None):
    if path is not None:
        someone.go(path)
    width = someone.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, f"{someone.page.url} is {width} wide"


def test_every_control_of_our_pages_has_a_name(person):
    lin = person("lin")
    for path in ("/hub/home", "/hub/spawn/lin/thesis", "/user/lin/thesis/"):
        lin.go(path)
        for role in ("button", "link", "radio", "textbox", "checkbox"):
            for control in lin.page.locator("main").get_by_role(role).all():
                expect(control).to_have_accessible_name(re.compile(r"\w"))


# -- an end is explained -----------------------------------------------------------------------


def test_the_way_back_to_a_server_that_ended_says_how_it_ended(hub, person):
    uma = person("uma")
    student = hub.user("uma")
    student.start(memory="1g")
    container = student.container()["Id"]
    hub.docker.kill(container, signal="KILL")
    eventually(lambda: student.container() is None, "the Hub saw it")
    uma.go("/user/uma/")
    expect(uma.page.get_by_role("heading", level=1)).to_have_text("default is not running")
    expect(uma.page.get_by_text("The server was ended from outside (signal 9).")).to_be_visible()
    uma.page.get_by_role("link", name="Start").click()
    expect(uma.page.get_by_text("The server was ended from outside (signal 9).")).to_be_visible()
