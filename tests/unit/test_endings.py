"""How a server ended, in words."""

import pytest

from ds01_spawner.endings import Cause, explain
from ds01_spawner.policy import GIB


def inspected(code=0, oom=False, finished="2026-11-23T14:05:06.123456789Z", status="exited"):
    return {
        "Id": "c0ffee",
        "State": {"Status": status, "ExitCode": code, "OOMKilled": oom, "FinishedAt": finished},
        "HostConfig": {"Memory": 2 * GIB},
    }


@pytest.mark.parametrize(
    ("container", "stopped_by", "cause", "words"),
    [
        (inspected(0), "you", Cause.STOPPED, "Stopped by you."),
        (inspected(137), "admin bob", Cause.STOPPED, "admin bob"),
        (inspected(137, oom=True), None, Cause.OUT_OF_MEMORY, "2 GiB"),
        (inspected(137), None, Cause.KILLED, "signal 9"),
        (inspected(0, oom=True), None, Cause.EXITED, "by itself"),
        (inspected(0, status="created"), None, Cause.START_FAILED, "Start it again"),
        (inspected(1), None, Cause.EXITED, "exit code 1"),
    ],
)
def test_the_end_is_explained(container, stopped_by, cause, words):
    ending = explain("alice", "p", container, stopped_by=stopped_by)
    assert ending.cause is cause
    assert words in ending.message
    assert "files in /workspace are safe" in ending.message
    assert ending.at.isoformat() == "2026-11-23T14:05:06+00:00"


def test_a_container_that_docker_did_not_see_end_gets_the_time_of_now():
    ending = explain("alice", "p", inspected(finished="0001-01-01T00:00:00Z"))
    assert ending.at.year > 2000
