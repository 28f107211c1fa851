"""A second engine, with NVIDIA's toolkit or what stands in for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests

from tests.hub import eventually

from .toolkit import RUNTIME, Toolkit

#: Engines keep their data here: not on a file system in memory, which has no overlays.
HOME = Path("/var/lib/ds01-gpu-tests")

#: Set by scripts/in_namespace.sh, in which these tests run.
IN_NAMESPACE = "DS01_TEST_NAMESPACE"


class GpuEngine:
    """A dockerd of the tests' own, in the network namespace in which the tests run.

    Use it as a context manager; it leaves nothing behind. What an engine that was killed left is
    removed by the next.

    Attributes
    ----------
    toolkit
        What the engine has in the place of NVIDIA's toolkit.
    url
        Where it listens, for ``DOCKER_HOST``.
    """

    def __init__(self) -> None:
        if not os.environ.get(IN_NAMESPACE):
            raise RuntimeError("These tests need a network of their own: run ./test.sh gpu")
        with _alone_at_home():
            _remove_leftovers()
            self._folder = Path(tempfile.mkdtemp(dir=HOME))
            self._lock = _lock(self._folder)
        self.toolkit = Toolkit(self._folder / "toolkit")
        self.url = f"unix://{self._folder}/docker.sock"
        self.log = self._folder / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._runtime = "runc"
        #: The machine's own engine.
        self._lender = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")

    @property
    def client(self) -> docker.APIClient:
        """A new low-level client."""
        return docker.APIClient(self.url, version="auto")

    def __enter__(self) -> GpuEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        with _alone_at_home():
            _remove(self._folder)
        os.close(self._lock)

    # -- the process ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        self._write_configuration()
        command = ["dockerd", "--config-file", str(self._folder / "daemon.json")]
        environment = {**os.environ, "PATH": f"{self.toolkit.bin}:{os.environ['PATH']}"}
        environment.pop("DOCKER_HOST", None)
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for the tests, which stop it in order.
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers, f"the engine answers (its log is {self.log})")

    def stop(self) -> None:
        """Stop the engine, and all containers with it."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, default_runtime: str = "runc") -> None:
        """Stop the engine and start it with another default runtime."""
        self._runtime = default_runtime
        self.stop()
        self.start()

    @contextlib.contextmanager
    def default_runtime(self, name: str) -> Iterator[None]:
        """Have another default runtime for a while; containers run on."""
        self._reload(name)
        try:
            yield
        finally:
            self._reload("runc")

    def _reload(self, runtime: str) -> None:
        assert self._process is not None
        self._runtime = runtime
        self._write_configuration()
        self._process.send_signal(signal.SIGHUP)
        eventually(
            lambda: self.client.info()["DefaultRuntime"] == runtime, f"{runtime} is the default"
        )

    def _write_configuration(self) -> None:
        configuration = {
            "data-root": str(self._folder / "data"),
            "exec-root": str(self._folder / "run"),
            "pidfile": str(self._folder / "pid"),
            "hosts": [self.url],
            "cgroup-parent": f"/{_cgroup(self._folder)}",
            # systemd knows nothing of the processes in this namespace.
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "runtimes": {"nvidia": {"path": str(self.toolkit.bin / RUNTIME)}},
            "default-runtime": self._runtime,
        }
        (self._folder / "daemon.json").write_text(json.dumps(configuration))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-4000:]
        try:
            return bool(docker.APIClient(self.url, version="auto").ping())
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return False

    # -- what the tests need in it -------------------------------------------------------------

    def borrow_images(self, *references: str) -> None:
        """Copy images from the machine's own engine."""
        save = ["docker", "--host", self._lender, "save", *references]
        load = ["docker", "--host", self.url, "load", "--quiet"]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
            subprocess.run(load, stdin=saving.stdout, check=True, stdout=subprocess.DEVNULL)
        assert saving.returncode == 0, f"the machine's engine does not give {references}"

    def borrow_volume(self, name: str) -> None:
        """Show a volume of the machine's own engine here too, to be read only."""
        lender = docker.APIClient(self._lender, version="auto")
        found: dict[str, Any] = lender.inspect_volume(name)
        options = {"type": "none", "o": "bind,ro", "device": found["Mountpoint"]}
        self.client.create_volume(name, driver="local", driver_opts=options, labels=found["Labels"])


@contextlib.contextmanager
def _alone_at_home() -> Iterator[None]:
    """Keep others from taking a folder that is being made or removed for a leftover."""
    HOME.mkdir(exist_ok=True)
    fd = os.open(HOME, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lock(folder: Path) -> int:
    """Say that an engine lives here, for as long as this process does."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _remove_leftovers() -> None:
    """Remove the folders of engines that were killed; their mounts went with their namespace."""
    for folder in HOME.iterdir():
        try:
            fd = _lock(folder)
        except BlockingIOError:
            continue
        _remove(folder)
        os.close(fd)


def _remove(folder: Path) -> None:
    """Remove an engine's folder and its cgroups."""
    root, name = Path("/sys/fs/cgroup"), _cgroup(folder)
    for cgroup in (*root.glob(name), *root.glob(f"*/{name}")):
        for below, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(below)
    shutil.rmtree(folder)


def _cgroup(folder: Path) -> str:
    return f"ds01-gpu-tests-{folder.name}"
