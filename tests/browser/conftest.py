"""A real Hub and a real Chromium; each test brings people of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from ..hub import Hub
from .people import Person

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Keeps a start waiting while the file `hold` lies in the data directory, so that a test can look
#: at it for as long as it needs.
HOLD_STARTS = """
import asyncio

async def hold(spawner):
    while (data / "hold").exists():
        await asyncio.sleep(0.05)

c = get_config()
c.DS01Spawner.pre_spawn_hook = hold
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here; pytest hands over the tests of other folders too."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def hub(built, tmp_path_factory):
    """Return a running Hub for all tests in a browser, whose starts can be held."""
    deployment = Hub(tmp_path_factory.mktemp("hub"), "browser")
    deployment.configure(
        f"from pathlib import Path\ndata = Path({str(deployment.data)!r})\n{HOLD_STARTS}"
    )
    deployment.write_policy({"defaults": {"memory": "8g", "memory_swap": "8g"}})
    deployment.add_image("vanished", "ds01-test/vanished:1")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def held(hub):
    """Keep every start waiting; the test lets them go by removing the file."""
    file = hub.data / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="package")
def chromium():
    """Return one browser; every person has a profile of their own in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def person(hub, chromium):
    """Return a function that makes a person at a screen, logged in."""
    contexts = []

    def arrive(name: str, **context) -> Person:
        contexts.append(
            chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        )
        someone = Person(hub, name, contexts[-1].new_page())
        someone.log_in()
        return someone

    yield arrive
    for context in contexts:
        context.close()
