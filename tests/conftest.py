"""One real Hub for all tests that need one, with the runtime and the base images built."""

import fcntl
import tempfile
from pathlib import Path

import docker
import pytest

from ds01_spawner.certificates import ca_bundle
from ds01_spawner.images.bases import build_bases
from ds01_spawner.runtime.build import build as build_runtime

from .hub import Hub


@pytest.fixture(scope="session")
def engine():
    """Return a low-level client of the engine; without one the tests that need it fail here."""
    return docker.APIClient(version="auto")


@pytest.fixture(scope="session")
def built():
    """See to it that the base images and the runtime are there, as run.sh does."""
    client = docker.from_env()
    build_bases(client, ca_bundle=ca_bundle(), log=print)
    build_runtime(client, "ds01/debian:12", ca_bundle=ca_bundle(), log=print)


@pytest.fixture(scope="session")
def hub(built, tmp_path_factory):
    """Return a running Hub that all tests share; each uses users of its own."""
    deployment = Hub(tmp_path_factory.mktemp("hub"), "shared")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def no_other_builds():
    """Wait for the builds of other tests on this machine.

    The limits of all builds on an engine are one Hub's, and another one's end what runs.
    """
    with Path(tempfile.gettempdir(), "ds01-test-builds.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def own_hub(built, tmp_path):
    """Return a Hub for one test, not started: to configure, kill and start again."""
    deployment = Hub(tmp_path / "hub", "own")
    try:
        yield deployment
    finally:
        deployment.close()
