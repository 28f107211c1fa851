"""Who a user is on this machine: numbers, groups and the two places for their files."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import Refused
from .names import login_name, user_slug

#: Where the machine says from which numbers on accounts are people's.
_LOGIN_DEFS = Path("/etc/login.defs")
_USUAL_FIRST = 1000
#: Whoever has no number of their own: files of many are theirs.
_NOBODY = 65534


@dataclass(frozen=True)
class Account:
    """A user as the kernel knows them.

    Attributes
    ----------
    login
        Name in ``/etc/passwd`` inside the container.
    uid, gid, groups
        Numbers of the processes; `groups` are the supplementary ones.
    home
        Host directory that is ``$HOME`` in all of the user's servers.
    workspaces
        Host directory with one folder per project, ``/workspace`` inside.
    owns_workspaces
        The user can write to `workspaces` itself from outside, as on a machine with logins: what
        lies there may be a link by the time it is mounted.
    """

    login: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: Path
    workspaces: Path
    owns_workspaces: bool


class OwnAccounts:
    """Accounts that exist only here: a number of their own for each user, kept by their files.

    The owner of a user's files is the record of their number, so a restored backup brings the
    numbers along and no table can disagree with the files.

    Parameters
    ----------
    data
        Directory with ``homes/`` and ``workspaces/``.
    first_uid, last_uid
        Range for the numbers; the group has the same number.
    """

    def __init__(self, data: Path, first_uid: int, last_uid: int) -> None:
        self._homes = data / "homes"
        self._workspaces = data / "workspaces"
        self._range = range(first_uid, last_uid + 1)

    def get(self, username: str) -> Account:
        """Return the user's account; the first call makes its directories.

        Raises
        ------
        Refused
            503 if the range of numbers is used up.
        OSError
            If the directories cannot be made.
        """
        slug = user_slug(username)
        uid = _owner(self._homes / slug)
        if uid is None:
            with self._locked():
                uid = self._make(slug)
        # Root's, so that nobody can put a link where a project is looked for.
        (self._workspaces / slug).mkdir(mode=0o711, parents=True, exist_ok=True)
        return self._account(username, uid)

    def find(self, username: str) -> Account | None:
        """Return the user's account; None for one who never had a server. Makes nothing."""
        uid = _owner(self._homes / user_slug(username))
        return None if uid is None else self._account(username, uid)

    def _account(self, username: str, uid: int) -> Account:
        slug = user_slug(username)
        if uid not in self._range:
            # As after a backup that was restored as root: root's files must make nobody root.
            raise Refused(
                f"Your files belong to user number {uid}, which is nobody's here, so nothing is "
                f"started. Please tell an admin: the owners in homes/{slug} and "
                f"workspaces/{slug} must be set right.",
                reason="accounts",
                status_code=503,
            )
        return Account(
            login=login_name(username),
            uid=uid,
            gid=uid,
            groups=(),
            home=self._homes / slug,
            workspaces=self._workspaces / slug,
            owns_workspaces=False,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time give out a number."""
        self._homes.mkdir(mode=0o711, parents=True, exist_ok=True)
        with open(self._homes / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make(self, slug: str) -> int:
        """Make a user's home unless there is one now, and return its owner."""
        uid = _owner(self._homes / slug)
        if uid is None:
            # Somebody whose home was lost gets the number that their projects have.
            known = (owner for owner in _owners(self._workspaces / slug) if owner in self._range)
            uid = next(known, None) or self._free_uid()
            _make_home(self._homes / slug, uid)
        return uid

    def _free_uid(self) -> int:
        used = set(_owners(self._homes))
        for workspaces in self._workspaces.glob("*"):
            used.update(_owners(workspaces))
        for uid in self._range:
            if uid not in used:
                return uid
        raise Refused(
            "There is no user number left on this server. Please tell an admin: widen "
            "DS01Spawner.last_uid.",
            reason="accounts",
            status_code=503,
        )


class SystemAccounts:
    """Accounts of the machine itself (``/etc/passwd``, LDAP, …), as DS01 has them.

    Projects are the folders in ``~/workspace``. ``$HOME`` inside is ``~/.ds01/home``, apart from
    the real home: settings meant for the host do not reach into images.
    """

    def get(self, username: str) -> Account:
        """Return the user's account on this machine.

        Raises
        ------
        Refused
            403 if there is none, or if it is no person's: root's, a service's, or "nobody".
        """
        try:
            entry = pwd.getpwnam(username)
        except KeyError:
            raise Refused(
                f"{username!r:.60} has no account on this machine. Please ask an admin for one.",
                reason="accounts",
                status_code=403,
            ) from None
        if not _is_a_persons(entry):
            raise Refused(
                f"{username!r:.60} is an account of the system (uid {entry.pw_uid}, gid "
                f"{entry.pw_gid}) and cannot have a server. Log in as an ordinary user.",
                reason="accounts",
                status_code=403,
            )
        groups = os.getgrouplist(username, entry.pw_gid)
        return Account(
            login=login_name(username),
            uid=entry.pw_uid,
            gid=entry.pw_gid,
            groups=tuple(sorted(set(groups) - {entry.pw_gid, 0})),
            home=Path(entry.pw_dir) / ".ds01" / "home",
            workspaces=Path(entry.pw_dir) / "workspace",
            owns_workspaces=True,
        )

    def find(self, username: str) -> Account | None:
        """Return the user's account on this machine; None if there is none that can be used."""
        try:
            return self.get(username)
        except Refused:
            return None


def _is_a_persons(entry: pwd.struct_passwd) -> bool:
    if entry.pw_uid < _first("UID_MIN") or entry.pw_gid < _first("GID_MIN"):
        return False
    return _NOBODY not in (entry.pw_uid, entry.pw_gid)


def _first(setting: str) -> int:
    """Return the lowest number of a person's account or group here."""
    try:
        text = _LOGIN_DEFS.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return _USUAL_FIRST
    found = re.search(rf"^\s*{setting}\s+([1-9][0-9]*)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else _USUAL_FIRST


def _owner(path: Path) -> int | None:
    """Return the owner of a directory; None if there is none yet.

    Raises
    ------
    NotADirectoryError
        If something else is in its place.
    """
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is no directory")
    return found.st_uid


def _owners(directory: Path) -> Iterator[int]:
    """Yield the owners of what lies in a directory; nothing if there is none."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.stat(follow_symlinks=False).st_uid
    except FileNotFoundError:
        return


def _make_home(home: Path, uid: int) -> None:
    """Make a home that appears with its owner: a crash in between leaves no home of root's."""
    half_made = home.with_name(f".{home.name}.new")
    half_made.mkdir(mode=0o700, exist_ok=True)
    os.chown(half_made, uid, uid)
    half_made.rename(home)
