"""What the lab's policy gives and takes, with a real Hub, engine and files."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from ds01_spawner.policy import GIB
from tests.hub import Hub, eventually

POLICY = {
    "defaults": {"memory": "2g", "memory_swap": "2g", "max_containers_per_user": 2},
    "groups": {"staff": {"members": ["sam"], "memory": "4g"}},
    "user_overrides": {"olga": {"max_containers_per_user": 1}},
}
SMALL = {"image": "python", "memory": "1g", "cpus": 0.5}


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    deployment = Hub(tmp_path_factory.mktemp("hub"), "policy")
    try:
        deployment.write_policy(POLICY)
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(autouse=True)
def usual_policy(hub):
    hub.write_policy(POLICY)
    yield
    hub.write_policy(POLICY, {"storage.yaml": "[]"})


def refused(answer, status=403):
    assert answer.status_code == status, answer.text
    return answer.json()["message"]


# -- limits -------------------------------------------------------------------------------------


def test_a_group_of_the_file_gives_more(hub):
    assert "limit of 2 GiB" in refused(hub.user("ann").ask(image="python", memory="3g"))

    sam = hub.user("sam")
    sam.start(image="python", memory="3g")
    assert sam.container()["HostConfig"]["Memory"] == 3 * GIB


def test_a_group_of_the_hub_with_the_same_name_gives_more_from_the_next_start_on(hub):
    tom = hub.user("tom")
    assert "limit of 2 GiB" in refused(tom.ask(image="python", memory="3g"))

    assert hub.api("POST", "/groups/staff").ok
    assert hub.api("POST", "/groups/staff/users", json={"users": ["tom"]}).ok
    tom.start(image="python", memory="3g")


def test_a_changed_policy_holds_at_the_next_start_and_a_broken_one_changes_nothing(hub):
    uma = hub.user("uma")
    hub.write_policy({"defaults": {"memory": "1g", "memory_swap": "1g"}})
    assert "limit of 1 GiB" in refused(uma.ask(image="python", memory="1536m"))

    hub.write_policy({"defaults": {"memori": "64g"}})
    assert "limit of 1 GiB" in refused(uma.ask(image="python", memory="1536m"))
    log = hub.log.read_text()
    assert "resource-limits.yaml:2: defaults.memori: unknown key" in log
    assert "'memory'" in log

    hub.write_policy(POLICY)
    uma.start(image="python", memory="1536m")


# -- servers at a time --------------------------------------------------------------------------


def test_one_server_too_many_is_refused_with_the_names_of_the_others(hub):
    vera = hub.user("vera")
    vera.start("one", **SMALL)
    vera.start("two", **SMALL)

    message = refused(vera.ask("three", **SMALL))
    assert (
        message == "You have 2 of at most 2 servers: one, two. Stop one of them to start another."
    )
    assert vera.container("three") is None

    vera.stop("one")
    vera.start("three", **SMALL)


def test_of_two_that_start_at_once_the_quota_lets_one_pass(hub):
    olga = hub.user("olga")
    answers = [olga.begin(project, **SMALL) for project in ("left", "right")]
    statuses = [answer.result(120).status_code for answer in answers]

    def settled():
        return all(
            model is None or model["ready"] or not model["pending"]
            for model in (olga.model("left"), olga.model("right"))
        )

    eventually(settled, "both starts are over", 120)
    up = [project for project in ("left", "right") if olga.container(project)]
    assert len(up) == 1, statuses


def test_nobody_gets_a_server_of_whom_the_policy_says_so(hub):
    hub.write_policy({"user_overrides": {"nora": {"max_containers_per_user": 0}}})

    assert refused(hub.user("nora").ask(**SMALL)) == (
        "You may not have servers here. Please ask an admin."
    )


# -- shared folders -----------------------------------------------------------------------------


@pytest.fixture
def shared(hub, tmp_path):
    """Share course data with all and a team's folder with the staff."""
    data, team = tmp_path / "imagenet", tmp_path / "team"
    for folder in (data, team):
        folder.mkdir()
    (data / "cat.txt").write_text("a cat")
    os.chown(team, 0, 61_234)
    team.chmod(0o2770)
    # Others have to pass: tests' own directory is for root alone.
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(parent.stat().st_mode | 0o111)
    folders = [
        {"name": "imagenet", "path": str(data), "mode": "ro", "groups": ["*"]},
        {"name": "team", "path": str(team), "mode": "rw", "groups": ["staff"]},
    ]
    hub.write_policy(POLICY, {"storage.yaml": yaml.safe_dump(folders)})
    return data, team


