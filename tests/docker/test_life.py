"""The life of a server: started, looked at, stopped, found again, and nothing left behind."""

import hashlib
import io
import json
import subprocess
import tarfile

import pytest

from ds01_spawner.lifecycle.records import LifeRecords
from ds01_spawner.store import Store
from tests.hub import eventually


def last_ending(hub, user, project="default"):
    store = Store(hub.data / "ds01.sqlite")
    try:
        return store.last_ending(user.name, project)
    finally:
        store.close()


def events(hub, user):
    """Return what has happened to a user's servers, newest first."""
    return LifeRecords(hub.data / "ds01.sqlite").events(user.name)


def hub_accepts(hub, token):
    """Tell whether the Hub knows a token."""
    answer = hub.api("GET", "/user", token)
    assert answer.status_code in (200, 403), answer.text
    return answer.ok


def token_of(container):
    env = dict(line.split("=", 1) for line in container["Config"]["Env"])
    return env["JUPYTERHUB_API_TOKEN"]


def test_files_stay_and_the_container_goes(hub):
    alice = hub.user("stays")
    server = alice.start(image="python", memory="1g")
    first = alice.container()
    server.run("open('/workspace/notes.txt', 'w').write('mine')")
    alice.execute(
        ["sh", "-c", "git config --global user.name 'A. Student'; touch /opt/temporary/x"]
    )
    alice.stop()
    assert alice.container() is None
    server = alice.start()
    assert alice.container()["Id"] != first["Id"]
    assert server.run("print(open('/workspace/notes.txt').read())") == "mine\n"
    assert alice.execute(["git", "config", "user.name"]) == (0, "A. Student\n")
    assert alice.execute(["test", "-e", "/opt/temporary/x"])[0] == 1
    alice.stop()


def test_a_stopped_servers_token_is_refused(hub):
    alice = hub.user("tokens")
    alice.start(image="python", memory="1g")
    token = token_of(alice.container())
    assert hub_accepts(hub, token)
    alice.stop()
    assert not hub_accepts(hub, token)


def test_several_projects_run_at_a_time_each_in_its_own_workspace(hub):
    alice = hub.user("projects")
    one, two = (alice.start(name, image="python", memory="1g") for name in ("one", "two"))
    one.run("open('/workspace/here', 'w').write('one')")
    assert "False" in two.run("import os; print(os.path.exists('/workspace/here'))")
    assert alice.execute(["hostname"], "one") == (0, "one\n")
    alice.execute(["sh", "-c", "echo shared > ~/note"], "one")
    assert alice.execute(["sh", "-c", "cat ~/note"], "two") == (0, "shared\n")
    for name in ("one", "two"):
        alice.stop(name)


def test_nobody_reads_anothers_workspace(hub):
    alice, bob = hub.user("private-a"), hub.user("private-b")
    alice.start(image="python", memory="1g").run("open('/workspace/secret', 'w').write('x')")
    bob.start(image="python", memory="1g")
    numbers = {alice.execute(["id", "-u"])[1], bob.execute(["id", "-u"])[1]}
    assert len(numbers) == 2
    mounts = {mount["Source"] for mount in bob.container()["Mounts"]}
    assert not any("private-a" in source for source in mounts)
    secret = next(
        mount["Source"]
        for mount in alice.container()["Mounts"]
        if mount["Destination"] == "/workspace"
    )
    uid = int(bob.execute(["id", "-u"])[1])
    read = subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "ls", secret],
        capture_output=True,
        check=False,
    )
    assert read.returncode != 0
    alice.stop()
    bob.stop()


def test_a_server_that_is_killed_from_outside_is_explained_and_cleared_away(hub):
    alice = hub.user("killed")
    alice.start(image="python", memory="1g")
    container = alice.container()
    hub.docker.kill(container["Id"])
    eventually(lambda: alice.container() is None, "the container is removed")
    ending = eventually(lambda: last_ending(hub, alice), "the ending is kept")
    assert "signal 9" in ending.message
    assert ending.container_id == container["Id"]
    eventually(lambda: not hub_accepts(hub, token_of(container)), "its token is refused")


def test_a_container_that_is_removed_from_outside_is_explained(hub):
    alice = hub.user("removed")
    alice.start(image="python", memory="1g")
    hub.docker.remove_container(alice.container()["Id"], force=True)
    ending = eventually(lambda: last_ending(hub, alice), "the ending is kept")
    assert "removed from outside" in ending.message


def test_it_is_kept_who_stopped_a_server(hub):
    alice = hub.user("who")
    alice.start(image="python", memory="1g")
    alice.stop()
    assert last_ending(hub, alice).message.startswith("Stopped by you.")
    eventually(lambda: len(events(hub, alice)) == 2, "both are told")
    stopped, started = events(hub, alice)
    assert (started.kind, started.by, stopped.kind, stopped.by) == (
        "started",
        "who",
        "stopped",
        "who",
    )
    assert started.why.startswith("Started: python · ")
    assert (started.numbers["image"], started.numbers["memory_bytes"]) == ("python", 1 << 30)
    assert started.numbers["gpu_uuids"] == []
    assert 0 < stopped.numbers["ran_s"] < 300
    alice.start()
    assert hub.api("DELETE", "/users/who/server").status_code in (202, 204)
    eventually(lambda: alice.container() is None, "the service has stopped it")
    eventually(
        lambda: last_ending(hub, alice).message.startswith("Stopped by the service tests."),
        "it is kept who stopped it",
    )


