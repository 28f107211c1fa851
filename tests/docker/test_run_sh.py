"""run.sh as an admin uses it: start, Ctrl-C, kill -9, start again, with a server running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

import docker
import docker.errors
import pytest
import requests

from ds01_spawner import network
from ds01_spawner.names import container_name

from ..hub import REPOSITORY, eventually, free_port

#: Seconds for a second run on two slow cores. The first installs and builds, for minutes.
SECOND_RUN_S = 60


def _as_in_a_terminal() -> None:
    """Let Ctrl-C arrive: a shell that starts tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Deployment:
    """run.sh with data, ports and a network of its own; it never installs anything here."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "run.log"
        self.student = f"run-{uuid.uuid4().hex[:6]}"
        self.network = f"ds01-{uuid.uuid4().hex[:6]}"
        self.port, hub_port, proxy_port, portal_port = (free_port() for _ in range(4))
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "DS01_NETWORK": self.network,
            "DS01_HUB_PORT": str(hub_port),
            "DS01_PORTAL_PORT": str(portal_port),
            "DS01_PROXY_API_PORT": str(proxy_port),
        }
        self.docker = docker.APIClient(version="auto")
        self.process: subprocess.Popen[bytes] | None = None

    # -- run.sh --------------------------------------------------------------------------------

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        command = [REPOSITORY / "run.sh", "--no-install", "--data", self.data, "--port", self.port]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [str(word) for word in [*command, *options]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_as_in_a_terminal,
            )

    def start(self, *options: str) -> float:
        """Run it until it says that it is ready; return how many seconds that took."""
        began = time.monotonic()
        self.process = self.launch(*options)
        eventually(self._is_ready, "run.sh says that it is ready", 120)
        return time.monotonic() - began

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        # Its last line: the passwords stand before it.
        return "Stop the Hub:" in self.log.read_text()

    def press_ctrl_c(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def kill_hub(self) -> int:
        """Kill the Hub as the kernel would, out of memory say; return run.sh's status."""
        assert self.process is not None
        os.kill(self.processes()["jupyterhub"], signal.SIGKILL)
        return self.process.wait(60)

    def processes(self) -> dict[str, int]:
        """Return the numbers of the Hub, the proxy and the services, where they run."""
        found = {}
        words = {
            "jupyterhub": b"bin/jupyterhub",
            "proxy": b"http-proxy",
            "portal": b"ds01_spawner.portal",
            "culler": b"ds01_spawner.lifecycle",
        }
        for name, word in words.items():
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    command = (entry / "cmdline").read_bytes()
                    place = (entry / "cwd").resolve()
                except OSError:
                    continue
                if word in command and place == self.data:
                    found[name] = int(entry.name)
        return found

    def close(self) -> None:
        """Stop and remove all that it made."""
        if self.process is not None and self.process.poll() is None:
            self.press_ctrl_c()
        for pid in self.processes().values():
            os.kill(pid, signal.SIGKILL)
        if self.container() is not None:
            self.docker.remove_container(self.container_name, force=True)
        network.remove(self.docker, self.network)

    # -- a student -----------------------------------------------------------------------------

    def log_in(self) -> requests.Session:
        """Log in with the password that run.sh printed."""
        (password,) = re.findall(r"any name, password (\S+)", self.log.read_text())
        browser = requests.Session()
        browser.get(f"{self.url}/hub/login", timeout=30)
        xsrf = browser.cookies.get("_xsrf", path="/hub/")
        answer = browser.post(
            f"{self.url}/hub/login",
            data={"username": self.student, "password": password, "_xsrf": xsrf},
            timeout=30,
        )
        assert answer.ok, answer.text
        browser.headers["X-XSRFToken"] = browser.cookies.get("_xsrf", path="/hub/")
        return browser

    def start_server(self) -> None:
        browser = self.log_in()
        path = f"{self.url}/hub/api/users/{self.student}"
        assert browser.post(f"{path}/server", json={}, timeout=120).status_code in (201, 202)
        eventually(
            lambda: browser.get(path, timeout=30).json()["servers"].get("", {}).get("ready"),
            "the server is ready",
        )

    def server_answers(self) -> bool:
        """Tell whether the student, freshly logged in, gets to JupyterLab."""
        browser = self.log_in()
        page = browser.get(f"{self.url}/user/{self.student}/lab", timeout=60)
        return page.ok and f"/user/{self.student}/" in page.url

    @property
    def container_name(self) -> str:
        return container_name(self.student, "default")

    def container(self) -> dict | None:
        try:
            return self.docker.inspect_container(self.container_name)
        except docker.errors.NotFound:
            return None


@pytest.fixture
def deployment(built, tmp_path):
    deployment = Deployment(tmp_path)
    try:
        yield deployment
    finally:
        deployment.close()


@pytest.mark.long
def test_ctrl_c_leaves_servers_running_and_the_next_run_finds_them(deployment):
    deployment.start()
    deployment.start_server()
    before = deployment.container()["Id"]

    assert deployment.press_ctrl_c() == 0
    assert deployment.processes() == {}
    assert deployment.container()["State"]["Running"]

    assert deployment.start() < SECOND_RUN_S
    assert deployment.server_answers()
    assert deployment.container()["Id"] == before


def test_after_kill_9_of_the_hub_the_next_run_finds_the_servers(deployment):
    deployment.start()
    deployment.start_server()
    before = deployment.container()["Id"]

    assert deployment.kill_hub() == 1
    assert "The Hub ended by itself" in deployment.log.read_text()
    assert list(deployment.processes()) == ["proxy"]

    deployment.start()
    assert deployment.server_answers()
    assert deployment.container()["Id"] == before


@pytest.mark.long
def test_after_kill_9_of_run_sh_itself_the_next_run_takes_its_place(deployment):
    deployment.start()
    deployment.start_server()
    before = deployment.container()["Id"]
    deployment.process.kill()
    deployment.process.wait()
    # Nobody is left to tell the others; they are settled by the next run.
    left = deployment.processes()
    os.kill(left["jupyterhub"], signal.SIGKILL)

    deployment.start()
    assert deployment.server_answers()
    assert deployment.container()["Id"] == before
    now = deployment.processes()
    assert set(now) == {"jupyterhub", "proxy", "portal", "culler"}
    assert not {left["proxy"], left["portal"], left["culler"]} & set(now.values())


def test_a_portal_that_ends_is_started_again_and_the_hub_goes_on(deployment):
    deployment.start()
    before = deployment.processes()
    os.kill(before["portal"], signal.SIGKILL)

    def is_back() -> bool:
        now = deployment.processes()
        return "portal" in now and now["portal"] != before["portal"]

    eventually(is_back, "the portal is back")
    assert deployment.processes()["jupyterhub"] == before["jupyterhub"]
    assert "The portal ended; it is started again" in deployment.log.read_text()


@pytest.mark.long
def test_stop_servers_stops_them_too(deployment):
    deployment.start("--stop-servers")
    deployment.start_server()

    assert deployment.press_ctrl_c() == 0
    assert deployment.container() is None


@pytest.mark.long
def test_a_second_run_is_refused_while_the_first_goes_on(deployment):
    deployment.start()
    log = deployment.log.read_text()
    second = deployment.launch("--port", str(free_port()))

    assert second.wait(60) == 1
    assert f"A Hub on {deployment.data} runs already" in deployment.log.read_text()
    assert "DS01 is ready" in log
    assert requests.get(f"{deployment.url}/hub/health", timeout=30).ok
