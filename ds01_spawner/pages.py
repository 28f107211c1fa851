"""What the Hub's own pages are told about servers, beyond what JupyterHub tells them."""

from __future__ import annotations

from pathlib import Path

from jupyterhub import orm
from jupyterhub.user import User

from .endings import Ending
from .names import project_of


def template_path() -> str:
    """Return the directory of our templates, for ``JupyterHub.template_paths``."""
    return str(Path(__file__).parent / "templates")


class PageInfo:
    """Answers to templates, as the variable ``ds01``.

    Holds nothing: JupyterHub copies configuration values, and a user's spawner has all settings.
    """

    def ending(self, user: User, server_name: str) -> Ending | None:
        """Return how a server ended the last time."""
        ending: Ending | None = user.spawner.store.last_ending(user.name, project_of(server_name))
        return ending

    def memory_kills(self, spawner: object) -> int:
        """Return how many processes of a running server were killed for memory."""
        return int(getattr(spawner, "memory_kills", int)())

    def profile(self, spawner: orm.Spawner) -> str:
        """Return image and size of a server, as chosen last."""
        return str((spawner.user_options or {}).get("profile", ""))
