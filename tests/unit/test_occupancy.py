"""What anybody has is never free, and what cannot be told is had by everybody."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.gpus.claims import Claims, Request, Runtimes
from ds01_spawner.gpus.devices import Device, Inventory, Snapshot, State
from ds01_spawner.gpus.notation import Names
from ds01_spawner.gpus.occupancy import Container, Process, occupancy

from .machine import (
    CAPABILITIES,
    EVERYTHING,
    FIRST,
    IDLE,
    INVENTORY,
    OTHER,
    PARTED,
    SECOND,
    THIRD,
    WHOLE,
    uuid,
)

RUNTIMES = Runtimes({"runc": ("runc",), "nvidia": ("nvidia-container-runtime",)})
NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
STATES = ["created", "running", "paused", "restarting", "removing", "exited", "dead", "unheard-of"]
HUB = {"ds01.hub": "this", "ds01.user": "alice", "ds01.server": "", "ds01.project": "default"}
_IDS = itertools.count(1)


def container(*ids, name="job", state="running", nodes=(), variables=None, runtime="runc", **more):
    """Return a container that was started with ``--gpus device=<ids>``, or without."""
    requests = (Request("", 0, ids),) if ids else ()
    claims = Claims(runtime, requests, variables or {}, tuple(nodes), ())
    number = f"{next(_IDS):064x}"
    more = {"created": NOON, "claims": claims, "of_a_hub": more.get("ours", False), **more}
    return Container(number, name, state, **more)


def judge(*containers, processes=(), unasked=None):
    names = Names(INVENTORY, lambda: CAPABILITIES)
    holders, warnings = occupancy(
        INVENTORY, containers, processes, unasked, runtimes=RUNTIMES, names=names
    )
    return Snapshot(INVENTORY, holders, warnings)


def held(snapshot):
    return set(snapshot.holders)


def test_nothing_holds_nothing():
    snapshot = judge(container(), container(variables={"NVIDIA_VISIBLE_DEVICES": "all"}))

    assert snapshot.holders == {}
    assert snapshot.warnings == ()
    assert snapshot.free == (WHOLE, FIRST, SECOND, THIRD, IDLE)


def test_a_gpu_takes_its_mig_devices_along_and_a_mig_device_its_gpu():
    assert held(judge(container(PARTED.uuid))) == {PARTED.uuid, FIRST.uuid, SECOND.uuid}
    assert held(judge(container(FIRST.uuid))) == {PARTED.uuid, FIRST.uuid}


def test_a_gpu_that_is_not_here_takes_no_other():
    snapshot = judge(container(uuid("GPU", 1)))

    assert snapshot.holders == {}
    assert snapshot.warnings == ()


def test_a_mig_device_that_was_taken_apart_may_be_any():
    snapshot = judge(container(uuid("MIG", 1), name="old"))

    assert held(snapshot) == EVERYTHING
    (warning,) = snapshot.warnings
    assert f"old asks for {uuid('MIG', 1)}" in warning


@pytest.mark.parametrize("words", [(), (uuid("MIG", 1),), (f"nvidia.com/gpu={uuid('MIG', 1)}",)])
def test_a_grant_that_was_taken_apart_holds_all_of_its_gpu_and_no_other(words):
    labels = {
        **HUB,
        "ds01.gpu.uuids": f"{uuid('MIG', 1)},{THIRD.uuid}",
        "ds01.gpu.parents": f"{PARTED.uuid},{OTHER.uuid}",
    }
    snapshot = judge(container(*words, labels=labels, ours=True, name="default._.alice"))

    assert set(snapshot.free) == {WHOLE, IDLE}
    assert snapshot.holders[SECOND.uuid][0].user == "alice"
    (warning,) = snapshot.warnings
    assert f"default._.alice was given {uuid('MIG', 1)}, which is not there any more" in warning
    assert PARTED.uuid in warning


def test_a_grant_on_a_gpu_whose_mig_mode_was_switched_off_holds_the_gpu():
    labels = {**HUB, "ds01.gpu.uuids": uuid("MIG", 1), "ds01.gpu.parents": WHOLE.uuid}

    assert held(judge(container(labels=labels, ours=True))) == {WHOLE.uuid}


def test_what_is_not_understood_holds_everything_and_is_named():
    snapshot = judge(container("7", name="mystery"), container(FIRST.uuid))

    assert snapshot.free == ()
    (warning,) = snapshot.warnings
    assert "mystery asks for 7: there is no device 7" in warning
    # Who is known to have it is named first.
    assert snapshot.holders[FIRST.uuid][0].container == "job"
    assert snapshot.holders[WHOLE.uuid][0].detail == "asks for 7: there is no device 7"


@pytest.mark.parametrize(
    "word",
    [f"MIG-{PARTED.uuid}/{'9' * 5000}/0", f"c 195:{'9' * 5000} rwm", "/dev/nvidia" + "9" * 5000],
)
def test_a_number_that_no_machine_has_is_not_understood_either(word):
    asks = container(nodes=[word]) if word[0] in "/c" else container(word)

    assert judge(asks).free == ()


def test_what_a_container_clearly_has_counts_before_what_nobody_understands():
    both = container("9", FIRST.uuid, name="both", created=NOON + timedelta(hours=1))
    snapshot = judge(container("8", name="mystery"), both)

    assert snapshot.holders[FIRST.uuid][0] == both.holder
    assert snapshot.holders[WHOLE.uuid][0].container == "mystery"


def test_a_container_of_which_nothing_is_known_holds_everything():
    snapshot = judge(container(claims=None, name="mystery"))

    assert held(snapshot) == EVERYTHING
    assert "mystery" in snapshot.warnings[0]


def test_the_words_of_a_container_cannot_write_to_the_admins_terminal():
    (warning,) = judge(container("\x1b[2J" + "x" * 500)).warnings

    assert "\x1b" not in warning
    assert len(warning) < 500


@pytest.mark.parametrize("state", STATES)
def test_a_container_of_somebody_elses_holds_until_it_has_ended(state):
    holds = state not in ("exited", "dead")

    assert (WHOLE.uuid in judge(container("0", state=state)).holders) is holds


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("hub", ["this", "another"])
def test_a_container_of_a_hub_holds_until_it_is_removed(state, hub):
    labels = {**HUB, "ds01.hub": hub}

    theirs = container("0", state=state, labels=labels, of_a_hub=True)
    assert WHOLE.uuid in judge(theirs).holders


def test_an_image_that_only_says_it_is_a_hubs_holds_nothing_when_it_has_ended():
    assert held(judge(container("0", state="exited", labels=HUB))) == set()


def test_our_own_label_counts_and_says_whose_server_it_is():
    labels = {**HUB, "ds01.gpu.uuids": f"{FIRST.uuid},{WHOLE.uuid}"}
    snapshot = judge(container(labels=labels, ours=True, name="default._.alice"))

    assert held(snapshot) == {FIRST.uuid, PARTED.uuid, WHOLE.uuid}
    (holder,) = snapshot.holders[WHOLE.uuid]
    assert (holder.user, holder.server, holder.since) == ("alice", "", NOON)
    assert holder.container == "default._.alice"


def test_the_label_means_nothing_on_a_container_that_is_not_ours():
    labels = {**HUB, "ds01.gpu.uuids": WHOLE.uuid}
    snapshot = judge(container("1:0", labels=labels))

    assert held(snapshot) == {FIRST.uuid, PARTED.uuid}
    assert snapshot.holders[FIRST.uuid][0].user is None


def test_a_watcher_holds_nothing_also_not_by_its_processes():
    watcher = container("all", name="dcgm-exporter", watcher=True)
    process = Process(7, "dcgm", WHOLE.uuid, (watcher.container_id,))

    assert judge(watcher, processes=[process]).holders == {}


def test_a_server_with_a_watchers_name_is_a_server():
    own = container("0", name="dcgm-exporter._.alice", labels=HUB, ours=True, watcher=True)

    assert WHOLE.uuid in judge(own).holders


def test_device_nodes_hold_their_devices():
    entrance = ["/dev/nvidia6", "/dev/nvidia-caps/nvidia-cap57", "/dev/nvidia-caps/nvidia-cap58"]

    assert held(judge(container(nodes=["/dev/nvidia7", "/dev/nvidiactl"]))) == {WHOLE.uuid}
    assert held(judge(container(nodes=entrance))) == {SECOND.uuid, PARTED.uuid}
    assert held(judge(container(nodes=["c 195:* rwm"]))) == EVERYTHING


def test_nodes_of_our_own_servers_are_what_their_label_says():
    """Pretended GPUs are nodes without a number that anybody knows, after another partitioning."""
    labels = {**HUB, "ds01.gpu.uuids": WHOLE.uuid}
    nodes = ["/dev/nvidia7", "/dev/nvidia-caps/nvidia-cap999"]

    assert held(judge(container(nodes=nodes, labels=labels, ours=True))) == {WHOLE.uuid}
    assert held(judge(container(nodes=nodes, labels=labels))) == EVERYTHING


def test_a_node_of_no_gpu_that_can_be_read_is_the_one_that_cannot_be():
    lost = Device("unreadable-9", "9", "", 0, 1, 1.0, state=State.LOST)
    inventory = Inventory((*INVENTORY.devices, lost))
    one = container(nodes=["/dev/nvidia99"])

    holders, warnings = occupancy(inventory, [one], runtimes=RUNTIMES)

    assert set(holders) == {lost.uuid}
    assert not warnings


# -- processes -------------------------------------------------------------------------------


def test_a_process_of_the_machine_holds_its_device():
    snapshot = judge(container(), processes=[Process(4711, "python3", IDLE.uuid, ("f" * 64,))])

    assert held(snapshot) == {IDLE.uuid}
    assert snapshot.holders[IDLE.uuid][0].detail == "process 4711 (python3)"
    assert snapshot.holders[IDLE.uuid][0].since is None


def test_a_process_that_cannot_be_seen_holds_its_device():
    snapshot = judge(processes=[Process(4711, "", IDLE.uuid)])

    assert snapshot.holders[IDLE.uuid][0].detail == "process 4711 (not in /proc)"


def test_a_process_on_what_its_container_was_given_says_nothing_new():
    job = container("0", PARTED.uuid)
    snapshot = judge(
        job,
        processes=[
            Process(1, "python3", WHOLE.uuid, (job.container_id,)),
            Process(1, "python3", FIRST.uuid, (job.container_id,)),
        ],
    )

    assert snapshot.holders[WHOLE.uuid] == (job.holder,)
    assert snapshot.warnings == ()


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_process_on_what_its_container_was_not_given_holds_it_with_a_warning(state):
    job = container("0", state=state)
    snapshot = judge(job, processes=[Process(9, "python3", THIRD.uuid, (job.container_id,))])

    assert snapshot.holders[THIRD.uuid][0].container == "job"
    assert held(snapshot) >= {THIRD.uuid, OTHER.uuid}
    assert f"job was not given {THIRD.uuid}" in snapshot.warnings[0]


def test_a_process_in_a_container_within_a_container_is_the_outer_ones():
    job = container("0")
    process = Process(9, "python3", WHOLE.uuid, (job.container_id, "e" * 64))

    assert judge(job, processes=[process]).holders[WHOLE.uuid] == (job.holder,)


def test_a_process_shown_on_a_gpu_and_its_mig_device_holds_the_mig_device():
    processes = [Process(9, "python3", PARTED.uuid), Process(9, "python3", FIRST.uuid)]

    assert held(judge(processes=processes)) == {PARTED.uuid, FIRST.uuid}


def test_a_device_whose_processes_are_not_told_is_taken():
    snapshot = judge(unasked={IDLE.uuid: "no permission"})

    assert held(snapshot) == {IDLE.uuid}
    assert "no permission" in snapshot.warnings[0]


# -- whatever they say -----------------------------------------------------------------------

DEVICES = st.sampled_from(INVENTORY.devices)
#: What says nothing, and what nobody understands.
NOISE = st.sampled_from(["", "none", "void", "amd.com/gpu=0", uuid("MIG", 1)])
NONSENSE = st.one_of(st.sampled_from(["9", "GPU-", "MIG-0"]), st.text(min_size=1))


@st.composite
def named(draw):
    """Return a device and a container that has it, said in any way."""
    device = draw(DEVICES)
    name = draw(st.sampled_from([device.uuid, device.index, device.uuid[:14]]))
    word = draw(st.sampled_from([name, f"nvidia.com/gpu={name}", f"{draw(NOISE)},{name}", "all"]))
    way = draw(st.sampled_from(["request", "variable", "swarm", "node", "label"]))
    more = {"state": draw(st.sampled_from(["created", "running", "paused"])), "name": "x" + word}
    if way == "request":
        return device, container(draw(NOISE), word, **more)
    if way == "variable":
        return device, container(
            variables={"NVIDIA_VISIBLE_DEVICES": word}, runtime="nvidia", **more
        )
    if way == "swarm":
        return device, container(
            variables={"NVIDIA_VISIBLE_DEVICES": "void", "DOCKER_RESOURCE_GPU": word},
            runtime="unheard-of",
            **more,
        )
    if way == "node" and not device.parent:
        return device, container(nodes=[f"/dev/nvidia{device.minor}"], **more)
    return device, container(labels={**HUB, "ds01.gpu.uuids": word}, ours=True, **more)


@st.composite
def anything(draw):
    """Return a container that says anything at all."""
    words = draw(st.lists(st.one_of(NOISE, NONSENSE, DEVICES.map(lambda d: d.uuid)), max_size=3))
    return container(
        *words,
        nodes=draw(st.lists(st.one_of(NONSENSE, st.just("/dev/nvidia7")), max_size=2)),
        variables={"NVIDIA_VISIBLE_DEVICES": draw(NONSENSE)},
        runtime=draw(st.sampled_from(["runc", "nvidia", "unheard-of"])),
        state=draw(st.sampled_from(STATES)),
        name=draw(st.sampled_from(["a", "b"])),
        created=NOON + timedelta(seconds=draw(st.integers(0, 3))),
    )


@given(st.lists(named(), min_size=1), st.lists(anything()))
def test_a_device_that_is_named_in_any_way_is_never_free(having, others):
    snapshot = judge(*others, *(c for _, c in having))

    free = set(snapshot.free)
    for device, _ in having:
        assert device not in free
        assert not free & {d for d in INVENTORY.devices if d.parent == device.uuid}


@given(st.lists(anything()), NONSENSE)
def test_one_container_that_is_not_understood_frees_nothing(others, nonsense):
    without = judge(*others)
    with_it = judge(*others, container(nonsense))

    assert set(with_it.free) <= set(without.free)


@given(st.lists(anything(), max_size=5), st.randoms())
def test_the_order_of_containers_and_processes_does_not_matter(containers, random):
    processes = [
        Process(pid, "x", device.uuid, (c.container_id,))
        for pid, (c, device) in enumerate(itertools.product(containers, INVENTORY.devices))
    ]
    first = judge(*containers, processes=processes)
    random.shuffle(containers)
    random.shuffle(processes)

    assert judge(*containers, processes=processes) == first


@given(st.lists(anything(), max_size=4), DEVICES)
def test_the_holder_named_first_is_who_really_has_it(others, device):
    own = container(labels={**HUB, "ds01.gpu.uuids": device.uuid}, ours=True, name="own")

    holders = judge(*others, own).holders[device.uuid]
    assert holders[0].user == "alice"
