"""The directories that a server gets: its project's workspace and its user's home.

Where users can log in to the machine they own the directory that holds their projects, and may
put a link to anywhere in a project's place. So nothing here follows a link, and after the start
`is_mounted_at` tells whether the container really got the directory that was meant.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyterhub.slugs import safe_slug

from .accounts import Account
from .errors import Refused
from .names import DEFAULT_PROJECT, is_project_name
from .store import Store

_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Directory:
    """A directory on the host, known by what it is and not only by its path."""

    path: Path
    device: int
    inode: int


class Workspaces:
    """One user's projects and home on the host.

    Parameters
    ----------
    username
        The Hub's name of the user.
    account
        Where their files lie and whose they are.
    store
        Remembers folders whose name cannot be a server's name.
    """

    def __init__(self, username: str, account: Account, store: Store) -> None:
        self._username = username
        self._account = account
        self._store = store

    def workspace(self, project: str) -> Directory:
        """Return a project's workspace; made, empty and private, when missing.

        Raises
        ------
        Refused
            If the name is no project's, or something else lies in its place.
        """
        self._check(project)
        return self._ensure(self._account.workspaces, self.folder(project))

    def home(self) -> Directory:
        """Return the user's home, the same for all of their servers."""
        return self._ensure(self._account.home.parent, self._account.home.name)

    def folder(self, project: str) -> str:
        """Return the name of the project's folder on the host."""
        return self._store.project_folders(self._username).get(project, project)

    def projects(self) -> list[str]:
        """Return the user's projects that have a folder, in order of name.

        A folder whose name no server can have is offered under a slug, which is kept.
        """
        known = {folder: name for name, folder in self._folders().items()}
        projects = []
        for folder in self._existing_folders():
            if folder in known:
                projects.append(known[folder])
            elif is_project_name(folder):
                projects.append(folder)
            else:
                slug = safe_slug(folder)
                self._store.set_project_folder(self._username, slug, folder)
                projects.append(slug)
        return sorted(projects)

    def rename(self, old: str, new: str) -> None:
        """Move a project's workspace to another name; without a folder there is nothing to do.

        Raises
        ------
        Refused
            409 if the new name has a folder already.
        """
        self._check(new)
        with _opened(self._account.workspaces) as parent:
            if parent is None or not _exists(self.folder(old), parent):
                return
            if _exists(self.folder(new), parent):
                raise Refused(
                    f"There is already a workspace for the project {new!r}. Choose another name, "
                    "or rename that one first.",
                    reason="project",
                    status_code=409,
                )
            os.rename(self.folder(old), new, src_dir_fd=parent, dst_dir_fd=parent)
        self._store.forget_project_folder(self._username, old)

    def remove_empty(self, project: str) -> None:
        """Remove a project's folder if nothing is in it; otherwise it stays as it is."""
        with _opened(self._account.workspaces) as parent:
            if parent is None:
                return
            try:
                os.rmdir(self.folder(project), dir_fd=parent)
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return
        self._store.forget_project_folder(self._username, project)

    def _check(self, project: str) -> None:
        if project != DEFAULT_PROJECT and not is_project_name(project):
            raise Refused(
                f"{project!r:.60} cannot be a project's name: use up to 30 lower-case letters, "
                "digits and single hyphens, beginning with a letter.",
                reason="project",
            )

    def _folders(self) -> dict[str, str]:
        return self._store.project_folders(self._username)

    def _existing_folders(self) -> list[str]:
        try:
            with os.scandir(self._account.workspaces) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    and not entry.name.startswith(".")
                    # A name that is no text cannot be shown, stored or asked for.
                    and entry.name.isprintable()
                )
        except FileNotFoundError:
            return []

    def _ensure(self, parent: Path, name: str) -> Directory:
        """Return the directory `name` in `parent`, making both for the user when missing."""
        with self._parent(parent) as parent_fd:
            fd = self._open_or_make(parent_fd, name, parent / name)
            try:
                found = os.fstat(fd)
            finally:
                os.close(fd)
        return Directory(path=parent / name, device=found.st_dev, inode=found.st_ino)

    @contextmanager
    def _parent(self, path: Path) -> Iterator[int]:
        """Open a directory below the user's own tree, link by link refused."""
        base = path if not self._account.owns_workspaces else _account_home(self._account)
        fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in path.relative_to(base).parts:
                below = self._open_or_make(fd, name, path)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _open_or_make(self, parent: int, name: str, shown: Path) -> int:
        try:
            return self._open(parent, name, shown)
        except FileNotFoundError:
            pass
        os.mkdir(name, mode=0o700, dir_fd=parent)
        fd = self._open(parent, name, shown)
        # chown by descriptor: whatever took the name since, this is the directory we opened.
        if os.fstat(fd).st_uid == 0:
            os.chown(f"/proc/self/fd/{fd}", self._account.uid, self._account.gid)
        return fd

    def _open(self, parent: int, name: str, shown: Path) -> int:
        try:
            return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except NotADirectoryError:
            raise Refused(
                f"{shown} is a link or a file where a directory is needed. Please rename it.",
                reason="project",
                status_code=409,
            ) from None


def is_mounted_at(directory: Directory, target: str, pid: int) -> bool:
    """Tell whether a container has this directory at `target`.

    Parameters
    ----------
    target
        Absolute path inside the container.
    pid
        The container's first process, as the host sees it.

    Raises
    ------
    OSError
        If the container cannot be looked into.
    """
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A link inside the container would be followed on the host, so none is.
        for name in Path(target).relative_to("/").parts:
            below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (directory.device, directory.inode)
    except NotADirectoryError:
        return False
    finally:
        os.close(fd)


def _account_home(account: Account) -> Path:
    """Return the real home, which the machine's admin made, above everything of the user's."""
    return account.workspaces.parent


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
