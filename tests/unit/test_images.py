"""Users' images: whose they are, what builds say, what is kept of them."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from ds01_spawner.cgroups.limits import SliceError
from ds01_spawner.errors import Refused
from ds01_spawner.images import project_files, shelf
from ds01_spawner.images.catalogue import Catalogue
from ds01_spawner.images.client import Bounds, Stopped, run_client
from ds01_spawner.images.disk import bytes_below, is_almost_full
from ds01_spawner.images.holdings import Holdings
from ds01_spawner.images.layers import read_layers
from ds01_spawner.images.log import LAST_LINES, MOST_LINES, BuildLog, read_log
from ds01_spawner.images.members import Member
from ds01_spawner.images.output import Line, Output
from ds01_spawner.images.records import Build, ImageRecords, Shared, State
from ds01_spawner.images.shelf import Shelf, UserImage
from ds01_spawner.images.steps import MARK
from ds01_spawner.policy import ImageRules
from ds01_spawner.workspaces import Directory

HUB = "0123456789abcdef"


def listed(owner="alice", project="vision", number="1", tags=("latest", "build-1"), **more):
    labels = {
        shelf.HUB: HUB,
        shelf.OWNER: owner,
        shelf.PROJECT: project,
        shelf.NUMBER: number,
        shelf.BASE: "python",
    }
    return {
        "Id": f"sha256:{owner}{project}{number}",
        "Labels": {**labels, **more},
        "RepoTags": [f"ds01-{owner}/{project}:{tag}" for tag in tags],
        "Size": 1000,
        "Created": 1_700_000_000,
    }


async def on_the_shelf(*entries):
    async def docker(method, **kwargs):
        assert method == "images"
        assert f"{shelf.HUB}={HUB}" in kwargs["filters"]["label"]
        return list(entries)

    return await Shelf(docker, HUB).all()


# -- the shelf ------------------------------------------------------------------------------------


async def test_an_image_goes_by_its_owners_names_alone():
    entry = listed()
    entry["RepoTags"] += ["somebody/else:latest", "ds01-bob/vision:latest"]
    (image,) = await on_the_shelf(entry)

    assert image.names == (
        "ds01-alice/vision",
        "ds01-alice/vision:latest",
        "ds01-alice/vision:build-1",
    )
    assert shelf.named([image], "ds01-bob/vision") is None
    assert shelf.named([image], image.image_id) is None


@pytest.mark.parametrize(
    "entry",
    [
        listed(number="x"),
        listed(owner=""),
        listed(tags=("latest",)),
        listed(tags=()),
        listed(tags=("latest", "build-2")),
    ],
)
async def test_what_is_half_published_or_forged_is_no_image(entry):
    assert await on_the_shelf(entry) == []


async def test_others_use_only_what_is_shared_approved_and_tagged():
    images = await on_the_shelf(
        listed(), listed(number="2", tags=("build-2",)), listed(project="other")
    )

    def names(user, groups=(), shares=()):
        return [i.names[0] for i in shelf.usable(images, shares, user, groups)]

    group, everybody = Shared("alice", "vision", "team"), Shared("alice", "vision", "*")
    assert len(names("alice")) == 3
    assert names("bob") == []
    assert names("bob", {"team"}, [group]) == ["ds01-alice/vision"]
    assert names("bob", {"others"}, [group]) == []
    assert names("bob", (), [everybody]) == ["ds01-alice/vision"]
    waiting = Shared("alice", "vision", "*", approved=False)
    assert names("bob", (), [waiting]) == []


def test_users_choose_no_tag_that_a_version_has():
    assert shelf.is_users_tag("experiment-42")
    assert not any(map(shelf.is_users_tag, ("build-1", "a b", "", "-x", "x" * 64, "Ä", "a/b")))


# -- what a build says ----------------------------------------------------------------------------

PRINTED = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:aa
#1 DONE 0.0s
#5 [1/3] FROM docker.io/ds01_building/x:base-0
#5 CACHED
#6 [2/3] RUN --mount=type=bind,source=a,target=/b --mount=type=secret,id=pip /opt/pip install   a
#6 0.512 Using Python\x1b[0m 3.11
#6 1.5 error: No solution found when resolving dependencies
#6 1.5   cause: there is no a
#6 ERROR: executor failed running [/bin/sh -c x]: exit code: 1
------
 > [2/3] RUN x:
failed to solve with frontend dockerfile.v0: executor failed
"""


