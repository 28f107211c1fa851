"""Users' images from the API to a server: built, tried, published, chosen, kept apart."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from ds01_spawner.cgroups.builds import choose_build_room
from tests.hub import Hub, User, eventually

SMALL = {"memory": "1g", "cpus": 0.5}


@pytest.fixture(scope="module")
def hub(built, no_other_builds, tmp_path_factory) -> Iterator[Hub]:
    deployment = Hub(tmp_path_factory.mktemp("hub"), "images", portal=True)
    small = {"largest": "100m", "build_time_m": 0.2, "versions": 2}
    deployment.write_policy(
        {
            "groups": {"vision": {"members": ["ida", "jon"]}},
            "user_overrides": {
                "mallory": {"images": small},
                "guest": {"images": {"may_build": False}},
                "offline": {"images": {"build_network": False}},
                "full": {"images": {"storage": "6m"}},
            },
        }
    )
    wheels = tmp_path_factory.mktemp("wheels")
    deployment.configure(
        f"c.DS01Spawner.lowest_free_disk = '1G'\nc.DS01Spawner.wheels_directory = {str(wheels)!r}\n"
    )
    write_wheel(wheels, "in-house", "1.0")
    # Older than what the index has.
    write_wheel(wheels, "tabulate", "0.0.1")
    (wheels / "notes.txt").write_text("no wheel")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()
        remove_images(deployment)


def write_wheel(directory: Path, name: str, version: str) -> None:
    """Write a wheel with one module of the same name, which tells its version."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(directory / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


def remove_images(hub: Hub) -> None:
    hub_id = (hub.data / "hub-id").read_text().strip()
    for image in hub.docker.images(filters={"label": f"ds01.image.hub={hub_id}"}):
        hub.docker.remove_image(image["Id"], force=True)
    for name in (name for image in hub.docker.images() for name in image["RepoTags"] or ()):
        if name.startswith(f"ds01/wheels:{hub_id}-"):
            hub.docker.remove_image(name)


def ask(user: User, method: str, path: str, **body: Any) -> requests.Response:
    return requests.request(
        method,
        f"{user.hub.url}/services/ds01/api/{path}",
        headers={"Authorization": f"token {user.token}"},
        json=body or None,
        timeout=60,
    )


def ended(user: User, answer: requests.Response) -> dict[str, Any]:
    """Follow a build's log to its end, and return the build and what it said."""
    assert answer.status_code == 202, answer.text
    number = answer.json()["build"]["id"]
    with requests.get(
        f"{user.hub.url}/services/ds01/api/builds/{number}/log",
        headers={"Authorization": f"token {user.token}"},
        stream=True,
        timeout=300,
    ) as events:
        lines = list(events.iter_lines(decode_unicode=True))
    at = lines.index("event: end")
    said = [json.loads(line[6:])["text"] for line in lines[:at] if line.startswith("data: ")]
    build: dict[str, Any] = json.loads(lines[at + 1].removeprefix("data: "))
    return {**build, "said": "\n".join(said)}


def create(user: User, project: str, **recipe: Any) -> dict[str, Any]:
    recipe = {"base": "python", **recipe}
    return ended(user, ask(user, "POST", "images", project=project, **recipe))


def write_dockerfile(user: User, project: str, text: str) -> None:
    """Write a Dockerfile into the project as its owner would."""
    folder = user.hub.data / "workspaces" / user.name / project
    file = folder / "Dockerfile"
    owner = folder.stat()
    file.write_text(text)
    os.chown(file, owner.st_uid, owner.st_gid)


def names_at_work(hub: Hub) -> list[str]:
    """Return the names that this Hub's builds have given to images for their own use."""
    prefix = f"ds01_building/{(hub.data / 'hub-id').read_text().strip()}-"
    names = [name for image in hub.docker.images() for name in image["RepoTags"] or []]
    return [name for name in names if name.startswith(prefix)]


@pytest.fixture(scope="module")
def ida(hub):
    return hub.user("ida")


@pytest.fixture(scope="module")
def jon(hub):
    return hub.user("jon")


@pytest.fixture(scope="module")
def kim(hub):
    return hub.user("kim")


