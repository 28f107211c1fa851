"""``ds01 events``: what it prints, and what it says of a wrong question."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner import event_list
from ds01_spawner.cli import main
from ds01_spawner.lifecycle.events import Event
from ds01_spawner.lifecycle.records import LifeRecords

NOW = datetime.now(timezone.utc)
HOUR = timedelta(hours=1)


@pytest.fixture
def data(tmp_path):
    records = LifeRecords(tmp_path / "ds01.sqlite")
    for hours, kind, user, project in (
        (50, "started", "ada", "vision"),
        (3, "warned", "ada", "vision"),
        (2, "stopped", "ada", "vision"),
        (1, "started", "bob", "default"),
    ):
        why = f"It was {kind}.\x1b[2J\nroot"
        records.tell(Event(kind, user, project, "somebody", why, {"n": 1}, NOW - hours * HOUR))
    return tmp_path


def listed(capsys, data, *words):
    assert main(["events", "--data", str(data), *words, "--json"]) == 0
    return [(event["kind"], event["user"]) for event in json.loads(capsys.readouterr().out)]


def test_the_newest_comes_last_and_nothing_acts_on_the_terminal(capsys, data):
    assert main(["events", "--data", str(data)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["WHEN", "(UTC)", "WHAT", "SERVER", "BY", "WHY"]
    assert [line.split()[2:4] for line in lines] == [
        ["started", "ada/vision"],
        ["warned", "ada/vision"],
        ["stopped", "ada/vision"],
        ["started", "bob/default"],
    ]
    assert lines[1].endswith("It was warned.?[2J?root")
    assert lines[3].startswith(f"{NOW - HOUR:%Y-%m-%d %H:%M:%S}  ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--user", "bob"], [("started", "bob")]),
        (["--project", "vision", "--kind", "started"], [("started", "ada")]),
        (["--since", "2d", "--user", "ada"], [("warned", "ada"), ("stopped", "ada")]),
        (
            ["--since", f"{NOW - 2.5 * HOUR:%Y-%m-%d %H:%M}"],
            [("stopped", "ada"), ("started", "bob")],
        ),
        (["-n", "1"], [("started", "bob")]),
        (["--user", "nobody"], []),
        (["--kind", "started", "--user", "nobody"], []),
    ],
)
def test_only_what_is_asked_for_is_told(capsys, data, words, expected):
    assert listed(capsys, data, *words) == expected


def test_as_objects_it_has_times_with_a_zone_and_the_numbers(capsys, data):
    main(["events", "--data", str(data), "-n", "1", "--json"])
    (event,) = json.loads(capsys.readouterr().out)
    assert datetime.fromisoformat(event["at"]) == NOW - HOUR
    assert event["numbers"] == {"n": 1}


def test_a_kind_that_there_is_not_names_those_that_there_are(capsys, data):
    assert main(["events", "--data", str(data), "--kind", "stoped"]) == 1
    assert "there are: started, stopped, warned." in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--since", "soon"], ["--since", "99999d"], ["-n", "0"], ["-n", "x"], ["-n", "9" * 50]],
)
def test_a_question_that_makes_no_sense_is_wrong_usage(capsys, data, words):
    with pytest.raises(SystemExit) as ended:
        main(["events", "--data", str(data), *words])
    assert ended.value.code == 2
    assert words[1] in capsys.readouterr().err


def test_where_no_hub_has_run_nothing_is_made(capsys, tmp_path):
    assert main(["events", "--data", str(tmp_path)]) == 1
    assert "No Hub has run on" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ds01.sqlite").write_text("no database")
    assert main(["events", "--data", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-06-01", datetime(2026, 6, 1, tzinfo=timezone.utc)),
        ("2026-06-01 14:30", datetime(2026, 6, 1, 14, 30, tzinfo=timezone.utc)),
        ("2026-06-01T14:30:00Z", datetime(2026, 6, 1, 14, 30, tzinfo=timezone.utc)),
        ("2026-06-01T14:30:00+02:00", datetime(2026, 6, 1, 12, 30, tzinfo=timezone.utc)),
    ],
)
def test_a_date_is_in_utc_unless_it_says_otherwise(text, at):
    assert event_list.moment(text) == at


def test_so_long_ago_is_counted_from_now():
    for text, ago in (("30m", HOUR / 2), ("2h", 2 * HOUR), ("1d", 24 * HOUR), ("2w", 336 * HOUR)):
        assert abs(datetime.now(timezone.utc) - ago - event_list.moment(text)) < timedelta(
            seconds=5
        )
