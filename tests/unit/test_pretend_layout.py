"""Machines that can be pretended: a spec is one that could be built, or it is explained."""

import itertools
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds01_spawner.pretend.layout import MOST_GPUS, parse_spec
from ds01_spawner.pretend.models import MODELS
from ds01_spawner.pretend.partition import SpecError, parse_partition

WITH_MIG = sorted(name for name, model in MODELS.items() if model.profiles)


def profiles(layout, index):
    instances = layout.gpus[index].instances
    return None if instances is None else Counter(one.profile.name for one in instances)


# -- what a spec says -----------------------------------------------------------------------------


def test_a_spec_names_models_partitions_and_the_gpus_that_have_them():
    layout = parse_spec("a100-80gb:4,mig=1x3g.40gb+2x2g.20gb@1,mig=7x1g.10gb@2-3;rtx-4090")

    assert [gpu.kind for gpu in layout.gpus] == ["a100-80gb"] * 4 + ["rtx-4090"]
    assert profiles(layout, 0) is None
    assert profiles(layout, 1) == {"3g.40gb": 1, "2g.20gb": 2}
    assert profiles(layout, 2) == profiles(layout, 3) == {"1g.10gb": 7}
    assert profiles(layout, 4) is None


def test_indexes_are_those_of_the_whole_machine():
    layout = parse_spec("rtx-4090:2;h100-80gb:3,mig=7g.80gb@2,4")

    assert [profiles(layout, index) for index in range(5)] == [
        None,
        None,
        {"7g.80gb": 1},
        None,
        {"7g.80gb": 1},
    ]


def test_without_indexes_all_gpus_of_the_model_are_partitioned():
    layout = parse_spec("a30:2,mig=4x1g.6gb;a30")

    assert [profiles(layout, index) for index in range(3)] == [{"1g.6gb": 4}] * 2 + [None]


def test_nvlink_connects_pairs_all_or_through_a_switch():
    assert parse_spec("a100-80gb:5,nvlink=pairs").links == ((0, 1), (2, 3))
    assert parse_spec("rtx-4090;v100-32gb:3,nvlink=all").links == ((1, 2), (1, 3), (2, 3))
    assert parse_spec("a30;h100-80gb:3,nvlink=switch").switched == (1, 2, 3)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "does not name GPUs"),
        ("a100:2", "no GPU 'a100' to pretend; there are a100-40gb"),
        ("a100-80gb:0", "one GPU at least"),
        (f"a100-80gb:{MOST_GPUS};a30", f"more than {MOST_GPUS} GPUs"),
        ("a100-80gb:2;", "does not name GPUs"),
        ("a100-80gb,gpus=2", "neither mig=... nor nvlink=..."),
        ("a100-80gb,mig=", "mig= needs MIG devices"),
        ("a100-80gb,mig=7x1g.10gb@1", "these GPUs are 0 to 0"),
        ("a100-80gb:3,mig=7x1g.10gb@2-1", "these GPUs are 0 to 2"),
        ("a100-80gb:3,mig=7x1g.10gb@x", "no list of GPUs"),
        ("a100-80gb:2,mig=7g.80gb@0,mig=7g.80gb", "GPU 0 is partitioned twice"),
        ("a100-80gb,mig=7x1g.5gb", "no profile 1g.5gb; it has 1g.10gb"),
        ("a100-80gb,mig=many", "'many' is no MIG device"),
        ("a100-80gb,mig=8x1g.10gb", "takes 7 at most"),
        ("a100-80gb,mig=0x1g.10gb", "0x1g.10gb is not possible"),
        ("a100-80gb,mig=3g.40gb/2c.2c", "3g.40gb has 3 compute slices"),
        ("rtx-4090,mig=1g.5gb", "cannot be cut into MIG devices"),
        ("rtx-4090:2,nvlink=pairs", "has no NVLink"),
        ("a100-80gb:2,nvlink=ring", "it is pairs, all or switch"),
        ("a100-80gb:2,nvlink=pairs,nvlink=switch", "not both"),
        ("a30:8,nvlink=all", "has 4 NVLinks only"),
    ],
)
def test_a_wrong_spec_is_explained(spec, says):
    with pytest.raises(SpecError) as refused:
        parse_spec(spec)

    assert says in str(refused.value)


# -- what NVIDIA's driver accepts -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "partition"),
    [
        # From NVIDIA's MIG user guide, "Supported MIG Profiles" and its examples.
        ("a100-40gb", "7x1g.5gb"),
        ("a100-40gb", "2x3g.20gb"),
        ("a100-40gb", "4g.20gb+3g.20gb"),
        ("a100-40gb", "4g.20gb+2g.10gb+1g.5gb"),
        ("a100-40gb", "3x2g.10gb+1g.5gb"),
        ("a100-40gb", "3g.20gb+2g.10gb+2x1g.5gb"),
        ("a100-40gb", "4x1g.10gb"),
        ("a100-80gb", "3x2g.20gb+1g.20gb"),
        ("a100-80gb", "1g.10gb+me+6x1g.10gb"),
        ("h100-80gb", "3g.40gb+2x2g.20gb"),
        ("h200-141gb", "3g.71gb+4g.71gb"),
        ("a30", "2g.12gb+2x1g.6gb"),
        ("a30", "2g.12gb+me+2g.12gb"),
    ],
)
def test_partitions_of_nvidias_guide_are_possible(model, partition):
    assert parse_partition(MODELS[model], partition)


