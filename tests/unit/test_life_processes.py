"""What a terminal executes, and what is asked to end before a server: with real processes."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest

from ds01_spawner.cgroups.usage import processes_of
from ds01_spawner.lifecycle import processes
from ds01_spawner.lifecycle.processes import (
    UNREADABLE,
    Ends,
    Process,
    end_work,
    executing_in,
    executing_since,
    is_in,
    read_all,
    work_of,
)

BOOT = datetime(2026, 6, 1, tzinfo=timezone.utc)
CONTAINER = "c0ffee" * 10
OTHER = "decade" * 10


def eventually(check, what):
    deadline = time.monotonic() + 15
    while not (answer := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return answer


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def tree_of(pid):
    """Return a process and all below it."""
    return [pid, *(each for child in children_of(pid) for each in tree_of(child))]


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)

    def type(self, line):
        os.write(self.master, f"{line}\n".encode())

    def pids(self):
        return tree_of(self.pid)

    def executing(self):
        return executing_since(read_all(self.pids()), BOOT)

    def wait_for(self, name):
        """Return the process below the first one that has a name."""

        def found():
            below = read_all(self.pids()[1:])
            return next((process for process in below if process.name == name), None)

        return eventually(found, f"{name} runs")

    def close(self):
        for pid in reversed(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self.master)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal():
    opened = []

    def make(*command):
        opened.append(Terminal(*command))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture(params=["bash", "sh"])
def shell(request, terminal):
    command = {"bash": ("bash", "--norc", "--noprofile"), "sh": ("sh",)}[request.param]
    made = terminal(*command)
    eventually(lambda: read_all([made.pid])[0].ignores_end, "the shell waits for its user")
    return made


# -- what executes ---------------------------------------------------------------------------------


def test_a_shell_that_waits_executes_nothing(shell):
    assert shell.executing() is None
    assert read_all([shell.pid])[0].is_idle_shell


def test_a_command_executes_since_it_was_begun_until_it_ends(shell):
    shell.type("sleep 600")
    sleep = shell.wait_for("sleep")
    ticks = os.sysconf("SC_CLK_TCK")
    eventually(shell.executing, "it has the terminal")
    assert shell.executing() == BOOT + timedelta(seconds=sleep.started_ticks / ticks)
    os.kill(sleep.pid, signal.SIGKILL)
    eventually(lambda: shell.executing() is None, "the shell waits again")


def test_a_job_in_the_background_is_not_what_the_terminal_executes(shell):
    shell.type("sleep 600 &")
    shell.wait_for("sleep")
    eventually(lambda: shell.executing() is None, "the shell waits again")


def test_a_pipeline_executes_since_its_first_command_was_begun(shell):
    shell.type("(sleep 0.3; sleep 600) | cat | cat")
    shell.wait_for("cat")
    began = eventually(shell.executing, "it executes")
    shell.wait_for("sleep")
    time.sleep(0.5)
    assert shell.executing() == began


def test_a_shell_in_a_shell_executes_what_runs_in_it(shell):
    shell.type("sh")
    shell.wait_for("sh")
    eventually(shell.executing, "the inner one has the terminal")


def test_of_two_terminals_the_latest_command_counts(terminal):
    first, second = (terminal("bash", "--norc", "--noprofile") for _ in range(2))
    first.type("sleep 600")
    first.wait_for("sleep")
    before = eventually(first.executing, "the first executes")
    time.sleep(0.1)
    second.type("sleep 601")
    second.wait_for("sleep")
    latest = eventually(second.executing, "the second executes")
    assert latest > before
    for pids in ([*first.pids(), *second.pids()], [*second.pids(), *first.pids()]):
        assert executing_since(read_all(pids), BOOT) == latest


def test_a_program_in_the_place_of_a_shell_executes(terminal):
    # As a notebook's "!" starts one, and "docker exec -it".
    program = terminal(sys.executable, "-c", "import time; time.sleep(600)")
    eventually(program.executing, "it executes")
    assert not read_all([program.pid])[0].is_idle_shell


def test_a_process_without_a_terminal_is_nothing_that_a_terminal_executes():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        assert executing_since(read_all([child.pid]), BOOT) is None
    finally:
        child.kill()
        child.wait()


def test_a_name_with_parentheses_and_lines_is_read(tmp_path):
    program = tmp_path / "a) S 1 1\n(b"
    program.symlink_to(shutil.which("sleep"))
    child = subprocess.Popen([program, "600"])
    try:
        found = eventually(
            lambda: [p for p in read_all([child.pid]) if p.name.startswith("a)")], "it is read"
        )
        assert found[0].parent == os.getpid()
        assert not found[0].ignores_end
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("missing", ["uptime", "cgroup", "cgroup.procs"])
def test_what_cannot_be_read_is_not_taken_for_nothing_that_executes(tmp_path, missing):
    kernel = Pretended(tmp_path, [os.getpid()])
    assert executing_in(CONTAINER, os.getpid(), kernel.proc, kernel.root) is None
    kernel.remove(missing)
    with pytest.raises(UNREADABLE):
        executing_in(CONTAINER, os.getpid(), kernel.proc, kernel.root)


def test_another_containers_processes_say_nothing_of_what_executes_in_this_one(tmp_path):
    kernel = Pretended(tmp_path, [os.getpid()], OTHER)
    with pytest.raises(ProcessLookupError):
        executing_in(CONTAINER, os.getpid(), kernel.proc, kernel.root)


def test_a_cgroup_that_goes_meanwhile_has_no_processes_and_one_of_a_process_twice_has_it_once(
    tmp_path, monkeypatch
):
    kernel = Pretended(tmp_path, [os.getpid(), os.getpid()])
    (kernel.directory / "gone").mkdir()
    assert processes_of(os.getpid(), proc=kernel.proc, root=kernel.root) == [os.getpid()]


# -- what is asked to end --------------------------------------------------------------------------


class Pretended:
    """A cgroup of a container with real processes in it: the kernel's files but for its cgroups."""

    def __init__(self, directory, pids, container=CONTAINER):
        self.root, self.proc = directory / "cgroup", directory / "proc"
        self.place = f"/docker/{container}"
        self.directory = self.root / self.place.lstrip("/")
        self.directory.mkdir(parents=True)
        self.proc.mkdir()
        (self.proc / "uptime").symlink_to("/proc/uptime")
        for pid in pids:
            self.add(pid)
        self.list(pids)

    def add(self, pid, place=None):
        """Show a process, which is at this place."""
        own = self.proc / str(pid)
        own.mkdir(exist_ok=True)
        for name in ("stat", "status"):
            if not (own / name).is_symlink():
                (own / name).symlink_to(f"/proc/{pid}/{name}")
        (own / "cgroup").write_text(f"0::{place or self.place}\n")

    def list(self, pids):
        """Have the kernel list processes for the container."""
        (self.directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def remove(self, name):
        for file in (*self.proc.rglob(name), *self.root.rglob(name)):
            file.unlink()

    async def end(self, first, grace=10.0, container=CONTAINER):
        grace = timedelta(seconds=grace)
        return await end_work(container, first, grace, proc=self.proc, root=self.root)


TRAINING = """
import pathlib, signal, sys, time
def checkpoint(*_):
    time.sleep(float(sys.argv[2]))
    pathlib.Path(sys.argv[1]).write_text("done")
    sys.exit()
signal.signal(signal.SIGTERM, checkpoint)
pathlib.Path(sys.argv[1]).write_text("works")
while True:
    time.sleep(0.05)
"""

#: Handles SIGTERM, by an end at once.
HANDLES = ("sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done")

#: The first process of a container: it starts a server, then what its arguments say, and waits.
FIRST = """
import subprocess, sys, time
server = subprocess.Popen(["sleep", "1000"])
time.sleep(0.05)
others = [subprocess.Popen(line.split("\x1f")) for line in sys.argv[1:]]
print(server.pid, *(other.pid for other in others), flush=True)
for other in others:
    other.wait()
server.wait()
"""


class Container:
    """Processes as in a container: the first one, its server, and others."""

    def __init__(self, *commands):
        self.first = subprocess.Popen(
            [sys.executable, "-c", FIRST, *("\x1f".join(command) for command in commands)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server, *self.others = map(int, self.first.stdout.readline().split())

    @property
    def pid(self):
        return self.first.pid

    def pids(self):
        return tree_of(self.pid)

    def close(self):
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.first.wait()
        self.first.stdout.close()


@pytest.fixture
def container():
    made = []

    def make(*commands):
        made.append(Container(*commands))
        return made[-1]

    yield make
    for each in made:
        each.close()


def runs(pid):
    return any(process.state != "Z" for process in read_all([pid]))


def training(file, seconds):
    return (sys.executable, "-c", TRAINING, str(file), str(seconds))


def is_at_work(file):
    return eventually(lambda: file.exists() and file.read_text() == "works", "it works")


def test_a_training_has_its_time_for_a_checkpoint_and_the_server_stays(tmp_path, container):
    file = tmp_path / "checkpoint"
    box = container(training(file, 1.5), HANDLES)
    is_at_work(file)
    began = time.monotonic()

    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))

    assert 1.5 <= time.monotonic() - began < 8
    assert file.read_text() == "done"
    assert not any(runs(pid) for pid in box.others)
    assert runs(box.server)
    assert runs(box.pid)


def test_who_needs_longer_is_given_up_at_the_grace(tmp_path, container):
    file = tmp_path / "checkpoint"
    box = container(training(file, 60))
    is_at_work(file)
    began = time.monotonic()

    assert not asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid, grace=0.5))

    assert 0.5 <= time.monotonic() - began < 4
    assert runs(box.others[0])