@pytest.fixture(scope="module")
def vision(ida):
    """An image with two packages, of Ida's."""
    build = create(ida, "vision", python=["humanize>=4", "toolz"])
    assert build["state"] == "succeeded", build
    return build


def test_a_recipe_becomes_an_image_that_a_server_starts_from(ida, vision):
    server = ida.start("vision", image="ds01-ida/vision", **SMALL)
    try:
        printed = server.run("import humanize, toolz; print(humanize.intcomma(1000000))")
    finally:
        ida.stop("vision")

    assert "1,000,000" in printed
    assert vision["version"] == 1
    assert "[2/2] RUN" in vision["said"] or "RUN" in vision["said"]


def test_the_recipe_and_its_dockerfile_lie_in_the_project(hub, ida, vision):
    folder = hub.data / "workspaces" / "ida" / "vision"
    source = ask(ida, "GET", "images/ida/vision/source").json()

    assert "humanize>=4" in (folder / "recipe.yaml").read_text()
    assert source["dockerfile"] == (folder / "Dockerfile").read_text()
    assert source["recipe"]["python"] == ["humanize>=4", "toolz"]
    assert not source["edited"]
    assert (folder / "Dockerfile").stat().st_uid == folder.stat().st_uid != 0


def test_nothing_is_left_of_a_build(hub, vision):
    checks = hub.docker.containers(
        all=True, filters={"label": f"ds01.image.check={(hub.data / 'hub-id').read_text().strip()}"}
    )
    room = choose_build_room(hub.docker.info())

    assert (names_at_work(hub), checks, room.processes()) == ([], [], [])


def test_what_an_image_is_made_of_is_told(ida, vision):
    found = ask(ida, "GET", "images/ida/vision").json()

    assert [v["tags"] for v in found["versions"]] == [["latest"]]
    assert found["packages"]["toolz"]
    assert any(layer["shared"] for layer in found["layers"])
    own = [layer for layer in found["layers"] if not layer["shared"]]
    assert any("install" in layer["command"] and "toolz" in layer["command"] for layer in own)
    assert sum(layer["size_bytes"] for layer in own) < 50e6


def test_a_build_that_fails_says_which_line_and_leaves_the_image_alone(hub, ida, vision):
    before = hub.docker.inspect_image("ds01-ida/vision")["Id"]
    build = create(ida, "vision", python=["humanize>=4", "no-such-package-anywhere-7"])

    assert build["state"] == "failed"
    assert "no-such-package-anywhere-7" in build["problem"]
    assert "index has no such package" in build["problem"]
    assert build["line"] == 4
    assert hub.docker.inspect_image("ds01-ida/vision")["Id"] == before


def test_an_image_whose_package_cannot_be_imported_is_not_published(hub, ida, vision):
    broken = (
        "FROM python\n"
        "RUN /opt/ds01/build/pip install toolz "
        "&& rm $(python3 -c 'import toolz; print(toolz.__file__)') "
        "&& rm -rf /usr/lib/python3.11/json /usr/lib/python3.11/encodings/utf_8.py\n"
    )
    write_dockerfile(ida, "vision", broken)
    before = hub.docker.inspect_image("ds01-ida/vision")["Id"]
    build = ended(ida, ask(ida, "POST", "images/ida/vision/rebuild"))

    assert build["state"] == "failed", build
    assert hub.docker.inspect_image("ds01-ida/vision")["Id"] == before


def test_a_dockerfile_edited_by_hand_is_what_counts(hub, ida, vision):
    ask(ida, "GET", "images/ida/hand/source")
    write_dockerfile(ida, "hand", "FROM ds01-ida/vision\r\nRUN echo here >/opt/mark\r\nENV A=b\r\n")
    source = ask(ida, "GET", "images/ida/hand/source").json()
    build = ended(ida, ask(ida, "POST", "images/ida/hand/rebuild"))

    assert source["edited"]
    assert build["state"] == "succeeded", build
    assert "A=b" in hub.docker.inspect_image("ds01-ida/hand")["Config"]["Env"]
    # Neither a change of packages nor a new recipe may drop it in silence.
    for path, body in (
        ("images/ida/hand/update", {"add": ["toolz"]}),
        ("images", {"project": "hand", "base": "python"}),
    ):
        refused = ask(ida, "POST", path, **body)
        assert refused.status_code == 409
        assert "edited by hand" in refused.json()["message"]
    folder = hub.data / "workspaces" / "ida" / "hand"
    assert "ENV A=b" in (folder / "Dockerfile").read_text()


