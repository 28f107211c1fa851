"""A server cannot take more than its share, and its owner learns when it tried."""

import json

import pytest
import websocket

from ds01_spawner.cgroups.memory import oom_kills
from ds01_spawner.policy import GIB
from tests.docker.test_life import last_ending
from tests.hub import eventually

READ_LIMITS = """
import json, os, resource
def first(*paths):
    for path in paths:
        if os.path.exists(path):
            return open(path).read().split()[0]
print(json.dumps({
    "memory": first("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "pids": first("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "uid": os.getuid(), "cwd": os.getcwd(), "home": os.environ["HOME"],
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "capabilities": [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0],
    "no_new_privileges": [l.split()[1] for l in open("/proc/self/status") if "NoNewPrivs" in l][0],
}))
"""


@pytest.fixture(scope="module")
def server(hub):
    return hub.user("limited").start(image="python", cpus=1, memory="1g")


def test_a_cell_finds_its_limits_its_number_and_its_place(server):
    seen = json.loads(server.run(READ_LIMITS))
    assert int(seen["memory"]) == GIB
    assert int(seen["pids"]) == 4096
    assert seen["shm"] == GIB
    assert seen["uid"] >= 400_000
    assert seen["cwd"] == "/workspace"
    assert seen["home"] == "/home/limited"
    assert int(seen["capabilities"], 16) == 0
    assert seen["no_new_privileges"] == "1"


def test_the_engine_holds_the_limits_since_creation(server):
    host = server.owner.container()["HostConfig"]
    assert host["NanoCpus"] == 1_000_000_000
    assert host["Memory"] == host["MemorySwap"] == GIB
    assert host["PidsLimit"] == 4096
    assert host["Runtime"] == "runc"
    assert host["LogConfig"]["Config"] == {"max-file": "2", "max-size": str(10 * 1024**2)}


def test_the_user_is_known_inside(server):
    assert server.owner.execute(["whoami"]) == (0, "limited\n")
    printed = server.run("import getpass, os; print(getpass.getuser(), os.path.expanduser('~'))")
    assert printed == "limited /home/limited\n"


def test_a_memory_hog_is_killed_and_the_server_lives_on(server):
    pid = server.owner.container()["State"]["Pid"]
    assert oom_kills(pid) == 0
    # A process of its own, so that the cell sees its end.
    code = (
        "import subprocess, sys; print(subprocess.call([sys.executable, '-c', 'x=b\"1\"*2**31']))"
    )
    assert server.run(code).split()[-1] == "-9"
    eventually(lambda: oom_kills(pid), "the kernel has counted the kill")
    assert server.run("print(1 + 1)") == "2\n"


def test_a_server_that_is_itself_killed_for_memory_is_explained(hub):
    alice = hub.user("oomed")
    server = alice.start(image="python", memory="1g")
    # The kernel's first choice from now on: the server itself.
    prefer_server = "for p in /proc/[0-9]*; do grep -q ds01_launch.server $p/cmdline && echo 1000"
    code, said = alice.execute(["sh", "-c", f"{prefer_server} > $p/oom_score_adj; done; true"])
    assert code == 0, said
    hog = (
        "import subprocess, sys; open('/proc/self/oom_score_adj', 'w').write('0'); "
        "subprocess.call([sys.executable, '-c', 'x=b\"1\"*2**31'])"
    )
    with pytest.raises(websocket.WebSocketException):
        server.run(hog)
    ending = eventually(lambda: last_ending(hub, alice), "the ending is kept")
    assert ending.message.startswith("Memory ran out: the server used more than its 1 GiB.")


FORK_BOMB = """
import os, subprocess
# A file and not a pipe, which the children would hold open.
with open("/tmp/said", "w") as said:
    subprocess.run(["sh", "-c", "while sleep 600 & do :; done"], stdout=said, stderr=said)
print(sum(name.isdigit() for name in os.listdir("/proc")), open("/tmp/said").read())
# No new process is needed to end them.
for name in os.listdir("/proc"):
    if name.isdigit() and open(f"/proc/{name}/comm").read() == "sleep\\n":
        os.kill(int(name), 9)
"""


def test_a_fork_bomb_ends_at_the_limit_and_the_machine_is_fine(hub):
    server = hub.user("bomber").start(image="python", memory="4g")
    count, reason = server.run(FORK_BOMB, within_s=180).split(maxsplit=1)
    # Threads of the server and its kernel count too.
    assert 3900 < int(count) < 4096
    assert "Cannot fork" in reason
    assert server.run("print('still here')") == "still here\n"
    server.owner.stop()
