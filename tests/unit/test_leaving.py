"""What would go with a server: found and kept in the container, and asked from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import docker.errors
import pytest

from ds01_spawner import inside
from ds01_spawner.changes import Changes
from ds01_spawner.errors import Refused
from ds01_spawner.lifecycle import leaving, words
from ds01_spawner.lifecycle.leaving import Files, Leavings, LeftFile, Rescued, keep_files
from ds01_spawner.runtime.image.launch import leaving as in_container
from ds01_spawner.runtime.image.launch.leaving import found, keep, told

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
LATER = time.monotonic() + 3600


# -- in the container: which files ----------------------------------------------------------------


def write(root: Path, path: str, content: str = "x") -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def paths(root, *changed):
    return sorted(file.path for file in found(changed, LATER, root).files)


def test_what_a_person_wrote_counts_and_caches_and_packages_do_not(tmp_path):
    for path in (
        "/tmp/results.csv",
        "/tmp/run/model.pt",
        "/opt/x/deep/down/notes",
        "/tmp/pip-notes.txt",
        "/opt/x/__pycache__/a.pyc",
        "/opt/x/.cache/b",
        "/opt/x/lib/python3.11/site-packages/six.py",
        "/tmp/pip-unpack-1/wheel",
        "/tmp/ds01-server-1/runtime/kernel.json",
        "/tmp/ipykernel_7/1.py",
        "/opt/temporary/lib/a.py",
        "/var/log/mine",
        "/run/pid",
        "/tmp/venv/pyvenv.cfg",
        "/tmp/venv/bin/activate",
        "/opt/conda/conda-meta/history",
        "/opt/conda/bin/jq",
    ):
        write(tmp_path, path)
    write(tmp_path, "/tmp/empty", "")

    assert paths(
        tmp_path,
        "C/tmp",
        *(f"A/tmp/{n}" for n in os.listdir(tmp_path / "tmp")),
        "A/opt/x",
        "A/opt/temporary",
        "A/var/log/mine",
        "A/run",
        "A/opt/conda/bin/jq",
        "A/opt/x/__pycache__/a.pyc",
    ) == [
        "/opt/x/deep/down/notes",
        "/tmp/pip-notes.txt",
        "/tmp/results.csv",
        "/tmp/run/model.pt",
    ]


def test_of_what_changed_in_the_image_only_that_file_counts(tmp_path):
    write(tmp_path, "/srv/data/mine")
    write(tmp_path, "/srv/data/of the image")
    assert paths(tmp_path, "C/srv", "C/srv/data", "C/srv/data/mine") == ["/srv/data/mine"]


def test_only_regular_files_of_ones_own_are_told_of(tmp_path):
    write(tmp_path, "/tmp/a/mine")
    (tmp_path / "tmp/a/link").symlink_to("/etc/passwd")
    (tmp_path / "tmp/a/elsewhere").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "tmp/a/pipe")
    other = write(tmp_path, "/tmp/a/other")
    if os.getuid() == 0:
        os.chown(other, 4711, 4711)
    else:
        other.unlink()
    assert paths(tmp_path, "A/tmp/a", "A/tmp/gone", "A/tmp/a/link") == ["/tmp/a/mine"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_what_is_mounted_does_not_go_but_a_volume(tmp_path):
    write(tmp_path, "/data/mine")
    write(tmp_path, "/shared/theirs")
    volume, folder = tmp_path / "data/a volume", tmp_path / "data/a volume/folder"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
    try:
        write(tmp_path, "/data/a volume/results")
        folder.mkdir()
        # On the same disk as what it lies in, as far as a program sees.
        subprocess.run(["mount", "--bind", tmp_path / "shared", folder], check=True)
        assert paths(tmp_path, "A/data", "A/data/a volume/results") == ["/data/mine"]
        assert paths(tmp_path, "V/data/a volume") == ["/data/a volume/results"]
    finally:
        subprocess.run(["umount", "--recursive", volume], check=True)


def test_a_name_that_is_no_text_is_found_as_docker_writes_it(tmp_path):
    place = os.fsencode(tmp_path / "tmp")
    os.makedirs(place + b"/caf\xe9")
    Path(os.fsdecode(place + b"/caf\xe9/\xff\xfe.csv")).write_text("x")
    (name,) = paths(tmp_path, "A/tmp/caf\ufffd/\ufffd\ufffd.csv")
    assert os.fsencode(name) == b"/tmp/caf\xe9/\xff\xfe.csv"


def test_it_says_that_there_may_be_more(tmp_path, monkeypatch):
    for number in range(20):
        write(tmp_path, f"/tmp/a/{number}")
    assert found(["A/tmp/a"], LATER, tmp_path).is_complete
    assert not found(["A/tmp/a", "!"], LATER, tmp_path).is_complete
    assert not found(["A/tmp/a"], time.monotonic() - 1, tmp_path).is_complete
    monkeypatch.setattr(in_container, "_MOST_ENTRIES", 5)
    assert not found(["A/tmp/a"], LATER, tmp_path).is_complete


def test_the_newest_are_named_and_all_are_counted(tmp_path):
    for number in range(150):
        os.utime(write(tmp_path, f"/tmp/a/{number}", "four"), (number, number))
    said = told(found(["A/tmp/a"], LATER, tmp_path))
    assert [len(said["files"]), said["number"], said["bytes"]] == [100, 150, 600]
    assert said["files"][0] == ["/tmp/a/149", 4]


# -- in the container: keeping them ----------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    place = tmp_path / "workspace"
    place.mkdir()
    return place


def kept(tmp_path, workspace, most=1 << 20, deadline=LATER):
    what = found(["A/tmp/a"], LATER, tmp_path)
    return keep(what, "now", most, deadline, workspace=workspace, root=tmp_path)


def test_files_are_kept_with_their_places_times_and_rights(tmp_path, workspace):
    file = write(tmp_path, "/tmp/a/b/run.sh", "echo")
    file.chmod(0o4755)
    os.utime(file, (1000, 1000))
    assert kept(tmp_path, workspace)["number"] == 1
    copy = workspace / "rescued/now/tmp/a/b/run.sh"
    status = copy.stat()
    assert copy.read_text() == "echo"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 1000)


def test_the_smallest_are_kept_up_to_the_size_and_the_others_named(tmp_path, workspace):
    for name, size in {"large": 700, "small": 10, "middle": 300, "huge": 5000}.items():
        write(tmp_path, f"/tmp/a/{name}", "x" * size)
    said = kept(tmp_path, workspace, most=1000)
    assert sorted(os.listdir(workspace / "rescued/now/tmp/a")) == ["middle", "small"]
    assert (said["number"], said["bytes"]) == (2, 310)
    assert sorted(said["missed"]["files"]) == [["/tmp/a/huge", 5000], ["/tmp/a/large", 700]]
    assert said["problem"] == "too large"


def test_nothing_to_keep_leaves_no_directory(tmp_path, workspace):
    write(tmp_path, "/tmp/a/huge", "x" * 100)
    assert kept(tmp_path, workspace, most=10)["number"] == 0
    assert os.listdir(workspace) == []


def test_a_file_that_grows_meanwhile_is_cut_off_at_the_size(tmp_path, workspace):
    file = write(tmp_path, "/tmp/a/log", "x")
    what = found(["A/tmp/a"], LATER, tmp_path)
    file.write_text("x" * 2000)
    said = keep(what, "now", 1000, LATER, workspace=workspace, root=tmp_path)
    assert (said["number"], said["missed"]["number"]) == (0, 1)
    assert os.listdir(workspace) == []


def test_what_is_not_copied_in_time_is_named(tmp_path, workspace):
    write(tmp_path, "/tmp/a/file")
    said = kept(tmp_path, workspace, deadline=time.monotonic() - 1)
    assert (said["number"], said["missed"]["files"]) == (0, [["/tmp/a/file", 1]])
    assert os.listdir(workspace) == []


def test_what_is_there_already_is_not_written_over(tmp_path, workspace):
    write(tmp_path, "/tmp/a/file", "new")
    before = write(workspace, "rescued/now/tmp/a/file", "before")
    assert kept(tmp_path, workspace)["missed"]["number"] == 1
    assert before.read_text() == "before"


def test_a_link_does_not_lead_a_copy_away(tmp_path, workspace):
    write(tmp_path, "/tmp/a/file")
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace / "rescued").symlink_to(outside)
    said = kept(tmp_path, workspace)
    assert (said["number"], said["problem"]) == (0, "rescued is a link")
    assert os.listdir(outside) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_a_full_workspace_keeps_what_fits_and_says_why_not_more(tmp_path, workspace):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", workspace], check=True)
    try:
        write(tmp_path, "/tmp/a/small", "x" * 100)
        write(tmp_path, "/tmp/a/large", "x" * 100_000)
        said = kept(tmp_path, workspace)
        assert os.listdir(workspace / "rescued/now/tmp/a") == ["small"]
        assert said["problem"] == "No space left on device"
        subprocess.run(["mount", "-o", "remount,ro", workspace], check=True)
        what = found(["A/tmp/a"], LATER, tmp_path)
        said = keep(what, "later", 1 << 20, LATER, workspace=workspace, root=tmp_path)
        assert (said["number"], said["problem"]) == (0, "Read-only file system")
    finally:
        subprocess.run(["umount", workspace], check=True)


def as_user(uid, work):
    """Do something with a user's rights alone, and return what it gives."""
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(write_end, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_the_rights_are_the_users_whatever_the_links_say(tmp_path, workspace):
    file = write(tmp_path, "/tmp/a/file")
    for path in (file, file.parent, workspace):
        os.chown(path, 4711, 4711)
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o111)
    forbidden = tmp_path / "etc"
    forbidden.mkdir(0o755)

    def work(folder):
        what = found(["A/tmp/a"], LATER, tmp_path)
        return keep(what, folder, 99, LATER, workspace=workspace, root=tmp_path)

    assert as_user(4711, lambda: work("one"))["number"] == 1
    assert (workspace / "rescued/one/tmp/a/file").stat().st_uid == 4711
    # A link below the two directories that are looked at.
    (workspace / "rescued/two").mkdir()
    os.chown(workspace / "rescued/two", 4711, 4711)
    (workspace / "rescued/two/tmp").symlink_to(forbidden)
    assert as_user(4711, lambda: work("two"))["problem"] == "Permission denied"
    assert os.listdir(forbidden) == []