def test_back_to_forms_builds_the_last_recipe_and_keeps_what_was_written(hub, ida):
    assert create(ida, "back", environment={"A": "1"})["state"] == "succeeded"
    write_dockerfile(ida, "back", "FROM python\nENV A=2\n")
    build = ended(ida, ask(ida, "POST", "images/ida/back/forms"))

    assert build["state"] == "succeeded", build
    assert "A=1" in hub.docker.inspect_image("ds01-ida/back")["Config"]["Env"]
    folder = hub.data / "workspaces" / "ida" / "back"
    assert (folder / "Dockerfile.edited").read_text() == "FROM python\nENV A=2\n"
    assert not ask(ida, "GET", "images/ida/back/source").json()["edited"]
    assert ask(ida, "DELETE", "images/ida/back").status_code == 204


def test_an_image_of_which_no_build_succeeded_can_be_deleted(hub, ida):
    build = create(ida, "never", python=["no-such-package-anywhere-7"])
    assert build["state"] == "failed", build
    log = hub.data / "builds" / f"{build['id']}.jsonl"
    assert log.exists()
    assert ask(ida, "DELETE", "images/ida/never").status_code == 204
    assert ask(ida, "GET", "images/ida/never").status_code == 404
    assert not log.exists()


def test_versions_are_kept_tagged_and_restored(hub, ida):
    first = create(ida, "many", python=["toolz"])
    second = create(ida, "many", environment={"A": "2"})
    assert (first["version"], second["version"]) == (1, 2)
    answer = ask(ida, "POST", "images/ida/many/tags", version=1, tag="experiment-42")
    assert answer.status_code == 204, answer.text
    assert ask(ida, "POST", "images/ida/many/tags", version=1, tag="latest").status_code == 204
    versions = {
        v["version"]: v["tags"] for v in ask(ida, "GET", "images/ida/many").json()["versions"]
    }

    assert versions == {1: ["latest", "experiment-42"], 2: []}
    assert ask(ida, "POST", "images/ida/many/tags", version=1, tag="build-9").status_code == 400
    assert ask(ida, "DELETE", "images/ida/many/tags/experiment-42").status_code == 204
    assert ask(ida, "DELETE", "images/ida/many/versions/1").status_code == 409
    assert ask(ida, "DELETE", "images/ida/many/versions/2").status_code == 204
    assert ask(ida, "DELETE", "images/ida/many/versions/0").status_code in (404, 405)
    assert ask(ida, "GET", "images/ida/many").status_code == 200
    assert ask(ida, "DELETE", "images/ida/many").status_code == 204
    with pytest.raises(docker.errors.NotFound):
        hub.docker.inspect_image("ds01-ida/many")


def test_another_users_image_is_nowhere_to_be_had(hub, ida, kim, vision):
    image_id = hub.docker.inspect_image("ds01-ida/vision")["Id"]
    digest = image_id.removeprefix("sha256:")
    for name in (
        *("ds01-ida/vision", "ds01-ida/vision:latest", "ds01-ida/vision:build-1"),
        *(image_id, digest, digest[:12], f"ds01-ida/vision@{image_id}"),
        *("docker.io/ds01-ida/vision", "library/../ds01-ida/vision"),
    ):
        answer = kim.ask(image=name, **SMALL)
        assert answer.status_code == 400, (name, answer.text)
        answer = ask(kim, "POST", "images", project="theft", base=name)
        assert answer.status_code in (400, 404), (name, answer.text)
    for path in ("images/ida/vision", "images/ida/vision/source", f"builds/{vision['id']}"):
        assert ask(kim, "GET", path).status_code == 404, path
    assert ask(kim, "GET", f"builds/{vision['id']}/log").status_code == 404
    assert ask(kim, "DELETE", f"builds/{vision['id']}").status_code == 404
    assert ask(kim, "DELETE", "images/ida/vision").status_code == 404
    assert ask(kim, "POST", "images/ida/vision/rebuild").status_code == 404
    assert ask(kim, "GET", "images").json()["shared"] == []


