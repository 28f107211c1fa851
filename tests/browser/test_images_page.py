"""Images made, watched, used and deleted in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from ..hub import Hub, eventually

#: Milliseconds for a small build on a slow machine.
BUILD_MS = 180_000


@pytest.fixture(scope="module")
def hub(built, no_other_builds, tmp_path_factory):
    """Return a running Hub with its portal, where little free disk is enough."""
    deployment = Hub(tmp_path_factory.mktemp("hub"), "imagespage", portal=True)
    deployment.configure("c.DS01Spawner.lowest_free_disk = '1G'\n")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()
        label = f"ds01.image.hub={(deployment.data / 'hub-id').read_text().strip()}"
        for image in deployment.docker.images(filters={"label": label}):
            deployment.docker.remove_image(image["Id"], force=True)


def build(page, packages, project=""):
    """Fill the form and wait for the build's end; return its state."""
    if project:
        page.get_by_label("Project", exact=True).fill(project)
    page.get_by_label("Python packages").fill(packages)
    page.get_by_role("button", name="Build", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile("^Build of"))).to_be_visible()
    badge = page.locator("#build-state .badge")
    expect(badge).to_have_text(re.compile("succeeded|failed"), timeout=BUILD_MS)
    return badge.inner_text()


def test_an_image_is_made_watched_started_broken_and_not_deleted_while_in_use(person):
    dora = person("dora")
    page = dora.page
    dora.go("/services/ds01/images")
    page.get_by_role("link", name="New image").click()
    assert build(page, "humanize>=4\ntoolz", "vision") == "succeeded"
    log = page.get_by_label("What the build says")
    expect(log).to_contain_text("Trying the image")
    # All of it is there after a reload.
    page.reload()
    expect(log).to_contain_text("/opt/ds01/build/pip install")
    expect(log).to_contain_text("Ready: ds01-dora/vision:latest")

    dora.start("vision", image="ds01-dora/vision")
    user = dora.hub.user("dora")
    command = ["/usr/bin/python3", "-c", "import humanize, toolz; print('both', toolz.__version__)"]
    assert user.execute(command, "vision")[1].startswith("both")

    dora.go("/services/ds01/images/dora/vision")
    page.get_by_role("button", name="Delete the image").click()
    expect(page.get_by_text("It is in use by vision._.dora.")).to_be_visible()

    dora.go("/services/ds01/images/dora/vision/recipe")
    assert build(page, "humanize>=4\nno-such-package-anywhere-7") == "failed"
    expect(page.get_by_role("main")).to_contain_text("The package index has no such package")
    expect(page.get_by_role("main")).to_contain_text("is as it was")
    user.stop("vision")
    # What worked still starts.
    dora.start("vision", image="ds01-dora/vision")
    user.stop("vision")
    dora.go("/services/ds01/images/dora/vision")
    page.get_by_role("button", name="Delete the image").click()
    expect(page.get_by_text("You have no images yet.")).to_be_visible()


def test_what_was_installed_is_saved_to_ones_image_by_the_stop(person):
    gina = person("gina")
    page, user = gina.page, gina.hub.user("gina")
    gina.go("/services/ds01/new-image")
    assert build(page, "toolz", "thesis") == "succeeded"
    user.start("thesis", image="ds01-gina/thesis", memory="1g")
    assert (
        user.execute(["/opt/temporary/bin/pip", "install", "--quiet", "humanize"], "thesis")[0] == 0
    )

    gina.go("/hub/home")
    gina.row("thesis").get_by_role("button", name="Stop").click()
    dialog = page.get_by_role("dialog", name="Stop thesis?")
    expect(dialog).to_contain_text("humanize", timeout=30_000)
    expect(dialog.get_by_label("Save the packages to my image")).to_be_checked()
    dialog.get_by_role("button", name="Stop", exact=True).click()

    expect(gina.row("thesis")).to_contain_text("Stopped by you.", timeout=60_000)
    told = page.get_by_role("status").filter(has_text="Your image is being built")
    expect(told).to_be_visible()
    eventually(
        lambda: "humanize" in image_of(gina, "thesis"), "it is in the image", BUILD_MS / 1000
    )


def image_of(someone, project):
    someone.go(f"/services/ds01/images/{someone.name}/{project}")
    return someone.page.get_by_role("main").inner_text()


def test_a_mistake_in_the_form_is_told_and_nothing_typed_is_lost(person):
    emil = person("emil")
    emil.go("/services/ds01/new-image")
    page = emil.page
    page.get_by_label("Project", exact=True).fill("thesis")
    page.get_by_label("Python packages").fill("numpy\n-e git+https://x/y\na; rm -rf /")
    page.get_by_role("button", name="Build", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Line 2 is not used")
    expect(page.get_by_role("alert")).to_contain_text("Line 3 is not used")
    expect(page.get_by_label("Python packages")).to_have_value(
        "numpy\n-e git+https://x/y\na; rm -rf /"
    )
    expect(page.get_by_label("Project", exact=True)).to_have_value("thesis")


def test_a_build_is_cancelled_and_the_form_fits_a_phone(person):
    finn = person("finn", viewport={"width": 360, "height": 740})
    finn.go("/services/ds01/new-image")
    page = finn.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_label("Project", exact=True).fill("slow")
    page.get_by_text("Debian packages and variables").click()
    page.get_by_label("Debian packages").fill("texlive-full")
    page.get_by_role("button", name="Build", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#build-state .badge")).to_have_text("cancelled", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
