"""What a container has done, read again and again from the kernel's files."""

from __future__ import annotations

import pytest

from ds01_spawner.cgroups.files import read_bytes
from ds01_spawner.cgroups.usage import ContainerWork, Work

PID = 4711


class Kernel:
    """The kernel's files for one container, in the form of v1 or v2."""

    def __init__(self, path, version: str) -> None:
        self.proc, self.root, self.version = path / "proc", path / "cgroup", version
        (self.proc / str(PID)).mkdir(parents=True)
        self.work = ContainerWork(PID, proc=self.proc, root=self.root)

    def move(self, place: str) -> None:
        lines = ["9:memory", "8:cpu,cpuacct", "0:"] if self.version == "v1" else ["0:"]
        text = "".join(f"{line}:{place}\n" for line in lines)
        (self.proc / str(PID) / "cgroup").write_text(text)

    def write(self, place: str, seconds: int, kills: int) -> None:
        if self.version == "v1":
            self._put("cpu,cpuacct", place, "cpuacct.usage", f"{seconds}000000000\n")
            text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
            self._put("memory", place, "memory.oom_control", text)
        else:
            self._put("", place, "cpu.stat", f"usage_usec {seconds}000000\nuser_usec 1\n")
            self._put("", place, "memory.events", f"low 0\noom 7\noom_kill {kills}\n")

    def _put(self, hierarchy: str, place: str, name: str, text: str) -> None:
        directory = self.root / hierarchy / place.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


@pytest.fixture(params=["v1", "v2"])
def kernel(request, tmp_path):
    return Kernel(tmp_path, request.param)


def test_each_reading_is_of_now(kernel):
    kernel.move("/docker/a")
    for seconds, kills in ((3, 0), (5, 2)):
        kernel.write("/docker/a", seconds, kills)
        assert kernel.work.read() == Work(seconds, kills)


def test_a_process_that_is_elsewhere_is_read_there(kernel):
    kernel.write("/docker/a", 3, 0)
    kernel.write("/docker/b", 4, 1)
    for place, work in (("/docker/a", Work(3, 0)), ("/docker/b", Work(4, 1))):
        kernel.move(place)
        assert kernel.work.read() == work


def test_what_is_gone_says_nothing_until_it_is_there_again(kernel):
    assert kernel.work.read() is None
    kernel.move("/docker/a")
    assert kernel.work.read() is None
    kernel.write("/docker/a", 3, 0)
    assert kernel.work.read() == Work(3, 0)
    (kernel.proc / str(PID) / "cgroup").unlink()
    assert kernel.work.read() is None


def test_v1_counts_kills_in_cgroups_below_as_well(tmp_path):
    kernel = Kernel(tmp_path, "v1")
    kernel.move("/docker/a")
    for place, kills in (("/docker/a", 1), ("/docker/a/b", 2), ("/docker/a/b/c", 4)):
        kernel.write(place, 3, kills)
    assert kernel.work.read() == Work(3, 7)


def test_a_file_of_any_length_is_read_whole(tmp_path):
    file = tmp_path / "file"
    for length in (0, 1, 2**16, 2**17 + 3):
        file.write_bytes(b"x" * length)
        assert len(read_bytes(str(file))) == length