@pytest.mark.parametrize(
    "text",
    [
        "FROM ds01-ida/vision\n",
        "FROM python\nCOPY --from=ds01-ida/vision / /x\n",
        "FROM python\nRUN --mount=type=bind,from=ds01-ida/vision,target=/x ls /x\n",
        "FROM python\nRUN --mount=type=cache,id=x,target=/x ls /x\n",
        "FROM python\nRUN --network=host id\n",
        "FROM python\nRUN --security=insecure id\n",
        "# syntax=docker/dockerfile:1\nFROM python\n",
        "#syntax = evil/frontend\nFROM python\n",
        "ARG BASE=ds01-ida/vision\nFROM $BASE\n",
        "FROM python\nADD https://example.org/x /x\n",
        "FROM python\nADD zeros.tar.gz /x\n",
        "FROM python\nLABEL ds01.image.owner=ida\n",
        "FROM python\nCOPY ../../etc/shadow /x\n",
        "FROM python\nRUN echo \0\n",
        "FROM python\n" + "RUN true\n" * 300,
    ],
)
def test_a_hostile_dockerfile_is_refused_before_anything_is_built(kim, text):
    ask(kim, "GET", "images/kim/evil/source")
    write_dockerfile(kim, "evil", text)
    answer = ask(kim, "POST", "images/kim/evil/rebuild")

    assert answer.status_code in (400, 404), answer.text


def test_a_shared_image_can_be_used_and_built_upon_until_it_is_not(ida, jon, kim, vision):
    assert ask(ida, "POST", "images/ida/vision/shares", group="vision").json()["approved"]
    try:
        names = [image["name"] for image in ask(jon, "GET", "images").json()["shared"]]
        assert "ds01-ida/vision" in names
        assert kim.ask(image="ds01-ida/vision", **SMALL).status_code == 400
        jon.start(image="ds01-ida/vision", **SMALL)
        jon.stop()
        # What it is made of can be copied, not what its owner does with it.
        found = ask(jon, "GET", "images/ida/vision").json()
        assert found["recipe"]["python"] == ["humanize>=4", "toolz"]
        assert not found["builds"]
        copy = ended(jon, ask(jon, "POST", "images", project="copied", **found["recipe"]))
        assert copy["state"] == "succeeded", copy
        assert ask(kim, "GET", "images/ida/vision").status_code == 404
        # For an admin to agree.
        waits = ask(ida, "POST", "images/ida/vision/shares", group="*").json()
        assert not waits["approved"]
        assert kim.ask(image="ds01-ida/vision", **SMALL).status_code == 400
    finally:
        for group in ("vision", "%2A"):
            assert ask(ida, "DELETE", f"images/ida/vision/shares/{group}").status_code == 204
    # A stored choice is looked at again, and told in words.
    answer = jon.hub.api("POST", "/users/jon/server", jon.token)
    assert answer.status_code == 400
    assert "not shared any more" in answer.text


def test_an_image_in_use_is_not_deleted(ida, vision):
    ida.start("vision", image="ds01-ida/vision", **SMALL)
    try:
        answer = ask(ida, "DELETE", "images/ida/vision")
    finally:
        ida.stop("vision")

    assert answer.status_code == 409
    assert "vision._.ida" in answer.json()["message"]


def test_the_sites_own_wheels_come_before_the_index(ida):
    build = create(ida, "house", python=["in-house", "tabulate", "toolz"])
    assert build["state"] == "succeeded", build
    packages = ask(ida, "GET", "images/ida/house").json()["packages"]

    assert packages["in-house"] == "1.0"
    assert packages["tabulate"] == "0.0.1"
    assert packages["toolz"] > "0.0.1"
    assert ask(ida, "DELETE", "images/ida/house").status_code == 204


def test_a_build_that_is_cancelled_leaves_nothing(hub, kim):
    ask(kim, "GET", "images/kim/slow/source")
    write_dockerfile(kim, "slow", "FROM python\nRUN sleep 300\n")
    answer = ask(kim, "POST", "images/kim/slow/rebuild")
    number = answer.json()["build"]["id"]
    room = choose_build_room(hub.docker.info())
    eventually(room.processes, "the step runs")
    assert ask(kim, "DELETE", f"builds/{number}").status_code == 204

    assert ask(kim, "GET", f"builds/{number}").json()["state"] == "cancelled"
    eventually(lambda: not room.processes(), "the step is over")
    assert names_at_work(hub) == []


