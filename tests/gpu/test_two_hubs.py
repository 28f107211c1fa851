"""Two Hubs that share an engine and its GPUs."""

from concurrent.futures import ThreadPoolExecutor

from .watch import Watch, held


def test_two_hubs_on_one_engine_never_give_a_device_twice(make_gpu_hub):
    spec = "a100-80gb:2,mig=2x3g.40gb@1"
    hubs = [make_gpu_hub(spec, name="one"), make_gpu_hub(spec, name="two")]
    for hub in hubs:
        hub.configure("c.JupyterHub.tornado_settings = {'slow_spawn_timeout': 120}\n")
        hub.start()
    sizes = ["full", "3g.40gb"]
    users = [
        hub.user(f"{letter}{n}") for hub, letter in zip(hubs, "ab", strict=True) for n in range(4)
    ]
    with Watch() as watch, ThreadPoolExecutor(len(users)) as pool:
        asked = [pool.submit(user.ask, gpu=sizes[n % 2]) for n, user in enumerate(users)]
        codes = sorted(future.result().status_code for future in asked)

    assert codes == [201] * 3 + [409] * 5
    assert watch.most == len(held(hubs[0].docker)) == 3


def test_what_one_hub_holds_the_other_does_not_offer(make_gpu_hub):
    one, two = (make_gpu_hub("a100-80gb:1", name=name) for name in ("one", "two"))
    one.start()
    two.start()
    one.user("anna").start(gpu="full")

    refused = two.user("ben").ask(gpu="full")

    assert refused.status_code == 409
    assert "free" in refused.json()["message"]
