"""What directories take on the disk: real trees, counted by the real program."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from ds01_spawner.storage import measure as measuring
from ds01_spawner.storage import walk
from ds01_spawner.storage.measure import Measure, Measured, NotMeasured, Place

MIB = 1024**2


def measured(*places: Place, seconds: float = 60) -> Measured:
    return asyncio.run(Measure(seconds)(places))


def du(*paths: Path) -> int:
    """Return what the system's own program counts."""
    said = subprocess.run(
        ["du", "--summarize", "--total", "--block-size=1", "--one-file-system", *paths],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(said.splitlines()[-1].split()[0])


def counted_bytes(*paths: Path) -> int:
    """Return the same with 4 KiB for each that takes less."""
    found = {}
    for path in paths:
        for folder, folders, files in os.walk(path):
            for name in (".", *folders, *files):
                status = os.lstat(f"{folder}/{name}")
                found[status.st_ino] = status.st_blocks * 512
    return du(*paths) + sum(max(0, 4096 - taken) for taken in found.values())


def test_a_tree_takes_what_du_says(tmp_path):
    for number in range(300):
        folder = tmp_path / f"d{number % 7}" / f"e{number % 11}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(b"x" * number * 100)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "big").write_bytes(os.urandom(5 * MIB))
    os.link(tmp_path / "big", tmp_path / "d1" / "the same")
    (tmp_path / "away").symlink_to("/usr")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"odd \xff\n\x1b[31m")).mkdir()

    found = measured(Place(tmp_path))

    assert found == Measured(counted_bytes(tmp_path))
    assert 5 * MIB < found.bytes < 12 * MIB


def test_a_file_with_names_in_two_places_counts_once(tmp_path):
    home, workspaces = tmp_path / "home", tmp_path / "workspaces"
    home.mkdir()
    workspaces.mkdir()
    (home / "model").write_bytes(os.urandom(4 * MIB))
    os.link(home / "model", workspaces / "model")

    both = measured(Place(tmp_path, "home"), Place(tmp_path, "workspaces"))

    assert both.bytes == counted_bytes(home, workspaces) < 5 * MIB
    assert measured(Place(tmp_path, "workspaces")).bytes > 4 * MIB


def test_of_more_names_than_are_remembered_each_counts_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "_MOST_LINKED", 0)
    (tmp_path / "a").write_bytes(os.urandom(4 * MIB))
    os.link(tmp_path / "a", tmp_path / "b")
    counted = walk.Walk(60)
    counted.add(str(tmp_path), "")
    assert counted.count.bytes == counted_bytes(tmp_path)


def test_a_place_that_is_a_link_or_is_not_there_takes_nothing(tmp_path):
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / ".ds01").symlink_to("/usr")
    for name in ("link", ".ds01/lib", "gone", "gone/home"):
        assert measured(Place(tmp_path, name)) == Measured(0)
    assert measured() == Measured(0)


def test_a_tree_that_is_deeper_than_a_path_can_be_is_counted(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, os.urandom(3 * MIB))
    os.close(file)
    os.close(fd)

    found = measured(Place(tmp_path))

    assert found.problem == ""
    assert found.bytes > 3 * MIB
    # Python's own way to remove it takes a path.
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_another_file_system_is_not_entered(tmp_path):
    (tmp_path / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "mounted"], check=True)
    try:
        (tmp_path / "mounted" / "file").write_bytes(b"x" * 3 * MIB)
        assert du(tmp_path) <= measured(Place(tmp_path)).bytes < MIB
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


def test_what_goes_meanwhile_is_not_counted(tmp_path, monkeypatch):
    for name in ("goes", "stays"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * MIB)
    opened = walk.Walk._open

    def race(self, parent, name, **more):
        if name == "goes":
            (tmp_path / "goes" / "file").unlink()
            (tmp_path / "goes").rmdir()
        return opened(self, parent, name, **more)

    monkeypatch.setattr(walk.Walk, "_open", race)
    counted = walk.Walk(60)
    counted.add(str(tmp_path), "")

    assert MIB < counted.count.bytes < 2 * MIB
    # It may have been moved to where nobody looks any more.
    assert (counted.count.unread, counted.count.gone) == (0, 1)
    counted.count.is_finished = True
    told = measuring._measured(json.dumps(asdict(counted.count)).encode())
    assert told.problem == "1 of its directories moved or deleted meanwhile"