def test_a_container_with_nothing_but_a_server_is_not_waited_for(tmp_path, container):
    box = container()
    began = time.monotonic()
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert time.monotonic() - began < 1
    assert runs(box.server)


def test_a_training_in_a_terminal_ends_and_its_shell_is_not_waited_for(tmp_path, shell):
    file = tmp_path / "checkpoint"
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    shell.type(f"{sys.executable} {script} {file} 0.3")
    is_at_work(file)
    began = time.monotonic()

    assert asyncio.run(Pretended(tmp_path, [os.getpid(), *shell.pids()]).end(os.getpid(), grace=9))

    assert time.monotonic() - began < 5
    assert file.read_text() == "done"
    assert runs(shell.pid)


def test_what_reads_a_trainings_output_stays_until_it_is_done(tmp_path, container):
    # "python train.py | tee log": without its reader, the last words of the training kill it.
    file = tmp_path / "checkpoint"
    script = tmp_path / "train.py"
    says = "    print('ends', flush=True)\n    time.sleep(float"
    script.write_text(TRAINING.replace("    time.sleep(float", says))
    log = tmp_path / "log"
    box = container(("sh", "-c", f"{sys.executable} {script} {file} 0.5 | tee {log}"))
    is_at_work(file)
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert file.read_text() == "done"
    assert log.read_text() == "ends\n"


