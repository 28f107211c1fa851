"""Starts that somebody breaks off, at any moment."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..hub import eventually
from ..slow_engine import SlowEngine
from .watch import Watch, held

SEED = 20260301


def test_starts_cancelled_at_random_moments_under_load_lose_no_device_and_give_none_twice(
    make_gpu_hub,
):
    hub = make_gpu_hub("a100-80gb:2,mig=2x3g.40gb@1")
    hub.start()
    users = [hub.user(f"hasty{n}") for n in range(8)]
    chance = random.Random(SEED)
    plans = [
        [(chance.choice(["full", "3g.40gb"]), chance.uniform(0, 3)) for _ in range(3)]
        for _ in users
    ]

    def be_hasty(user, plan):
        for size, patience_s in plan:
            began = user.begin(gpu=size)
            # Not a wait for anything: the moment is the test's input.
            time.sleep(patience_s)
            user.stop_in_any_state()
            began.result(180)

    with Watch() as watch, ThreadPoolExecutor(len(users)) as pool:
        list(pool.map(be_hasty, users, plans))

    assert watch.most, "no start came as far as a grant"
    eventually(lambda: not hub.containers(), "no container is left")
    assert not held(hub.docker)
    _everything_can_be_had(hub, {"full": 1, "3g.40gb": 2})


@pytest.mark.parametrize("answer", [False, True], ids=["before", "after"])
def test_a_start_cancelled_inside_the_engines_create_keeps_its_device_until_it_is_undone(
    make_gpu_hub, tmp_path, answer
):
    door, hub = _hub_behind_a_door(make_gpu_hub, tmp_path)
    hasty, next_ = hub.user("hasty"), hub.user("next")
    door.hold(r"^POST .*/containers/create\?name=default", answer=answer)
    with Watch():
        began = hasty.begin(gpu="full")
        assert door.reached.wait(60)
        stopping = hasty.stop_in_background()
        waiting = next_.begin(gpu="full")
        # As long as the engine has not answered nobody else is given anything.
        time.sleep(2)
        assert not waiting.done()
        assert next_.container() is None
        door.release()
        stopping.result(60)
        began.result(60)
        waiting.result(60)
    eventually(lambda: hasty.container() is None, "what was cancelled is undone")
    eventually(lambda: not next_.is_active() or next_.ready(), "the next one is served")
    next_.stop_in_any_state()
    _everything_can_be_had(hub, {"full": 1})


@pytest.mark.parametrize("still_runs", [False, True], ids=["ended", "running"])
def test_a_stop_that_a_restart_of_the_hub_interrupts_gives_the_device_back_all_the_same(
    make_gpu_hub, tmp_path, still_runs
):
    door, hub = _hub_behind_a_door(make_gpu_hub, tmp_path)
    leaving = hub.user("leaving")
    leaving.start(gpu="full")
    door.hold(r"^POST .*/kill\?signal=SIGTERM", answer=not still_runs)
    stopping = leaving.stop_in_background()
    assert door.reached.wait(60)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(hub.stop)
        eventually(lambda: "Received signal SIGINT" in hub.log.read_text(), "the Hub ends")
        if still_runs:
            # The engine never sees the request.
            door.close()
            door.open()
        door.release()
        ended.result(60)
    stopping.exception(60)
    if not still_runs:
        eventually(lambda: not leaving.container()["State"]["Running"], "it has ended")
    assert leaving.container()["State"]["Running"] is still_runs

    hub.start()
    _everything_can_be_had(hub, {"full": 1})
    assert leaving.container() is None


def _hub_behind_a_door(make_gpu_hub, tmp_path):
    """Start a Hub with one GPU, whose requests to the engine can be held."""
    door = SlowEngine(tmp_path / "engine.sock")
    hub = make_gpu_hub("a100-80gb:1")
    hub.configure(f"import os\nos.environ['DOCKER_HOST'] = {door.url!r}\n")
    hub.start()
    return door, hub


def _everything_can_be_had(hub, sizes):
    """Start as many servers as there are devices; all of them come up."""
    for size, count in sizes.items():
        for n in range(count):
            user = hub.user(f"late-{size.replace('.', '-')}-{n}")
            eventually(lambda u=user, s=size: u.ask(gpu=s).status_code < 300, f"{size} is free")
            eventually(user.ready, "the server is ready")