def test_the_output_is_read_in_steps_and_the_failure_in_words():
    output = Output({"ds01_building/x:base-0": "python"})
    lines = [line for raw in PRINTED.splitlines() if (line := output.read(raw))]

    assert lines[0] == Line("FROM python", 1, 3, begins=True)
    assert lines[2] == Line("RUN /opt/pip install a", 2, 3, begins=True)
    assert lines[3] == Line("Using Python 3.11", 2, 3)
    assert lines[-1].text == "This step failed (exit code: 1)."
    assert output.failed.startswith("RUN --mount")
    assert output.last == "cause: there is no a"
    assert "index has no such package" in output.advice()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("E: Unable to locate package grafviz", "Debian has no such package"),
        ("exit code: 137", "more memory"),
        ("No space left on device", "no room left"),
        ("sh: 1: Cannot fork", "more processes"),
        ("gcc: not found", "build-essential"),
        ("error: dns error: failed to lookup", "did not reach the network"),
    ],
)
def test_what_to_try_follows_from_what_is_said(said, advice):
    output = Output()
    output.read("#6 [2/3] RUN x")
    output.read(f"#6 1.0 {said}")

    assert advice in output.advice()


def test_what_a_step_prints_is_its_text_whatever_it_looks_like():
    output = Output()
    output.read("#6 [2/3] RUN x")

    assert output.read("#6 1.0 x\r#7 [1/1] A") == Line("#7 [1/1] A", 2, 3)
    assert output.read("#6 1.0 x\r#6 ERROR: exit code: 137") == Line(
        "#6 ERROR: exit code: 137", 2, 3
    )
    assert output.failed == ""
    assert output.read("x\r#7 [1/1] A") is None


def test_of_a_line_that_is_written_over_the_last_state_is_shown():
    output = Output()

    assert output.read("#6 1.0 10%\r" + "50%\r" * 5000 + "100%") == Line("100%")
    assert output.read("#6 1.0 windows\r") == Line("windows")
    assert output.read("#6 1.0 10%\r20%\r") == Line("20%")
    assert output.read("#6 1.0 ") is None


def test_what_is_remembered_of_an_output_does_not_grow_with_it():
    output = Output()
    tracemalloc.start()
    try:
        for number in range(5000):
            output.read(f"#{number} [1/1] RUN {number}{'x' * 1000}")
            output.read(f"#{number} 1.0 {number}{'x' * 1000}")
            output.read(f"{number}{'x' * 1000}")
        output.read("#1 1.0 no space left on device")
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < 3_000_000
    assert output.ran
    assert "no room left" in output.advice()
    assert output.last == "no space left on device"


def eventually_gone(pid: int) -> None:
    """See that a process ends soon; one that is not ours to wait for may stay as a zombie."""
    deadline = time.monotonic() + 20
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Grown:
    """Stands in for `Growth`: so many bytes while the build runs, and at its end."""

    def __init__(self, during: int = 0, in_the_end: int = 0) -> None:
        self.during, self.in_the_end = during, in_the_end

    async def may_exceed(self, most_bytes: int) -> bool:
        return self.during > most_bytes

    async def exceeds(self, most_bytes: int) -> bool:
        return self.in_the_end > most_bytes


async def client(
    script, tmp_path, *, check=lambda ran: None, others=lambda: False, grown=None, **bounds
):
    unbound = {"seconds": 60, "layer_bytes": 1 << 40, "total_bytes": 1 << 40, "free_bytes": 0}
    said = []
    result = await run_client(
        ["sh", "-c", script],
        Bounds(**unbound | bounds),
        written=lambda: [tmp_path],
        growth=grown or Grown(),
        others=others,
        check=check,
        disk=tmp_path,
        say=said.append,
        names={},
    )
    return result, said


