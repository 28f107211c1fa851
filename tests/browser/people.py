"""What a person does at a screen: log in, press buttons, work in JupyterLab."""

from __future__ import annotations

import re
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

from ..hub import Hub

#: Milliseconds until a server that starts has JupyterLab on the screen.
START_MS = 90_000


@dataclass
class Person:
    """Somebody with a browser and a password."""

    hub: Hub
    name: str
    page: Page

    def log_in(self) -> None:
        """Log in with the shared password, or the admin's."""
        self.go("/hub/login")
        kind = "admin-password" if self.name == "admin" else "user-password"
        self.page.get_by_label("Username:").fill(self.name)
        self.page.get_by_label("Password:").fill(self.hub.passwords[kind])
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page).not_to_have_url(re.compile("/hub/login"))

    def log_out(self) -> None:
        """Log out through the button on every page."""
        self.page.get_by_role("button", name="Logout").click()

    def go(self, path: str) -> None:
        """Open a page of the Hub."""
        self.page.goto(self.hub.url + path)

    def row(self, project: str) -> Locator:
        """Return a project's row on the home page, which has to be open."""
        heading = self.page.get_by_role("heading", level=2, name=re.compile(rf"^{project}\b"))
        return self.page.get_by_role("listitem").filter(has=heading)

    def press_start(self) -> None:
        """Send the start form."""
        self.page.get_by_role("button", name="Start", exact=True).click()

    def wait_for_lab(self, project: str = "default") -> None:
        """Wait until JupyterLab of this project is on the screen."""
        server = "" if project == "default" else f"{project}/"
        self.page.wait_for_url(f"**/user/{self.name}/{server}lab**", timeout=START_MS)
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=START_MS)
        expect(self._new_launcher).to_be_visible(timeout=START_MS)

    def start(self, project: str = "default", memory: str = "1 GiB", image: str = "python") -> None:
        """Start a project from the form and wait for JupyterLab."""
        server = "" if project == "default" else f"/{project}"
        self.go(f"/hub/spawn/{self.name}{server}")
        self.choose("Image", image)
        self.choose("Memory", memory)
        self.press_start()
        self.wait_for_lab(project)

    def choose(self, group: str, label: str) -> None:
        """Choose an image or a size on the form."""
        self.choice(group, label).check()

    def choice(self, group: str, label: str) -> Locator:
        """Return one radio button of the form."""
        # Playwright hands the expression to JavaScript, where a slash ends it.
        escaped = re.escape(label).replace("/", r"\/")
        words = re.compile(rf"^\W*{escaped}\b")
        return self.page.get_by_role("group", name=group).get_by_role("radio", name=words)

    # -- in JupyterLab -------------------------------------------------------------------------

    @property
    def _new_launcher(self) -> Locator:
        return self.page.get_by_role("button", name=re.compile(r"^New Launcher \("))

    def launch(self, category: str, title: str) -> None:
        """Open something from JupyterLab's launcher, whatever was open the last time."""
        self._new_launcher.click()
        cards = self.page.locator(f'.jp-LauncherCard[data-category="{category}"]:visible')
        cards.filter(has_text=title).first.click()

    def open_notebook(self) -> None:
        """Open a new notebook and wait until its kernel is ready."""
        self.launch("Notebook", "Python")
        idle = self.page.get_by_role("button", name=re.compile(r"Python .* \| Idle$"))
        expect(idle).to_be_visible(timeout=60_000)

    def run_cell(self, code: str) -> str:
        """Type code into the notebook's last cell, run it, and return what it printed."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").last
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(f"{code}\nprint('the', 'end')")
        self.page.keyboard.press("Shift+Enter")
        output = self.page.locator(".jp-OutputArea-output").last
        expect(output).to_contain_text("the end", timeout=60_000)
        return output.inner_text()

    def type_in_terminal(self, line: str) -> None:
        """Open a terminal from the launcher and type a line into it."""
        self.launch("Other", "Terminal")
        terminal = self.page.locator(".jp-Terminal .xterm-helper-textarea")
        terminal.wait_for(state="attached", timeout=60_000)
        terminal.focus()
        self.page.keyboard.type(f"{line}\n")
