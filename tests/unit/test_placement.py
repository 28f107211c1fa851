"""Which devices a request gets: the promises, on examples and on servers made at random."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.gpus.devices import Device, Inventory, State
from ds01_spawner.gpus.placement import GpuRequest, RecentDemand, choose, parse_request
from ds01_spawner.gpus.request import suffices

MIB = 2**20
#: Profile -> compute slices and the memory that NVML reports, of an A100 80GB.
PROFILES = {
    "1g.10gb": (1, 9728),
    "1g.20gb": (1, 19968),
    "2g.20gb": (2, 19968),
    "3g.40gb": (3, 40192),
    "4g.40gb": (4, 40192),
}
LAYOUTS = (
    (),
    ("3g.40gb", "2g.20gb", "2g.20gb"),
    ("4g.40gb", "2g.20gb", "1g.10gb"),
    ("1g.20gb", "1g.20gb", "3g.40gb"),
    ("1g.10gb",) * 7,
)
A100 = "A100-SXM4-80GB"
H100 = "H100 80GB HBM3"
#: Model -> memory in MiB and slices that it can be cut into.
MODELS = {A100: (81920, 7), H100: (81559, 7), "T4": (15360, 1), "A100-PCIE-40GB": (40960, 7)}
MODELS["A800-SXM4-80GB"] = MODELS[A100]


def gpu(number: int, model: str = A100, state: State = State.OK) -> Device:
    memory, slices = MODELS[model]
    return Device(f"GPU-{number}", str(number), model, memory * MIB, slices, 1.0, state=state)


def cut(number: int, *profiles: str, model: str = A100) -> list[Device]:
    """A GPU cut into MIG devices, with them."""
    devices = [gpu(number, model, State.PARTITIONED)]
    for place, profile in enumerate(profiles):
        slices, memory = PROFILES[profile]
        devices.append(
            Device(
                f"MIG-{number}-{place}",
                f"{number}:{place}",
                model,
                memory * MIB,
                slices,
                slices / 7,
                profile,
                f"GPU-{number}",
            )
        )
    return devices


def linked(*groups: tuple[int, ...], count: int = 12) -> dict[frozenset[str], int]:
    """NVLink between all GPUs of each group."""
    return {
        frozenset({f"GPU-{one}", f"GPU-{other}"}): count
        for group in groups
        for one, other in itertools.combinations(group, 2)
    }


def asked(text: str, count: int, devices: list[Device], links=None, taken: str = "", **more):
    """Choose on a server on which the devices of these indexes are taken."""
    free = [
        device
        for device in devices
        if device.state is State.OK and device.index not in taken.split()
    ]
    inventory = Inventory(tuple(devices), links or {})
    return choose(parse_request(text, count), free, inventory, **more)


def indexes(choice) -> str:
    return " ".join(device.index for device in choice.devices)


# -- how a size is written --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("full", GpuRequest(whole=True)),
        ("FULL @ A100", GpuRequest(whole=True, model="A100")),
        ("3g.40gb", GpuRequest(profile="3g.40gb")),
        ("1g.10gb+me", GpuRequest(profile="1g.10gb+me")),
        (">=20g@h100", GpuRequest(memory_bytes=20 * 10**9, model="h100")),
        (">= 20 GB", GpuRequest(memory_bytes=20 * 10**9)),
    ],
)
def test_a_size_is_read_as_people_write_it(text, request_):
    assert parse_request(text) == request_
    assert parse_request(request_.size) == request_


UNREADABLE = (
    *("", "3g", "40gb", ">=0g", ">=g", "full@", "full@-", "all", "-1"),
    *("0g.0gb", "0g.10gb", "1g.0gb", "00000001g.10gb"),
    *("1g.10gb+", "1g.10gb+x y", "1g.10gb+\x1b[2J"),
    *("\uff13g.\uff14\uff10gb", ">=\uff12\uff10g", "full@A100@H100", "full@\uff21100"),
    *("full@A\x1b[2J", "full@A\u202e100", "full@" + "A" * 61),
)


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_size_that_cannot_be_read_is_answered_with_what_to_write(text):
    with pytest.raises(ValueError, match='"full" for a whole GPU'):
        parse_request(text)


def test_an_answer_to_a_wrong_size_is_short_and_printable():
    for text in ("full@A\x1b[2J", "\u202e" * 1000, "x" * 100_000):
        with pytest.raises(ValueError, match="Write") as caught:
            parse_request(text)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_no_gpus_is_no_request():
    with pytest.raises(ValueError, match="one or more"):
        parse_request("full", 0)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (">=20g", True),
        (">=21g", False),
        ("2g.20gb", True),
        ("1g.20gb", True),
        ("3g.20gb", False),
        ("2g.40gb", False),
        ("1c.1g.10gb", True),
        ("2g.20gb+me", False),
        ("2g.20gb@a100-sxm4", True),
        ("2g.20gb@A100 SXM4", True),
        ("2g.20gb@H100", False),
        ("full", False),
    ],
)
def test_a_mig_device_is_enough_by_the_numbers_of_its_name(text, fits):
    device = cut(0, "2g.20gb")[1]
    assert suffices(device, parse_request(text)) is fits


@pytest.mark.parametrize("memory_mib", [81920, 81559, 81037])
def test_an_80_gb_gpu_has_at_least_80_gb_however_much_the_driver_keeps(memory_mib):
    device = replace(gpu(0), memory_bytes=memory_mib * MIB)
    assert suffices(device, parse_request(">=80g"))
    assert suffices(device, parse_request("7g.80gb"))


def test_a_gpu_that_cannot_be_cut_is_compared_by_its_memory():
    assert suffices(gpu(0, "T4"), parse_request("2g.10gb"))
    assert not suffices(gpu(0, "T4"), parse_request("1g.20gb"))


# -- one device -------------------------------------------------------------------------

SERVER = [gpu(0), *cut(1, *LAYOUTS[1]), *cut(2, *LAYOUTS[2]), gpu(3)]


@pytest.mark.parametrize(
    ("text", "taken", "index"),
    [
        ("2g.20gb", "", "1:1"),
        ("2g.20gb", "1:0", "1:1"),
        ("2g.20gb", "2:0", "2:1"),
        ("2g.20gb", "1:1 1:2 2:1", "1:0"),
        ("1g.10gb", "2:2", "2:1"),
        ("1g.10gb", "2:1 2:2 1:0", "1:1"),
        (">=20g", "1:1 1:2", "2:1"),
        (">=30g", "1:0", "2:0"),
        ("3g.40gb", "1:0 2:0", "0"),
        ("full", "", "0"),
        (">=80g", "0", "3"),
    ],
)
def test_the_smallest_that_is_enough_is_taken_where_least_is_left(text, taken, index):
    assert indexes(asked(text, 1, SERVER, taken=taken)) == index


@pytest.mark.parametrize(
    ("text", "taken", "says"),
    [
        ("2g.20gb", "", "2g.20gb on GPU 1 (A100-SXM4-80GB): what was asked for."),
        (">=20g", "", "the smallest free one that is enough for a device of at least 20 GB"),
        ("2g.20gb", "1:1 1:2 2:1", "3g.40gb on GPU 1 (A100-SXM4-80GB): the smallest free one"),
        ("3g.40gb", "1:0 2:0", "GPU 0 (A100-SXM4-80GB): no smaller device that is enough for a 3g"),
        ("full", "", "GPU 0 (A100-SXM4-80GB): a free GPU."),
    ],
)
def test_a_choice_says_why(text, taken, says):
    assert says in asked(text, 1, SERVER, taken=taken).reason


def test_a_single_gpu_leaves_nvlink_pairs_whole():
    devices = [gpu(number) for number in range(5)]
    links = linked((0, 1), (3, 4))
    assert indexes(asked("full", 1, devices, links)) == "2"
    assert indexes(asked("full", 1, devices, links, taken="2 4")) == "3"
    assert indexes(asked("full", 1, devices, links, taken="2")) == "0"


def test_a_mig_sized_request_that_gets_a_gpu_leaves_nvlink_pairs_whole():
    devices = [gpu(0), gpu(1), gpu(2)]
    assert indexes(asked("3g.40gb", 1, devices, linked((0, 1)))) == "2"


def test_of_two_models_the_smaller_is_taken_if_any_will_do():
    devices = [gpu(0), gpu(1, "A100-PCIE-40GB")]
    assert indexes(asked("full", 1, devices)) == "1"
    assert indexes(asked("full@80gb", 1, devices)) == "0"


def test_what_the_driver_keeps_of_the_memory_makes_no_gpu_the_smaller_one():
    assert indexes(asked("full", 1, [gpu(0), gpu(1, H100)])) == "0"


def test_mig_devices_of_two_models_count_as_alike_if_nobody_asks_for_a_model():
    devices = [*cut(0, *LAYOUTS[1]), *cut(1, *LAYOUTS[1], model=H100)]
    assert indexes(asked("2g.20gb", 1, devices, taken="1:0")) == "1:1"
    demand = lately(("2g.20gb@H100", 20))
    assert indexes(asked("2g.20gb", 1, devices, taken="1:0", demand=demand)) == "0:1"


def test_of_devices_that_differ_in_nothing_that_counts_the_first_is_taken():
    devices = [gpu(0), gpu(1, "A800-SXM4-80GB"), gpu(2)]
    assert indexes(asked("full", 1, devices)) == "0"
    assert indexes(asked("full", 1, devices, taken="0")) == "1"
    assert indexes(asked("full", 1, list(reversed(devices)))) == "2"


# -- several devices --------------------------------------------------------------------


def test_several_gpus_are_the_best_connected():
    devices = [gpu(number) for number in range(6)]
    links = linked((0, 3)) | linked((1, 2, 5), count=4)
    assert indexes(asked("full", 2, devices, links)) == "0 3"
    assert indexes(asked("full", 3, devices, links, taken="0")) == "1 2 5"


def test_several_gpus_do_not_break_into_a_larger_group_without_need():
    devices = [gpu(number) for number in range(6)]
    assert indexes(asked("full", 2, devices, linked((0, 1, 2, 3), (4, 5)))) == "4 5"


def test_several_gpus_are_of_one_model_if_they_can_be():
    devices = [gpu(0, H100), gpu(1), gpu(2, H100), gpu(3)]
    assert indexes(asked("full", 2, devices, taken="0")) == "1 3"


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_of_64_gpus_one_group_is_taken_and_the_most_broken_one(count):
    devices = [gpu(number) for number in range(64)]
    groups = [tuple(range(start, 64, 8)) for start in range(8)]
    taken = {2: groups[5][2:], 3: groups[5][3:], 4: groups[5][4:], 8: ()}[count]
    choice = asked("full", count, devices, linked(*groups), " ".join(map(str, taken)))
    expected = groups[0] if count == 8 else groups[5][:count]
    assert indexes(choice) == " ".join(map(str, expected))


def test_several_mig_devices_are_chosen_like_single_ones_on_as_few_gpus_as_possible():
    devices = [*cut(0, *LAYOUTS[4]), *cut(1, *LAYOUTS[1]), *cut(2, *LAYOUTS[1])]
    assert indexes(asked("2g.20gb", 2, devices)) == "1:1 1:2"
    assert indexes(asked("2g.20gb", 3, devices, taken="2:0")) == "2:1 2:2 1:1"
    assert indexes(asked("2g.20gb", 5, devices)) == "1:1 1:2 2:1 2:2 1:0"


# -- demand -----------------------------------------------------------------------------


def lately(*requests: tuple[str, int]) -> RecentDemand:
    demand = RecentDemand()
    for text, times in requests:
        for _ in range(times):
            demand.saw(parse_request(text))
    return demand


def test_what_others_ask_for_by_name_is_kept_for_them():
    devices = [gpu(0), gpu(1, H100), gpu(2)]
    assert indexes(asked("full", 1, devices, demand=lately(("full@A100", 50)))) == "1"
    assert indexes(asked("full", 1, devices, demand=lately(("full@H100", 50)))) == "0"


def test_a_mig_device_that_is_asked_for_is_kept_where_whole_gpus_are_not():
    devices = [*cut(0, "3g.40gb", model=H100), gpu(1, "T4")]
    assert indexes(asked(">=10g", 1, devices)) == "0:0"
    demand = lately(("3g.40gb", 100), (">=10g", 20))
    choice = asked(">=10g", 1, devices, demand=demand)
    assert indexes(choice) == "1"
    assert "no smaller" not in choice.reason


def test_demand_follows_what_is_asked_for_now():
    devices = [gpu(0), gpu(1, H100)]
    demand = lately(("full@A100", 200), ("full@H100", 300))
    assert indexes(asked("full", 1, devices, demand=demand)) == "0"


def test_a_few_requests_do_not_outweigh_a_whole_gpu():
    devices = [*cut(0, "3g.40gb", model=H100), gpu(1)]
    assert indexes(asked("2g.20gb", 1, devices, demand=lately(("3g.40gb@H100", 2)))) == "0:0"


def test_demand_remembers_a_bounded_number_of_sizes():
    demand = lately(*[(f">={gb}g", 1) for gb in range(1, 500)], (">=7g", 3))
    shares = dict(demand.shares)
    assert len(shares) == 16
    assert max(shares, key=lambda size: shares[size]) == parse_request(">=7g")
    assert sum(shares.values()) < 1


# -- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "taken", "says", "instead"),
    [
        ("3g.40gb", 1, "0 1:0 2:0 3", "in use", "2g.20gb"),
        ("full", 1, "0 3", "in use", "4g.40gb"),
        ("full", 1, "0 3 1:0 2:0 1:1", "in use", "2g.20gb"),
        ("full", 2, "3", "1 of 2 devices", "full"),
        ("full", 3, "", "2 devices enough", "2 full"),
        (">=40g", 1, "0 1:0 2:0 3", "in use", ">=20g"),
        ("2g.20gb", 3, "0 3 1:0 1:1 2:0", "2 of 7 devices", "2 2g.20gb"),
        ("full@H100", 1, "", "nothing that is enough", "full"),
        (">=200g", 1, "", "nothing that is enough", ">=80g"),
        ("1g.10gb", 1, "0 3 1:0 1:1 1:2 2:0 2:1 2:2", "in use", None),
    ],
)
def test_a_refusal_says_what_is_missing_and_what_is_free_instead(text, count, taken, says, instead):
    choice = asked(text, count, SERVER, taken=taken)
    assert choice.devices == ()
    assert says in choice.reason
    if instead is None:
        assert choice.alternative is None
    else:
        number, _, size = instead.rpartition(" ")
        assert choice.alternative == parse_request(size, int(number or 1))


def test_a_refusal_tells_broken_from_taken():
    devices = [gpu(0, state=State.UNHEALTHY), gpu(1, state=State.LOST)]
    choice = asked("full", 1, devices)
    assert "2 of them out of order" in choice.reason


def test_a_refusal_tells_partitioned_from_taken():
    choice = asked("full", 1, cut(0, *LAYOUTS[1]))
    assert "is partitioned" in choice.reason
    assert choice.alternative == parse_request("3g.40gb")


def test_a_server_without_gpus_and_one_that_cannot_be_asked_say_so():
    request = parse_request("full")
    assert choose(request, (), Inventory()).reason == "This server has no GPU."
    assert "driver not loaded" in choose(request, (), Inventory(problem="driver not loaded")).reason


# -- whatever the state -----------------------------------------------------------------

REQUESTS = st.builds(
    parse_request,
    st.builds(
        "{}{}".format,
        st.sampled_from(["full", *PROFILES, "2g.40gb", ">=10g", ">=20g", ">=40g", ">=80g"]),
        st.sampled_from(["", "", "", "@A100", "@h100", "@T4", "@V100"]),
    ),
    st.sampled_from([1, 1, 1, 2, 3, 8]),
)
DEMAND = st.none() | st.lists(REQUESTS, max_size=30)


@st.composite
def servers(draw, models=tuple(MODELS), layouts=LAYOUTS, smallest=0):
    """An inventory and what is free of it."""
    devices: list[Device] = []
    count = draw(st.integers(smallest, 8))
    for number in range(count):
        model = draw(st.sampled_from(models))
        layout = draw(st.sampled_from(layouts)) if MODELS[model][1] == 7 else ()
        if layout:
            devices += cut(number, *layout, model=model)
        else:
            devices.append(gpu(number, model, draw(st.sampled_from([State.OK] * 4 + list(State)))))
    pairs = list(itertools.combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = {
        frozenset({f"GPU-{one}", f"GPU-{other}"}): draw(st.sampled_from([0, 2, 4, 12]))
        for one, other in chosen
    }
    free = [device for device in devices if device.state is State.OK and draw(st.booleans())]
    return Inventory(tuple(devices), links), free


def remembered(requests) -> RecentDemand | None:
    if requests is None:
        return None
    demand = RecentDemand()
    for request in requests:
        demand.saw(request)
    return demand


@given(servers(), REQUESTS, DEMAND)
def test_what_is_chosen_is_free_distinct_enough_and_as_many_as_asked_for(server, request, known):
    inventory, free = server
    choice = choose(request, free, inventory, remembered(known))
    enough = [device for device in free if suffices(device, request)]
    assert all(device in enough for device in choice.devices)
    assert len({device.uuid for device in choice.devices}) == len(choice.devices)
    assert len(choice.devices) == (request.count if len(enough) >= request.count else 0)
    assert choice.reason.endswith(".")
    assert choice == choose(request, free, inventory, remembered(known))


@given(servers(), REQUESTS, DEMAND)
def test_a_broken_device_is_never_chosen_even_if_it_is_said_to_be_free(server, request, known):
    inventory, _ = server
    choice = choose(request, inventory.devices, inventory, remembered(known))
    assert all(device.state is State.OK for device in choice.devices)


@given(servers(), REQUESTS)
def test_nothing_smaller_would_have_done(server, request):
    inventory, free = server
    one = replace(request, count=1)
    for device in choose(one, free, inventory).devices:
        enough = [other for other in free if suffices(other, one)]
        assert device.weight == min(other.weight for other in enough)
        assert device.kind == "mig" or all(other.kind == "gpu" for other in enough)


@given(servers(models=(A100,)), REQUESTS, DEMAND)
def test_on_one_model_demand_never_takes_a_larger_device_than_needed(server, request, known):
    inventory, free = server
    informed = choose(request, free, inventory, remembered(known))
    assert informed.devices == choose(request, free, inventory).devices


@given(servers(), REQUESTS, DEMAND)
def test_a_single_gpu_splits_a_pair_only_if_all_would(server, request, known):
    inventory, free = server
    one = replace(request, count=1)
    gpus = [device for device in free if device.kind == "gpu"]

    def links_cut(device: Device) -> int:
        return sum(inventory.links.get(frozenset({device.uuid, o.uuid}), 0) for o in gpus)

    for device in choose(one, free, inventory, remembered(known)).devices:
        enough = [other for other in gpus if suffices(other, one)]
        assert device.kind == "mig" or links_cut(device) == min(map(links_cut, enough))


@given(servers(layouts=[()], smallest=4), st.integers(2, 5), DEMAND)
def test_of_eight_gpus_no_set_of_as_few_models_is_connected_better(server, count, known):
    inventory, free = server
    gpus = [device for device in free if device.kind == "gpu"]

    def rank(devices) -> tuple[int, int]:
        inside = sum(
            inventory.links.get(frozenset({one.uuid, other.uuid}), 0)
            for one, other in itertools.combinations(devices, 2)
        )
        return len({device.model for device in devices}), -inside

    chosen = choose(GpuRequest(count, whole=True), free, inventory, remembered(known)).devices
    assert bool(chosen) == (len(gpus) >= count)
    assert not chosen or rank(chosen) == min(map(rank, itertools.combinations(gpus, count)))


@given(servers(), REQUESTS)
def test_the_alternative_is_another_request_and_would_be_granted(server, request):
    inventory, free = server
    choice = choose(request, free, inventory)
    if choice.alternative:
        assert not choice.devices
        assert choice.alternative != request
        assert choice.alternative.count <= request.count
        assert choose(choice.alternative, free, inventory).devices
        assert parse_request(choice.alternative.size, choice.alternative.count)


@given(servers())
def test_a_refusal_of_a_whole_gpu_offers_a_mig_device_if_one_is_free(server):
    inventory, free = server
    migs = [device for device in free if device.kind == "mig"]
    choice = choose(parse_request("full"), migs, inventory)
    assert not choice.devices
    assert (choice.alternative is not None) == bool(migs)


# -- how long it takes ------------------------------------------------------------------


@pytest.mark.parametrize("half_free", [False, True])
def test_a_choice_among_448_devices_takes_milliseconds_of_cpu(half_free):
    devices = [device for number in range(64) for device in cut(number, *LAYOUTS[4])]
    inventory = Inventory(
        tuple(devices), linked(*[tuple(range(n, n + 8)) for n in range(0, 64, 8)])
    )
    free = [device for device in devices if device.parent][:: 2 if half_free else 1]
    demand = lately(*[(f"{size}@{model}", 5) for size in PROFILES for model in ("A100", "H100")])
    seconds = []
    for text, count in [("1g.10gb", 1), ("1g.10gb", 8), (">=10g", 1), ("full", 1)] * 10:
        start = time.thread_time()
        choose(parse_request(text, count), free, inventory, demand)
        seconds.append(time.thread_time() - start)
    assert sorted(seconds)[-2] < 0.02