async def test_a_client_is_read_to_its_end(tmp_path):
    (status, _), said = await client("echo '#6 [2/3] RUN x'; exit 3", tmp_path)

    assert status == 3
    assert said == [Line("RUN x", 2, 3, begins=True)]


async def test_the_end_of_a_long_output_is_known_and_shown(tmp_path):
    (_, output), said = await client(
        "yes '#6 1.0 x' | head -n 60000; echo '#6 1.0 No space left on device'", tmp_path
    )

    assert len(said) == MOST_LINES + 1 + LAST_LINES
    assert said[-1].text == output.last == "No space left on device"
    assert "no room left" in output.advice()


@pytest.mark.parametrize("begin", ["#6 1.0 ", "#6 [2/3] RUN "])
async def test_a_line_that_is_read_in_pieces_stays_one_steps(tmp_path, begin):
    """The second piece is what would be a step's begin if a line began with it."""
    fill = f"head -c {65537 - len(begin)} /dev/zero | tr '\\0' a"
    _, said = await client(
        f"printf '%s' '{begin}'; {fill}; sleep 0.5; echo '#9 [1/1] A'; echo '#6 2.0 b'", tmp_path
    )

    assert [line.text for line in said[1:]] == ["#9 [1/1] A", "b"][begin != "#6 1.0 " :]
    assert not any(line.begins for line in said[1:])


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"seconds": 0.3}, "took longer"),
        ({"layer_bytes": 10}, "wrote more"),
        ({"free_bytes": 1 << 60}, "disk is almost full"),
    ],
)
async def test_a_build_beyond_its_bounds_is_ended(tmp_path, bounds, words):
    (tmp_path / "large").write_bytes(b"x" * 10_000)
    marker = tmp_path / "pid"
    with pytest.raises(Stopped, match=words):
        await client(f"echo $$ > {marker}; exec sleep 100", tmp_path, **bounds)

    assert not os.path.exists(f"/proc/{marker.read_text().strip()}")


@pytest.mark.parametrize("grown", [Grown(during=11), Grown(in_the_end=11)])
async def test_a_build_whose_steps_leave_too_much_together_is_ended(tmp_path, grown):
    command = "exec sleep 100" if grown.during else "true"
    with pytest.raises(Stopped, match="in all its steps"):
        await client(command, tmp_path, grown=grown, total_bytes=10)


async def test_a_plug_in_is_ended_with_its_client(tmp_path, monkeypatch):
    monkeypatch.setattr("ds01_spawner.images.client._GRACE_S", 0.5)
    marker = tmp_path / "pid"
    many = "trap : INT; for i in 1 2 3 4 5 6 7 8 9; do sleep 5; done"
    script = f"trap : INT; sh -c 'echo $$ > {marker}; {many}'; :"
    with pytest.raises(Stopped):
        await client(script, tmp_path, seconds=0.5)

    eventually_gone(int(marker.read_text()))


async def test_a_build_whose_limits_do_not_hold_is_ended(tmp_path):
    def check(ran):
        raise SliceError("they do not hold")

    marker = tmp_path / "pid"
    with pytest.raises(SliceError, match="do not hold"):
        await client(f"echo $$ > {marker}; exec sleep 100", tmp_path, check=check)

    assert not os.path.exists(f"/proc/{marker.read_text().strip()}")


@pytest.mark.parametrize(
    ("said", "ran"),
    [
        ("#6 [2/3] RUN x\\n#6 1.0 text", True),
        ("#6 [2/3] RUN x\\n#6 DONE 0.1s", True),
        ("#6 [2/3] RUN x\\n#6 CACHED", False),
        ("#6 [2/3] RUN x", False),
        ("#6 [2/3] COPY x y\\n#6 DONE 0.1s", False),
        ("#6 [internal] load build context\\n#6 1.0 text", False),
    ],
)
async def test_limits_are_looked_at_when_a_build_has_ended_with_whether_a_step_ran(
    tmp_path, said, ran
):
    seen = []
    await client(f"printf '{said}\\n'", tmp_path, check=seen.append)

    assert seen == [ran]


