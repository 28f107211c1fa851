"""GPUs that fail, are cut anew, or are used by others, while a Hub runs."""

import os
import subprocess
import sys

import pytest

from ..hub import eventually
from .watch import held


def ds01(hub, *words):
    """Run the admin's command on the Hub's machine; return its status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ds01_spawner.cli", *words, "--data", str(hub.data)],
        env={**os.environ, **hub.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_gpu_with_a_critical_xid_is_not_given_until_an_admin_says_so(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1")
    hub.start()
    user = hub.user("anna")
    uuid = hub.machine.gpu.uuid
    eventually(lambda: _emits(hub, uuid), "the Hub has seen the Xid")

    refused = user.ask(gpu="full")

    assert refused.status_code == 409
    assert "out of order" in refused.json()["message"]
    assert ds01(hub, "gpus", "--recovered", uuid)[0] == 0
    user.start(gpu="full")
    assert list(held(hub.docker)) == [uuid]


def test_a_lost_gpu_is_not_given_and_hides_no_other(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:2")
    hub.start()
    hub.machine.machine.lose(0)

    hub.user("anna").start(gpu="full")

    assert list(held(hub.docker)) == [hub.machine.devices[1].uuid]
    assert hub.user("ben").ask(gpu="full").status_code == 409


def test_a_driver_that_does_not_answer_grants_nothing_and_servers_without_a_gpu_start(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1")
    hub.start()
    hub.machine.machine.fail("nvmlInitWithFlags", 18)
    user = hub.user("anna")

    refused = user.ask(gpu="full")

    assert refused.status_code == 503
    assert "cannot be read" in refused.json()["message"]
    user.start()
    assert held(hub.docker) == {}


def test_a_gpu_that_is_cut_while_the_hub_runs_is_given_in_pieces(make_gpu_hub, partition):
    hub = make_gpu_hub("a100-80gb:1")
    hub.start()
    partition(hub, 0, "2x3g.40gb")

    refused = hub.user("anna").ask(gpu="full")
    assert refused.status_code == 400
    assert "is partitioned. What there is: 3g.40gb." in refused.json()["message"]
    hub.user("ben").start(gpu="3g.40gb")

    (uuid,) = held(hub.docker)
    assert uuid in {device.uuid for device in hub.machine.migs}


@pytest.mark.parametrize(("cut", "size"), [("", "full"), ("2x3g.40gb", "3g.40gb")])
def test_what_a_server_had_before_its_gpu_was_cut_anew_is_given_to_nobody_else(
    make_gpu_hub, partition, cut, size
):
    hub = make_gpu_hub("a100-80gb:1,mig=7x1g.10gb@0")
    hub.start()
    anna, ben = hub.user("anna"), hub.user("ben")
    anna.start(gpu="1g.10gb")
    partition(hub, 0, cut)

    assert ben.ask(gpu=size).status_code == 409
    printed = ds01(hub, "gpus")[1]
    assert "anna/default" in printed
    assert "is given to anybody until that server is stopped" in printed

    anna.stop()
    ben.start(gpu=size)


def test_what_a_process_of_the_machine_uses_is_not_given(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1")
    hub.start()
    uuid = hub.machine.gpu.uuid
    hub.machine.machine.add_process(uuid, os.getpid())

    assert hub.user("anna").ask(gpu="full").status_code == 409
    status, printed = ds01(hub, "gpus")
    assert status == 0
    assert str(os.getpid()) in printed


def test_what_somebody_elses_container_has_is_not_given(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:2")
    hub.start()
    request = {"Driver": "nvidia", "DeviceIDs": ["0"], "Capabilities": [["gpu"]]}
    body = {"Image": "ds01/debian:12", "Cmd": ["sleep", "60"]}
    made = hub.docker.create_container_from_config(
        {**body, "HostConfig": {"DeviceRequests": [request]}}, "somebody"
    )
    try:
        hub.user("anna").start(gpu="full")
        assert list(held(hub.docker)) == [hub.machine.devices[1].uuid]
        assert hub.user("ben").ask(gpu="full").status_code == 409
        assert "somebody" in ds01(hub, "gpus")[1]
    finally:
        hub.docker.remove_container(made["Id"], force=True)


def _emits(hub, uuid):
    """Report an Xid, again until the Hub's thread has begun to watch."""
    hub.machine.machine.emit_xid(uuid, 79)
    return uuid in hub.log.read_text()
