"""What the Hub keeps of what never passed the gate."""

import json

import pytest
from jupyterhub import orm

from ds01_spawner import hub_rows
from ds01_spawner.hub_rows import kept


@pytest.fixture
def row():
    hub_rows.guard()
    return orm.Spawner(name="thesis")


def test_what_a_start_has_stored_is_kept_as_it_is():
    stored = {"image": "python", "cpus": 2.0, "gpu": "3g.40gb", "profile": "python · 2 CPU"}
    assert kept(stored) == stored


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        ["python"],
        None,
        "x" * 256,
        "red\x1b[31m",
        float("nan"),
        float("inf"),
        10**30,
        10**400,
    ],
)
@pytest.mark.parametrize("name", ["image", "cpus", "profile"])
def test_a_value_that_pages_or_a_terminal_could_break_over_is_dropped(name, value):
    assert kept({name: value, "gpu": "full"}) == {"gpu": "full"}


@pytest.mark.parametrize("raw", [None, "python", ["image"], 3])
def test_what_is_no_mapping_leaves_nothing(raw):
    assert kept(raw) == {}


def test_the_hubs_row_never_holds_more_however_it_is_written(row):
    row.user_options = {"image": "gone", "profile": {"a": 1}} | {f"x{i}": i for i in range(9999)}
    assert json.dumps(row.user_options) == '{"image": "gone"}'
    row.user_options = None
    assert row.user_options is None


def test_a_name_to_show_is_short_and_printable(row):
    row.display_name = "Thesis, märz"
    assert row.display_name == "Thesis, märz"
    row.display_name = "\u202e\x1b[31m" + "x" * 20_000_000
    assert row.display_name == "??[31m" + "x" * 249
    row.display_name = None
    assert row.display_name is None
