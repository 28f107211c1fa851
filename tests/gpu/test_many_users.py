"""Many people ask for few devices."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ds01_spawner.lifecycle.events import NONE_FREE
from ds01_spawner.lifecycle.records import LifeRecords

from ..hub import eventually
from .watch import Watch, attached, held

USERS = 200


def test_of_200_users_who_ask_at_once_for_12_devices_12_get_one_and_188_a_clear_answer(
    make_gpu_hub,
):
    hub = make_gpu_hub("a100-80gb:6,mig=7x1g.10gb@5")
    # The answer is the start's result, however long a start takes on a slow machine.
    hub.configure("c.JupyterHub.tornado_settings = {'slow_spawn_timeout': 240}\n")
    hub.start()
    with ThreadPoolExecutor(16) as pool:
        users = list(pool.map(hub.user, (f"student{n}" for n in range(USERS))))

    with Watch() as watch, ThreadPoolExecutor(USERS) as pool:
        sizes = ["full" if n % 2 else "1g.10gb" for n in range(USERS)]
        asked = [pool.submit(user.ask, gpu=size) for user, size in zip(users, sizes, strict=True)]
        answers = [future.result() for future in asked]

    assert Counter(answer.status_code for answer in answers) == {201: 12, 409: 188}
    for answer, size in zip(answers, sizes, strict=True):
        if answer.status_code == 409:
            assert "free" in answer.json()["message"], answer.text
            assert ("whole" if size == "full" else size) in answer.json()["message"], answer.text
    holders = held(hub.docker)
    assert len(holders) == 12
    assert watch.most == 12
    for uuid, (container,) in holders.items():
        assert attached(hub.docker, container) == {uuid}
    assert len(hub.containers()) == 12


def test_a_device_that_is_given_back_goes_to_the_next(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1")
    hub.start()
    first, second = hub.user("first"), hub.user("second")
    first.start(gpu="full")
    refused = second.ask(gpu="full")

    assert refused.status_code == 409
    assert second.container() is None
    records = LifeRecords(hub.data / "ds01.sqlite")
    (noted,) = eventually(lambda: records.events("second"), "the refusal is told")
    assert noted.kind == NONE_FREE

    first.stop()
    second.start(gpu="full")
    assert [len(names) for names in held(hub.docker).values()] == [1]
    eventually(lambda: first.container() is None, "the first one's container is gone")


def test_whoever_gets_a_larger_device_than_asked_for_is_told(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1,mig=2x3g.40gb@0")
    hub.start()
    user = hub.user("small")
    user.start(gpu="2g.20gb")

    assert user.model()["user_options"]["profile"].endswith(" · 3g.40gb (for 2g.20gb)")
    # What was asked for is what the next start asks for.
    assert user.model()["user_options"]["gpu"] == "2g.20gb"


def test_an_image_whose_driver_is_newer_than_the_machines_gets_no_gpu(make_gpu_hub):
    hub = make_gpu_hub("a100-80gb:1")
    hub.add_image("too-new", "ds01/python:3.11", cuda="99.0", minimum_driver="9999.1")
    hub.start()
    user = hub.user("early")
    refused = user.ask(image="too-new", gpu="full")

    assert refused.status_code == 400
    assert "needs NVIDIA's driver 9999.1 or newer" in refused.json()["message"]
    assert user.container() is None
    user.start(image="too-new")
