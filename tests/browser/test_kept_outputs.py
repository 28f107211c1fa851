"""A cell that runs on while its page is closed keeps what it shows."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from ..hub import eventually

#: Prints until it is told to end.
LINES = """import pathlib, time
i = 0
while not pathlib.Path("enough").exists():
    print("line", i, flush=True)
    i += 1
    time.sleep(0.2)"""
FOUR_MINUTES = """import time
for i in range(480):
    print("line", i, flush=True)
    time.sleep(0.5)"""


def run(someone, code):
    """Type code into the notebook's last cell and run it."""
    someone.page.locator(".jp-Notebook .jp-CodeCell").last.locator(".cm-content").click()
    someone.page.keyboard.insert_text(code)
    someone.page.keyboard.press("Shift+Enter")


def lines(someone):
    """Return the numbers of the lines on the screen."""
    text = someone.page.locator(".jp-Notebook .jp-OutputArea").first.inner_text()
    return [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]


def close(someone):
    """Close the page, and go on with an empty one."""
    context = someone.page.context
    someone.page.close()
    someone.page = context.new_page()


def reopen(someone):
    """Open the notebook again."""
    someone.go(f"/user/{someone.name}/lab/tree/Untitled.ipynb")
    expect(someone.page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=60_000)


def in_file(server):
    """Return the numbers of the lines in the file."""
    answer = server.request("GET", "api/contents/Untitled.ipynb")
    cells = answer.json()["content"]["cells"]
    text = "".join(output.get("text", "") for output in cells[0]["outputs"])
    return [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]


def prompt(someone):
    return someone.page.locator(".jp-Notebook .jp-InputPrompt").first


def begin(person, name, code):
    """Start a server and run a cell in a new notebook."""
    someone = person(name)
    server = someone.hub.user(name).start(image="python", memory="1g")
    someone.go(f"/user/{name}/lab")
    someone.wait_for_lab()
    someone.open_notebook()
    run(someone, code)
    return someone, server


def test_lines_that_were_printed_without_a_page_are_there_and_later_ones_come(person):
    zita, server = begin(person, "zita", LINES)
    eventually(lambda: 20 in lines(zita), "it prints, and the page has saved the cell")
    close(zita)
    seen = eventually(lambda: (n := in_file(server)) and max(n) > 25 and n, "written", 30)
    assert seen == list(range(len(seen)))
    reopen(zita)
    expect(prompt(zita)).to_have_text("[*]:")
    first = eventually(lambda: lines(zita), "what it printed is there")
    assert first[: len(seen)] == seen
    eventually(lambda: max(lines(zita)) > max(first) + 5, "later lines come")
    assert server.request(
        "PUT", "api/contents/enough", json={"type": "file", "format": "text", "content": ""}
    ).ok

    expect(prompt(zita)).to_have_text("[1]:")
    # The page has saved it by itself, each line once, and nothing stands in the way of the next.
    eventually(lambda: in_file(server) == lines(zita), "it is saved")
    assert lines(zita) == list(range(len(lines(zita))))
    zita.page.keyboard.press("Control+s")
    assert zita.run_cell("print(i)").startswith(f"{len(lines(zita))}\n")
    expect(zita.page.locator(".jp-Dialog")).to_have_count(0)


@pytest.mark.long
def test_a_cell_of_four_minutes_has_all_its_output_when_it_is_opened_after_its_end(person):
    zeno, server = begin(person, "zeno", FOUR_MINUTES)
    eventually(lambda: 20 in lines(zeno), "it prints, and the page has saved the cell")
    close(zeno)
    eventually(lambda: len(in_file(server)) == 480, "the file has all lines", 300)
    assert in_file(server) == list(range(480))
    reopen(zeno)
    eventually(lambda: lines(zeno) == list(range(480)), "the page has all lines")
    expect(prompt(zeno)).to_have_text("[1]:")
    zeno.page.keyboard.press("Control+s")
    expect(zeno.page.locator(".jp-Dialog")).to_have_count(0)


@pytest.mark.long
def test_a_cell_that_prints_for_ever_fills_neither_the_memory_nor_the_file(person):
    zora, server = begin(person, "zora", "i = 0\nwhile True:\n    print('x' * 100, i)\n    i += 1")
    content = "api/contents/Untitled.ipynb"
    eventually(
        lambda: (
            zora.page.wait_for_timeout(500) or "while True" in server.request("GET", content).text
        ),
        "the page has saved the cell",
    )
    close(zora)
    zora.page.wait_for_timeout(60_000)
    assert server.request("GET", "ds01/life").json()["memory_used_bytes"] < 400 << 20
    answer = server.request("GET", content).json()
    assert "lines were too much to keep" in json.dumps(answer)
    assert len(json.dumps(answer)) < 3 << 20


@pytest.mark.long
def test_what_is_on_its_way_when_a_cell_is_run_anew_is_not_shown(person):
    zeke, server = begin(person, "zeke", LINES)
    eventually(lambda: 20 in lines(zeke), "it prints, and the page has saved the cell")
    close(zeke)
    reopen(zeke)
    eventually(lambda: lines(zeke), "what it printed is there")
    on_their_way = []
    zeke.page.route("**/ds01/outputs/**", lambda route: on_their_way.append((route, route.fetch())))
    eventually(lambda: zeke.page.wait_for_timeout(100) or on_their_way, "an answer is on its way")
    assert server.request(
        "PUT", "api/contents/enough", json={"type": "file", "format": "text", "content": ""}
    ).ok
    zeke.page.locator(".jp-Notebook .jp-CodeCell").first.locator(".cm-content").click()
    zeke.page.keyboard.press("Shift+Enter")
    expect(prompt(zeke)).to_have_text("[2]:")
    assert lines(zeke) == []

    for route, answer in on_their_way:
        assert "line 20" in answer.text()
        route.fulfill(response=answer)
    zeke.page.unroute("**/ds01/outputs/**")

    # Longer than until the next look.
    zeke.page.wait_for_timeout(3000)
    assert lines(zeke) == []
    expect(prompt(zeke)).to_have_text("[2]:")
