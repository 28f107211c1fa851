"""Any image is a notebook image: what a student can do in each, none made for JupyterHub."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass

import docker
import pytest
import websocket

from ds01_spawner.certificates import ca_bundle
from tests.hub import Server, eventually

from . import images


@dataclass(frozen=True)
class Image:
    """An image, and what its notebooks should run on.

    Attributes
    ----------
    python
        Version and installation of the image's Python; None where notebooks cannot run on it.
    where
        What a module that only the image has says of itself.
    why
        What a notebook says that runs on the runtime's Python instead.
    overlay
        Where packages go that are installed in a notebook.
    """

    name: str
    python: tuple[str, str] | None = None
    where: str | None = None
    why: str = ""
    overlay: str = "/opt/temporary"
    shell: str = "bash"


WITHOUT_JUPYTER = [
    Image("debian11", ("3.9", "/usr")),
    Image("debian12", ("3.11", "/usr")),
    Image("debian13", ("3.13", "/usr")),
    Image("venv", ("3.11", "/usr"), where="venv"),
    Image("no-python", why="there is no Python in this image"),
    Image("busybox", why="there is no Python in this image", shell="sh"),
]
BESIDES = [
    Image("own-jupyter", ("3.11", "/usr")),
    Image("conda", ("3.11", "/opt/conda"), where="/opt/conda"),
    Image("old-packages", ("3.11", "/usr"), where="old"),
    Image("old-python", why="Python 3.6 is too old", overlay="/opt/temporary/notebook"),
    Image("broken-python", why="No module named 'asyncio'", overlay="/opt/temporary/notebook"),
    Image("hostile", why="/usr/bin/python3 does not work"),
]

LOOK = """
import json, os, sys
try:
    from of_the_image import WHERE
except ImportError:
    WHERE = None
try:
    open("/opt/ds01/bin/python3", "w")
except OSError as error:
    protected = error.errno