@pytest.mark.parametrize(
    ("model", "partition", "says"),
    [
        # Six compute slices are taken, and memory is: an eighth would have nowhere to lie.
        ("a100-80gb", "2x3g.40gb+1g.10gb", "1g.10gb does not fit beside 2x3g.40gb"),
        ("a100-80gb", "3g.40gb+4x1g.10gb+1g.10gb", "it is full then"),
        # The eighth memory slice starts nowhere for a small device.
        ("a100-80gb", "4g.40gb+4x1g.10gb", "1g.10gb does not fit beside 1x4g.40gb+3x1g.10gb"),
        ("a100-80gb", "3g.40gb+2x1g.10gb+3g.40gb+2g.20gb", "does not fit"),
        ("a100-80gb", "2x4g.40gb", "takes 1 at most"),
        ("a100-80gb", "4g.40gb+4g.40gb", "there is still room for 1g.10gb or 1g.10gb+me"),
        ("a100-80gb", "7g.80gb+1g.10gb", "it is full then"),
        ("a30", "1g.6gb+me+2g.12gb+me", "2g.12gb+me does not fit beside 1x1g.6gb+me"),
    ],
)
def test_an_impossible_partition_says_what_would_fit(model, partition, says):
    with pytest.raises(SpecError) as refused:
        parse_partition(MODELS[model], partition)

    assert says in str(refused.value)


def test_instances_are_numbered_as_the_driver_numbers_them():
    def numbers(partition):
        return [one.number for one in parse_partition(MODELS["a100-40gb"], partition)]

    assert numbers("7g.40gb") == [0]
    assert numbers("2x3g.20gb") == [1, 2]
    assert numbers("3x2g.10gb") == [3, 4, 5]
    assert numbers("7x1g.5gb") == list(range(7, 14))


def test_a_gpu_instance_may_be_cut_into_compute_instances():
    (instance,) = parse_partition(MODELS["a100-80gb"], "3g.40gb/1c.2c")

    assert [(part.number, part.slices) for part in instance.compute] == [(0, 1), (1, 2)]


def could_exist(model, wanted):
    """Try all places for all instances: the driver's rules, without any cleverness."""
    if sum(profile.slices for profile in wanted) > model.slices:
        return False
    if sum(profile.has_all_media for profile in wanted) > 1:
        return False
    for starts in itertools.product(*(profile.starts for profile in wanted)):
        taken = [
            part
            for profile, start in zip(wanted, starts, strict=True)
            for part in range(start, start + profile.memory_slices)
        ]
        if len(set(taken)) == len(taken):
            return True
    return False


@given(st.data(), st.sampled_from(WITH_MIG))
def test_a_partition_is_accepted_if_and_only_if_there_are_places_for_all(data, name):
    model = MODELS[name]
    wanted = data.draw(st.lists(st.sampled_from(model.profiles), min_size=1, max_size=5))
    text = "+".join(profile.name for profile in wanted)
    if not could_exist(model, wanted):
        with pytest.raises(SpecError, match="does not fit"):
            parse_partition(model, text)
        return
    placed = parse_partition(model, text)

    assert Counter(one.profile for one in placed) == Counter(wanted)
    taken = [
        part for one in placed for part in range(one.start, one.start + one.profile.memory_slices)
    ]
    assert len(set(taken)) == len(taken)
    assert max(taken) < model.memory_slices
    assert all(one.start in one.profile.starts for one in placed)
    assert sum(one.profile.slices for one in placed) <= model.slices
    assert len({one.number for one in placed}) == len(placed)


PIECES = ("mig=", "nvlink=", "pairs", "switch", "all", "7x1g.10gb", "3g.40gb", "1g.5gb+me", "/1c")
WORDS = st.sampled_from([*MODELS, *PIECES, *"0123,;:@-+x."])


@given(st.lists(WORDS, max_size=12).map("".join) | st.text(max_size=20))
@example("a100-80gb:99999999999")
@example("a100-80gb,mig=99999999999999999x1g.10gb")
@example("a100-80gb,mig=1g.10gb/0c")
def test_any_text_is_a_machine_or_is_explained(text):
    found, words = 0, ""
    try:
        found = len(parse_spec(text).gpus)
    except SpecError as refused:
        words = str(refused)
    assert 1 <= found <= MOST_GPUS or words.endswith(".")
