"""What the Hub's own pages are told about servers, beyond what JupyterHub tells them."""

from __future__ import annotations

from pathlib import Path

from jupyterhub import orm
from jupyterhub.user import User

from .endings import Ending
from .names import project_of
from .store import Store


def template_path() -> str:
    """Return the directory of our templates, for ``JupyterHub.template_paths``."""
    return str(Path(__file__).parent / "templates")


class PageInfo:
    """Answers to templates, as the variable ``ds01``.

    Parameters
    ----------
    data
        The spawner's `data_dir`.
    """

    def __init__(self, data: Path) -> None:
        self._store = Store(data / "ds01.sqlite")

    def ending(self, user: User, server_name: str) -> Ending | None:
        """Return how a server ended the last time."""
        return self._store.last_ending(user.name, project_of(server_name))

    def memory_kills(self, spawner: object) -> int:
        """Return how many processes of a running server were killed for memory."""
        return int(getattr(spawner, "memory_kills", int)())

    def profile(self, spawner: orm.Spawner) -> str:
        """Return image and size of a server, as chosen last."""
        return str((spawner.user_options or {}).get("profile", ""))
