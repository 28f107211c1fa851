"""Pages come and go: what cells show meanwhile is kept, followed, and put into the notebook."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from datetime import datetime, timezone

import pytest
from tornado.web import HTTPError

from ds01_spawner.runtime.image.launch import keeper
from ds01_spawner.runtime.image.launch.executions import NOT_ENDED
from ds01_spawner.runtime.image.launch.keeper import Keeper

from .notebooks import notebook


class Folder:
    """Gives and saves notebooks as the server's contents manager does."""

    GONE = "a deleted notebook.ipynb"
    BROKEN = "a broken notebook.ipynb"

    def __init__(self, root):
        self.root = root
        self.saves = 0
        self.meanwhile = lambda: None

    def get(self, path, content=True, type=None):
        if path == self.GONE:
            raise HTTPError(404)
        if path == self.BROKEN:
            raise HTTPError(400)
        file = self.root / path
        time = datetime.fromtimestamp(os.stat(file).st_mtime_ns / 1e9, timezone.utc)
        whole = json.loads(file.read_text()) if content else None
        if content:
            self.meanwhile()
        return {"last_modified": time, "content": whole}

    async def save(self, model, path):
        self.saves += 1
        (self.root / path).write_text(json.dumps(model["content"]))
        return self.get(path, content=False)


class Silence:
    is_closed = False

    def refresh(self):
        pass

    def close(self):
        self.is_closed = True


class Desk:
    """A keeper with one kernel ``k`` and its notebook ``n.ipynb``, of two cells."""

    def __init__(self, root):
        self.folder = Folder(root)
        self.kernels = {"k"}
        self.notebooks = {"n.ipynb"}
        self.silence = Silence()
        self.write(notebook(("a", "x"), ("b", "y")))
        log = logging.getLogger("test")
        self.keeper = Keeper(self.folder, self.paths, self.kernels.__contains__, log)

    async def paths(self, kernel):
        return self.notebooks if kernel in self.kernels else set()

    def open(self, session):
        page = object()
        self.keeper.came("k", page, session, lambda: self.silence)
        return page

    def close(self, page, is_closed=True):
        self.keeper.left("k", page, is_closed)

    def run(self, session, cell="a"):
        self.keeper.requested("k", f"run {cell}", session, cell, "x")
        self.say("execute_input", {"execution_count": 1}, cell)

    def print(self, text, cell="a"):
        self.say("stream", {"name": "stdout", "text": text}, cell)

    def end(self, cell="a"):
        self.say("status", {"execution_state": "idle"}, cell)

    def say(self, kind, content, cell):
        if self.keeper.wants("k", f"run {cell}", kind):
            self.keeper.said("k", f"run {cell}", kind, content, 10)

    async def told(self, session, since=0, own=False):
        return await self.keeper.answer("k", session, "n.ipynb", since, own)

    def file(self, cell=0):
        outputs = self.read()["cells"][cell]["outputs"]
        return "".join(output.get("text", "") for output in outputs)

    def read(self):
        return json.loads((self.folder.root / "n.ipynb").read_text())

    def write(self, whole):
        (self.folder.root / "n.ipynb").write_text(json.dumps(whole))

    async def eventually(self, text, cell=0):
        for _ in range(500):
            if self.file(cell) == text:
                return
            await asyncio.sleep(0.01)
        assert self.file(cell) == text


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "AFTER_CLOSING_S", 0.02)
    monkeypatch.setattr(keeper, "WRITE_EVERY_S", 0.05)
    monkeypatch.setattr(keeper, "AFTER_THE_END_S", 0.01)
    return Desk(tmp_path)


async def settle(desk):
    """Wait for longer than anything that is going to be written takes."""
    await asyncio.sleep(0.3)


async def test_a_page_that_is_there_saves_its_notebook_itself(desk):
    desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.end()
    desk.run("A", "b")
    await settle(desk)
    assert desk.folder.saves == 0
    # What has ended under its eyes is nobody else's.
    assert (await desk.told("B", own=True))["cells"] == []
    assert (await desk.told("B"))["others"]
    desk.end("b")
    assert not (await desk.told("B"))["others"]


