"""The catalogue as its file is now, or was while it could be read."""

from __future__ import annotations

from pathlib import Path

from ..errors import Refused
from ..live import Live, NeverRead
from .catalogue import Catalogue, CatalogueError


class LiveCatalogue:
    """A catalogue that follows its file; a mistake in it leaves the last good one in force.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._live = Live(
            "The catalogue", lambda: [path], lambda: Catalogue.load(path), CatalogueError
        )

    def current(self) -> Catalogue:
        """Return the catalogue.

        Raises
        ------
        Refused
            503 if it could not be read even once.
        """
        try:
            return self._live.current()
        except NeverRead:
            raise Refused(
                "The list of images cannot be read, so nothing can be started. Please tell an "
                "admin: the Hub's log says what is wrong with the catalogue.",
                reason="catalogue",
                status_code=503,
            ) from None