print("seen:" + json.dumps({
    "version": "%d.%d" % sys.version_info[:2], "base": sys.base_prefix, "prefix": sys.prefix,
    "where": WHERE, "directory": os.getcwd(), "protected": protected,
    "path": os.environ["PATH"].split(":")[0],
}))
"""
READ_ONLY = 30  # errno.EROFS

INSTALL = """
%pip install --quiet ipywidgets
import ipywidgets
slider = ipywidgets.IntSlider(value=7)
print("seen:", ipywidgets.__file__, slider.comm.comm_id != "", slider.value)
"""


@pytest.fixture(scope="module")
def started(hub):
    """Return a function that starts a server from one of the images, each once."""
    client, servers = docker.from_env(), dict[str, Server]()

    def start(name: str) -> Server:
        if name not in servers:
            is_base = name == "no-python"
            hub.add_image(
                name, "ds01/debian:12" if is_base else images.build(client, name, ca_bundle())
            )
            servers[name] = hub.user(f"runtime-{name}").start(image=name, memory="1g")
        return servers[name]

    yield start
    for server in servers.values():
        server.owner.stop()


#: Like others that are tried each time, and slow to be made.
SELDOM = ("debian11", "debian13", "busybox", "old-packages", "broken-python")


def seldom(image: Image, names: Collection[str] = SELDOM) -> object:
    """Return it as a parameter that is left to the long tests, if it is one of those."""
    return pytest.param(image, marks=pytest.mark.long) if image.name in names else image


@pytest.fixture(
    scope="module", params=[*map(seldom, WITHOUT_JUPYTER + BESIDES)], ids=lambda image: image.name
)
def image(request):
    return request.param


@pytest.fixture
def server(started, image):
    return started(image.name)


class Terminal:
    """A terminal as JupyterLab opens it."""

    def __init__(self, server: Server) -> None:
        name = server.request("POST", "api/terminals").json()["name"]
        url = f"{server.owner.hub.url}{server.path}terminals/websocket/{name}"
        self._channel = websocket.create_connection(
            url.replace("http", "ws", 1),
            header=[f"Authorization: token {server.owner.token}"],
            timeout=1,
        )
        self.seen = ""

    def type(self, line: str) -> None:
        """Type a line."""
        self._channel.send(json.dumps(["stdin", line + "\r"]))

    def shows(self, pattern: str) -> str:
        """Wait until a pattern is on the screen and return what it matched."""

        def look() -> str | None:
            try:
                kind, *words = json.loads(self._channel.recv())
            except websocket.WebSocketTimeoutException:
                return None
            self.seen += words[0] if kind == "stdout" else ""
            found = re.search(pattern, self.seen)
            return found and found.group()

        return eventually(look, f"{pattern!r} in the terminal", 30)


def seen(printed: str) -> dict:
    """Return what the code in LOOK found out."""
    assert "seen:{" in printed, printed
    return json.loads(printed.partition("seen:")[2])


def test_a_notebook_runs_in_the_images_own_python(server, image):
    printed = server.run(LOOK)
    found = seen(printed)
    assert found["protected"] == READ_ONLY
    assert found["directory"] == "/workspace"
    assert found["path"] == f"{image.overlay}/bin"
    if image.python:
        assert (found["version"], found["base"], found["where"]) == (*image.python, image.where)
        assert "ds01:" not in printed
    else:
        assert found["base"] == "/opt/ds01"
        assert "not on the image's" in printed
        assert image.why in printed


def test_a_terminal_opens_with_the_prompt(server, image):
    terminal = Terminal(server)
    terminal.shows(rf"{server.owner.name}@default:/workspace\$ ")
    terminal.type("echo $(whoami) in $0")
    terminal.shows(rf"{server.owner.name} in \S*{image.shell}\r")


def test_files_save(server):
    text = {"type": "file", "format": "text", "content": f"saved at {time.time()}"}
    saved = server.request("PUT", "api/contents/notes.txt", json=text)
    assert saved.status_code in (200, 201), saved.text
    read = ["/opt/ds01/bin/python3", "-I", "-c", "print(open('/workspace/notes.txt').read())"]
    code, printed = server.owner.execute(read)
    assert (code, printed.splitlines()[-1]) == (0, text["content"])


@pytest.mark.parametrize(
    "image",
    [seldom(image, (*SELDOM, "venv", "no-python")) for image in WITHOUT_JUPYTER],
    ids=lambda image: image.name,
)
def test_widgets_that_a_user_installs_work_and_are_said_to_be_temporary(started, image):
    server = started(image.name)
    printed = server.run(INSTALL, within_s=120)
    assert re.search(r"seen: /opt/temporary/lib/\S+/ipywidgets/__init__.py True 7", printed), (
        printed
    )
    assert "gone when the server stops" in printed
    page = server.request("GET", "lab").text
    config = json.loads(
        re.search(r"<script id=\"jupyter-config-data\".*?>(.*?)</script>", page, re.S)[1]
    )
    manager = next(
        extension
        for extension in config["federated_extensions"]
        if extension["name"] == "@jupyter-widgets/jupyterlab-manager"
    )
    script = server.request("GET", f"lab/extensions/{manager['name']}/{manager['load']}")
    assert script.status_code == 200
    assert "javascript" in script.headers["Content-Type"]


def test_where_the_images_python_cannot_run_notebooks_packages_still_install(started):
    server = started("broken-python")
    printed = server.run(INSTALL, within_s=120)
    assert "seen: /opt/temporary/notebook/lib/" in printed


def test_pip_in_a_terminal_says_that_it_is_temporary(started):
    terminal = Terminal(started("debian12"))
    terminal.type(
        "pip install --quiet tinynetrc && python -c 'import tinynetrc as t; print(t.__file__)'"
    )
    terminal.shows("gone when it stops")
    terminal.shows(r"/opt/temporary/lib/python3.11/site-packages/tinynetrc.py")


def test_a_package_that_was_not_installed_is_not_said_to_be_temporary(started):
    printed = started("debian12").run("%pip install --no-index not-there")
    assert "No matching distribution" in printed
    assert "gone when the server stops" not in printed


def test_the_images_kernels_are_offered_and_run_in_its_environment(started):
    server = started("own-jupyter")
    offered = server.request("GET", "api/kernelspecs").json()["kernelspecs"]
    assert set(offered) == {"python3", "physics"}
    code = "import ipykernel, os; print(ipykernel.__version__, os.environ.get('PHYSICS'))"
    assert server.run(code) == "6.25.2 None\n"
    assert server.run(code, kernel="physics") == f"6.25.2 for {server.owner.name}\n"


def test_the_images_lab_extensions_are_found(started):
    page = started("own-jupyter").request("GET", "lab").text
    assert "of-the-image" in page


def test_a_conda_environment_is_a_kernel_of_its_own(started):
    server = started("conda")
    found = seen(server.run(LOOK, kernel="conda-env-science-py"))
    assert found["where"] == found["base"] == "/opt/conda/envs/science"
    assert found["path"] == "/opt/temporary/envs/science/bin"
    printed = server.run(INSTALL, kernel="conda-env-science-py", within_s=120)
    assert "seen: /opt/temporary/envs/science/lib/" in printed


def test_an_app_on_a_port_opens_under_the_users_own_url(started):
    server = started("debian12")
    server.owner.execute(["sh", "-c", "echo hello > /workspace/index.html"])
    terminal = Terminal(server)
    terminal.type("python -m http.server 9123")
    terminal.shows("Serving HTTP")
    assert server.request("GET", "proxy/9123/").text == "hello\n"


def test_files_in_the_workspace_cannot_break_a_server(started):
    owner = started("debian12").owner
    hostile = "raise SystemExit('hostile')"
    for name in ("json.py", "site.py", "jupyter_server_config.py", "traitlets.py"):
        owner.execute(["sh", "-c", f'echo "{hostile}" > /workspace/{name}'])
    owner.stop()
    assert owner.start().request("GET", "lab").status_code == 200
    owner.execute(["sh", "-c", "rm /workspace/*.py"])


def test_a_safe_start_ignores_the_settings_in_the_home(started):
    server = started("debian12")
    owner = server.owner
    script = """
    mkdir -p ~/.jupyter ~/.ipython/profile_default/startup ~/.local/share/jupyter/kernels/mine
    echo "raise SystemExit('broken')" > ~/.jupyter/jupyter_server_config.py
    echo "raise SystemExit('broken')" > ~/.ipython/profile_default/startup/broken.py
    echo "exit 1" > ~/.bashrc
    echo '{"argv": ["sh"], "display_name": "Mine", "language": "sh"}' \
        > ~/.local/share/jupyter/kernels/mine/kernel.json
    """
    assert owner.execute(["sh", "-c", script])[0] == 0
    owner.stop()
    try:
        server = owner.start(image="debian12", memory="1g", safe_start=True)
        assert server.run("print('it runs')") == "it runs\n"
        Terminal(server).shows(r"@default:/workspace\$ ")
        offered = server.request("GET", "api/kernelspecs").json()["kernelspecs"]
        assert set(offered) == {"python3"}
    finally:
        owner.execute(["sh", "-c", "rm -r ~/.jupyter ~/.ipython ~/.bashrc ~/.local"])