def test_what_does_not_handle_the_signal_is_not_asked_nor_waited_for(tmp_path, container):
    box = container(("sleep", "600"))
    began = time.monotonic()
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert time.monotonic() - began < 1
    assert runs(box.others[0])


def test_what_looks_for_the_signal_at_times_of_its_own_is_asked(tmp_path, container):
    file = tmp_path / "checkpoint"
    waits = """
import pathlib, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(sys.argv[1]).write_text("works")
while signal.SIGTERM not in signal.sigpending():
    time.sleep(0.05)
pathlib.Path(sys.argv[1]).write_text("done")
"""
    box = container((sys.executable, "-c", waits, str(file)))
    is_at_work(file)
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert file.read_text() == "done"


def test_idle_shells_are_asked_for_nothing_also_not_one_in_another(tmp_path, shell):
    shell.type("bash --norc --noprofile")
    inner = shell.wait_for("bash").pid
    eventually(lambda: read_all([inner])[0].ignores_end, "the inner one waits")
    began = time.monotonic()

    assert asyncio.run(Pretended(tmp_path, [os.getpid(), *shell.pids()]).end(os.getpid()))

    assert time.monotonic() - began < 1
    assert runs(shell.pid)
    assert runs(inner)


HOLDER = """
import os, pty, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    while os.read(master, 1000):
        pass
except OSError:
    pass
"""


def test_what_runs_in_a_terminal_is_not_hung_up_on_by_the_end_of_who_holds_it(tmp_path, container):
    # tmux, or a kernel that executes "!python train.py", dies of SIGTERM at once.
    file = tmp_path / "checkpoint"
    box = container((sys.executable, "-c", HOLDER, *training(file, 1)))
    is_at_work(file)

    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))

    assert file.read_text() == "done"
    assert not runs(box.others[0])


def test_nothing_is_done_to_the_processes_of_another_container(tmp_path, container):
    box = container(HANDLES)
    kernel = Pretended(tmp_path, box.pids(), OTHER)

    assert asyncio.run(kernel.end(box.pid))

    assert all(runs(pid) for pid in box.others)


def test_a_number_that_another_container_uses_by_now_is_left_alone(tmp_path, container):
    box, stranger = container(HANDLES), container(HANDLES)
    kernel = Pretended(tmp_path, box.pids())
    # The kernel had listed it; what has its number now is elsewhere.
    kernel.list([*box.pids(), stranger.others[0], 0])
    kernel.add(stranger.others[0], place=f"/docker/{OTHER}")

    assert asyncio.run(kernel.end(box.pid))

    assert not runs(box.others[0])
    assert runs(stranger.others[0])


def test_a_number_that_is_used_again_in_the_same_container_is_left_alone(tmp_path, container):
    box = container(HANDLES)
    kernel = Pretended(tmp_path, box.pids())
    found = next(p for p in read_all(box.others, kernel.proc))
    before = Process(**{**vars(found), "started_ticks": found.started_ticks - 1})

    assert processes._ask_all([before], CONTAINER, kernel.proc) == [before]
    assert runs(box.others[0])
    assert processes._ask_all([found], CONTAINER, kernel.proc) == []
    eventually(lambda: not runs(box.others[0]), "it ends")