async def test_what_has_ended_under_a_pages_eyes_is_not_written_after_it_has_closed(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.end()
    desk.run("A", "b")
    desk.close(page)
    desk.print("two\n", "b")
    await desk.eventually("two\n", 1)
    assert desk.file() == ""


async def test_a_cell_that_ended_before_the_loss_was_noticed_is_told_to_its_page(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.end()
    assert (await desk.told("A"))["cells"] == []
    desk.close(page, is_closed=False)
    desk.open("A")
    [cell] = (await desk.told("A", own=True))["cells"]
    assert (cell["is_done"], cell["outputs"][0]["text"]) == (True, "one\n")
    desk.keeper.taken("k", cell["id"])
    assert (await desk.told("A", own=True))["cells"] == []


async def test_a_page_that_is_back_before_its_loss_was_noticed_is_told_too(desk):
    lost = desk.open("A")
    desk.run("A")
    desk.end()
    desk.open("A")
    desk.close(lost, is_closed=False)
    assert [cell["cell"] for cell in (await desk.told("A", own=True))["cells"]] == ["a"]


async def test_what_a_page_has_seen_is_forgotten_in_time(desk, monkeypatch):
    monkeypatch.setattr(keeper, "NOTICED_S", 0.02)
    desk.open("A")
    desk.run("A")
    desk.end()
    await asyncio.sleep(0.1)
    assert (await desk.told("A", own=True))["cells"] == []


async def test_a_page_that_was_there_already_is_told_all_of_what_another_leaves(desk):
    page = desk.open("A")
    desk.open("B")
    desk.run("A")
    desk.print("one\n")
    before = await desk.told("B")
    assert before["others"]
    desk.close(page, is_closed=False)
    [cell] = (await desk.told("B", before["version"]))["cells"]
    assert cell["outputs"][0]["text"] == "one\n"


async def test_a_page_that_never_comes_back_is_not_waited_for_once_there_is_another(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page, is_closed=False)
    page = desk.open("B")
    await desk.told("B")
    desk.close(page)
    await desk.eventually("one\n")


async def test_what_is_printed_after_the_page_has_closed_is_in_the_file(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page)
    await desk.eventually("one\n")
    desk.print("two\n")
    await desk.eventually("one\ntwo\n")
    desk.print("three\n")
    desk.end()
    await desk.eventually("one\ntwo\nthree\n")
    # It is the file's now: who clears it there is not contradicted.
    desk.write(notebook(("a", "x"), ("b", "y")))
    desk.close(desk.open("B"))
    await settle(desk)
    assert desk.file() == ""


async def test_a_page_that_opens_it_again_follows_and_the_file_is_left_to_it(desk):
    desk.close(page := desk.open("A"))
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page)
    desk.open("B")
    first = await desk.told("B")
    assert first["cells"][0]["outputs"][0]["text"] == "one\n"
    again = await desk.told("B", first["version"])
    assert "outputs" not in again["cells"][0]
    desk.print("two\n")
    more = await desk.told("B", first["version"])
    assert more["cells"][0]["outputs"][0]["text"] == "one\ntwo\n"
    desk.end()
    await settle(desk)
    assert desk.folder.saves == 0
    last = await desk.told("B", more["version"])
    assert last["cells"][0]["is_done"]
    assert last["cells"][0]["execution_count"] == 1
    desk.keeper.taken("k", last["cells"][0]["id"])
    assert (await desk.told("B"))["cells"] == []


async def test_the_file_is_not_written_while_its_page_may_come_back(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page, is_closed=False)
    desk.print("two\n")
    desk.end()
    await settle(desk)
    assert desk.folder.saves == 0
    # It comes back, and asks for what it has missed.
    desk.open("A")
    [cell] = (await desk.told("A", own=True))["cells"]
    assert (cell["is_done"], cell["outputs"][0]["text"]) == (True, "one\ntwo\n")


async def test_a_page_that_never_came_back_finds_it_after_the_servers_end(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page, is_closed=False)
    await settle(desk)
    await desk.keeper.close()
    assert desk.file() == "one\n" + NOT_ENDED
    assert desk.silence.is_closed


async def test_what_a_kernel_had_printed_before_it_was_shut_down_is_in_the_file(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    await asyncio.sleep(0)
    desk.close(page)
    desk.kernels.clear()
    desk.keeper.stopped("k")
    await desk.eventually("one\n" + NOT_ENDED)
    await settle(desk)
    assert desk.silence.is_closed


async def test_a_save_by_somebody_else_is_never_overwritten(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    edited = notebook(("a", "edited"), ("c", "new"))

    def edit_once():
        desk.folder.meanwhile = lambda: None
        desk.write(edited)

    desk.folder.meanwhile = edit_once
    desk.close(page)
    await desk.eventually("one\n")
    assert [cell["source"] for cell in desk.read()["cells"]] == ["edited", "new"]


async def test_a_page_that_opens_while_the_file_is_written_stops_that_or_is_told(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.folder.meanwhile = lambda: desk.open("B")
    desk.close(page)
    await settle(desk)
    assert desk.folder.saves == 0
    assert (await desk.told("B"))["written"] is None
    assert [cell["cell"] for cell in (await desk.told("B"))["cells"]] == ["a"]


async def test_a_page_is_told_when_the_file_was_written(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page)
    await desk.eventually("one\n")
    await settle(desk)
    desk.open("B")
    written = datetime.fromisoformat((await desk.told("B"))["written"].replace("Z", "+00:00"))
    assert written == desk.folder.get("n.ipynb", content=False)["last_modified"]


async def test_what_could_not_be_written_is_tried_again(desk):
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.end("b")

    failed = []

    def fail_once():
        failed.append(desk.file())
        desk.folder.meanwhile = lambda: None
        raise OSError("no space left")

    desk.folder.meanwhile = fail_once
    desk.close(page)
    await desk.eventually("one\n")
    assert failed == [""]


async def test_a_page_whose_loss_is_noticed_beside_another_is_not_waited_for(desk):
    lost = desk.open("A")
    page = desk.open("B")
    await desk.told("B")
    desk.close(lost, is_closed=False)
    desk.run("B")
    desk.print("one\n")
    desk.close(page)
    await desk.eventually("one\n")


async def test_a_notebook_that_was_deleted_is_done_with_and_others_are_written(desk, caplog):
    desk.notebooks = {desk.folder.GONE, "n.ipynb"}
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.end("b")
    desk.close(page)
    await desk.eventually("one\n")
    await settle(desk)
    assert desk.folder.saves == 1
    assert not caplog.messages


async def test_a_notebook_that_cannot_be_written_keeps_no_other_from_it(desk, caplog):
    desk.notebooks = {desk.folder.BROKEN, "n.ipynb"}
    page = desk.open("A")
    desk.run("A")
    desk.print("one\n")
    desk.close(page)
    await desk.eventually("one\n")
    assert desk.folder.BROKEN in caplog.text
    # It is tried again.
    desk.notebooks = {"n.ipynb"}
    desk.end()
    await settle(desk)
    assert (await desk.told("B"))["cells"] == []