def test_the_command_in_a_server_makes_and_saves_images(ida, vision):
    server = ida.start("shell", image="python", **SMALL)
    try:
        assert "ds01-ida/vision" in server.run("!ds01 image list")
        server.run("!pip install -q toolz", within_s=120)
        said = server.run("!ds01 image save", within_s=240)
        assert "Adding toolz==" in said
        assert "Ready: ds01-ida/shell:latest" in said
        assert "version 1  latest" in server.run("!ds01 image show")
        server.run("!ds01 image tag --version 1 --tag exp-1")
        assert "version 1  latest, exp-1" in server.run("!ds01 image show")
        server.run("!ds01 image tag --remove --tag exp-1")
        assert "exp-1" not in server.run("!ds01 image show")
        copy = "!ds01 image create copy --like ida/vision --add tabulate"
        assert "Ready: ds01-ida/copy:latest" in server.run(copy, within_s=240)
        recipe = ask(ida, "GET", "images/ida/copy").json()["recipe"]
        assert recipe["python"] == ["humanize>=4", "toolz", "tabulate"]
        # A build that fails is a command that fails.
        command = "!ds01 image update --add no-such-package-anywhere-7; echo status $?"
        said = server.run(command, within_s=240)
        assert "index has no such package" in said
        assert "status 1" in said
        found = ask(ida, "GET", "servers/shell/installed").json()["packages"]
        assert [package["name"] for package in found] == ["toolz"]
    finally:
        ida.stop("shell")
    assert ask(ida, "DELETE", "images/ida/shell").status_code == 204


def build_dockerfile(user: User, text: str, project: str = "mine") -> dict[str, Any]:
    ask(user, "GET", f"images/{user.name}/{project}/source")
    write_dockerfile(user, project, text)
    return ended(user, ask(user, "POST", f"images/{user.name}/{project}/rebuild"))


@pytest.fixture(scope="module")
def mallory(hub):
    return hub.user("mallory")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("dd if=/dev/zero of=/large bs=1M count=3000; sleep 60", "wrote more than"),
        ("dd if=/dev/zero of=/large bs=1M count=150", "beyond its base"),
        ("dd if=/dev/zero of=/opt/ds01/cache/large bs=1M count=3000; sleep 60", "wrote more than"),
        ("dd if=/dev/zero of=/opt/ds01/uv/large bs=1M count=3000; sleep 60", "wrote more than"),
        pytest.param("sleep 1000", "took longer than", marks=pytest.mark.long),
        ("(while :; do sleep 1000 & done); while :; do :; done", "took longer than"),
    ],
)
def test_a_build_that_takes_too_much_ends_with_words_and_leaves_nothing(hub, mallory, step, words):
    build = build_dockerfile(mallory, f"FROM python\nRUN {step}\n")
    room = choose_build_room(hub.docker.info())

    assert build["state"] == "failed"
    assert words in build["problem"]
    eventually(lambda: not room.processes(), "the step is over")
    assert images_of(hub, "mallory") == []


def test_steps_that_are_small_by_themselves_are_counted_together(hub, mallory):
    steps = "".join(f"RUN dd if=/dev/urandom of=/{at} bs=1M count=90\n" for at in range(4))
    build = build_dockerfile(
        mallory, f"FROM python AS a\n{steps}FROM python\nCOPY --from=a /etc /x\n"
    )

    assert build["state"] == "failed"
    assert "in all its steps" in build["problem"]
    assert images_of(hub, "mallory") == []


def test_a_cache_that_has_become_large_is_emptied(hub, mallory):
    fill = "RUN dd if=/dev/urandom of=/opt/ds01/cache/large bs=1M count=90\n"
    assert build_dockerfile(mallory, f"FROM python\n{fill}", "fill")["state"] == "succeeded"

    look = build_dockerfile(mallory, "FROM python\nRUN ls /opt/ds01/cache | wc -l\n", "look")

    assert "0" in look["said"].splitlines()
    for project in ("fill", "look"):
        assert ask(mallory, "DELETE", f"images/mallory/{project}").status_code == 204


