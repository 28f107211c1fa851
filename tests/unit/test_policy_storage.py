"""Shared folders: who has which, and what can be none."""

from __future__ import annotations

import os
import threading

import pytest

from ds01_spawner import shared_folders
from ds01_spawner.policy import LivePolicy, PolicyError, load_storage_beside


@pytest.fixture
def listed(tmp_path):
    """Return a function that writes a list of folders and reads it."""

    def read(text):
        (tmp_path / "storage.yaml").write_text(text)
        return load_storage_beside(tmp_path / "resource-limits.yaml")

    return read


def entry(**changes):
    fields = {"name": "imagenet", "path": "/srv/data", "mode": "ro", "groups": "[a]", **changes}
    return "- {" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}\n"


def test_where_folders_are_in_a_server(listed):
    read, write = listed(entry() + entry(name="team", mode="rw"))

    assert (read.target, read.read_only) == ("/data/imagenet", True)
    assert (write.target, write.read_only) == ("/shared/team", False)


def test_without_a_list_nothing_is_shared(listed, tmp_path):
    assert load_storage_beside(tmp_path / "resource-limits.yaml") == ()
    assert listed("# nothing yet\n") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (entry(name="../x"), "[0].name: use lower-case letters"),
        (entry(name="Data"), "[0].name: use lower-case letters"),
        (entry(path="data"), "[0].path: 'data' is not a plain absolute path"),
        (entry(path="/srv/../etc"), "is not a plain absolute path"),
        (entry(path="/srv/"), "is not a plain absolute path"),
        (entry(path="/"), "the whole machine cannot be shared"),
        (entry(path="/etc/ssh"), "belongs to the system"),
        (entry(path="/run/docker.sock"), "belongs to the system"),
        (entry(mode="rwx"), "[0].mode:"),
        (entry(groups="[]"), "[0].groups:"),
        (entry(groups="a"), "[0].groups: must be a list"),
        (entry(grups="[a]"), "[0].grups: unknown key; the nearest known is 'groups'"),
        (entry() + entry(), "[1].name: there are two of this name"),
        (
            entry(name="team", mode="rw") + entry(path="/srv/data/sub"),
            "[1].path: lies in the folder 'team', to which others write",
        ),
        ("name: x", "must be a list"),
        ("- {name: x}", "is missing"),
    ],
)
def test_what_cannot_be_shared_is_named_with_its_line(listed, text, problem):
    with pytest.raises(PolicyError) as refusal:
        listed(text)
    assert any(problem in line for line in refusal.value.problems), refusal.value.problems
    assert all("storage.yaml:" in line for line in refusal.value.problems)


def test_who_has_which(listed, tmp_path):
    listed(
        entry(name="all", groups="['*']")
        + entry(name="staffs", groups="[staff]")
        + entry(name="course", groups="[nlp-2026]")
        + entry(name="students", groups="[student]")
    )
    file = tmp_path / "resource-limits.yaml"
    file.write_text("default_group: student\ngroups: {student: , staff: {members: [sam]}}")
    policy = LivePolicy(file)

    def names(user, *hub_groups):
        return [folder.name for folder in policy.share(user, hub_groups).folders]

    assert names("ann") == ["all", "students"]
    assert names("sam") == ["all", "staffs"]
    # A group of the Hub's alone, such as a course.
    assert names("ann", "nlp-2026") == ["all", "course", "students"]


async def test_a_folder_that_is_not_there_is_left_out_and_named(listed, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    os.chown(here, 0, 61_234)
    (tmp_path / "file").write_text("")
    folders = listed(
        entry(name="here", path=here)
        + entry(name="gone", path=tmp_path / "gone")
        + entry(name="file", path=tmp_path / "file")
    )
    found = await shared_folders.look(folders)

    assert [(f.folder.name, f.gid) for f in found.here] == [("here", 61_234)]
    assert found.missing == {
        "gone": f"{tmp_path}/gone: No such file or directory",
        "file": f"{tmp_path}/file is no directory",
    }


async def test_a_link_into_the_system_is_left_out(listed, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    found = await shared_folders.look(listed(entry(path=tmp_path / "link")))
    assert found.missing["imagenet"].endswith("leads to /etc, which belongs to the system")


async def test_a_disk_that_hangs_is_waited_for_only_so_long(listed, tmp_path, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(shared_folders, "_look", lambda folder: let_go.wait())
    monkeypatch.setattr(shared_folders, "_PATIENCE_S", 0.05)
    try:
        found = await shared_folders.look(listed(entry()))
        assert found.missing == {"imagenet": "the disk of /srv/data does not answer"}
    finally:
        let_go.set()
