"""What cells show while their page is closed: how it is kept, and put into the notebook."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.runtime.image.launch import keeper, waiting
from ds01_spawner.runtime.image.launch.executions import NOT_ENDED, Executions
from ds01_spawner.runtime.image.launch.keeper import Keeper
from ds01_spawner.runtime.image.launch.notebook_file import put
from ds01_spawner.runtime.image.launch.outputs import MOST_TEXT, TOO_MUCH, Outputs, as_shown
from ds01_spawner.runtime.image.launch.waiting import Waiting

ROOM = 1 << 20


def printed(*texts, name="stdout"):
    kept = Outputs()
    for text in texts:
        kept.take("stream", {"name": name, "text": text}, len(text), ROOM)
    return kept


def text_of(kept):
    return "".join(output["text"] for output in kept.as_list())


# -- what one cell has shown --------------------------------------------------------------------


def test_what_is_printed_in_pieces_is_one_output_as_jupyterlab_saves_it():
    kept = printed("a", "b\n")
    kept.take("stream", {"name": "stderr", "text": "no\n"}, 3, ROOM)
    kept.take("execute_result", {"data": {"text/plain": "1"}, "execution_count": 3}, 9, ROOM)
    kept.take("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}, 9, ROOM)
    kept.take("comm_open", {"comm_id": "x"}, 9, ROOM)
    assert kept.as_list() == [
        {"output_type": "stream", "name": "stdout", "text": "ab\n"},
        {"output_type": "stream", "name": "stderr", "text": "no\n"},
        {
            "output_type": "execute_result",
            "data": {"text/plain": "1"},
            "metadata": {},
            "execution_count": 3,
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
    ]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["10%", "\r20%", "\r100%\n", "done\n"], "100%\ndone\n"),
        (["abcdef\rxy", "z"], "xyzdef"),
        (["one\r\ntwo\r\n"], "one\ntwo\n"),
        (["12%", "\b\b\b13%\n"], "13%\n"),
        (["\b\bx"], "x"),
    ],
)
def test_a_progress_bar_is_kept_as_it_stands(pieces, shown):
    assert text_of(printed(*pieces)) == shown


@given(st.text("ab\r\n", max_size=30), st.text("ab\r\n", max_size=30))
def test_where_a_text_is_cut_makes_no_difference(before, after):
    assert as_shown(as_shown(before) + after) == as_shown(before + after)


@pytest.mark.parametrize("text", ["a" * 10**6 + "\b" * 10**6, "y" * 10**6 + "\rz" * 10**6])
def test_what_overwrites_very_often_keeps_no_server_from_answering(text):
    began = time.process_time()
    as_shown(text)
    assert time.process_time() - began < 10


def test_a_cell_that_prints_for_ever_keeps_its_beginning_and_its_end():
    kept = Outputs()
    for i in range(150_000):
        kept.take("stream", {"name": "stdout", "text": f"line {i}\n"}, 12, ROOM)
        assert kept.size_bytes < 3 * MOST_TEXT
    text = text_of(kept)
    assert len(text) < MOST_TEXT + 100
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 149998\nline 149999\n")
    left_out = 150_000 - text.count("line ")
    assert f"\n[{left_out - 1:,} lines" in text or f"\n[{left_out:,} lines" in text


def test_what_is_cleared_goes_at_once_or_with_the_next():
    kept = printed("old")
    assert not kept.take("clear_output", {"wait": True}, 1, ROOM)
    assert text_of(kept) == "old"
    kept.take("stream", {"name": "stdout", "text": "new"}, 3, ROOM)
    assert text_of(kept) == "new"
    assert kept.take("clear_output", {"wait": False}, 1, ROOM)
    assert kept.as_list() == []


def test_images_beyond_the_room_are_left_out_and_that_is_said():
    followed = Executions(most_bytes=1000)
    followed.request("r", "page", "c", "plot()")
    for i in range(5):
        content = {"data": {"image/png": str(i)}, "metadata": {}}
        assert followed.take("r", "display_data", content, 400)
    [execution] = followed
    *images, note = execution.outputs.as_list()
    assert [image["data"]["image/png"] for image in images] == ["0", "1"]
    assert note["text"] == TOO_MUCH


# -- what runs in one kernel --------------------------------------------------------------------


def test_what_has_a_name_is_updated_wherever_it_is_shown():
    followed = Executions()
    followed.request("first", "page", "a", "")
    followed.request("second", "page", "b", "")
    for request in ("first", "second"):
        content = {"data": {"text/plain": "0"}, "transient": {"display_id": "bar"}}
        followed.take(request, "display_data", content, 10)
    seen = followed.version
    assert followed.wants("elsewhere", "update_display_data")
    new = {"data": {"text/plain": "1"}, "transient": {"display_id": "bar"}}
    assert followed.take("elsewhere", "update_display_data", new, 10)
    assert [e.outputs.as_list()[0]["data"] for e in followed] == [{"text/plain": "1"}] * 2
    assert all(e.version > seen for e in followed)


def test_only_the_last_run_of_a_cell_is_known():
    followed = Executions()
    followed.request("first", "page", "a", "")
    followed.request("second", "page", "a", "")
    assert [e.id for e in followed] == ["second"]
    assert not followed.wants("first", "stream")


def test_what_had_not_ended_when_the_kernel_stopped_says_so():
    followed = Executions()
    for request in ("done", "runs", "waits"):
        followed.request(request, "page", request, "")
    for request in ("done", "runs"):
        followed.take(request, "execute_input", {"execution_count": 1}, 10)
    followed.take("done", "status", {"execution_state": "idle"}, 10)
    followed.stop()
    assert {e.id: text_of(e.outputs) for e in followed} == {
        "done": "",
        "runs": NOT_ENDED,
        "waits": "",
    }
    assert all(e.is_done for e in followed)


# -- the notebook's file ------------------------------------------------------------------------


def notebook(*cells):
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**copy.deepcopy(code), "id": id, "source": source} for id, source in cells]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def run(cell, source="x", text="out\n", is_done=True):
    followed = Executions()
    followed.request("r", "page", cell, source)
    followed.take("r", "execute_input", {"execution_count": 7}, 1)
    followed.take("r", "stream", {"name": "stdout", "text": text}, len(text))
    if is_done:
        followed.take("r", "status", {"execution_state": "idle"}, 1)
    return next(iter(followed))


def test_only_the_cell_that_ran_is_changed():
    whole = notebook(("a", "x"), ("b", "edited since"))
    before = copy.deepcopy(whole)
    assert put(whole, run("b"))
    out = [{"output_type": "stream", "name": "stdout", "text": "out\n"}]
    before["cells"][1].update(outputs=out, execution_count=7, metadata={"trusted": True})
    assert whole == before


def test_a_cell_that_runs_has_no_number_yet():
    whole = notebook(("a", "x"))
    assert put(whole, run("a", is_done=False))
    assert whole["cells"][0]["outputs"][0]["text"] == "out\n"
    assert whole["cells"][0]["execution_count"] is None


def test_a_cell_without_an_id_is_known_by_its_text_unless_two_are_alike():
    whole = notebook(("1", "x"), ("2", "y"), ("3", "y"))
    for cell in whole["cells"]:
        del cell["id"]
    assert put(whole, run("elsewhere", "x"))
    assert not put(whole, run("elsewhere", "y"))
    assert not put(whole, run("elsewhere", "z"))


# -- pages that come and go ---------------------------------------------------------------------


class Folder:
    """Gives and saves notebooks as the server's contents manager does."""

    def __init__(self, root):
        self.root = root
        self.saves = 0
        self.meanwhile = lambda: None

    def get(self, path, content=True, type=None):
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
        self.silence = Silence()
        self.write(notebook(("a", "x"), ("b", "y")))
        log = logging.getLogger("test")
        self.keeper = Keeper(self.folder, self.paths, self.kernels.__contains__, log)

    async def paths(self, kernel):
        return {"n.ipynb"} if kernel in self.kernels else set()

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

    async def eventually(self, text):
        for _ in range(500):
            if self.file() == text:
                return
            await asyncio.sleep(0.01)
        assert self.file() == text


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
    # Nothing is kept of what has ended under its eyes.
    assert [cell["cell"] for cell in (await desk.told("B", own=True))["cells"]] == []
    assert (await desk.told("B"))["others"]


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


# -- messages for a page that is away -----------------------------------------------------------


def message(kind, content):
    header, empty = json.dumps({"msg_type": kind}).encode(), b"{}"
    return [b"topic", b"<IDS|MSG>", b"signature", header, empty, empty, content]


def test_what_waits_for_a_page_that_is_away_has_a_limit(monkeypatch):
    monkeypatch.setattr(waiting, "MOST_BYTES", 5000)
    before = [("iopub", message("stream", b"first"))]
    held = Waiting(before)
    for _ in range(100):
        held.append(("iopub", message("stream", b"x" * 1000)))
    held.append(("shell", message("execute_reply", b"y" * 1000)))
    held.append(("iopub", message("status", b"idle")))
    assert held[0] == before[0]
    assert sum(len(part) for _, parts in held for part in parts) < 7000
    # What the page needs to know of the kernel is never left out.
    assert [parts[-1][:4] for _, parts in held][-2:] == [b"yyyy", b"idle"]
