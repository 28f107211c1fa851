"""Users who are accounts of the machine: their numbers, groups and folders."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.test_life import last_ending
from tests.hub import eventually

LOGIN, TEAM = "ds01tester", "ds01team"


@pytest.fixture
def person(tmp_path):
    """Make an account on this machine, with a team, and take it away again."""
    home = Path("/home") / LOGIN
    subprocess.run(["groupadd", TEAM], check=True)
    subprocess.run(["useradd", "--create-home", "-d", home, "-G", TEAM, LOGIN], check=True)
    yield pwd.getpwnam(LOGIN)
    subprocess.run(["userdel", LOGIN], check=True)
    subprocess.run(["groupdel", TEAM], check=True)
    shutil.rmtree(home)


@pytest.fixture
def system_hub(own_hub):
    own_hub.configure("c.DS01Spawner.accounts_from = 'system'\n")
    own_hub.start()
    return own_hub


def test_a_server_runs_with_the_accounts_numbers_and_folders(system_hub, person):
    workspace = Path(person.pw_dir) / "workspace"
    for name in ("thesis", "My Data"):
        (workspace / name).mkdir(parents=True)
    (workspace / "thesis" / "notes").write_text("from outside")
    subprocess.run(["chown", "-R", f"{person.pw_uid}:{person.pw_gid}", workspace], check=True)
    alice = system_hub.user(LOGIN)
    server = alice.start("thesis", image="python", memory="1g")
    printed = server.run(
        "import os; print(os.getuid(), os.getgid(), sorted(os.getgroups())); "
        "print(open('notes').read()); open('made-inside', 'w').close()"
    )
    team = grp.getgrnam(TEAM).gr_gid
    groups = sorted({person.pw_gid, team})
    assert printed.splitlines()[0] in (
        f"{person.pw_uid} {person.pw_gid} {groups}",
        f"{person.pw_uid} {person.pw_gid} [{team}]",
    )
    assert printed.splitlines()[1] == "from outside"
    assert (workspace / "thesis" / "made-inside").stat().st_uid == person.pw_uid
    # The real home is not inside: its settings are the host's.
    sources = {mount["Source"] for mount in alice.container("thesis")["Mounts"]}
    assert person.pw_dir not in sources
    alice.stop("thesis")


def test_a_link_in_a_projects_place_mounts_nothing(system_hub, person):
    workspace = Path(person.pw_dir) / "workspace"
    workspace.mkdir()
    os.chown(workspace, person.pw_uid, person.pw_gid)
    (workspace / "trick").symlink_to("/etc")
    alice = system_hub.user(LOGIN)
    assert alice.ask("trick", image="python", memory="1g").status_code in (202, 409)
    ending = eventually(lambda: last_ending(system_hub, alice, "trick"), "the refusal is kept")
    assert "is a link" in ending.message
    assert system_hub.containers() == []


def test_somebody_without_an_account_gets_no_server(system_hub):
    alice = system_hub.user("no-such-account")
    refused = alice.ask(image="python", memory="1g")
    assert refused.status_code == 403
    assert "no account on this machine" in refused.json()["message"]