def images_of(hub: Hub, owner: str) -> list[dict[str, Any]]:
    hub_id = (hub.data / "hub-id").read_text().strip()
    labels = [f"ds01.image.owner={owner}", f"ds01.image.hub={hub_id}"]
    return hub.docker.images(filters={"label": labels})


def test_what_one_users_build_puts_into_a_cache_reaches_nobody_else(hub, ida, jon):
    planted = "FROM python\nRUN touch /opt/ds01/cache/planted\n"
    assert build_dockerfile(ida, planted, "cache")["state"] == "succeeded"
    seen = "FROM python\nRUN test -e /opt/ds01/cache/planted\n"
    assert build_dockerfile(jon, seen, "cache")["state"] == "failed"
    # The owner's is the owner's own.
    assert build_dockerfile(ida, seen, "cache")["state"] == "succeeded"


def test_a_layer_that_one_users_build_made_is_not_given_to_another(hub, ida, jon):
    text = "FROM python\nRUN head -c 16 /dev/urandom | sha256sum >/mark\n"
    layers = []
    for user in (ida, jon):
        assert build_dockerfile(user, text, "layer")["state"] == "succeeded"
        layers.append(hub.docker.inspect_image(f"ds01-{user.name}/layer")["RootFS"]["Layers"])

    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]


def test_what_one_user_has_copied_is_not_found_by_another(hub, ida, jon):
    for user in (ida, jon):
        create(user, "guess")
        folder = hub.data / "workspaces" / user.name / "guess"
        owner = folder.stat()
        (folder / "secret").write_text("password=hunter2")
        os.chown(folder / "secret", owner.st_uid, owner.st_gid)
    text = "FROM python\nWORKDIR /here\nCOPY secret /secret\n"

    first, again, guess = (build_dockerfile(user, text, "guess") for user in (ida, ida, jon))

    assert [build["state"] for build in (first, again, guess)] == ["succeeded"] * 3
    # The base itself may be as before for everybody.
    ours = [build["said"].partition("WORKDIR")[2] for build in (first, again, guess)]
    assert [said.count("as before") for said in ours] == [0, 2, 0]
    layers = ask(ida, "GET", "images/ida/guess").json()["layers"]
    assert [layer["command"].split()[0] for layer in layers[-2:]] == ["WORKDIR", "COPY"]


def test_an_image_that_asks_for_every_gpu_gets_none(hub, ida):
    text = "FROM python\nENV NVIDIA_VISIBLE_DEVICES=all DOCKER_RESOURCE_GPU=all\n"
    assert build_dockerfile(ida, text, "greedy")["state"] == "succeeded"
    ida.start("greedy", image="ds01-ida/greedy", **SMALL)
    try:
        environment = ida.container("greedy")["Config"]["Env"]
    finally:
        ida.stop("greedy")

    assert "NVIDIA_VISIBLE_DEVICES=void" in environment
    assert "DOCKER_RESOURCE_GPU=" in environment


def test_copied_files_are_the_projects_and_not_the_machines(hub, ida):
    ask(ida, "GET", "images/ida/files/source")
    folder = hub.data / "workspaces/ida/files"
    owner = folder.stat()
    (folder / "code.py").write_text("x = 1")
    os.chown(folder / "code.py", owner.st_uid, owner.st_gid)
    (folder / "key").symlink_to("/etc/shadow")
    build = build_dockerfile(
        ida, "FROM python\nCOPY code.py /opt/\nRUN cat /opt/code.py\n", "files"
    )
    assert build["state"] == "succeeded", build
    for source in ("key", "/etc/shadow"):
        build = build_dockerfile(ida, f"FROM python\nCOPY {source} /opt/\n", "files")
        assert build["state"] == "failed"
        assert "there is no" in build["problem"]