async def test_a_step_that_may_be_another_builds_is_told_as_that(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 10_000)
    others = iter([True])
    with pytest.raises(Stopped, match="of this build, or of one beside it, wrote more"):
        await client("sleep 100", tmp_path, others=lambda: next(others, False), layer_bytes=10)


async def test_a_cancelled_client_is_gone(tmp_path):
    marker = tmp_path / "pid"
    running = asyncio.ensure_future(client(f"echo $$ > {marker}; exec sleep 100", tmp_path))
    while not (marker.exists() and marker.read_text().strip()):
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not os.path.exists(f"/proc/{marker.read_text().strip()}")


@pytest.mark.parametrize("times", [2, 5])
async def test_a_client_that_is_cancelled_again_is_gone_too(tmp_path, monkeypatch, times):
    """It does not hear the first signal, so that its end takes a while."""
    monkeypatch.setattr("ds01_spawner.images.client._GRACE_S", 1)
    marker = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > {marker}; while :; do sleep 0.1; done"
    running = asyncio.ensure_future(client(script, tmp_path))
    while not (marker.exists() and marker.read_text().strip()):
        await asyncio.sleep(0.01)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not os.path.exists(f"/proc/{marker.read_text().strip()}")


def test_what_a_folder_holds_is_counted_below_it_and_not_through_links(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "large").write_bytes(b"x" * 100_000)
    (inside / "link").symlink_to(outside)

    assert bytes_below(inside) <= 50_000
    assert bytes_below(outside, 50_000) > 50_000


# -- logs and records -----------------------------------------------------------------------------


def test_a_disk_without_room_for_more_files_is_full(tmp_path, monkeypatch):
    found = os.statvfs(tmp_path)
    assert not is_almost_full(tmp_path, 0)
    assert is_almost_full(tmp_path, found.f_bavail * found.f_frsize * 2)
    few = SimpleNamespace(f_files=1000, f_favail=49, f_bavail=1 << 40, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: few)
    assert is_almost_full(tmp_path, 0)


def test_many_empty_files_are_something(tmp_path):
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert bytes_below(tmp_path) >= 40_000


async def test_whoever_watches_sees_all_of_a_log_and_its_end(tmp_path):
    log = BuildLog(tmp_path / "log")
    log.say(Line("one", 1, 2, begins=True))

    async def watch(after):
        return [said.line.text async for said in log.watch(after)]

    early, late = asyncio.ensure_future(watch(0)), asyncio.ensure_future(watch(1))
    await asyncio.sleep(0)
    log.say(Line("two"))
    await asyncio.sleep(0)
    log.end()

    assert await early == ["one", "two"]
    assert await late == ["two"]
    assert [said.line for said in read_log(tmp_path / "log")] == [
        Line("one", 1, 2, begins=True),
        Line("two"),
    ]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_breaks_off_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "log").write_text(
        '{"seconds": 1, "text": "a", "step": 0, "of": 0, "begins": false}\n{"se'
    )

    assert [said.line.text for said in read_log(tmp_path / "log")] == ["a"]
    assert read_log(tmp_path / "none") == []


def test_builds_are_kept_with_all_that_they_are(tmp_path):
    records = ImageRecords(tmp_path / "db")
    build = records.add(Build("alice", "vision", "latest", "FROM python\n", ("numpy",)))
    running = records.change(build, state=State.RUNNING)
    done = records.change(
        running, state=State.SUCCEEDED, number=7, image_id="sha256:x", installed={"numpy": "2"}
    )

    again = ImageRecords(tmp_path / "db")
    assert again.get(build.id) == done
    assert done.ended_at is not None
    assert again.under_way() == []
    assert again.last_number("alice", "vision") == 7
    assert again.last_number("bob", "vision") == 0
    assert again.of_image("sha256:x") == done
    assert again.builds("bob") == []


