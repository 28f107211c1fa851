"""Cancelled, killed, out of disk, without an engine: nothing is lost and nothing is left behind."""

import subprocess
import time

import pytest

from tests.docker.test_life import hub_accepts, last_ending, token_of
from tests.hub import Server, eventually
from tests.slow_engine import SlowEngine


@pytest.fixture
def slow(own_hub):
    """Return a Hub whose engine can be made slow, or be taken away."""
    door = SlowEngine(own_hub.data / "engine.sock")
    own_hub.configure(f"c.DS01Spawner.client_kwargs = {{'base_url': {door.url!r}}}\n")
    own_hub.start()
    yield own_hub, door
    door.release()


#: Requests to the engine, in the order of a start, at each of which a start is cancelled.
STEPS = {
    "looking at the image": (r"GET /v[\d.]+/images/", False),
    "before the create": (r"POST /v[\d.]+/containers/create", False),
    "inside the create": (r"POST /v[\d.]+/containers/create", True),
    "reading the image's users": (r"GET /v[\d.]+/containers/\w+/archive", False),
    "writing the user's entries": (r"PUT /v[\d.]+/containers/\w+/archive", True),
    "before the start": (r"POST /v[\d.]+/containers/\w+/start", False),
    "inside the start": (r"POST /v[\d.]+/containers/\w+/start", True),
    "looking at the container": (r"GET /v[\d.]+/containers/[0-9a-f]{64}/json", False),
}


@pytest.mark.parametrize(
    "steps",
    [["inside the create", "inside the start"], pytest.param([*STEPS], marks=pytest.mark.long)],
    ids=["the engine's", "all"],
)
def test_a_start_cancelled_at_any_step_leaves_nothing(slow, steps):
    hub, door = slow
    alice = hub.user("alice")
    folder = hub.data / "workspaces" / "alice" / "default"
    for step in steps:
        request, answer = STEPS[step]
        door.hold(request, answer=answer)
        alice.begin(image="python", memory="1g")
        assert door.reached.wait(30), step
        stopping = hub.api("DELETE", "/users/alice/server", alice.token)
        assert stopping.status_code in (202, 204), stopping.text
        door.release()
        eventually(lambda: not alice.is_active("default"), f"the start is over: {step}")
        eventually(lambda: hub.containers() == [], f"no container is left: {step}")
        eventually(lambda: not folder.exists(), f"no folder is left: {step}")
        tokens = hub.api("GET", "/users/alice/tokens").json()["api_tokens"]
        assert [token for token in tokens if token["note"].startswith("Server at")] == [], step
    server = alice.start(image="python", memory="1g")
    assert server.run("print('works')") == "works\n"


def test_a_start_cancelled_while_jupyterlab_comes_up_leaves_nothing(own_hub):
    own_hub.start()
    alice = own_hub.user("alice")
    alice.begin(image="python", memory="1g")
    running = eventually(
        lambda: (alice.container() or {}).get("State", {}).get("Running") and alice.container(),
        "the container runs",
    )
    alice.stop()
    assert own_hub.containers() == []
    assert not hub_accepts(own_hub, token_of(running))


def test_each_viewer_of_a_start_sees_it_from_the_beginning(slow):
    hub, door = slow
    alice = hub.user("alice")
    door.hold(r"POST /v[\d.]+/containers/create", answer=True)
    alice.begin(image="python", memory="1g")
    assert door.reached.wait(30)
    # One comes late and one, who has reloaded the page, comes twice.
    viewers = [alice.watch_in_background() for _ in range(3)]
    eventually(lambda: all(viewer.seen for viewer in viewers), "all see something")
    door.release()
    steps = ["Checking", "Preparing", "Creating", "Starting", "Waiting", "Ready", "Server ready"]
    for viewer in viewers:
        messages = viewer.all_messages()
        places = [_first(messages, step) for step in steps]
        assert places == sorted(places), messages


def _first(messages, beginning):
    return next(at for at, message in enumerate(messages) if message.startswith(beginning))


def test_a_stop_during_which_the_engine_goes_away_leaves_nothing(slow):
    hub, door = slow
    alice = hub.user("alice")
    alice.start(image="python", memory="1g")
    door.hold(r"POST /v[\d.]+/containers/\w+/kill")
    stopping = alice.stop_in_background()
    assert door.reached.wait(30)
    door.close()
    door.release()
    assert len(hub.containers()) == 1
    door.open()
    stopping.result(120)
    assert hub.containers() == []


