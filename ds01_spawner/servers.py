"""One server of a user's, found in Docker."""

from __future__ import annotations

from typing import Any

from . import engine
from .engine import Docker
from .errors import Refused
from .names import DEFAULT_PROJECT, container_name, is_project_name


async def running_server(
    docker_call: Docker, hub_id: str, user: str, project: str
) -> dict[str, Any]:
    """Return Docker's inspection of a user's running server.

    Parameters
    ----------
    hub_id
        Servers of other Hubs are none here.

    Raises
    ------
    Refused
        404 if there is none.
    Exception
        Whatever the engine raises when it gives no answer.
    """
    found = None
    if project == DEFAULT_PROJECT or is_project_name(project):
        found = await engine.inspect(docker_call, container_name(user, project))
    labels = (found or {}).get("Config", {}).get("Labels") or {}
    mine = labels.get("ds01.user") == user and labels.get("ds01.hub") == hub_id
    if found is None or not mine or not found["State"]["Running"]:
        raise Refused(
            f"The project {project!r:.60} has no running server.",
            reason="server",
            status_code=404,
        )
    return found
