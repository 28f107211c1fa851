"""A project's recipe.yaml, which its owner may fill with anything."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.images import project_files, sources
from ds01_spawner.images.members import Member
from ds01_spawner.images.sources import Sources, _read_recipe_file
from ds01_spawner.policy import ImageRules
from ds01_spawner.workspaces import Directory


@pytest.mark.parametrize("unit", ["[", "{", "[\n", "{a: ", "- ", "? ", "[a,\n"])
def test_what_is_nested_deep_is_refused_at_once(unit):
    text = unit * (project_files.LARGEST_BYTES // len(unit))
    began = time.process_time()

    recipe, problem = _read_recipe_file(text)

    assert recipe is None
    assert "nested deeper than 8 levels" in problem
    assert time.process_time() - began < 1


def test_a_block_in_a_block_is_refused_where_it_is_too_deep():
    text = "\n".join(" " * depth + "a:" for depth in range(20))

    assert "line 9 is nested deeper" in _read_recipe_file(text)[1]


@pytest.mark.parametrize("text", ["base: &a python", "base: *a", "{base: &a python}"])
def test_anchors_and_aliases_are_refused(text):
    assert "anchors and aliases" in _read_recipe_file(text)[1]


def test_values_are_read_as_the_text_that_they_are():
    hours = "1" + ":00" * 400 + ":00.0"
    recipe, problem = _read_recipe_file(
        f"base: python\nenvironment: {{A: {hours}, B: 1.10, C: yes, D: 2026-01-01}}"
    )

    assert not problem
    assert recipe is not None
    assert recipe.environment == {"A": hours, "B": "1.10", "C": "yes", "D": "2026-01-01"}


@pytest.mark.parametrize(
    "text",
    [
        'base: "\\UFFFFFFFF"',
        'base: "\\U00110000"',
        "%YAML 1." + "9" * 5000 + "\n---\n",
        "? [a]\n: b",
        "base: python\nenvironment: {A: {B: c}}",
        "--- a\n--- b",
        "",
    ],
)
def test_what_cannot_be_read_is_told_in_words(text):
    recipe, problem = _read_recipe_file(text)

    assert recipe is None
    assert problem.startswith("recipe.yaml in the project's folder has a mistake: ")


@given(st.text(alphabet="ab:-?[]{},#&*!|>'\"%@\\Ux0F\n ", max_size=40))
def test_no_text_breaks_the_reading(text):
    recipe, problem = _read_recipe_file(text)

    assert (recipe is None) == bool(problem)


async def test_few_recipes_are_read_at_the_same_time(tmp_path, monkeypatch):
    account = SimpleNamespace(uid=os.getuid(), gid=os.getgid())
    place = tmp_path.stat()
    folder = Directory(tmp_path, place.st_dev, place.st_ino)
    found = Sources(lambda user: (account, SimpleNamespace(workspace=lambda project: folder)))
    lock, running, most = threading.Lock(), 0, 0

    def read(text):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return None, ""

    monkeypatch.setattr(sources, "_read_recipe_file", read)
    member = Member("alice", frozenset(), ImageRules())
    await asyncio.gather(*(found.read(member, "vision") for _ in range(8)))

    assert 1 <= most <= 2
