"""Which certificates builds and servers trust."""

from __future__ import annotations

import os
from pathlib import Path

#: What Debian and Ubuntu trust, with the site's own authorities in it.
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


def ca_bundle(given: str | None = None) -> Path | None:
    """Return the file with the certificates that this machine's builds and servers trust.

    An image's own are as old as the image, and do not know the site's authority.

    Parameters
    ----------
    given
        A path; by default what ``DS01_CA_BUNDLE`` says, and without that the system's. Empty means
        that images are left to their own.

    Returns
    -------
    Path or None
        None if images are left to their own certificates.

    Raises
    ------
    FileNotFoundError
        If a file was named and is not there.
    """
    named = given if given is not None else os.environ.get("DS01_CA_BUNDLE")
    if named is None:
        return SYSTEM if SYSTEM.is_file() else None
    if named and not Path(named).is_file():
        raise FileNotFoundError(f"There is no certificate bundle {named}.")
    return Path(named) if named else None
