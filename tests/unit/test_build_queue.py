"""The line of builds: what it promises when a build, its log or its end goes wrong."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from ds01_spawner.errors import Refused
from ds01_spawner.images.builder import Request
from ds01_spawner.images.output import Line
from ds01_spawner.images.queue import BuildQueue
from ds01_spawner.images.records import Build, ImageRecords, State
from ds01_spawner.policy import ImageRules


class Builder:
    """Stands in for the engine: builds until it may end, and takes a while to be cancelled."""

    def __init__(self, records: ImageRecords) -> None:
        self.may_end = asyncio.Event()
        self.says: list[Line] = []
        self.broken_off = False
        self._records = records

    async def run(self, request, say):
        try:
            for line in self.says:
                say(line)
            await self.may_end.wait()
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                self.broken_off = True
            raise
        return self._records.change(request.build, state=State.SUCCEEDED)


@pytest.fixture
def records(tmp_path):
    return ImageRecords(tmp_path / "db")


@pytest.fixture
async def builder(records):
    return Builder(records)


@pytest.fixture
async def queue(builder, records, tmp_path):
    queue = BuildQueue(builder, records, tmp_path / "logs")
    yield queue
    await queue.close()


def request(kept):
    return Request(kept, ImageRules(), {}, None, 1000)


def build(owner="alice", project="vision"):
    return Build(owner, project, "latest", "FROM python\n")


async def watched(log):
    return [said.line.text async for said in log.watch()]


async def until_idle(queue, kept):
    while queue.is_building(kept.owner, kept.project):
        await asyncio.sleep(0.01)


async def test_a_build_that_is_cancelled_twice_still_ends_in_its_own_time(queue, builder, records):
    kept = queue.add(request, build())
    await asyncio.sleep(0)
    first = asyncio.ensure_future(queue.cancel(kept.id))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(queue.cancel(kept.id), 5)

    assert not builder.broken_off
    assert not queue.is_building("alice", "vision")
    assert records.get(kept.id).state is State.CANCELLED
    await asyncio.wait_for(first, 5)


@pytest.mark.parametrize("says", [[Line("one")], []])
async def test_whoever_watches_learns_of_the_end_on_a_full_disk(queue, builder, tmp_path, says):
    """Whether the build says something, or only its end is said."""
    (tmp_path / "logs" / "1.jsonl").symlink_to("/dev/full")
    builder.says = says
    kept = queue.add(request, build())
    watching = asyncio.ensure_future(watched(queue.log(kept.id)))
    await asyncio.sleep(0.02)
    await queue.cancel(kept.id)

    found = await asyncio.wait_for(watching, 5)
    assert found[: len(says)] == [line.text for line in says]
    assert len(found) == len(says) + 1
    assert not queue.is_building("alice", "vision")


async def test_whoever_watches_learns_of_the_end_when_the_record_cannot_be_kept(
    queue, records, monkeypatch
):
    kept = queue.add(request, build())
    watching = asyncio.ensure_future(watched(queue.log(kept.id)))
    await asyncio.sleep(0.02)

    def full(build, **changes):
        raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk is full"))

    monkeypatch.setattr(records, "change", full)
    await queue.cancel(kept.id)

    assert await asyncio.wait_for(watching, 5) == []


async def test_a_build_without_a_log_is_refused_and_not_queued_for_ever(queue, records, tmp_path):
    (tmp_path / "logs" / "1.jsonl").mkdir()
    with pytest.raises(Refused, match="cannot keep the log") as refused:
        queue.add(request, build())

    assert refused.value.status_code == 503
    assert records.under_way() == []
    (failed,) = records.builds("alice")
    assert failed.state is State.FAILED
    assert "cannot keep the log" in failed.problem
    assert not queue.is_building("alice", "vision")


async def test_a_users_newest_logs_are_kept(queue, builder, tmp_path):
    builder.may_end.set()
    bobs = queue.add(request, build("bob"))
    await until_idle(queue, bobs)
    added = []
    for _ in range(55):
        added.append(queue.add(request, build()))
        await until_idle(queue, added[-1])

    left = {int(path.stem) for path in (tmp_path / "logs").iterdir()}
    assert left == {bobs.id, *(kept.id for kept in added[-50:])}