def test_renaming_a_server_moves_its_workspace_or_is_refused(hub):
    alice = hub.user("renames")
    alice.start("draft", image="python", memory="1g").run("open('/workspace/x', 'w').write('1')")
    alice.stop("draft")
    path = "/users/renames/servers/draft"
    alice.start("taken", image="python", memory="1g").run("open('/workspace/y', 'w').close()")
    alice.stop("taken")
    # Only the server goes; the folder has a file and stays.
    hub.api("DELETE", "/users/renames/servers/taken", json={"remove": True})
    refused = hub.api("PATCH", path, alice.token, json={"name": "taken"})
    assert refused.status_code == 409, refused.text
    assert hub.api("PATCH", path, alice.token, json={"name": "final"}).status_code == 200
    assert alice.start("final").run("print(open('/workspace/x').read())") == "1\n"
    alice.stop("final")


def test_a_link_starts_nothing(hub):
    alice = hub.user("clicks")
    browser = hub.logged_in("clicks")
    answer = browser.get(f"{hub.url}/hub/spawn/clicks?image=datascience&memory=1g", timeout=60)
    assert answer.status_code == 400
    assert "Check the choices and press Start." in answer.text
    assert not alice.is_active("default")
    assert alice.container() is None


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"image": "nowhere"}, 400, "no image 'nowhere'"),
        ({"memory": "9999g"}, 403, "more than your limit"),
        ({"cpus": "NaN"}, 400, "cpus"),
        ({"cpus": -1}, 400, "cpus"),
        ({"volumes": {"/": "/host"}}, 400, "no option 'volumes'"),
        ({"image": {"a": 1}}, 400, "image"),
    ],
)
def test_a_bad_request_is_explained_and_starts_nothing(hub, options, status, words):
    alice = hub.user("asks")
    answer = alice.ask(**options)
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert alice.container() is None
    assert not alice.is_active("default")
    # One in a while.
    told = eventually(lambda: events(hub, alice), "a refusal is told")
    assert {(event.kind, event.by) for event in told} == {("start-failed", "asks")}


@pytest.mark.parametrize(
    "name", ["..%2Fbob", "a%2Fb", "a%00b", "x" * 300, "proj%E2%82%ACt", "UPPER", "a--b"]
)
def test_a_bad_project_name_is_refused_and_leaves_nothing(hub, name):
    user = hub.user("badnames")
    before = sorted(str(path) for path in (hub.data / "workspaces").rglob("*"))
    answer = hub.api("POST", f"/users/badnames/servers/{name}", user.token, json={"cpus": 1})
    assert 400 <= answer.status_code < 500, answer.text
    assert sorted(str(path) for path in (hub.data / "workspaces").rglob("*")) == before


@pytest.mark.parametrize("name", ["a%C2%9B31m", "a%E2%80%AEb", "admin%E2%80%8B", "x" * 256])
def test_a_name_that_nobody_could_read_is_no_users(hub, name):
    assert hub.api("POST", f"/users/{name}").status_code == 400


def test_stored_options_are_checked_again_at_each_start(hub):
    alice = hub.user("stored")
    answer = hub.api("PUT", "/users/stored/servers/old", json={"user_options": {"image": "gone"}})
    assert answer.status_code == 201, answer.text
    refused = hub.api("POST", "/users/stored/servers/old")
    assert refused.status_code == 400
    assert "no image 'gone'" in refused.json()["message"]
    assert alice.container("old") is None


def test_the_hub_shows_no_options_that_its_admin_page_would_break_over(hub):
    user = hub.user("breaker")
    server = "/users/breaker/servers/trap"
    trap = {"user_options": {"image": "python", "profile": {"a": 1}, "more": ["x"]}}
    for method, accepted in (("PUT", 201), ("PATCH", 200), ("POST", 400)):
        answer = hub.api(method, server, user.token, json=trap)
        assert answer.status_code == accepted, answer.text
        assert user.model("trap")["user_options"] == {"image": "python"}


def test_an_image_that_cannot_be_fetched_is_explained(hub):
    hub.add_image("absent", "ds01-test/absent:1")
    alice = hub.user("absent")
    assert alice.ask(image="absent").status_code in (202, 503)
    ending = eventually(lambda: last_ending(hub, alice), "the failure is kept", 120)
    assert "cannot be fetched" in ending.message
    assert alice.container() is None


def test_an_image_for_another_machine_is_refused(hub):
    hub.docker.load_image(foreign_image("ds01-test/s390x:1"))
    hub.add_image("s390x", "ds01-test/s390x:1")
    alice = hub.user("s390x")
    answer = alice.ask(image="s390x")
    assert answer.status_code == 400
    assert "made for s390x" in answer.json()["message"]
    assert alice.container() is None


def foreign_image(tag):
    """Return an empty image for another kind of processor, as ``docker save`` writes it."""
    layer, archive = io.BytesIO(), io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "s390x",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def test_a_name_that_somebody_elses_container_has_is_refused_and_that_one_left_alone(hub):
    name = "default._.nametaken"
    other = hub.docker.create_container("ds01/python:3.11", ["true"], name=name)
    try:
        alice = hub.user("nametaken")
        alice.ask(image="python", memory="1g")
        ending = eventually(lambda: last_ending(hub, alice), "the failure is kept")
        assert "not this Hub's" in ending.message
        assert hub.docker.inspect_container(name)["Id"] == other["Id"]
    finally:
        hub.docker.remove_container(other["Id"])
