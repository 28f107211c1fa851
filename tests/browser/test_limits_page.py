"""My limits, as people and admins see it."""

import re

import pytest
from playwright.sync_api import expect

from ..hub import Hub


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    """Return a running Hub with its portal."""
    deployment = Hub(tmp_path_factory.mktemp("hub"), "limits", portal=True)
    deployment.write_policy(
        {
            "defaults": {"memory": "2g", "memory_swap": "2g"},
            "default_group": "student",
            "groups": {"student": {"aggregate": {"cpu_quota": "150%", "memory_max": "3g"}}},
        }
    )
    deployment.configure(
        "c.DS01Spawner.smtp_host = 'mail.uni.example'\n"
        "c.DS01Spawner.mail_sender = 'ds01@uni.example'\n"
        "c.DS01Spawner.mail_address = '{username}@uni.example'\n"
    )
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def bar(page, label):
    """Return a bar, by the words beside it."""
    return page.get_by_role("progressbar", name=label)


def test_somebody_opens_my_limits_from_the_bar_and_sees_a_server_come(person):
    anna = person("anna")
    anna.page.get_by_role("link", name="My limits").click()
    expect(anna.page.get_by_role("heading", name="My limits")).to_be_visible()
    expect(bar(anna.page, "Servers")).to_have_attribute("value", "0")
    expect(anna.page.get_by_text("from group student").first).to_be_visible()
    expect(anna.page.get_by_text("No server runs.")).to_be_visible()

    user = anna.hub.user("anna")
    user.start("thesis", image="python", memory="1g", cpus=0.5)
    # By itself, without a reload.
    expect(anna.page.get_by_role("row", name=re.compile("^thesis"))).to_contain_text(
        "of 1 GiB", timeout=30_000
    )
    expect(bar(anna.page, "Servers")).to_have_attribute("value", "1")
    user.stop("thesis")


def test_a_stop_tells_what_goes_with_the_server_and_keeps_it(person, hub):
    mira = person("mira", viewport={"width": 360, "height": 740})
    user, page = hub.user("mira"), mira.page
    user.start(image="python", memory="1g", cpus=1)
    mira.go("/hub/home")
    stop = mira.row("default").get_by_role("button", name="Stop")
    dialog = page.get_by_role("dialog", name="Stop default?")
    # Nothing goes yet.
    stop.click()
    expect(dialog.get_by_role("button", name="Stop")).to_be_enabled(timeout=30_000)
    expect(dialog).not_to_contain_text(re.compile("goes with it|not known"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(stop).to_be_focused()

    hostile = "/tmp/<img src=x onerror=alert(1)>"
    user.execute(["sh", "-c", f"echo result > /tmp/result.csv; echo > '{hostile}'"])
    user.execute(["/opt/temporary/bin/pip", "install", "--quiet", "toolz"])
    stop.press("Enter")
    expect(dialog).to_contain_text("Packages that you installed", timeout=30_000)
    expect(dialog).to_contain_text("toolz")
    expect(dialog).to_contain_text("/tmp/result.csv (7 B)")
    expect(dialog).to_contain_text(hostile)
    expect(dialog.get_by_label("Keep the files")).to_be_checked()
    save = dialog.get_by_role("link", name="Save the packages to an image of mine")
    expect(save).to_have_attribute("href", re.compile("/services/ds01/servers/default/save$"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert dialog.evaluate("it => it.scrollWidth <= it.clientWidth")
    page.keyboard.press("Enter")
    expect(mira.row("default")).to_contain_text("Stopped by you.", timeout=60_000)
    expect(page.get_by_role("status").filter(has_text="The files are in rescued/")).to_be_visible()
    (place,) = (hub.data / "workspaces/mira/default/rescued").iterdir()
    assert (place / "tmp/result.csv").read_text() == "result\n"
    # The token was for this one question.
    tokens = hub.api("GET", "/users/mira/tokens").json()["api_tokens"]
    assert not [token for token in tokens if token["note"] == "Stop on the home page"]


def test_it_works_without_javascript_and_on_a_phone(person):
    ben = person("ben", java_script_enabled=False, viewport={"width": 360, "height": 740})
    ben.go("/services/ds01/")
    expect(bar(ben.page, "Memory")).to_be_visible()
    ben.page.get_by_text("All values of the policy").click()
    expect(ben.page.get_by_role("row", name=re.compile("aggregate.cpu_quota"))).to_contain_text(
        "150%"
    )
    wide = ben.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360


def test_somebody_switches_e_mail_off_and_it_stays_off(person):
    fay = person("fay")
    fay.go("/services/ds01/")
    switch = fay.page.get_by_role("switch", name="E-mail me before a server stops")
    expect(switch).to_be_checked()
    expect(fay.page.get_by_text("To fay@uni.example")).to_be_visible()
    with fay.page.expect_navigation():
        switch.click()
    fay.page.reload()
    expect(switch).not_to_be_checked()

    plain = person("fay", java_script_enabled=False, viewport={"width": 360, "height": 740})
    plain.go("/services/ds01/")
    plain.page.get_by_role("switch").check()
    plain.page.get_by_role("button", name="Save").click()
    expect(plain.page.get_by_role("switch")).to_be_checked()
    assert plain.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_admin_finds_everybody_and_others_do_not(person):
    user = person("clara").hub.user("clara")
    user.start(image="python", memory="1g", cpus=0.5)
    admin = person("admin")
    admin.go("/services/ds01/")
    admin.page.get_by_role("link", name="Users").click()
    expect(admin.page.get_by_text("The policy is in force as its files are now.")).to_be_visible()
    admin.page.get_by_role("link", name="clara").click()
    expect(admin.page.get_by_role("heading", name="Limits of clara")).to_be_visible()
    expect(bar(admin.page, "Servers")).to_have_attribute("value", "1")

    admin.go("/services/ds01/admin")
    admin.page.get_by_label("Limits of another user").fill("nobody")
    admin.page.keyboard.press("Enter")
    expect(admin.page.get_by_text("The Hub has no user 'nobody'.")).to_be_visible()
    user.stop()

    dora = person("dora")
    dora.go("/services/ds01/admin")
    expect(dora.page.get_by_text("Only admins see what others have.")).to_be_visible()
    expect(dora.page.get_by_role("link", name="Users")).to_have_count(0)


def test_a_policy_with_a_mistake_is_on_every_page_of_an_admin_and_no_other(person):
    admin, emil = person("admin"), person("emil")
    hub = admin.hub
    good = (hub.data / "policy/resource-limits.yaml").read_text()
    (hub.data / "policy/resource-limits.yaml").write_text(good + "grups: {}\n")
    try:
        for someone, seen in ((admin, 1), (emil, 0)):
            someone.go("/hub/home")
            expect(someone.page.get_by_text("grups: unknown key")).to_have_count(seen)
    finally:
        (hub.data / "policy/resource-limits.yaml").write_text(good)
