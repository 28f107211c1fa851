"""The engine restarts under running servers. In the long tests: it is this machine's own engine."""

import json
import os
import signal
import subprocess
from pathlib import Path

import docker.errors
import pytest
import requests

from ds01_spawner import network
from tests.docker.test_network import reaches
from tests.hub import eventually

pytestmark = pytest.mark.long


def restart_engine(client):
    """Restart the engine as its admin does."""
    assert client.info()["LiveRestoreEnabled"], "an engine without live-restore takes servers along"
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "restart", "docker"], check=True)
        return
    pid = int(Path("/var/run/docker.pid").read_text())
    command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the engine has ended")
    log = Path(os.environ.get("TMPDIR", "/tmp")) / "ds01-test-dockerd.log"
    with log.open("ab") as output:
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    eventually(lambda: _answers(client), "the engine answers")


def _answers(client):
    try:
        return client.ping()
    except (docker.errors.DockerException, requests.ConnectionError):
        return False


def test_servers_and_their_fence_live_through_it(hub):
    users = [hub.user(name) for name in ("restart-a", "restart-b")]
    servers = [user.start(image="python", memory="1g") for user in users]
    before = [user.container()["Id"] for user in users]
    restart_engine(hub.docker)
    assert [user.container()["Id"] for user in users] == before
    assert all(user.ready() for user in users)
    found = network.find(hub.docker, hub.network_name)
    assert network.problems(found, hub.ports) == []
    other = users[1].container()["NetworkSettings"]["Networks"][hub.network_name]["IPAddress"]
    targets = [
        (found.gateway, hub.hub_port),
        (other, 8888),
        (found.gateway, hub.proxy_api_port),
        (found.gateway, hub.port),
    ]
    assert reaches(servers[0], *targets) == [True, False, False, False], json.dumps(targets)
    for user in users:
        user.stop()
