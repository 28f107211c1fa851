"""What a build copies of a project: the owner's files, and nothing that a link leads to."""

from __future__ import annotations

import os
import threading

import pytest

from ds01_spawner.images import context
from ds01_spawner.images.context import collect
from ds01_spawner.images.dockerfile import DockerfileError

UID = 54321


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    for name, text in {"a.txt": "a", "b.py": "b", "src/c.py": "c", "src/deep/d": "d"}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    own(folder)
    return folder


def own(folder):
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(root, name), UID, UID, follow_symlinks=False)


def copied(folder, sources, tmp_path, **limits):
    target = tmp_path / "target"
    target.mkdir()
    most = {"largest_bytes": 1000, "most_files": 50, **limits}
    collect(folder, sources, target, uid=UID, **most)
    return {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}


def test_files_folders_and_patterns_are_copied(project, tmp_path):
    (project / "src/run").write_text("#!")
    (project / "src/run").chmod(0o755)
    own(project)

    assert copied(project, ["*.py", "./src/"], tmp_path) == {
        "b.py": "b",
        "src/c.py": "c",
        "src/deep/d": "d",
        "src/run": "#!",
    }
    assert os.access(tmp_path / "target/src/run", os.X_OK)


def test_the_whole_folder_comes_without_its_history(project, tmp_path):
    (project / ".git").mkdir()
    (project / ".git/x").write_text("x")
    (project / ".ds01").mkdir()
    (project / ".ds01/pip").write_text("evil")
    own(project)

    assert set(copied(project, ["."], tmp_path)) == {"a.txt", "b.py", "src/c.py", "src/deep/d"}


def test_what_would_steer_the_build_stays_out_whatever_brings_it_along(project, tmp_path):
    for name in (".dockerignore", "Dockerfile.dockerignore", "src/.dockerignore"):
        (project / name).write_text("**")
    own(project)
    everything = {"a.txt", "b.py", "src/c.py", "src/deep/d", "src/.dockerignore"}

    assert set(copied(project, [".", "*", "*.*"], tmp_path)) == everything


@pytest.mark.parametrize("name", [".dockerignore", "./Dockerfile.dockerignore"])
def test_what_would_steer_the_build_is_refused_where_it_is_named(project, tmp_path, name):
    (project / name).write_text("**")
    own(project)

    with pytest.raises(DockerfileError, match="has no effect"):
        copied(project, ["a.txt", name], tmp_path)


@pytest.mark.parametrize(
    ("source", "words"), [("../secret", "below"), ("src/../..", "below"), ("s/" * 40, "deep")]
)
def test_a_path_out_of_the_folder_or_very_deep_is_refused(project, tmp_path, source, words):
    (tmp_path / "secret").write_text("secret")
    os.chown(tmp_path / "secret", UID, UID)

    with pytest.raises(DockerfileError, match=words):
        copied(project, [source], tmp_path)


def test_a_name_is_opened_once_in_all_its_spellings_and_nothing_is_listed(
    project, tmp_path, monkeypatch
):
    listed = []
    spellings = ["./" * at + "src//c.py" for at in range(1000)]

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", listed.append)
        patched.setattr(os, "scandir", listed.append)
        collect(project, spellings, tmp_path, uid=UID, largest_bytes=1000, most_files=2)

    assert (tmp_path / "src/c.py").read_text() == "c"
    assert listed == []


def test_a_folder_of_very_many_files_is_not_looked_through(project, tmp_path, monkeypatch):
    monkeypatch.setattr(context, "_MOST_NAMES", 20)
    for at in range(15):
        (project / f"empty{at}").touch()
    own(project)

    assert copied(project, ["*.txt"], tmp_path) == {"a.txt": "a"}
    for sources in (["*.txt", "*.py"], ["*9", "."]):
        with pytest.raises(DockerfileError, match="too many to look through"):
            collect(
                *(project, sources, tmp_path / "target"),
                **{"uid": UID, "largest_bytes": 1000, "most_files": 50},
            )


def test_a_copy_has_a_time_by_which_it_is_done(project, tmp_path, monkeypatch):
    now = 100.0

    def monotonic():
        nonlocal now
        now += 1
        return now

    monkeypatch.setattr(context.time, "monotonic", monotonic)

    with pytest.raises(DockerfileError, match="takes too long"):
        copied(project, ["."], tmp_path, seconds=4)


def test_no_link_is_followed(project, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (project / "link").symlink_to(secret)
    (project / "src/key").symlink_to(secret / "key")
    own(project)

    for source in ("link", "link/key", "src/key"):
        with pytest.raises(DockerfileError, match="there is no"):
            collect(project, [source], tmp_path, uid=UID, largest_bytes=1000, most_files=50)
    assert "src/key" not in copied(project, ["src"], tmp_path)


def test_somebody_elses_file_is_refused_also_under_a_name_of_ones_own(project, tmp_path):
    (tmp_path / "shadow").write_text("secret")
    os.link(tmp_path / "shadow", project / "mine")

    with pytest.raises(DockerfileError, match="not yours"):
        copied(project, ["mine"], tmp_path)


def test_a_pipe_holds_nobody_up(project, tmp_path):
    os.mkfifo(project / "pipe")
    own(project)

    with pytest.raises(DockerfileError, match="there is no"):
        copied(project, ["pipe"], tmp_path)


@pytest.mark.parametrize(
    ("limits", "words"), [({"largest_bytes": 2}, "too much"), ({"most_files": 3}, "too many")]
)
def test_too_much_is_refused(project, tmp_path, limits, words):
    with pytest.raises(DockerfileError, match=words):
        copied(project, ["."], tmp_path, **limits)


def test_a_folder_that_is_swapped_for_a_link_gives_nothing_away(project, tmp_path):
    secret = tmp_path / "secret"
    (secret / "deep").mkdir(parents=True)
    (secret / "c.py").write_text("secret")
    (secret / "deep" / "d").write_text("secret")
    over = threading.Event()

    def swap():
        while not over.is_set():
            os.rename(project / "src", project / "aside")
            (project / "src").symlink_to(secret)
            os.unlink(project / "src")
            os.rename(project / "aside", project / "src")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for at in range(300):
            target = tmp_path / f"t{at}"
            target.mkdir()
            try:
                collect(project, ["src"], target, uid=UID, largest_bytes=1000, most_files=50)
            except DockerfileError:
                continue
            for file in target.rglob("*"):
                assert file.is_dir() or file.read_text() != "secret"
    finally:
        over.set()
        swapper.join()
