"""How much GPU a user may have."""

from dataclasses import replace

import pytest

from ds01_spawner.admission import quota
from ds01_spawner.admission.holdings import Holding
from ds01_spawner.gpus.devices import Device
from ds01_spawner.gpus.request import parse_request
from ds01_spawner.policy import GIB, Aggregate, Limits

GPU = Device("GPU-1", "0", "A100-SXM4-80GB", 80 * GIB, 7, 1.0)
HALF = Device("MIG-1", "1:0", "A100-SXM4-80GB", 40 * GIB, 3, 3 / 7, "3g.40gb", "GPU-2")
OTHER_HALF = Device("MIG-2", "1:1", "A100-SXM4-80GB", 40 * GIB, 3, 3 / 7, "3g.40gb", "GPU-2")


def limits(**changes):
    return Limits(4, GIB, GIB, GIB, 100, **changes)


def test_a_name_of_a_mig_device_never_gives_a_whole_gpu():
    found = quota.allowed(parse_request("3g.40gb"), [GPU, HALF], limits(), {})

    assert found == (HALF,)


def test_so_much_memory_may_give_a_whole_gpu_where_that_is_allowed():
    request = parse_request(">=20g")

    assert quota.allowed(request, [GPU, HALF], limits(), {}) == (GPU, HALF)
    assert quota.allowed(request, [GPU, HALF], limits(full_gpu=False), {}) == (HALF,)


def test_what_other_servers_hold_counts():
    request = parse_request("3g.40gb")

    assert quota.allowed(request, [HALF], limits(), {"": 3 / 7}) == (HALF,)
    assert quota.allowed(request, [HALF], limits(), {"": 3 / 7, "b": 1 / 7 * 3}) == ()


def test_seven_sevenths_are_one():
    slice_ = Device("MIG-9", "0:6", "A100", 10 * GIB, 1, 1 / 7, "1g.10gb", "GPU-9")
    used = {str(n): 1 / 7 for n in range(6)}

    assert quota.allowed(parse_request("1g.10gb"), [slice_], limits(), used) == (slice_,)


def test_several_devices_count_together():
    two = parse_request("3g.40gb", 2)

    assert len(quota.allowed(two, [HALF, OTHER_HALF], limits(), {})) == 2
    assert not quota.allowed(two, [HALF, OTHER_HALF], limits(gpu_equivalents=0.5), {})


@pytest.mark.parametrize(
    ("request_", "changes", "words"),
    [
        (parse_request("3g.40gb", 2), {}, "limit of 1 per server"),
        (parse_request("full"), {"full_gpu": False}, "may not have a whole GPU"),
        (parse_request("full", 2), {"gpus_per_server": 4}, "limit of 1 GPU equivalents"),
        (parse_request("3g.40gb"), {"gpus_per_server": 0}, "Start without a GPU"),
    ],
)
def test_what_can_never_be_granted_is_refused_with_the_limit(request_, changes, words):
    assert words in quota.objection(request_, limits(**changes))


def test_what_can_be_granted_meets_no_objection():
    assert quota.objection(parse_request("full"), limits()) == ""
    unlimited = limits(gpu_equivalents=None, gpus_per_server=None)
    assert quota.objection(parse_request("full", 8), unlimited) == ""


def test_a_refusal_names_the_servers_that_use_up_the_limit():
    text = quota.refusal(parse_request("full"), [GPU], limits(), {"": 3 / 7, "thesis": 1 / 7})

    assert "0.57 of your 1 GPU equivalents" in text
    assert "default (0.43), thesis (0.14)" in text


def test_a_refusal_says_when_the_limit_is_too_small_for_the_size():
    text = quota.refusal(parse_request("3g.40gb"), [HALF], limits(gpu_equivalents=0.25), {})

    assert "A 3g.40gb is more than your limit of 0.25" in text


def test_a_refusal_says_when_only_a_whole_gpu_would_do():
    assert "ask for 'full'" in quota.misfit(parse_request("7g.80gb"), [GPU], limits())
    may_not = quota.misfit(parse_request("7g.80gb"), [GPU], limits(full_gpu=False))
    assert "you may not have one" in may_not
    assert quota.misfit(parse_request("3g.40gb"), [GPU, HALF], limits()) == ""


