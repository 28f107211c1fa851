"""Shared folders: course data and teams' places, from ``storage.yaml`` beside the policy. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .files import PolicyError, explain
from .located import FileError, Located, read_yaml
from .schema import Name

#: Stands for every user, in a folder's groups.
EVERYBODY = "*"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
#: What no server may see, whatever is written: the system's own places.
_SYSTEM = ("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/run")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("use lower-case letters, digits, '.', '_' and '-', at most 63")
    return name


def _path(path: str) -> str:
    if not path.startswith("/") or "\x00" in path or posixpath.normpath(path) != path:
        raise ValueError(f"{path!r:.80} is not a plain absolute path, such as /srv/data/imagenet")
    if path == "/":
        raise ValueError("the whole machine cannot be shared")
    if is_the_systems(path):
        raise ValueError(f"{path!r:.80} belongs to the system and cannot be shared")
    return path


def is_the_systems(path: str) -> bool:
    """Tell whether a path is one that no server may see, whatever is written."""
    return path == "/" or any(path == place or path.startswith(f"{place}/") for place in _SYSTEM)


class Folder(BaseModel):
    """One shared folder.

    Attributes
    ----------
    name
        What servers see it as.
    path
        Directory on this machine.
    mode
        ``ro`` for reading, ``rw`` for writing as well.
    groups
        Whose members have it: groups of the policy or of the Hub; ``*`` is everybody.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_name)]
    path: Annotated[str, AfterValidator(_path)]
    mode: Literal["ro", "rw"]
    groups: tuple[Name, ...] = Field(min_length=1)

    @property
    def target(self) -> str:
        """Where it is inside a server."""
        return f"/{'data' if self.mode == 'ro' else 'shared'}/{self.name}"

    @property
    def read_only(self) -> bool:
        """Whether servers cannot write to it."""
        return self.mode == "ro"


_FOLDERS: TypeAdapter[tuple[Folder, ...]] = TypeAdapter(tuple[Folder, ...])


def storage_file(policy: Path) -> Path:
    """Return the list of shared folders that belongs to a policy."""
    return policy.with_name("storage.yaml")


def load_storage_beside(policy: Path) -> tuple[Folder, ...]:
    """Read the shared folders that belong to a policy; without a list there are none.

    Raises
    ------
    PolicyError
        If the file cannot be used; lists everything that is wrong with it.
    """
    path = storage_file(policy)
    if not path.exists():
        return ()
    try:
        located = read_yaml(path)
    except FileError as error:
        raise PolicyError([str(error)]) from error
    if located.content is None:
        return ()
    try:
        folders = _FOLDERS.validate_python(located.content)
    except ValidationError as error:
        raise PolicyError(explain(error, located, tuple[Folder, ...])) from error
    if problems := list(_contradictions(folders, located)):
        raise PolicyError(problems)
    return folders


def _contradictions(folders: tuple[Folder, ...], located: Located) -> Iterator[str]:
    names = [folder.name for folder in folders]
    for i, folder in enumerate(folders):
        if folder.name in names[:i]:
            yield located.at((i, "name"), "there are two of this name")
        for other in folders:
            # Whoever writes there could put a link to anywhere in its place.
            if not other.read_only and folder.path.startswith(f"{other.path}/"):
                problem = f"lies in the folder {other.name!r}, to which others write"
                yield located.at((i, "path"), problem)


def folders_of(folders: Iterable[Folder], groups: Collection[str]) -> tuple[Folder, ...]:
    """Return the folders that a member of these groups has."""
    return tuple(folder for folder in folders if {EVERYBODY, *groups}.intersection(folder.groups))