def test_the_command_ends_by_itself_when_something_holds_it_up():
    code = (
        "import time; from ds01_spawner.runtime.image.launch import leaving as l; "
        "l._SPARE_S = 1; l.found = lambda *_: time.sleep(30); l.main(['keep', 'now', '9', '0'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=25)
    assert ended.returncode == -signal.SIGALRM


# -- asked from outside ----------------------------------------------------------------------------

SAID = {"files": [["/tmp/a", 5]], "number": 3, "bytes": 9, "is_complete": True}
CONTAINER = {
    "Id": "c1",
    "Config": {
        "Labels": {"ds01.user": "ann", "ds01.hub": "hub", "ds01.image": "ds01-ann/vision"},
        "User": "1000:1000",
    },
    "State": {"Running": True},
    "Mounts": [
        {"Type": "volume", "Destination": "/opt/ds01", "RW": False},
        {"Type": "bind", "Destination": "/workspace", "RW": True},
        {"Type": "volume", "Destination": "/data", "RW": True},
    ],
}


class Asked:
    """Answers what a test says to each command that is run in a server."""

    def __init__(self, monkeypatch, **answers):
        self.answers, self.commands = answers, []
        self.changes = Changes(("/tmp/a",), ("/srv/b",))

        async def ask(_docker, container, command, read, *, about, patience_s=None, turn_of=None):
            self.commands.append(command)
            answer = self.answers[command[0].rpartition(".")[2]]
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                await asyncio.sleep(30)
            return read(answer)

        monkeypatch.setattr(inside, "ask", ask)

    async def docker(self, method, *_):
        assert method == "inspect_container"
        return CONTAINER

    async def changed(self, container):
        assert container is CONTAINER
        if isinstance(self.changes, Exception):
            raise self.changes
        return self.changes

    async def look(self, **more):
        return await Leavings(self.docker, "hub", self.changed).look("ann", "vision", 1 << 30)

    async def keep(self):
        return await Leavings(self.docker, "hub", self.changed).keep("ann", "vision", 99, NOW)


PACKAGES = [{"name": "toolz", "version": "1", "requested": True}]


async def test_packages_and_files_are_told(monkeypatch):
    asked = Asked(monkeypatch, installed=PACKAGES, leaving=SAID)
    seen = await asked.look()
    assert [each["name"] for each in seen.packages] == ["toolz"]
    assert seen.files == Files((LeftFile("/tmp/a", 5),), 3, 9, True)
    assert seen.image_is_own
    assert asked.commands[-1] == ["ds01_launch.leaving", "list", "A/tmp/a", "C/srv/b", "V/data"]


async def test_a_server_in_which_nothing_has_changed_is_not_asked(monkeypatch):
    asked = Asked(monkeypatch, installed=[])
    asked.changes = Changes()
    monkeypatch.setitem(CONTAINER, "Mounts", [])
    assert (await asked.look()).files == Files()


@pytest.mark.parametrize(
    "answer",
    [
        Refused("no", reason="server"),
        docker.errors.APIError("500"),
        OSError("no"),
        None,
    ],
)
async def test_what_is_not_told_is_not_known_and_not_nothing(monkeypatch, answer):
    monkeypatch.setattr(leaving, "_LOOK_S", 0.2)
    seen = await Asked(monkeypatch, installed=answer, leaving=answer).look()
    assert (seen.packages, seen.files) == (None, None)


async def test_an_engine_that_does_not_say_what_changed_is_not_taken_for_nothing(monkeypatch):
    asked = Asked(monkeypatch, installed=[], leaving=SAID)
    asked.changes = docker.errors.APIError("500")
    assert (await asked.look()).files is None


@pytest.mark.parametrize(
    "said",
    [
        {**SAID, "number": -1},
        {**SAID, "number": 0},
        {**SAID, "bytes": 1e300},
        {**SAID, "bytes": 2**70},
        {**SAID, "files": [["/tmp/a", "5"]]},
        {**SAID, "files": [["/tmp/a"]]},
        {**SAID, "files": 5},
        {},
        [],
        None,
    ],
)
def test_what_a_student_could_answer_in_its_place_is_refused(said):
    with pytest.raises((ValueError, LookupError, TypeError)):
        leaving._read_files(said)


def test_names_are_for_people():
    said = {
        **SAID,
        "files": [["/tmp/\n\x1b[31m\u202ea\udcff" + "x" * 9999, 1]] * 999,
        "number": 999,
    }
    read = leaving._read_files(said)
    assert len(read.named) == 100
    assert read.named[0].path.startswith("/tmp/??[31m?a?x")
    assert len(read.named[0].path) == 300


async def test_files_are_kept_in_a_place_that_says_when(monkeypatch):
    asked = Asked(
        monkeypatch, leaving={"number": 2, "bytes": 7, "missed": SAID, "problem": "too large"}
    )
    found = await asked.keep()
    assert (found.place, found.number, found.problem) == (
        "rescued/2026-06-01-120000",
        2,
        "too large",
    )
    command = asked.commands[0]
    assert command[:4] == ["ds01_launch.leaving", "keep", "2026-06-01-120000", "99"]


async def test_a_server_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(leaving, "_KEEP_S", 0.2)
    asked = Asked(monkeypatch, leaving=None)
    with pytest.raises(Refused) as refused:
        await keep_files(asked.docker, asked.changed, CONTAINER, 99, NOW)
    assert refused.value.status_code == 503


async def test_a_policy_that_keeps_nothing_says_so(monkeypatch):
    asked = Asked(monkeypatch)
    with pytest.raises(Refused) as refused:
        await Leavings(asked.docker, "hub", asked.changed).keep("ann", "vision", 0, NOW)
    assert refused.value.status_code == 409


@pytest.mark.parametrize(("user", "hub"), [("bob", "hub"), ("ann", "another")])
async def test_others_servers_are_none(monkeypatch, user, hub):
    asked = Asked(monkeypatch)
    leavings = Leavings(asked.docker, hub, asked.changed)
    for ask in (leavings.look(user, "vision", 1), leavings.keep(user, "vision", 1, NOW)):
        with pytest.raises(Refused) as refused:
            await ask
        assert refused.value.status_code == 404


# -- in words -------------------------------------------------------------------------------------


def test_the_owner_is_told_where_files_are_and_which_are_gone():
    place = "rescued/2026-06-01-120000"
    all_kept = Rescued(place, 2, 7, Files())
    assert (
        words.rescued(all_kept)
        == f". Files that you had outside /workspace and your home are in {place}"
    )
    some = Rescued(place, 1, 1, Files((LeftFile("/tmp/big", 3 << 30),), 3, 4 << 30), "too large")
    assert words.rescued(some).endswith(
        ". These could not be kept (too large): /tmp/big (3 GiB) and 2 more"
    )
    assert words.rescued(Rescued(place, 0, 0, Files())) == ""
    assert words.rescued(Rescued(place, 0, 0, Files(is_complete=False))) == words.NOT_KEPT
