"""Accounts, workspaces and the store, on a real file system and a real SQLite."""

import os
import pwd
import sqlite3
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ds01_spawner import accounts as accounts_module
from ds01_spawner.accounts import Account, OwnAccounts, SystemAccounts
from ds01_spawner.endings import Cause, Ending
from ds01_spawner.errors import Refused
from ds01_spawner.store import Store
from ds01_spawner.workspaces import Workspaces, is_mounted_at


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "ds01.sqlite")
    yield store
    store.close()


@pytest.fixture
def accounts(tmp_path):
    return OwnAccounts(tmp_path / "data", 400_000, 400_009)


@pytest.fixture
def mine(accounts, store):
    return Workspaces("alice", accounts.get("alice"), store)


@pytest.fixture
def login(tmp_path, store):
    """Return projects of a user who owns the directory with them, as on a machine with logins."""
    real_home = tmp_path / "alice"
    real_home.mkdir()
    os.chown(real_home, 12345, 12345)
    account = Account(
        login="alice",
        uid=12345,
        gid=12345,
        groups=(),
        home=real_home / ".ds01" / "home",
        workspaces=real_home / "workspace",
        owns_workspaces=True,
    )
    return Workspaces("alice", account, store), real_home


def test_each_user_gets_a_number_and_keeps_it(accounts):
    alice, bob = accounts.get("alice"), accounts.get("bob")
    assert {alice.uid, bob.uid} == {400_000, 400_001}
    assert accounts.get("alice") == alice
    assert alice.home.stat().st_uid == alice.uid
    assert alice.home.stat().st_mode & 0o777 == 0o700


def test_users_who_come_at_once_get_different_numbers(accounts):
    found = []
    names = [f"user{i}" for i in range(10)]
    threads = [
        threading.Thread(target=lambda name=name: found.append(accounts.get(name).uid))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(400_000, 400_010))
    with pytest.raises(Refused, match="last_uid"):
        accounts.get("one-too-many")


def test_files_that_root_restored_make_nobody_root(mine, accounts):
    alice = accounts.get("alice")
    os.chown(alice.home, 0, 0)
    with pytest.raises(Refused, match="nobody's here") as refused:
        accounts.get("alice")
    assert refused.value.status_code == 503


def test_a_link_in_a_homes_place_is_nobodys_home(accounts):
    accounts.get("bob")
    (accounts.get("bob").home.parent / "eve").symlink_to(accounts.get("bob").home)
    with pytest.raises(NotADirectoryError):
        accounts.get("eve")


def test_a_lost_home_gives_nobody_anothers_number(mine, accounts):
    alice = accounts.get("alice")
    mine.workspace("thesis")
    alice.home.rmdir()
    assert accounts.get("bob").uid != alice.uid
    assert accounts.get("alice") == alice


@pytest.fixture
def passwd(monkeypatch, tmp_path):
    """Return a function that adds an account to the machine as the code sees it."""
    entries = {}
    monkeypatch.setattr(accounts_module.pwd, "getpwnam", entries.__getitem__)
    monkeypatch.setattr(accounts_module.os, "getgrouplist", lambda name, gid: [gid, 0, 2000])
    login_defs = tmp_path / "login.defs"
    login_defs.write_text("# UID_MIN 1\nUID_MIN\t\t 1500\nGID_MIN 1400\n")
    monkeypatch.setattr(accounts_module, "_LOGIN_DEFS", login_defs)

    def add(name: str, uid: int, gid: int) -> None:
        entries[name] = pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", "/bin/sh"))

    return add


def test_an_ordinary_account_keeps_its_numbers(passwd):
    passwd("alice", 1500, 1400)
    alice = SystemAccounts().get("alice")
    assert (alice.uid, alice.gid, alice.groups) == (1500, 1400, (2000,))
    assert alice.workspaces == Path("/home/alice/workspace")
    assert alice.owns_workspaces


@pytest.mark.parametrize(
    ("uid", "gid"), [(0, 1500), (1500, 0), (1499, 1500), (1500, 1399), (65534, 1500), (1500, 65534)]
)
def test_an_account_of_the_system_is_refused(passwd, uid, gid):
    passwd("somebody", uid, gid)
    with pytest.raises(Refused, match="account of the system") as refused:
        SystemAccounts().get("somebody")
    assert refused.value.status_code == 403
    assert SystemAccounts().find("somebody") is None


def test_without_a_setting_accounts_are_peoples_from_1000_on(passwd, tmp_path):
    (tmp_path / "login.defs").unlink()
    passwd("alice", 1000, 1000)
    passwd("daemon", 999, 1000)
    assert SystemAccounts().get("alice").uid == 1000
    with pytest.raises(Refused, match="account of the system"):
        SystemAccounts().get("daemon")


def test_this_machines_own_system_accounts_and_strangers_are_refused():
    for name in ("root", "daemon", "nobody"):
        with pytest.raises(Refused, match="account of the system"):
            SystemAccounts().get(name)
    with pytest.raises(Refused, match="no account"):
        SystemAccounts().get("nobody-of-this-name")


