"""The form of a recipe: what of it is built, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ds01_spawner.errors import Refused
from ds01_spawner.portal.image_pages import _Form


async def built(python: str) -> tuple[Any, ...]:
    async def build_recipe(*asked):
        return asked

    workshop = SimpleNamespace(orders=SimpleNamespace(build_recipe=build_recipe))
    form = _Form("vision")
    form.base, form.python = "python", python
    return await form.build(SimpleNamespace(member=None, workshop=workshop))


async def test_a_line_that_is_not_used_is_refused_whatever_stands_in_it():
    with pytest.raises(Refused, match="Line 2 is not used"):
        await built("numpy\n-r without its hashes.txt")


async def test_lines_without_their_hashes_are_built_and_remarked():
    *_, recipe, _tag, remarks = await built("numpy==2.0 --hash=sha256:aa")

    assert recipe["python"] == ("numpy==2.0",)
    assert remarks == ("Line 1 is used without its hashes: numpy==2.0.",)