def test_a_start_that_takes_too_long_is_explained_and_removed(slow):
    hub, door = slow
    hub.stop()
    hub.configure(
        f"c.DS01Spawner.client_kwargs = {{'base_url': {door.url!r}}}\n"
        "c.DS01Spawner.start_timeout = 5\n"
    )
    hub.start()
    alice = hub.user("alice")
    door.hold(r"POST /v[\d.]+/containers/create", answer=True)
    alice.begin(image="python", memory="1g")
    ending = eventually(lambda: last_ending(hub, alice), "the failure is kept")
    door.release()
    assert "did not come up in 5 seconds" in ending.message
    assert "Creating your container" in ending.message
    eventually(lambda: hub.containers() == [], "nothing is left")


def test_an_engine_that_is_away_loses_no_server_and_starts_none(slow):
    hub, door = slow
    alice = hub.user("alice")
    server = alice.start(image="python", memory="1g")
    door.close()
    refused = alice.ask("second", image="python", memory="1g")
    assert refused.status_code == 503
    assert "engine does not answer" in refused.json()["message"]
    looks = "Cannot look at alice"
    eventually(lambda: hub.log.read_text().count(looks) >= 3, "the Hub has looked three times")
    assert alice.ready()
    assert server.run("print('still here')") == "still here\n"
    door.open()
    alice.stop()
    assert hub.containers() == []


@pytest.mark.long
def test_a_killed_hub_adopts_every_server_also_one_that_was_starting(own_hub):
    own_hub.start()
    users = [own_hub.user(name) for name in ("one", "two", "three")]
    for user in users:
        user.start(image="python", memory="1g")
    before = {user.name: user.container()["Id"] for user in users}
    late = own_hub.user("late")
    late.begin(image="python", memory="1g")
    booting = eventually(
        lambda: (late.container() or {}).get("State", {}).get("Running") and late.container(),
        "the container runs",
    )
    own_hub.kill()
    own_hub.start()
    eventually(late.ready, "the one that was starting is ready")
    for user in users:
        assert user.ready()
        assert user.container()["Id"] == before[user.name]
    assert late.container()["Id"] == booting["Id"]
    for user in [*users, late]:
        server = Server(user, "default", user.ready()["url"])
        assert server.run("print('usable')") == "usable\n"
    late.stop()
    assert not hub_accepts(own_hub, token_of(booting))


def test_a_hub_that_is_stopped_leaves_servers_running_and_comes_back_quickly(own_hub):
    own_hub.start()
    alice = own_hub.user("alice")
    alice.start(image="python", memory="1g")
    container = alice.container()
    own_hub.stop()
    assert alice.container()["State"]["Running"]
    began = time.monotonic()
    own_hub.start()
    # A few seconds; on two slow and busy cores some more.
    assert time.monotonic() - began < 30
    assert alice.ready()
    assert alice.container()["Id"] == container["Id"]
    alice.stop()
    assert not hub_accepts(own_hub, token_of(container))


def test_a_server_that_ended_while_the_hub_was_down_is_explained(own_hub):
    own_hub.start()
    alice = own_hub.user("alice")
    alice.start(image="python", memory="1g")
    container = alice.container()
    own_hub.kill()
    own_hub.docker.kill(container["Id"])
    own_hub.start()
    ending = eventually(lambda: last_ending(own_hub, alice), "the ending is kept")
    assert "signal 9" in ending.message
    eventually(lambda: own_hub.containers() == [], "the container is removed")
    assert not hub_accepts(own_hub, token_of(container))


def test_a_full_disk_is_said_and_nothing_is_left(own_hub):
    places = own_hub.data / "workspaces"
    places.mkdir()
    # Room for the directory itself and for nothing in it.
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=1,size=64k", "tmpfs", places], check=True
    )
    try:
        own_hub.start()
        alice = own_hub.user("alice")
        refused = alice.ask(image="python", memory="1g")
        assert refused.status_code == 503, refused.text
        assert "disk is full" in refused.json()["message"]
        assert own_hub.containers() == []
    finally:
        subprocess.run(["umount", places], check=True)


def test_a_slow_stop_of_one_user_delays_nobody(slow):
    hub, door = slow
    alice, bob = hub.user("alice"), hub.user("bob")
    alice.start(image="python", memory="1g")
    door.hold(r"POST /v[\d.]+/containers/\w+/kill", answer=True)
    stopping = alice.stop_in_background()
    assert door.reached.wait(30)
    assert bob.start(image="python", memory="1g").run("print('mine')") == "mine\n"
    assert alice.container() is not None
    door.release()
    stopping.result(60)
    assert alice.container() is None
