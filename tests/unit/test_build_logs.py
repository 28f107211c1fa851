"""What is kept of a build's output, how it is read again, and that this keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from ds01_spawner.images import log as logs
from ds01_spawner.images.log import LAST_LINES, BuildLog, Excerpt, read_log, replay
from ds01_spawner.images.output import Line
from ds01_spawner.images.records import Build
from ds01_spawner.portal import image_api, image_pages

LEFT_OUT = "The rest is left out"


def kept_of(lines, **room):
    kept = []
    excerpt = Excerpt(kept.append, **room)
    for line in lines:
        excerpt.say(line)
    at_once = len(kept)
    excerpt.end()
    return kept, at_once


@pytest.mark.parametrize("begins", [False, True])
def test_the_beginning_and_the_end_of_a_long_output_are_kept(begins):
    lines = [Line(str(number), 1, 1, begins) for number in range(100)]
    kept, at_once = kept_of(lines, most_lines=5)

    assert kept[:5] == lines[:5]
    assert LEFT_OUT in kept[5].text
    assert at_once == 6
    assert kept[6:] == lines[-LAST_LINES:]


def test_no_line_is_kept_twice_or_lost_where_the_end_meets_the_beginning():
    lines = [Line(str(number)) for number in range(8)]
    kept, _ = kept_of(lines, most_lines=5)

    assert [line for line in kept if LEFT_OUT not in line.text] == lines
    assert kept_of(lines, most_lines=8)[0] == lines


def test_room_is_counted_as_the_file_takes_it(tmp_path):
    """A character beyond ASCII takes up to twelve bytes of it."""
    log = BuildLog(tmp_path / "log")
    excerpt = Excerpt(log.say, most_bytes=100_000)
    for _ in range(1000):
        excerpt.say(Line("\N{SNAKE}" * 100, 1, 1))
    size = (tmp_path / "log").stat().st_size
    log.end()

    assert 90_000 < size < 102_000


async def turns_of_others(reading):
    """Return how many turns another task has had while all is read."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    found = [said async for said in reading]
    task.cancel()
    return found, turns


async def test_reading_a_long_log_lets_others_have_their_turn(tmp_path, monkeypatch):
    log = BuildLog(tmp_path / "log")
    for number in range(5000):
        log.say(Line(str(number)))
    log.end()
    threads = []

    def read(path):
        threads.append(threading.current_thread())
        return read_log(path)

    monkeypatch.setattr(logs, "read_log", read)
    watched, turns = await turns_of_others(log.watch())
    assert turns >= 10
    reread, turns = await turns_of_others(replay(tmp_path / "log"))
    assert turns >= 10

    assert [said.line for said in watched] == [said.line for said in reread]
    assert [said.at for said in reread] == list(range(1, 5001))
    assert [said.at async for said in replay(tmp_path / "log", 4998)] == [4999, 5000]
    assert [said async for said in replay(tmp_path / "none")] == []
    assert threading.main_thread() not in threads


async def test_a_log_on_a_full_disk_ends_for_whoever_watches(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    log = BuildLog(tmp_path / "log")

    async def watch():
        return [said.line.text async for said in log.watch()]

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="No space left"):
        log.say(Line("one"))
    log.end()

    assert await asyncio.wait_for(watching, 5) == ["one"]


# -- the portal -----------------------------------------------------------------------------------


@pytest.fixture
def handler(tmp_path, monkeypatch):
    """Stands in for a request for a build that is over; its log may not be read on the loop."""
    log = BuildLog(tmp_path / "log")
    for text in ("one", "two"):
        log.say(Line(text))
    log.end()

    def read(path):
        assert threading.current_thread() is not threading.main_thread()
        return read_log(path)

    monkeypatch.setattr(logs, "read_log", read)
    monkeypatch.setattr(image_pages, "read_log", read)
    build = Build("alice", "vision", "latest", "FROM python\n", id=1)
    queue = SimpleNamespace(
        log=lambda number: None, log_path=lambda number: tmp_path / "log", place=lambda number: 0
    )

    async def done(found=None):
        return await found if found is not None else None

    shown = SimpleNamespace(sent=[], page={})
    return SimpleNamespace(
        _build=lambda number: build,
        _send=shown.sent.append,
        answered=done,
        finish=done,
        member=SimpleNamespace(name="alice"),
        request=SimpleNamespace(headers={"Last-Event-ID": "1"}),
        set_header=lambda *header: None,
        shown=shown,
        workshop=SimpleNamespace(
            queue=queue, orders=SimpleNamespace(build_of=lambda member, number: build)
        ),
        write=lambda text: None,
        write_page=lambda template, **values: shown.page.update(values),
    )


async def test_a_builds_page_reads_its_log_beside_the_loop(handler):
    await image_pages.BuildPage.get(handler, "1")

    assert [said.line.text for said in handler.shown.page["said"]] == ["one", "two"]


async def test_a_log_that_is_over_is_sent_without_blocking_the_loop(handler):
    await image_api.OneBuildLog.get(handler, "1")

    assert [said.line.text for said in handler.shown.sent] == ["two"]
