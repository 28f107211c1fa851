"""What cells show while their page is closed: how much of it is kept, and where it goes."""

from __future__ import annotations

import copy
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.runtime.image.launch import waiting
from ds01_spawner.runtime.image.launch.executions import NOT_ENDED, Executions
from ds01_spawner.runtime.image.launch.notebook_file import put
from ds01_spawner.runtime.image.launch.outputs import (
    MOST_ITEMS,
    MOST_TEXT,
    TOO_MUCH,
    Outputs,
    as_shown,
)
from ds01_spawner.runtime.image.launch.waiting import Waiting

from .notebooks import notebook

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
    followed = Executions(most_bytes=1500)
    followed.request("r", "page", "c", "plot()")
    for i in range(5):
        content = {"data": {"image/png": str(i)}, "metadata": {}}
        assert followed.take("r", "display_data", content, 400)
    [execution] = followed
    *images, note = execution.outputs.as_list()
    assert [image["data"]["image/png"] for image in images] == ["0", "1"]
    assert note["text"] == TOO_MUCH


def test_output_that_alternates_keeps_no_server_from_answering_and_has_a_limit():
    followed = Executions()
    followed.request("r", "page", "c", "")
    began = time.process_time()
    for i in range(20_000):
        name = ("stdout", "stderr")[i % 2]
        followed.take("r", "stream", {"name": name, "text": "x\n"}, 2)
    assert time.process_time() - began < 5
    followed.stop()
    [execution] = followed
    *items, note = execution.outputs.as_list()
    assert len(items) == MOST_ITEMS
    assert note["text"] == TOO_MUCH
    # Each takes far more memory than its two letters.
    assert execution.outputs.size_bytes > 250 * MOST_ITEMS


def test_the_size_is_that_of_what_is_there():
    kept = printed("a" * 100, "b" * 100)
    image = {"data": {"image/png": "x"}, "transient": {"display_id": "bar"}}
    kept.take("display_data", image, 1000, ROOM)
    before = kept.size_bytes
    kept.update(image, 5000, ROOM)
    assert kept.size_bytes == before + 4000
    for _ in range(5000):
        kept.take("stream", {"name": "stdout", "text": "a" * 1000}, 1000, ROOM)
    assert before < kept.size_bytes < before + 3 * MOST_TEXT
    kept.take("clear_output", {}, 1, ROOM)
    assert kept.size_bytes == 0


def test_what_a_page_has_seen_makes_room():
    followed = Executions(most_bytes=1500)
    content = {"data": {"image/png": "x"}, "metadata": {}}
    for request in ("seen", "not seen", "runs"):
        followed.request(request, "page", request, "plot()")
    for request in ("seen", "not seen"):
        followed.take(request, "display_data", content, 400)
    next(iter(followed)).is_seen = True
    followed.take("runs", "display_data", content, 400)
    assert {e.id: e.outputs.is_cut for e in followed} == {"not seen": False, "runs": False}


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


def test_what_a_cell_showed_that_was_deleted_goes_to_no_other():
    whole = notebook(("a", "x"), ("b", "y"))
    before = copy.deepcopy(whole)
    assert not put(whole, run("deleted", "x"))
    assert whole == before


# -- messages for a page that is away -----------------------------------------------------------


def message(kind, content):
    header, empty = json.dumps({"msg_type": kind}).encode(), b"{}"
    return [b"topic", b"<IDS|MSG>", b"signature", header, empty, empty, content]


def test_what_waits_for_a_page_that_is_away_has_a_limit(monkeypatch):
    monkeypatch.setattr(waiting, "MOST_BYTES", 5000)
    before = [("iopub", message("stream", b"first"))]
    held = Waiting(before)
    for _ in range(100):
        for kind in ("stream", "comm_msg", "comm_open", "of a library's own"):
            held.append(("iopub", message(kind, b"x" * 1000)))
    held.append(("shell", message("execute_reply", b"y" * 1000)))
    held.append(("iopub", message("status", b"idle")))
    assert held[0] == before[0]
    assert sum(len(part) for _, parts in held for part in parts) < 7000
    # What the page needs to know of the kernel is never left out.
    assert [parts[-1][:4] for _, parts in held][-2:] == [b"yyyy", b"idle"]
