"""The catalogue as its file is now, or was while it could be read."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import Refused
from .catalogue import Catalogue, CatalogueError

_LOG = logging.getLogger(__name__)


class LiveCatalogue:
    """A catalogue that follows its file.

    - A changed file is read at the next look.
    - A file with a mistake changes nothing: the last good catalogue holds, and the log says what is
      wrong, once for each change.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: int | None = None
        self._good: Catalogue | None = None

    def current(self) -> Catalogue:
        """Return the catalogue.

        Raises
        ------
        Refused
            503 if it could not be read even once.
        """
        try:
            modified = self._path.stat().st_mtime_ns
            if self._good is None or modified != self._seen:
                self._seen = modified
                self._good = Catalogue.load(self._path)
        except (CatalogueError, OSError) as error:
            _LOG.error("The catalogue cannot be read, the last good one holds: %s", error)
        if self._good is None:
            raise Refused(
                "The list of images cannot be read, so nothing can be started. Please tell an "
                "admin: the Hub's log says what is wrong with the catalogue.",
                reason="catalogue",
                status_code=503,
            )
        return self._good
