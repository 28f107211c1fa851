"""The sizes of GPU that are offered."""

from dataclasses import replace

from ds01_spawner.admission.offers import largest_count, offers, short_model
from ds01_spawner.gpus.devices import Device, Holder, Inventory, Snapshot, State
from ds01_spawner.gpus.request import parse_request, suffices
from ds01_spawner.policy import GIB, Limits

LIMITS = Limits(4, GIB, GIB, GIB, 100)
PARENT = Device("GPU-2", "1", "A100-SXM4-80GB", 80 * GIB, 7, 1.0, state=State.PARTITIONED)
WHOLE = Device("GPU-1", "0", "A100-SXM4-80GB", 80 * GIB, 7, 1.0)
HALF = Device("MIG-1", "1:0", "A100-SXM4-80GB", 40 * GIB, 3, 3 / 7, "3g.40gb", "GPU-2")
HALVES = (HALF, replace(HALF, uuid="MIG-2", index="1:1"))


def snapshot(*devices, held=()):
    return Snapshot(Inventory(devices), {uuid: (Holder("x"),) for uuid in held})


def test_sizes_are_offered_smallest_first_with_how_many_are_free():
    found = offers(snapshot(WHOLE, PARENT, *HALVES, held=["GPU-2", "MIG-2"]), LIMITS)

    assert [(o.value, o.label, o.free, o.total) for o in found] == [
        ("3g.40gb", "3g.40gb", 1, 2),
        ("full", "A100 80 GB", 1, 1),
    ]


def test_a_size_of_which_none_is_free_says_what_one_would_get():
    small = replace(HALF, uuid="MIG-3", index="1:2", profile="1g.10gb", slices=1, weight=1 / 7)
    found = offers(snapshot(WHOLE, PARENT, *HALVES, small, held=["GPU-2", "MIG-3"]), LIMITS)

    assert [(o.value, o.instead, o.can_be_had) for o in found] == [
        ("1g.10gb", "3g.40gb", True),
        ("3g.40gb", "", True),
        ("full", "", True),
    ]
    assert found[0].note == "0.14 of a GPU, 0 of 1 free, you would get a 3g.40gb"
    # A whole GPU is not given for a part of one.
    (half, whole) = offers(snapshot(WHOLE, PARENT, HALF, held=["GPU-2", "MIG-1"]), LIMITS)
    assert (half.instead, half.can_be_had, whole.can_be_had) == ("", False, True)


def test_what_is_more_than_the_user_has_left_is_said_to_be_so():
    found = offers(snapshot(WHOLE, PARENT, *HALVES), LIMITS, {"thesis": 3 / 7})

    assert [(o.value, o.within, o.can_be_had) for o in found] == [
        ("3g.40gb", True, True),
        ("full", False, False),
    ]
    assert found[1].note == "whole GPU, 1 of 1 free, more than you have left"


def test_two_drivers_figures_for_the_same_memory_are_one_size():
    less = replace(WHOLE, uuid="GPU-3", memory_bytes=WHOLE.memory_bytes - GIB // 2)

    assert [(o.value, o.total) for o in offers(snapshot(WHOLE, less), LIMITS)] == [("full", 2)]


def test_as_many_can_be_chosen_as_there_are_and_as_the_limits_allow():
    gpus = snapshot(*(replace(WHOLE, uuid=f"GPU-{n}") for n in range(4)), PARENT, *HALVES)

    def most(**changes):
        limits = replace(LIMITS, gpus_per_server=None, **changes)
        return largest_count(offers(gpus, limits), limits)

    assert most(gpu_equivalents=None) == 4
    assert most(gpu_equivalents=2.0) == 2
    # Two parts of a GPU are less than a whole one.
    assert most(gpu_equivalents=1.0) == 2


def test_what_does_not_work_is_not_counted():
    broken = replace(WHOLE, uuid="GPU-3", state=State.LOST)

    assert [(o.free, o.total) for o in offers(snapshot(WHOLE, broken), LIMITS)] == [(1, 1)]


def test_what_the_limits_rule_out_is_not_offered():
    everything = snapshot(WHOLE, PARENT, *HALVES)

    def values(**changes):
        return [offer.value for offer in offers(everything, replace(LIMITS, **changes))]

    assert values(full_gpu=False) == ["3g.40gb"]
    assert values(gpu_equivalents=0.2) == []
    assert values(gpus_per_server=0) == []
    assert values(gpu_equivalents=None) == ["3g.40gb", "full"]


def test_of_several_models_the_user_chooses_one():
    h100 = Device("GPU-9", "2", "H100 80GB HBM3", 80 * GIB, 7, 1.0)

    found = offers(snapshot(WHOLE, h100, PARENT, *HALVES), LIMITS)

    assert [(o.value, o.label) for o in found] == [
        ("3g.40gb@A100-SXM4-80GB", "3g.40gb of A100"),
        ("full@A100-SXM4-80GB", "A100 80 GB"),
        ("full@H100 80GB HBM3", "H100 80 GB"),
    ]


def test_models_are_named_as_people_do():
    names = {
        "A100-SXM4-80GB": "A100",
        "H100 80GB HBM3": "H100",
        "A100-PCIE-40GB": "A100",
        "GeForce RTX 3090": "GeForce RTX 3090",
        "H200": "H200",
        "80GB": "80GB",
    }
    assert {model: short_model(replace(WHOLE, model=model)) for model in names} == names


def test_nobody_is_offered_more_of_a_size_than_there_are():
    found = offers(snapshot(WHOLE, PARENT, *HALVES), LIMITS)

    assert largest_count(found, LIMITS) == 1
    assert largest_count(found, replace(LIMITS, gpus_per_server=8)) == 2
    assert largest_count(found, replace(LIMITS, gpus_per_server=None)) == 2
    assert largest_count((), LIMITS) == 0


def test_every_model_that_is_offered_can_be_asked_for():
    names = (
        "RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "Quadro RTX 6000/8000",
        "Engineering (Sample) " + "X" * 100,
    )
    gpus = [replace(WHOLE, uuid=f"GPU-{name}", model=name) for name in names]

    found = offers(snapshot(*gpus), LIMITS)

    assert len(found) == len(names)
    for offer in found:
        assert any(suffices(gpu, parse_request(offer.value)) for gpu in gpus)