def test_a_member_writes_to_the_teams_folder_and_reads_the_courses(hub, shared):
    sam = hub.user("sam")
    sam.stop_in_any_state()
    sam.start(**SMALL)

    assert sam.execute(["cat", "/data/imagenet/cat.txt"]) == (0, "a cat")
    status, said = sam.execute(["touch", "/data/imagenet/dog"])
    assert status != 0
    assert "Read-only file system" in said
    assert sam.execute(["sh", "-c", "echo hi > /shared/team/note"]) == (0, "")
    assert (shared[1] / "note").stat().st_gid == 61_234


def test_others_have_no_such_folder_and_asking_for_it_is_refused(hub, shared):
    wim = hub.user("wim")
    for name in ("team", "nothing-of-that-name", "../team"):
        message = refused(wim.ask(**SMALL, folders=[name]))
        assert message == f"{name!r} is none of your shared folders. You have: imagenet."

    wim.start(**SMALL)
    assert wim.execute(["ls", "/shared"])[0] != 0
    assert 61_234 not in map(int, wim.execute(["id", "-G"])[1].split())


def test_a_removed_member_loses_it_at_the_next_start(hub, shared):
    sam = hub.user("sam")
    sam.stop_in_any_state()
    sam.start(**SMALL, folders=["team"])
    assert sam.execute(["ls", "/data"])[0] != 0
    assert sam.execute(["ls", "/shared"]) == (0, "team\n")

    sam.stop()
    hub.write_policy({**POLICY, "groups": {"staff": {"members": []}}})
    # With the stored options of the start before.
    assert hub.api("POST", "/users/sam/server", sam.token).status_code in (201, 202)
    eventually(lambda: sam.ready(), "the server is ready", 120)
    assert sam.execute(["ls", "/shared"])[0] != 0
    assert sam.execute(["ls", "/data"]) == (0, "imagenet\n")


def test_a_folder_that_is_not_there_stops_nobody(hub, shared):
    shutil.rmtree(shared[0])
    xena = hub.user("xena")
    xena.start(**SMALL)

    assert xena.execute(["ls", "/data"])[0] != 0
    assert "The shared folder imagenet is left out" in hub.log.read_text()


# -- the sum over a user's servers ---------------------------------------------------------------


def test_where_no_slice_holds_the_sum_it_is_counted_at_admission(own_hub):
    own_hub.configure("c.DS01Spawner.aggregate_limits = 'admission'\n")
    own_hub.write_policy({"defaults": {"aggregate": {"memory_max": "3g", "cpu_quota": "150%"}}})
    own_hub.start()
    alice = own_hub.user("alice")
    alice.start("one", image="python", memory="2g", cpus=0.5)

    assert refused(alice.ask("two", image="python", memory="1536m", cpus=0.5)) == (
        "1.5 GiB of memory would be more than your servers may have together, 3 GiB. They have "
        "now: one (2 GiB). Choose at most 1 GiB, or stop one of them."
    )
    assert refused(alice.ask("two", image="python", memory="1g", cpus=1.25)) == (
        "1.25 CPUs would be more than your servers may have together, 1.5 CPUs. They have now: "
        "one (0.5). Choose at most 1, or stop one of them."
    )
    alice.start("two", image="python", memory="1g", cpus=1)
