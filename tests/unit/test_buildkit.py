"""Programs that build: what they print, and how they fail."""

import pytest

from ds01_spawner.buildkit import BuildError, run_logged


def run(script: str) -> list[str]:
    lines: list[str] = []
    run_logged(["sh", "-c", script], "The trial", environment={"WORD": "two"}, log=lines.append)
    return lines


def test_each_line_is_passed_on():
    assert run("echo one; echo $WORD >&2; cat") == ["one", "two"]


def test_a_failure_ends_with_the_last_lines():
    with pytest.raises(BuildError, match=r"^The trial failed; the end") as failed:
        run("seq 100; exit 3")
    lines = str(failed.value).splitlines()
    assert lines[1:] == [str(number) for number in range(71, 101)]


def test_a_program_that_is_not_there_is_a_failure_too():
    with pytest.raises(BuildError, match=r"The trial failed: .*ds01-no-such-program"):
        run_logged(["ds01-no-such-program"], "The trial", environment={}, log=print)