def test_what_is_free_and_more_than_is_left_is_said_with_what_uses_it_up():
    request, used = parse_request(">=20g"), {"thesis": 3 / 7}

    assert "more than you have left" in quota.beyond(request, [GPU], limits(), used)
    assert "thesis (0.43)" in quota.beyond(request, [GPU], limits(), used)
    assert quota.beyond(request, [GPU, HALF], limits(), used) == ""
    assert quota.beyond(request, [], limits(), used) == ""
    assert quota.beyond(request, [GPU], limits(), {}) == ""


def test_a_whole_gpu_is_named_in_place_of_a_mig_device_if_the_user_may_have_it():
    small = parse_request("3g.40gb")

    assert quota.larger(small, [HALF, GPU], limits(), {}) is GPU
    assert quota.larger(small, [GPU], limits(), {"": 0.4}) is None
    assert quota.larger(small, [GPU], limits(full_gpu=False), {}) is None
    assert quota.larger(parse_request("3g.40gb@H100"), [GPU], limits(), {}) is None
    assert quota.larger(parse_request("full"), [GPU], limits(), {}) is None


def test_a_profile_with_extras_that_no_device_has_is_not_called_too_large():
    text = quota.misfit(parse_request("1g.10gb+x"), [GPU], limits())

    assert "no MIG device" in text
    assert "'+x'" in text
    assert "whole GPU" not in text


def test_too_few_devices_are_no_matter_of_the_limit():
    assert quota.refusal(parse_request("full"), [], limits(), {}) == ""


def test_a_refusal_says_which_limit_who_uses_it_and_the_most_that_would_pass():
    used = {"thesis": 0.5}
    request = parse_request("full")

    assert quota.refusal(request, [GPU], limits(), used, "3g.40gb") == (
        "Your servers already use 0.5 of your 1 GPU equivalents: thesis (0.5). "
        "Stop one of them, or choose at most 3g.40gb."
    )
    assert quota.refusal(request, [GPU], limits(), used).endswith("or start without a GPU.")


# -- servers, and the sum over them --------------------------------------------------------------

ONE = Holding("", gpus=1.0, cpus=2, memory_bytes=4 * GIB, pids=100)
TWO = Holding("thesis", cpus=1, memory_bytes=2 * GIB, pids=100)


def test_as_many_servers_as_the_limit_says_and_no_more():
    assert quota.too_many(limits(servers=3), [ONE, TWO], "new") == ""
    assert quota.too_many(limits(servers=2), [ONE, TWO], "new") == (
        "You have 2 of at most 2 servers: default, thesis. Stop one of them to start another."
    )


def test_a_server_that_starts_again_or_has_ended_does_not_count():
    ended = replace(TWO, ended=True)

    assert quota.too_many(limits(servers=1), [ONE], "") == ""
    assert quota.too_many(limits(servers=1), [ended], "new") == ""
    assert quota.too_many(limits(servers=1), [ONE, ended], "new")


def test_without_a_limit_on_the_sum_all_of_the_servers_own_limits_are_left():
    assert quota.left(limits(), [ONE, TWO], "new") == limits()
    assert quota.beyond_the_sum(4, GIB, limits(), [ONE, TWO], "new") == ""


@pytest.mark.parametrize(
    ("most", "left", "words"),
    [
        (Aggregate(memory_bytes=6 * GIB + GIB // 2), {"memory_bytes": GIB // 2}, "at most 512 MiB"),
        (Aggregate(memory_bytes=6 * GIB), {"memory_bytes": 0}, "Stop one of them first"),
        (Aggregate(memory_bytes=5 * GIB), {"memory_bytes": 0}, "thesis (2 GiB)"),
        (Aggregate(cpus=5), {"cpus": 2}, "Choose at most 2"),
        (Aggregate(cpus=2.5), {"cpus": 0}, "default (2), thesis (1)"),
        (Aggregate(tasks=250), {"pids": 50}, "together, 250 processes"),
    ],
)
def test_what_the_others_have_is_taken_from_the_sum(most, left, words):
    mine = limits(aggregate=most)
    found = quota.left(mine, [ONE, TWO], "new")

    assert {name: getattr(found, name) for name in left} == left
    assert words in quota.beyond_the_sum(4, GIB, mine, [ONE, TWO], "new")
    assert found.memory_swap_bytes >= found.memory_bytes >= found.shm_bytes
