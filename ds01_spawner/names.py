"""Names that people and Docker see, made from the names that people have.

A user name may be anything that an authenticator lets through; a slug is safe as a path, a
container name, a host name and a cgroup. Two different names never share a slug.
"""

from __future__ import annotations

import hashlib

from jupyterhub.slugs import is_valid_safe_slug, is_valid_simple_name, safe_slug

#: The project of the unnamed server.
DEFAULT_PROJECT = "default"


def user_slug(username: str) -> str:
    """Return the name under which everything of this user is kept, at most 54 characters.

    ``alice`` stays ``alice``; whatever is not plain lower-case letters and digits gets a hash of
    the original, so that ``a.b`` and ``a-b`` are two people. JupyterHub's own hash of 32 bits would
    let somebody who chooses their name search for another person's slug; 128 bits do not.
    """
    if is_valid_simple_name(username):
        return username
    readable = safe_slug(username, max_length=21, avoid_collisions=False)
    return f"{readable}-{hashlib.sha256(username.encode()).hexdigest()[:32]}"


def project_of(server_name: str) -> str:
    """Return the project that a Hub server works on."""
    return server_name or DEFAULT_PROJECT


def server_of(project: str) -> str:
    """Return the Hub's server name for a project, the inverse of `project_of`."""
    return "" if project == DEFAULT_PROJECT else project


def is_project_name(name: str) -> bool:
    """Tell whether a name can be a project: what the Hub accepts as a server name."""
    return is_valid_safe_slug(name)


def container_name(username: str, project: str) -> str:
    """Return DS01's container name, ``<project>._.<user>``."""
    return f"{project}._.{user_slug(username)}"


def login_name(username: str) -> str:
    """Return the name for ``/etc/passwd`` and the prompt inside the container.

    The name itself where it is a usual Unix name, otherwise a short slug: a colon or a line break
    would forge another entry.
    """
    usual = username.isascii() and len(username) <= 32 and username[:1].isalpha()
    if usual and all(c.isalnum() or c in "._-" for c in username):
        return username
    return safe_slug(username)