def test_a_token_that_may_only_look_changes_nothing(hub, ida, vision):
    scopes = ["access:services!service=ds01", "custom:ds01:images:read"]
    made = hub.api("POST", "/users/ida/tokens", ida.token, json={"scopes": scopes})
    assert made.status_code == 201, made.text
    reader = replace(ida, token=made.json()["token"])

    assert ask(reader, "GET", "images/ida/vision").json()["versions"]
    assert ask(reader, "GET", f"builds/{vision['id']}").json()["state"] == "succeeded"
    for method, path, body in (
        ("POST", "images", {"project": "sly", "base": "python"}),
        ("POST", "images/ida/vision/rebuild", {}),
        ("DELETE", "images/ida/vision", {}),
    ):
        answer = ask(reader, method, path, **body)
        assert answer.status_code == 403
        assert "needs the scope custom:ds01:images." in answer.json()["message"]
    assert ask(ida, "GET", "images/ida/vision").status_code == 200


def test_the_policy_says_who_builds_what(hub):
    guest, offline, full = (hub.user(name) for name in ("guest", "offline", "full"))
    refused = ask(guest, "POST", "images", project="mine", base="python")
    assert refused.status_code == 403
    assert "no images of your own" in refused.json()["message"]

    build = create(offline, "mine", python=["toolz"])
    assert build["state"] == "failed"
    assert "did not reach the network" in build["problem"]

    assert build_dockerfile(full, "FROM python\nRUN head -c 9000000 /dev/urandom >/x\n")["state"]
    refused = ask(full, "POST", "images", project="more", base="python", python=["toolz"])
    assert refused.status_code == 403
    assert "Delete images" in refused.json()["message"]


def test_older_versions_go_beyond_what_the_policy_keeps(mallory):
    for at in range(3):
        assert (
            build_dockerfile(mallory, f"FROM python\nENV A={at}\n", "old")["state"] == "succeeded"
        )
    versions = ask(mallory, "GET", "images/mallory/old").json()["versions"]

    assert [version["version"] for version in versions] == [3, 2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"project": "x", "base": "python", "python": ["a; rm -rf /"]}, "is no package"),
        ({"project": "x", "base": "python", "surprise": 1}, "no such field"),
        ({"project": "../x", "base": "python"}, "cannot be an image's name"),
        ({"project": "x", "base": "python", "requirements": "x\n" * 10_000}, "are the most"),
        ({"project": "x", "base": "python", "requirements": "a\0b"}, "NUL"),
        ({"project": "x", "base": "python", "tag": "build-1"}, "cannot be a tag"),
        ({"project": "x", "base": "nothing"}, "no image"),
        ({"project": "x", "base": "python", "requirements": "numpy\n" * 10_000}, "10001 lines"),
        ({"project": "x", "base": "python", "python": ["num\0py"]}, "no package"),
        ({"project": "x", "base": "python", "python": "numpy"}, ""),
    ],
)
def test_a_request_that_makes_no_sense_is_told_so(kim, body, words):
    answer = ask(kim, "POST", "images", **body)

    assert answer.status_code in (400, 404)
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM python\n" + "# more\n" * 750_000, "larger than 64 KiB"),
        ("FROM python\nRUN echo \0\n", "cannot be seen"),
    ],
    ids=["five-megabytes", "nul"],
)
def test_a_dockerfile_that_is_none_is_told_so(kim, text, words):
    ask(kim, "GET", "images/kim/odd/source")
    write_dockerfile(kim, "odd", text)
    answer = ask(kim, "POST", "images/kim/odd/rebuild")

    assert answer.status_code in (400, 409)
    assert words in answer.json()["message"]


def test_a_portal_that_was_killed_leaves_no_build_running(hub, ida):
    ask(ida, "GET", "images/ida/cut/source")
    write_dockerfile(ida, "cut", "FROM python\nRUN sleep 300\n")
    number = ask(ida, "POST", "images/ida/cut/rebuild").json()["build"]["id"]
    room = choose_build_room(hub.docker.info())
    eventually(room.processes, "the step runs")
    hub.portal.kill()
    hub.portal.wait()
    eventually(lambda: not room.processes(), "the engine has ended the build")
    hub.start_portal()

    # It serves before it can build.
    build = f"builds/{number}"
    eventually(lambda: ask(ida, "GET", build).status_code != 503, "it can build again", 30)
    assert ask(ida, "GET", build).json()["state"] == "interrupted"
    write_dockerfile(ida, "cut", "FROM python\nRUN true\n")
    assert ended(ida, ask(ida, "POST", "images/ida/cut/rebuild"))["state"] == "succeeded"
    assert names_at_work(hub) == []