def test_a_workspace_is_made_private_and_its_users(mine, accounts):
    directory = mine.workspace("thesis")
    found = directory.path.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (accounts.get("alice").uid, 0o700)
    assert mine.workspace("thesis") == directory
    # The directory above is root's: nobody puts a link there.
    assert directory.path.parent.stat().st_uid == 0


@pytest.mark.parametrize(
    "name", ["../bob", "a/b", "a\0b", "x" * 300, "proj€t", ".", "..", "", "-rf"]
)
def test_a_project_cannot_lead_out_of_ones_own_place(mine, name):
    with pytest.raises(Refused, match="name"):
        mine.workspace(name)


def test_a_link_in_a_projects_place_is_refused(login):
    mine, real_home = login
    (real_home / "workspace").mkdir()
    (real_home / "workspace" / "thesis").symlink_to("/etc")
    with pytest.raises(Refused, match="link"):
        mine.workspace("thesis")


def test_a_link_in_place_of_all_projects_is_refused(login):
    mine, real_home = login
    (real_home / "workspace").symlink_to("/etc")
    with pytest.raises(Refused, match="link"):
        mine.workspace("thesis")
    assert not os.path.exists("/etc/thesis")


def test_a_logins_directories_are_made_theirs(login):
    mine, real_home = login
    path = mine.workspace("thesis").path
    assert path == real_home / "workspace" / "thesis"
    home = mine.home().path
    for made in (path, path.parent, home, home.parent):
        assert made.stat().st_uid == 12345


def test_folders_with_other_names_are_offered_under_a_slug_that_stays(login, store):
    mine, real_home = login
    (real_home / "workspace").mkdir()
    for name in (b"thesis", b"My Data", b".hidden", b"\xff\xfe", b"\x1b[2J"):
        os.mkdir(os.fsencode(real_home / "workspace") + b"/" + name)
    first = mine.projects()
    assert "thesis" in first
    (slug,) = set(first) - {"thesis"}
    assert slug.startswith("my-data")
    assert mine.workspace(slug).path == real_home / "workspace" / "My Data"
    assert mine.projects() == first


def test_renaming_moves_the_files(mine):
    old = mine.workspace("old").path
    (old / "notes").write_text("x")
    mine.rename("old", "new")
    assert (mine.workspace("new").path / "notes").read_text() == "x"
    assert not old.exists()


def test_renaming_onto_another_workspace_is_refused_and_loses_nothing(mine):
    (mine.workspace("old").path / "notes").write_text("x")
    (mine.workspace("new").path / "notes").write_text("y")
    with pytest.raises(Refused, match="already") as refused:
        mine.rename("old", "new")
    assert refused.value.status_code == 409
    assert (mine.workspace("old").path / "notes").read_text() == "x"
    assert (mine.workspace("new").path / "notes").read_text() == "y"


def test_renaming_a_project_that_never_ran_needs_no_folder(mine):
    mine.rename("old", "new")
    assert mine.projects() == []


def test_an_empty_project_can_be_removed_and_one_with_files_cannot(mine):
    mine.workspace("typo")
    (mine.workspace("thesis").path / "notes").write_text("x")
    for project in ("typo", "thesis", "never-started"):
        mine.remove_empty(project)
    assert mine.projects() == ["thesis"]
    assert (mine.workspace("thesis").path / "notes").read_text() == "x"


def test_what_is_mounted_is_told_by_what_it_is(mine, tmp_path):
    directory = mine.workspace("thesis")
    pid = os.getpid()
    assert is_mounted_at(directory, str(directory.path), pid)
    assert not is_mounted_at(directory, str(directory.path.parent), pid)
    link = tmp_path / "link"
    link.symlink_to(directory.path)
    assert not is_mounted_at(directory, str(link), pid)


def test_the_last_ending_is_remembered(tmp_path, store):
    def ending(message):
        return Ending(
            "alice", "p", Cause.STOPPED, message, datetime(2026, 1, 2, tzinfo=timezone.utc), 0, "id"
        )

    assert store.last_ending("alice", "p") is None
    store.add_ending(ending("first"))
    store.add_ending(ending("second"))
    store.close()
    again = Store(tmp_path / "ds01.sqlite")
    assert again.last_ending("alice", "p") == ending("second")
    assert again.last_ending("alice", "other") is None
    assert again.last_ending("bob", "p") is None
    again.close()


def test_of_starts_that_failed_only_the_last_is_kept(tmp_path, store):
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    stopped = Ending("alice", "p", Cause.STOPPED, "stopped", at)
    store.add_ending(stopped)
    for user in ("alice", "bob"):
        for number in range(50):
            store.add_ending(Ending(user, "p", Cause.START_FAILED, f"try {number}", at))

    assert store.last_ending("alice", "p").message == "try 49"
    with sqlite3.connect(tmp_path / "ds01.sqlite") as database:
        rows = database.execute("SELECT message FROM endings ORDER BY id").fetchall()
    assert rows == [("stopped",), ("try 49",), ("try 49",)]
