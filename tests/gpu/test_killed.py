"""A Hub that is killed in the middle of a start."""

import random
import time

import pytest

from ..hub import eventually
from ..slow_engine import SlowEngine
from .watch import Watch, held

SEED = 20260302
USERS = 3
#: From the request to a server that answers, on a slow machine.
LONGEST_S = 3.0


@pytest.mark.parametrize("slow", [False, True], ids=["engine", "slow-engine"])
def test_a_hub_killed_at_any_point_of_a_start_loses_no_device_and_gives_none_twice(
    make_gpu_hub, tmp_path, slow
):
    _kill_again_and_again(make_gpu_hub, tmp_path, kills=4, slow=slow)


@pytest.mark.long
@pytest.mark.parametrize("slow", [False, True], ids=["engine", "slow-engine"])
def test_a_hub_killed_300_times_loses_no_device_and_gives_none_twice(make_gpu_hub, tmp_path, slow):
    _kill_again_and_again(make_gpu_hub, tmp_path, kills=150, slow=slow)


def _kill_again_and_again(make_gpu_hub, tmp_path, *, kills, slow):
    chance = random.Random(SEED + slow)
    # A device for each that asks: what is lost is missed in the next round.
    hub = make_gpu_hub("a100-80gb:2,mig=2x3g.40gb@1")
    door = SlowEngine(tmp_path / "engine.sock")
    if slow:
        hub.configure(f"import os\nos.environ['DOCKER_HOST'] = {door.url!r}\n")
    hub.start()
    users = [hub.user(f"user{n}") for n in range(USERS)]
    sizes = ["full", "3g.40gb", "3g.40gb"]
    with Watch() as watch:
        for kill in range(kills):
            if slow:
                door.hold(r"^POST .*/containers/create\?name=default", answer=chance.random() < 0.5)
            for user, size in zip(users, sizes, strict=True):
                user.begin(gpu=size)
            if slow:
                assert door.reached.wait(60)
                time.sleep(chance.uniform(0, 0.3))
            else:
                time.sleep(chance.uniform(0, LONGEST_S))
            hub.kill()
            if slow:
                release_later(door, chance.uniform(0, 2))
            hub.start()
            _all_are_at_rest(hub, users, kill)
            for user in users:
                user.stop_in_any_state()
            eventually(lambda: not hub.containers(), f"nothing is left after kill {kill}")
    assert watch.most, "no start came as far as a grant"
    for user, size in zip(users, sizes, strict=True):
        user.start(gpu=size)
    assert len(held(hub.docker)) == USERS


def release_later(door, after_s):
    """Let the engine go on while the Hub starts again."""
    import threading

    threading.Timer(after_s, door.release).start()


def _all_are_at_rest(hub, users, kill):
    """Wait until each server runs or is gone, and nothing is created without being started."""
    for user in users:
        eventually(lambda u=user: not _pending(u), f"{user.name} is at rest after kill {kill}")
    assert [c["Names"] for c in hub.containers() if c["State"] == "created"] == []


def _pending(user):
    model = user.model()
    return bool(model and model["pending"])