def test_the_last_build_of_each_image_that_is_over_is_told_and_forgotten_with_it(tmp_path):
    records = ImageRecords(tmp_path / "db")

    def build(project, state, owner="alice", tag="latest"):
        added = records.add(Build(owner, project, tag, "FROM python\n"))
        return records.change(added, state=state)

    first = build("vision", State.SUCCEEDED)
    failed = build("vision", State.FAILED)
    running = build("vision", State.RUNNING)
    tagged = build("vision", State.SUCCEEDED, tag="e1")
    other = build("thesis", State.INTERRUPTED)
    bobs = build("vision", State.FAILED, owner="bob")

    assert records.latest("alice") == [other, tagged, failed]
    ids = [first.id, failed.id, running.id, tagged.id]
    assert sorted(records.forget("alice", "vision")) == ids
    assert records.latest("alice") == [other]
    assert records.latest("bob") == [bobs]


def test_what_is_changed_of_a_build_leaves_the_rest_alone(tmp_path):
    records = ImageRecords(tmp_path / "db")
    before = records.add(Build("alice", "vision", "latest", "FROM python\n"))
    records.change(before, state=State.SUCCEEDED, number=3, image_id="sha256:x")

    records.change(before, problem="Something came later.")

    found = records.get(before.id)
    assert found is not None
    assert (found.state, found.number, found.image_id) == (State.SUCCEEDED, 3, "sha256:x")


def test_shares_and_uses_are_kept(tmp_path):
    records = ImageRecords(tmp_path / "db")
    waiting = Shared("alice", "vision", "*", approved=False)
    records.share(waiting)
    records.share(Shared("alice", "vision", "team"))
    assert waiting in records.shares()
    records.share(Shared("alice", "vision", "*"))
    assert waiting not in records.shares()
    records.unshare("alice", "vision", "team")
    assert records.shares() == [Shared("alice", "vision", "*")]
    records.note_use("sha256:x")
    assert datetime.now(timezone.utc) >= records.last_uses(["sha256:x", "y"])["sha256:x"]


def test_servers_that_start_from_a_new_image_at_the_same_moment_are_all_noted(tmp_path):
    records = ImageRecords(tmp_path / "db")
    names = [f"sha256:{number}" for number in range(20) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(records.note_use, names))
    assert records.last_uses(names).keys() == set(names)


# -- holdings -------------------------------------------------------------------------------------


async def test_what_images_take_is_what_only_their_owner_has_each_layer_once(tmp_path):
    """One image stands on another of the same owner's, one on somebody else's."""
    vision = listed()
    upon = listed(project="upon", **{shelf.BASE: "ds01-alice/vision"})
    bobs = listed(owner="bob")
    other = listed(project="other", **{shelf.BASE: "ds01-bob/vision"})
    layers = {
        vision["Id"]: {"debian": 100, "v": 10},
        upon["Id"]: {"debian": 100, "v": 10, "u": 1},
        bobs["Id"]: {"debian": 100, "b": 50},
        other["Id"]: {"debian": 100, "b": 50, "o": 2},
    }

    async def docker(method, *args, **kwargs):
        if method == "images":
            return list(shelf_)
        if method == "inspect_image":
            return {"Id": args[0], "RootFS": {"Layers": list(layers[args[0]])}}
        assert method == "history"
        return [entry(size, f"RUN {name}") for name, size in reversed(layers[args[0]].items())]

    records = ImageRecords(tmp_path / "db")
    for owner, made in {"alice": ["v", "u", "o"], "bob": ["b"]}.items():
        records.note_layers(Build(owner, "x", "latest", "", id=1), made)
    # Built again by somebody else, it stays its first maker's.
    records.note_layers(Build("bob", "x", "latest", "", id=2), ["v"])
    shelf_ = [vision, upon, bobs, other]
    holdings = Holdings(docker, Shelf(docker, HUB), records, lambda: Catalogue(()))
    alice = Member("alice", frozenset(), ImageRules())

    assert await holdings.used_bytes(alice) == 10 + 1 + 2
    # Nobody has bob's layer from bob any more.
    shelf_.remove(bobs)
    assert await holdings.used_bytes(alice) == 10 + 1 + 2 + 50
    # The lab's layers count for nobody, also when the lab has others meanwhile.
    shelf_[:] = [vision]
    assert await holdings.used_bytes(alice) == 10


# -- layers ---------------------------------------------------------------------------------------


