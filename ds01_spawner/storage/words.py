"""What users are told of the room that their files take. Pure.

JupyterLab shows 140 characters of a notice.
"""

from __future__ import annotations

from ..policy import Lifecycle, format_bytes
from .records import Uses

#: Whoever has used so much of a limit is told.
_WARNING = 0.8


def too_full_for_gpu(uses: Uses, user: str, lifecycle: Lifecycle) -> str:
    """Return why a user gets no GPU at present; empty if they do, and if it is not known."""
    used, limit = uses.of_user(user), lifecycle.workspace_bytes
    if used is None or limit is None or used <= limit:
        return ""
    return (
        f"Your files take {format_bytes(used)}, more than your {format_bytes(limit)}: "
        f"start a server without a GPU to delete some. {_measured(uses, user)}"
    )


def of_user(uses: Uses, user: str, lifecycle: Lifecycle) -> str:
    """Return what to tell a user of all of their files; empty if there is nothing."""
    used, limit = uses.of_user(user), lifecycle.workspace_bytes
    if used is None or limit is None or used < _WARNING * limit:
        return ""
    if used > limit:
        return too_full_for_gpu(uses, user, lifecycle)
    return (
        f"Your files take {format_bytes(used)} of {format_bytes(limit)}. Delete what you do not "
        f"need: above that, you get no GPU. {_measured(uses, user)}"
    )


def of_server(uses: Uses, container_id: str, lifecycle: Lifecycle) -> str:
    """Return what to tell of what a server writes elsewhere; empty if there is nothing."""
    used, limit = uses.of_container(container_id), lifecycle.container_bytes
    if used is None or limit is None or used < _WARNING * limit:
        return ""
    return (
        f"Files outside /workspace and your home take {format_bytes(used)} of "
        f"{format_bytes(limit)}. Above that, the server is stopped. Delete some, for example in "
        "/tmp."
    )


def told_of_disk(uses: Uses, user: str, container_id: str, lifecycle: Lifecycle) -> dict[str, str]:
    """Return what to tell in a server, by what fills: ``workspace`` and ``container``."""
    told = {
        "workspace": of_user(uses, user, lifecycle),
        "container": of_server(uses, container_id, lifecycle),
    }
    return {what: words for what, words in told.items() if words}


def of_servers(uses: Uses, lifecycle: Lifecycle) -> dict[str, str]:
    """Return the same of all servers of which there is something to tell, by containers' ids."""
    told = {key: of_server(uses, key, lifecycle) for key in uses.containers}
    return {key: words for key, words in told.items() if words}


def _measured(uses: Uses, user: str) -> str:
    at = uses.users[user].at
    assert at is not None
    return f"Measured on {at.day} {at:%B} at {at:%H:%M} UTC."