def test_empty_files_without_end_are_not_for_nothing(tmp_path):
    for number in range(500):
        (tmp_path / str(number)).touch()
    assert measured(Place(tmp_path)).bytes >= 500 * 4096


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x" * MIB)
    (tmp_path / "locked").mkdir()
    real_open = os.open

    def refuse(path, *args, **kwargs):
        if path == "locked":
            raise PermissionError(13, "not allowed")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(walk.os, "open", refuse)
    counted = walk.Walk(60)
    counted.add(str(tmp_path), "")
    assert counted.count.bytes >= MIB
    assert counted.count.unread == 1
    with pytest.raises(NotMeasured):
        measured(Place(tmp_path / "no such disk"))


def test_what_takes_too_long_is_at_least_what_was_counted(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * MIB)
    found = measured(Place(tmp_path), seconds=0)
    assert "not counted to its end" in found.problem
    assert found.bytes < MIB


def slow_program(tmp_path: Path, text: str) -> str:
    file = tmp_path / "program.py"
    file.write_text(f"import json, signal, time\nfrom pathlib import Path\n{text}")
    return str(file)


def test_a_program_that_hangs_is_ended_and_its_last_words_count(tmp_path, monkeypatch):
    said = '{"bytes": 7, "unread": 0, "is_finished": false}'
    program = slow_program(tmp_path, f"print({said!r}, flush=True)\ntime.sleep(600)\n")
    monkeypatch.setattr(walk, "__file__", program)
    monkeypatch.setattr(measuring, "_SILENT_S", 1)
    begun = time.monotonic()
    assert measured(Place(tmp_path), seconds=600).bytes == 7
    assert time.monotonic() - begun < 20


def test_what_hangs_in_a_disk_is_left_alone_and_not_piled_up(tmp_path, monkeypatch):
    # As a process in the kernel: no signal ends it.
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", lambda _: None)
    monkeypatch.setattr(measuring, "_SILENT_S", 0.1)
    monkeypatch.setattr(measuring, "_ENDS_IN_S", 0.1)
    monkeypatch.setattr(measuring, "_MOST_STUCK", 2)
    monkeypatch.setattr(walk, "__file__", slow_program(tmp_path, "time.sleep(2)\n"))

    async def try_often():
        measure = Measure(600)
        for _ in range(2):
            with pytest.raises(NotMeasured, match="did not answer"):
                await measure([Place(tmp_path)])
        with pytest.raises(NotMeasured, match="hang"):
            await measure([Place(tmp_path)])
        # They may be measured again when those have ended.
        await asyncio.gather(*(process.wait() for process in measure._stuck))
        with pytest.raises(NotMeasured, match="did not answer"):
            await measure([Place(tmp_path)])
        await asyncio.gather(*(process.wait() for process in measure._stuck))

    asyncio.run(try_often())


def test_it_gives_way_to_everything_else(tmp_path, monkeypatch):
    """The program has no say in it: whatever is run has the lowest priority."""
    program = slow_program(
        tmp_path,
        "import os, subprocess\n"
        "said = subprocess.run(['ionice', '-p', str(os.getpid())], capture_output=True)\n"
        "lowest = said.stdout.startswith(b'idle') and os.nice(0) == 19\n"
        "print(json.dumps({'bytes': int(lowest), 'unread': 0, 'is_finished': True}))\n",
    )
    monkeypatch.setattr(walk, "__file__", program)
    assert measured(Place(tmp_path)) == Measured(1)


def test_an_ended_service_leaves_no_program_behind(tmp_path, monkeypatch):
    program = slow_program(
        tmp_path,
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(__import__('os').getpid()))\n"
        "time.sleep(600)\n",
    )
    monkeypatch.setattr(walk, "__file__", program)

    async def begin_and_end():
        task = asyncio.ensure_future(Measure(600)([Place(tmp_path)]))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(begin_and_end())
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_the_program_needs_nothing_of_the_package():
    said = subprocess.run(
        [sys.executable, "-I", "-S", walk.__file__, "5"], capture_output=True, check=True
    )
    assert said.stdout == b'{"bytes": 0, "unread": 0, "gone": 0, "is_finished": true}\n'