def entry(size, by):
    return {"Size": size, "CreatedBy": by}


def test_layers_get_their_sizes_and_commands():
    history = [
        entry(0, "LABEL a=b"),
        entry(5, "RUN /bin/sh -c pip install x # buildkit"),
        entry(0, "RUN /bin/sh -c true # buildkit"),
        entry(0, "ENV A=b"),
        entry(100, ""),
    ]
    layers = read_layers(["d0", "d1", "d2"], history)

    assert [(layer.digest, layer.size_bytes) for layer in layers] == [
        ("d0", 100),
        ("d1", 0),
        ("d2", 5),
    ]
    assert layers[2].command == "RUN pip install x"


@pytest.mark.parametrize(
    ("size", "by", "counted"),
    [
        (40, f"{MARK} # buildkit", False),
        # A program of the image's own with this name.
        (20 * 1024**3, f"RUN {MARK} # buildkit", True),
        (40, f"RUN {MARK} # buildkit", True),
        # The same file of another stage's.
        (20 * 1024**3, f"{MARK} # buildkit", True),
    ],
)
def test_only_what_the_builder_adds_itself_counts_for_nobody(size, by, counted):
    layers = read_layers(["d0", "d1"], [entry(size, by), entry(100, "")])

    assert [layer.size_bytes for layer in layers] == ([100, size] if counted else [100])


def test_layers_that_cannot_be_told_apart_are_one_sum():
    layers = read_layers(["d0", "d1"], [entry(1, "a"), entry(2, "b"), entry(3, "c")])

    assert [layer.size_bytes for layer in layers] == [0, 6]


# -- the project's files --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    found = tmp_path.stat()
    return Directory(tmp_path, found.st_dev, found.st_ino)


def test_a_file_is_written_whole_and_read_again(folder):
    project_files.write(folder, "Dockerfile", "FROM python\n", 1234, 1234)

    assert project_files.read(folder, "Dockerfile", 1234) == "FROM python\n"
    assert (folder.path / "Dockerfile").stat().st_uid == 1234
    assert [p.name for p in folder.path.iterdir()] == ["Dockerfile"]
    assert project_files.read(folder, "recipe.yaml", 1234) is None


def test_what_is_no_small_file_of_the_owners_is_refused_in_words(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root's")
    place = folder.path / "Dockerfile"

    def refused(words):
        with pytest.raises(Refused, match=words):
            project_files.read(folder, "Dockerfile", 1234)
        place.unlink()

    place.symlink_to(secret)
    refused("is a link")
    os.link(secret, place)
    refused("no file of yours")
    os.mkfifo(place)
    os.chown(place, 1234, 1234)
    refused("no file of yours")
    place.write_bytes(b"x" * 70_000)
    os.chown(place, 1234, 1234)
    refused("larger than")
    place.write_bytes(b"\xff\xfe")
    os.chown(place, 1234, 1234)
    refused("not UTF-8")


def test_what_is_set_aside_replaces_nothing(folder):
    (folder.path / "Dockerfile.edited").mkdir()
    (folder.path / "Dockerfile").write_text("mine")
    assert project_files.set_aside(folder, "Dockerfile") == "Dockerfile.edited-2"
    assert (folder.path / "Dockerfile.edited-2").read_text() == "mine"
    assert not (folder.path / "Dockerfile").exists()


def test_a_link_in_a_files_place_is_replaced_and_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (folder.path / "Dockerfile").symlink_to(secret)
    project_files.write(folder, "Dockerfile", "FROM python\n", 1234, 1234)

    assert secret.read_text() == "root's"
    assert not (folder.path / "Dockerfile").is_symlink()


def test_an_image_says_what_it_is_called():
    image = UserImage("a.b", "vision", "sha256:x", 3, (), "python", 1, datetime.now(timezone.utc))

    assert image.name == f"{shelf.repository('a.b', 'vision')}:build-3"
    assert shelf.looks_like_users(image.name)
    assert not any(
        map(shelf.looks_like_users, ("python", "ds01/python:3.11", "ds01-a/b@sha256:x", "../x"))
    )
