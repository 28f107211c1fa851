"""Whose GPU works is not stopped; whose GPU does not is, and the next one gets it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ds01_spawner.lifecycle.records import LifeRecords

from ..hub import eventually
from .watch import Watch, attached, held

#: Times that a test can wait for. What executes and uses nothing stalls soon, too.
POLICY = {
    "defaults": {
        "idle_timeout_h": "30s",
        "policies": {"cpu_idle_threshold": 30, "stalled_kernel_h": "35s"},
    },
    "policies": {"grace_period_m": "1s"},
}
COMPUTES = "while True: pass"
#: As a loop does that has handed its work to the GPU.
WAITS_FOR_GPU = "import time; time.sleep(600)"


def work(server, code):
    """Leave code running in a server whose page is closed, or a kernel that is only open."""
    if code:
        server.begin(code)
    else:
        server.request("POST", "api/kernels", json={})


@pytest.mark.long
def test_a_gpu_that_works_keeps_its_server_and_an_idle_one_goes_to_the_next(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:4,mig=7x1g.10gb@3", culler=True)
    hub.write_policy(POLICY)
    hub.configure("c.DS01Spawner.cull_every_s = 1\nc.DS01Spawner.stop_notice_s = 5\n")
    hub.start()
    machine, records = hub.machine.machine, LifeRecords(hub.data / "ds01.sqlite")

    def started(name, gpu, code, at_work):
        """Start a server, let its GPU work or not, and return who has it, and the device."""
        user = hub.user(name)
        server = user.start(gpu=gpu, memory="1g", cpus=0.4)
        container = user.container()
        (device,) = attached(hub.docker, container["Id"])
        if at_work and gpu == "full":
            machine.set_utilisation(device, 0.6)
        elif at_work:
            # An A100 does not tell how busy a MIG device is.
            machine.add_process(device, container["State"]["Pid"])
        work(server, code)
        return user, device

    servers = {
        "trains": ("full", COMPUTES, True),
        "waits": ("full", WAITS_FOR_GPU, True),
        "idle": ("full", "", False),
        "detached": ("1g.10gb", "", True),
        "asks": ("1g.10gb", "input()", False),
    }
    with Watch(), ThreadPoolExecutor(len(servers)) as pool:
        pending = {name: pool.submit(started, name, *what) for name, what in servers.items()}
        users, devices = {}, {}
        for name, future in pending.items():
            users[name], devices[name] = future.result()
        begun = time.monotonic()

        for name in ("idle", "asks"):
            eventually(lambda name=name: not users[name].is_active(), f"{name} is stopped", 120)
        # Longer than anything here may be idle or stall.
        while time.monotonic() - begun < 45:
            assert all(users[name].is_active() for name in ("trains", "waits", "detached"))
            time.sleep(1)
        for name in ("trains", "waits", "detached"):
            assert users[name].is_active(), name
            assert {event.kind for event in records.events(name)} == {"started"}

        stopped = {name: records.events(name)[0] for name in ("idle", "asks")}
        assert {event.kind for event in stopped.values()} == {"stopped"}
        assert "without activity" in stopped["idle"].why
        assert stopped["idle"].numbers["gpu_percent"] == 0
        assert "may wait for an input" in stopped["asks"].why
        courses = {course.user: course for course in records.courses()}
        assert courses["waits"].gpu_percent == 60
        assert courses["detached"].gpu_percent == 100

        # Nobody else had that GPU before, and now somebody has.
        hub.user("next").start(gpu="full", memory="1g", cpus=0.4)
        assert set(held(hub.docker)[devices["idle"]]) == {hub.user("next").container()["Name"][1:]}

        # When the work ends, it goes as any other does.
        machine.set_utilisation(devices["waits"], 0)
        machine.remove_process(users["detached"].container()["State"]["Pid"])
        for name in ("waits", "detached"):
            eventually(lambda name=name: not users[name].is_active(), f"{name} is stopped", 120)
        assert users["trains"].is_active()
