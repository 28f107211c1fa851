"""How a server ended, in words for its owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from .clock import utc_now
from .policy import format_bytes


class Cause(str, Enum):
    """Why a server is no longer there."""

    STOPPED = "stopped"
    OUT_OF_MEMORY = "out-of-memory"
    EXITED = "exited"
    KILLED = "killed"
    GONE = "gone"
    START_FAILED = "start-failed"
    #: By the service that stops idle servers.
    CULLED = "culled"


@dataclass(frozen=True)
class Ending:
    """The end of one server.

    Attributes
    ----------
    username, project
        Whose server, and which.
    cause
        Why it ended.
    message
        The same for its owner, in one or two sentences.
    at
        When, in UTC.
    exit_code
        Of the server's first process; None when Docker could not say.
    container_id
        Docker's id, for an admin who reads logs; empty when there was none.
    """

    username: str
    project: str
    cause: Cause
    message: str
    at: datetime
    exit_code: int | None = None
    container_id: str = ""


FILES_ARE_SAFE = "Your files in /workspace are safe."


def explain(
    username: str,
    project: str,
    inspected: dict[str, Any],
    *,
    stopped_by: str | None = None,
    reason: str = "",
) -> Ending:
    """Read the end of a container from its inspection.

    Parameters
    ----------
    inspected
        Docker's inspection of the container after it ended.
    stopped_by
        Who asked for the stop, as a phrase such as ``you`` or ``admin bob``; None when nobody did.
    reason
        Why the service that stops idle servers did it, to follow "Stopped"; empty if it was not it.
    """
    state = inspected["State"]
    code = int(state["ExitCode"])
    limit = format_bytes(int(inspected["HostConfig"]["Memory"]))
    if state["Status"] == "created":
        cause = Cause.START_FAILED
        message = "Its start was interrupted when the Hub restarted. Start it again."
    elif reason:
        cause = Cause.CULLED
        message = f"Stopped {reason}."
    elif stopped_by is not None:
        cause = Cause.STOPPED
        message = f"Stopped by {stopped_by}."
    elif state["OOMKilled"] and code == 137:
        cause = Cause.OUT_OF_MEMORY
        message = (
            f"Memory ran out: the server used more than its {limit}. "
            "Start it with more memory, or load less data at a time."
        )
    elif code == 0:
        cause = Cause.EXITED
        message = "The server ended by itself, for example through File > Shut Down."
    elif code > 128:
        cause = Cause.KILLED
        message = f"The server was ended from outside (signal {code - 128})."
    else:
        cause = Cause.EXITED
        message = f"The server ended with exit code {code}. If it happens again, use Safe start."
    return Ending(
        username=username,
        project=project,
        cause=cause,
        message=f"{message} {FILES_ARE_SAFE}",
        at=_finished_at(state),
        exit_code=code,
        container_id=str(inspected["Id"]),
    )


def gone(username: str, project: str) -> Ending:
    """Return the ending of a server whose container somebody removed behind the Hub's back."""
    return Ending(
        username=username,
        project=project,
        cause=Cause.GONE,
        message=f"The server's container was removed from outside. {FILES_ARE_SAFE}",
        at=utc_now(),
    )


def start_failed(username: str, project: str, message: str) -> Ending:
    """Return the ending of a server that never came up."""
    return Ending(
        username=username,
        project=project,
        cause=Cause.START_FAILED,
        message=message,
        at=utc_now(),
    )


def _finished_at(state: dict[str, Any]) -> datetime:
    """Return Docker's time of the end; now, if the container was not seen to end."""
    return docker_time(str(state.get("FinishedAt", ""))) or utc_now()


def docker_time(text: str) -> datetime | None:
    """Read Docker's time, with its nine decimals; None for the year 1, which is its "never"."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text[:19]).replace(tzinfo=timezone.utc)