def test_a_number_that_is_used_again_between_look_and_signal_reaches_nobody(
    tmp_path, container, monkeypatch
):
    box, stranger = container(HANDLES), container(HANDLES)
    kernel = Pretended(tmp_path, box.pids())
    found = read_all(box.others, kernel.proc)

    # The look comes after the process is held: between the two, the number can change hands.
    held = os.pidfd_open(stranger.others[0])
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.dup(held))
    os.kill(stranger.others[0], signal.SIGKILL)
    eventually(lambda: not read_all(stranger.others), "what was held has ended")
    refused = processes._ask_all(found, CONTAINER, kernel.proc)
    os.close(held)

    assert refused == found
    time.sleep(0.2)
    assert runs(box.others[0])


def test_an_old_python_asks_without_holding_on_to_processes(tmp_path, container, monkeypatch):
    monkeypatch.setattr(processes, "_CAN_PIN", False)
    box = container(HANDLES)
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert not runs(box.others[0])
    assert runs(box.server)


def test_a_hub_that_may_signal_nobody_waits_for_nobody_and_goes_on(
    tmp_path, container, monkeypatch
):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    box = container(HANDLES)
    began = time.monotonic()
    assert asyncio.run(Pretended(tmp_path, box.pids()).end(box.pid))
    assert time.monotonic() - began < 2
    assert runs(box.others[0])


@pytest.mark.parametrize("text", ["nonsense\n", "", "1:memory:/docker\n"])
def test_cgroups_that_nobody_understands_keep_no_server_from_its_stop(tmp_path, container, text):
    box = container(HANDLES)
    kernel = Pretended(tmp_path, box.pids())
    (kernel.proc / str(box.pid) / "cgroup").write_text(text)
    assert asyncio.run(kernel.end(box.pid))
    assert runs(box.others[0])


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_a_container_that_has_ended_has_no_work(pid):
    assert asyncio.run(end_work(CONTAINER, pid, timedelta(seconds=5)))


def test_this_process_is_in_no_container_of_that_name():
    assert not is_in(CONTAINER, os.getpid())


# -- the order, as values --------------------------------------------------------------------------


def process(pid, parent=1, session=None, **more):
    known = {
        "state": "S",
        "group": pid,
        "terminal": 0,
        "foreground": -1,
        "started_ticks": pid,
        "name": "python",
        "ignores_end": False,
        "handles_end": True,
    }
    return Process(pid=pid, parent=parent, session=session or pid, **{**known, **more})


def test_the_eldest_child_of_the_first_process_is_the_server_and_the_dead_are_no_work():
    server, kernel, orphan = process(7), process(9, parent=7), process(8)
    dead = process(10, state="Z")
    assert work_of(1, [process(1, parent=0), orphan, server, kernel, dead]) == [orphan, kernel]


def test_terminals_within_terminals_end_from_the_inside_out():
    # The first process's eldest child would be the server.
    tmux = process(20, parent=2)
    shell = {"name": "bash", "ignores_end": True, "handles_end": False}
    pane = process(21, parent=20, terminal=5, foreground=22, **shell)
    script = process(22, parent=21, session=21, terminal=5, foreground=22)
    inner = process(23, parent=22, terminal=6, foreground=24, **shell)
    train = process(24, parent=23, session=23, terminal=6, foreground=24)
    everything = [tmux, pane, script, inner, train]
    ends, work = Ends(everything), work_of(1, everything)
    assert work == [tmux, script, train]
    assert ends.next_of(work) == [train]
    assert ends.next_of([tmux, script]) == [script]
    assert ends.next_of([tmux]) == [tmux]


def test_what_lies_in_a_ring_is_not_waited_for_for_ever():
    # No kernel says so; two reads of it at different times might.
    one = process(30, parent=31, session=31, terminal=5)
    two = process(31, parent=30, session=31, terminal=5)
    other = process(32, session=31, terminal=5)
    ends = Ends([one, two, other])
    assert ends.next_of([one, two]) == [one, two]


def test_of_shells_that_end_for_a_signal_an_idle_one_is_known_by_its_name():
    fish = process(40, terminal=5, foreground=40, name="fish")
    assert fish.is_idle_shell
    assert not process(40, terminal=5, foreground=41, name="fish").is_idle_shell
    assert executing_since([fish], BOOT) is None


def test_a_process_that_cannot_be_read_is_not_taken_for_one_that_ended(tmp_path):
    (tmp_path / "7").mkdir()
    assert read_all([7, 8], tmp_path) == []
    (tmp_path / "7" / "stat").mkdir()
    with pytest.raises(IsADirectoryError):
        read_all([7], tmp_path)
