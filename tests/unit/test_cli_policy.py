"""``ds01 policy``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds01_spawner.cli import main

from .policies import KEYS

EXAMPLE = Path(__file__).parents[2] / "packaging" / "policy" / "resource-limits.yaml"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "resource-limits.yaml"
    file.write_text(
        "default_group: student\n"
        "defaults: {memory: 16g}\n"
        "groups: {student: {aggregate: {cpu_quota: 400%}}, staff: {memory: 64g}}\n"
    )
    return file


def test_a_good_policy_is_said_to_be_good(file, capsys):
    assert main(["policy", "validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} is valid.\n"


def test_every_mistake_is_a_line_and_the_status_is_one(file, capsys):
    file.write_text("defaults:\n  memori: 1g\n  max_cpus: -1\n")
    file.with_name("storage.yaml").write_text("- {name: x}\n")
    assert main(["policy", "validate", str(file)]) == 1
    printed = capsys.readouterr().out.splitlines()

    assert printed[:2] == [
        f"{file}:2: defaults.memori: unknown key; the nearest known is 'memory'",
        f"{file}:3: defaults.max_cpus: Input should be greater than 0",
    ]
    assert all("storage.yaml:1: [0]." in line for line in printed[2:])
    assert len(printed) == 5


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["policy", "validate", str(tmp_path / "no.yaml")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().out
    assert main(["policy", "explain", "ann", "--file", str(tmp_path / "no.yaml")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_the_policy_is_the_one_of_a_data_directory(file, tmp_path, capsys):
    (tmp_path / "data/policy").mkdir(parents=True)
    file.rename(tmp_path / "data/policy" / file.name)
    assert main(["policy", "explain", "ann", "--data", str(tmp_path / "data")]) == 0
    assert "16g" in capsys.readouterr().out


def test_explain_gives_each_key_its_value_in_the_files_unit_and_its_source(file, capsys):
    assert main(["policy", "explain", "ann", "--file", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert set(found) == set(KEYS)
    assert found["memory"] == {"value": "16g", "source": "defaults"}
    assert found["aggregate.cpu_quota"] == {"value": "400%", "source": "group student"}
    assert found["idle_timeout_h"] == {"value": 0.5, "source": "built-in default"}


def test_explain_takes_groups_of_the_hub_and_says_why_a_group_counts(file, capsys):
    arguments = ["policy", "explain", "ann", "--file", str(file)]
    assert main([*arguments, "--group", "staff", "--group", "choir"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ann: group staff, a member.\n")
    (memory,) = (line for line in printed.splitlines() if line.startswith("memory "))
    assert memory.split() == ["memory", "64g", "group", "staff"]

    assert main(arguments) == 0
    assert "ann: group student, in no other group: the default." in capsys.readouterr().out


def test_the_schema_knows_every_key_and_no_other(capsys):
    assert main(["policy", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    rules, aggregate = schema["$defs"]["Rules"], schema["$defs"]["Aggregate"]

    assert schema["additionalProperties"] is rules["additionalProperties"] is False
    assert {key for key in KEYS if "." not in key} < set(rules["properties"])
    assert {key.split(".")[1] for key in KEYS if key.startswith("aggregate.")} == set(
        aggregate["properties"]
    )
    assert rules["properties"]["max_mig_instances"]["deprecated"]
    assert "memori" not in rules["properties"]


def test_the_example_is_valid_and_says_nothing_without_effect(capsys):
    assert main(["policy", "validate", str(EXAMPLE)]) == 0
    assert capsys.readouterr().out == f"{EXAMPLE} is valid.\n"
