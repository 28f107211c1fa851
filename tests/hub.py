"""A real Hub for the tests, and what a person does with it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
import websocket
import yaml

from ds01_spawner import network
from ds01_spawner.names import container_name, server_of

_BACKGROUND = ThreadPoolExecutor(64)

REPOSITORY = Path(__file__).resolve().parents[1]
_CONFIGURATION = Path(__file__).parent / "hub_config.py"


def eventually(check: Callable[[], Any], what: str, within_s: float = 60) -> Any:
    """Return the first true answer of `check`; fail when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what} (last answer: {answer!r})")
        time.sleep(0.1)


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hub:
    """One deployment: the real configuration with its own data, network and ports."""

    def __init__(
        self,
        data: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
        *,
        portal: bool = False,
        culler: bool = False,
    ) -> None:
        self.data = data
        self.environment = dict(environment or {})
        self.docker = docker.from_env().api
        self.port, self.hub_port, self.proxy_api_port = (free_port() for _ in range(3))
        self.portal_port = free_port() if portal else 0
        # Several test runs may share a machine.
        self.network_name = f"ds01-{name}-{self.port}"
        self.interface = f"ds01t{self.port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        self.portal: subprocess.Popen[bytes] | None = None
        self.has_culler = culler
        self.culler: subprocess.Popen[bytes] | None = None
        self.log = data / "hub.log"
        self._prepare()

    def _prepare(self) -> None:
        folder = self.data / "secrets"
        folder.mkdir(parents=True, mode=0o700)
        self.passwords = {}
        for kind in (
            *("admin-password", "user-password"),
            *("proxy-token", "portal-token", "culler-token", "cookie-secret"),
        ):
            self.passwords[kind] = secrets.token_hex(32)
            file = folder / kind
            file.write_text(self.passwords[kind])
            file.chmod(0o600)
        catalogue = yaml.safe_load((REPOSITORY / "images" / "catalogue.yaml").read_text())
        self._images: list[dict[str, Any]] = catalogue["images"]
        self._write_catalogue()
        self.configure("")
        self.write_policy({})
        network.ensure(self.docker, self.network_name, self.interface, self.ports)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of this machine that servers may open."""
        return tuple(filter(None, (self.hub_port, self.portal_port)))

    def add_image(self, name: str, reference: str, **more: Any) -> None:
        """Offer another image; the running Hub sees it."""
        entry = {"name": name, "image": reference, "framework": "test", "version": "1", **more}
        self._images.append({**entry, "description": "For a test.", "contents": ["nothing"]})
        self._write_catalogue()

    def _write_catalogue(self) -> None:
        (self.data / "catalogue.yaml").write_text(yaml.safe_dump({"images": self._images}))

    def configure(self, text: str) -> None:
        """Add lines to the site's configuration; takes effect at the next start."""
        ours = f"c.DS01Spawner.catalogue_file = {str(self.data / 'catalogue.yaml')!r}\n"
        (self.data / "site_config.py").write_text(ours + text)

    def write_policy(
        self, policy: Mapping[str, Any], beside: Mapping[str, str] | None = None
    ) -> None:
        """Write the lab's policy, and files beside it by name; the running Hub sees them."""
        folder = self.data / "policy"
        for name, text in {
            "resource-limits.yaml": yaml.safe_dump(policy),
            **(beside or {}),
        }.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all, as an editor does it.
            new = file.with_suffix(".new")
            new.write_text(text)
            new.rename(file)

    # -- the process ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the Hub, with its portal if it has one and that does not run; wait for it."""
        if self.portal_port and self.portal is None:
            self.start_portal()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(_CONFIGURATION)],
                cwd=self.data,
                env=self._process_environment(),
                stdout=log,
                stderr=log,
            )
        # It waits for an engine that is slow to remove what an earlier Hub has left.
        eventually(self._serves, f"the Hub serves (its log is {self.log})", 120)
        if self.has_culler and self.culler is None:
            self.culler = self.launch_culler()

    def start_portal(self) -> None:
        """Start the portal and wait until it serves."""
        self.portal = self.launch_portal()
        eventually(self._portal_serves, f"the portal serves (its log is {self.log})")

    def launch_portal(self) -> subprocess.Popen[bytes]:
        """Run a portal, also one too many."""
        return self._launch("ds01_spawner.portal")

    def launch_culler(self) -> subprocess.Popen[bytes]:
        """Run the service that stops idle servers, also one too many."""
        return self._launch("ds01_spawner.lifecycle")

    def _launch(self, service: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", service, str(_CONFIGURATION)],
                cwd=self.data,
                env=self._process_environment(),
                stdout=log,
                stderr=log,
            )

    def _portal_serves(self) -> bool:
        assert self.portal is not None
        assert self.portal.poll() is None, self.log.read_text()[-4000:]
        try:
            address = f"http://127.0.0.1:{self.portal_port}/services/ds01/api/limits"
            return requests.get(address, timeout=5).status_code == 403
        except requests.ConnectionError:
            return False

    def _process_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.environment,
            "DS01_DATA": str(self.data),
            "DS01_IP": "127.0.0.1",
            "DS01_PORT": str(self.port),
            "DS01_HUB_PORT": str(self.hub_port),
            "DS01_PROXY_API_PORT": str(self.proxy_api_port),
            "DS01_PORTAL_PORT": str(self.portal_port),
            "DS01_NETWORK": self.network_name,
            "DS01_TEST_TOKEN": self.token,
            # A crash in a library says where.
            "PYTHONFAULTHANDLER": "1",
        }

    def _serves(self) -> bool:
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"the Hub ended with {status}: {self.log.read_text()[-4000:]}"
        try:
            return requests.get(f"{self.url}/hub/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        """Stop the Hub as Ctrl-C does; servers run on."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    def kill(self) -> None:
        """Kill the Hub without a chance to write anything down."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop the Hub, if need be by force, and remove all that it made."""
        try:
            self.stop()
        finally:
            for process in filter(None, (self.process, self.portal, self.culler)):
                process.kill()
                process.wait()
            self._remove_all()

    def _remove_all(self) -> None:
        for container in self.containers():
            self.docker.remove_container(container["Id"], v=True, force=True)
        network.remove(self.docker, self.network_name)

    # -- over REST -----------------------------------------------------------------------------

    def api(self, method: str, path: str, token: str = "", **kwargs: Any) -> requests.Response:
        """Ask the Hub's API, as the tests' service or with a user's token."""
        headers = {"Authorization": f"token {token or self.token}"}
        return requests.request(
            method, f"{self.url}/hub/api{path}", headers=headers, timeout=180, **kwargs
        )

    def user(self, name: str) -> User:
        """Return a user of the Hub, made when missing."""
        answer = self.api("POST", f"/users/{name}")
        assert answer.status_code in (201, 409), answer.text
        token = self.api("POST", f"/users/{name}/tokens", json={"note": "for a test"})
        assert token.status_code == 201, token.text
        return User(self, name, token.json()["token"])

    def logged_in(self, name: str) -> requests.Session:
        """Log in as a browser does, and return the session with its cookies."""
        session = requests.Session()
        session.get(f"{self.url}/hub/login", timeout=60)
        fields = {
            "username": name,
            "password": self.passwords["user-password"],
            "_xsrf": session.cookies["_xsrf"],
        }
        answer = session.post(f"{self.url}/hub/login", data=fields, timeout=60)
        assert answer.ok, answer.text
        return session

    def containers(self) -> list[dict[str, Any]]:
        """Return all containers of this Hub, also ones that do not run."""
        identity = self.data / "hub-id"
        if not identity.exists():
            return []
        label = f"ds01.hub={identity.read_text().strip()}"
        found: list[dict[str, Any]] = self.docker.containers(all=True, filters={"label": label})
        return found


@dataclass(frozen=True)
class User:
    """A person with a token."""

    hub: Hub
    name: str
    token: str

    def _path(self, project: str) -> str:
        server = server_of(project)
        return f"/users/{self.name}/servers/{server}" if server else f"/users/{self.name}/server"

    def ask(self, project: str = "default", **options: Any) -> requests.Response:
        """Ask for a server and return the Hub's first answer."""
        body = {"user_options": options}
        return self.hub.api("POST", self._path(project), self.token, json=body)

    def begin(self, project: str = "default", **options: Any) -> Future[requests.Response]:
        """Ask for a server without waiting for the Hub's answer, which takes a while."""
        return _BACKGROUND.submit(self.ask, project, **options)

    def start(self, project: str = "default", **options: Any) -> Server:
        """Start a server and wait until it is ready."""
        answer = self.ask(project, **options)
        assert answer.status_code in (201, 202), answer.text
        model = eventually(lambda: self.ready(project), f"{project} is ready", 120)
        return Server(self, project, model["url"])

    def model(self, project: str = "default") -> dict[str, Any] | None:
        """Return what the Hub says of a server that is active."""
        answer = self.hub.api("GET", f"/users/{self.name}?include_stopped_servers=1")
        servers: dict[str, Any] = answer.json().get("servers") or {}
        return servers.get(server_of(project))

    def ready(self, project: str = "default") -> dict[str, Any] | None:
        """Return the server's model once it is ready; fail if its start has failed."""
        model = self.model(project)
        assert model is not None, self.hub.log.read_text()[-6000:]
        if not model["ready"]:
            assert model["pending"], self.hub.log.read_text()[-6000:]
            return None
        return model

    def stop(self, project: str = "default") -> None:
        """Stop a server, also one that starts, and wait until it is gone."""
        answer = self.hub.api("DELETE", self._path(project), self.token)
        assert answer.status_code in (202, 204), answer.text
        eventually(lambda: not self.is_active(project), f"{project} has stopped")

    def stop_in_any_state(self, project: str = "default") -> None:
        """Stop a server that runs, starts, or has just ended by itself, until it is gone."""

        def is_gone() -> bool:
            if self.is_active(project):
                self.hub.api("DELETE", self._path(project), self.token)
            return not self.is_active(project)

        eventually(is_gone, f"{project} of {self.name} is gone", 120)

    def stop_in_background(self, project: str = "default") -> Future[None]:
        """Stop a server without waiting for its end."""
        return _BACKGROUND.submit(self.stop, project)

    def watch_in_background(self) -> Viewer:
        """Watch the start of the unnamed server, as the page with the progress does."""
        return Viewer(self)

    def is_active(self, project: str = "default") -> bool:
        """Tell whether a server runs, starts or stops."""
        model = self.model(project)
        return bool(model and (model["ready"] or model["pending"]))

    def container(self, project: str = "default") -> dict[str, Any] | None:
        """Return the inspection of the server's container, None if there is none."""
        try:
            name = container_name(self.name, project)
            found: dict[str, Any] = self.hub.docker.inspect_container(name)
        except docker.errors.NotFound:
            return None
        return found

    def execute(self, command: list[str], project: str = "default") -> tuple[int, str]:
        """Run a command in the server's container as its user; return exit code and output."""
        container = self.container(project)
        assert container is not None
        handle = self.hub.docker.exec_create(container["Id"], command)
        output = self.hub.docker.exec_start(handle["Id"]).decode("utf-8", "replace")
        return int(self.hub.docker.exec_inspect(handle["Id"])["ExitCode"]), output


class Viewer:
    """Somebody who watches a start, and the messages `seen` so far."""

    def __init__(self, user: User) -> None:
        self.seen: list[str] = []
        self._stream = requests.get(
            f"{user.hub.url}/hub/api/users/{user.name}/server/progress",
            headers={"Authorization": f"token {user.hub.token}", "Accept": "text/event-stream"},
            stream=True,
            timeout=120,
        )
        self._reading = _BACKGROUND.submit(self._read)

    def _read(self) -> None:
        for line in self._stream.iter_lines(decode_unicode=True):
            if line.startswith("data:"):
                self.seen.append(json.loads(line.removeprefix("data:"))["message"])

    def all_messages(self) -> list[str]:
        """Return all messages, when the start has ended."""
        self._reading.result(120)
        return self.seen


@dataclass(frozen=True)
class Server:
    """A server that runs, as its owner's browser reaches it: through the proxy."""

    owner: User
    project: str
    path: str

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Ask the server's own API, with the path below its base URL."""
        return requests.request(
            method,
            f"{self.owner.hub.url}{self.path}{path}",
            headers={"Authorization": f"token {self.owner.token}"},
            timeout=60,
            **kwargs,
        )

    def run(self, code: str, kernel: str | None = None, within_s: float = 60) -> str:
        """Run code in a new kernel and return what it printed; an error's traceback too."""
        body = {"name": kernel} if kernel else {}
        started = self.request("POST", "api/kernels", json=body)
        assert started.status_code == 201, started.text
        kernel_id = started.json()["id"]
        try:
            return self._run(kernel_id, code, within_s)
        finally:
            self.request("DELETE", f"api/kernels/{kernel_id}")

    def begin(self, code: str) -> str:
        """Let a new kernel begin to run code, and leave; return the kernel's id."""
        started = self.request("POST", "api/kernels", json={})
        assert started.status_code == 201, started.text
        kernel_id: str = started.json()["id"]
        channel = self._connect(f"api/kernels/{kernel_id}/channels", 60)
        request = _execute_request(code, allow_stdin=True)
        channel.send(json.dumps(request))
        while True:
            message = json.loads(channel.recv())
            mine = message["parent_header"].get("msg_id") == request["header"]["msg_id"]
            if mine and message["content"].get("execution_state") == "busy":
                channel.close()
                return kernel_id

    def type_in_terminal(self, text: str) -> None:
        """Type a line in a new terminal, and leave."""
        name = self.request("POST", "api/terminals").json()["name"]
        channel = self._connect(f"terminals/websocket/{name}", 60)
        # The shell is there when it has printed its prompt.
        while json.loads(channel.recv())[0] != "stdout":
            pass
        channel.send(json.dumps(["stdin", f"{text}\r"]))
        channel.close()

    def _connect(self, path: str, within_s: float) -> websocket.WebSocket:
        address = f"{self.owner.hub.url}{self.path}{path}"
        return websocket.create_connection(
            address.replace("http", "ws", 1),
            header=[f"Authorization: token {self.owner.token}"],
            timeout=within_s,
        )

    def _run(self, kernel_id: str, code: str, within_s: float) -> str:
        channel = self._connect(f"api/kernels/{kernel_id}/channels", within_s)
        request = _execute_request(code)
        channel.send(json.dumps(request))
        printed: list[str] = []
        deadline = time.monotonic() + within_s
        while True:
            channel.settimeout(max(0.1, deadline - time.monotonic()))
            message = json.loads(channel.recv())
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed.append(content["text"])
                case "execute_result":
                    printed.append(content["data"]["text/plain"])
                case "error":
                    printed.append("\n".join(content["traceback"]))
                case "status" if content["execution_state"] == "idle":
                    channel.close()
                    return "".join(printed)


def _execute_request(code: str, *, allow_stdin: bool = False) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "username": "",
        "session": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": allow_stdin}
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
    }
