"""The kernel's count of out-of-memory kills, as the two cgroup versions show it."""

import pytest

from ds01_spawner.cgroups.memory import oom_kills


@pytest.fixture
def machine(tmp_path):
    def make(cgroup, files):
        (tmp_path / "proc" / "7").mkdir(parents=True)
        (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup)
        for name, text in files.items():
            file = tmp_path / "cg" / name
            file.parent.mkdir(parents=True)
            file.write_text(text)
        return {"proc": tmp_path / "proc", "root": tmp_path / "cg"}

    return make


def test_cgroup_v1_also_beside_an_empty_v2(machine):
    where = machine(
        "9:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        {"memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"},
    )
    assert oom_kills(7, **where) == 2


def test_cgroup_v2(machine):
    where = machine(
        "0::/ds01.slice/x.scope\n",
        {"ds01.slice/x.scope/memory.events": "low 0\noom 4\noom_kill 3\n"},
    )
    assert oom_kills(7, **where) == 3


def test_a_process_that_is_gone_has_no_count(tmp_path):
    assert oom_kills(7, proc=tmp_path, root=tmp_path) is None
