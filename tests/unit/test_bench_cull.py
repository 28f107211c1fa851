"""The comparison with jupyterhub-idle-culler: whom both ask how often, and what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bench.culling import world
from ds01_spawner.cgroups.usage import container_usage, processes_of
from ds01_spawner.lifecycle.meters import network_bytes

FILE = Path(__file__).parents[2] / "bench" / "cull.py"


def run(*words: str) -> dict:
    done = subprocess.run(
        [sys.executable, FILE, "--json", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_counts_what_both_ask_for_in_one_look():
    found = run("--servers", "20")
    assert found["servers"] == 20
    # One page of users and the engine's list; one server in twenty is asked for its kernels.
    assert found["ours_requests_to"] == {"hub": 1, "engine": 1, "kernels": 1}
    assert found["ours_requests"] == 3
    # Stock asks for the Hub's version first.
    assert found["stock_requests_to"] == {"hub": 2, "engine": 0, "kernels": 0}
    assert found["stock_requests"] == 2
    for who in ("ours", "stock"):
        assert found[f"{who}_cpu_s"] > 0
        assert found[f"{who}_wall_s"] > 0
    assert found["cpu_ratio"] == pytest.approx(found["ours_cpu_s"] / found["stock_cpu_s"], abs=0.01)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_kernels_files_are_read_as_real_ones(version, tmp_path):
    pids = world.plain_files(tmp_path, 3, version)
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    for pid in pids:
        usage = container_usage(pid, proc=proc, root=root)
        assert usage is not None
        assert usage.cpu_seconds > 12
        assert usage.tasks == 12
        assert network_bytes(pid, proc) == 8400512 + 1290112
        assert processes_of(pid, proc=proc, root=root) == [pid]


def test_the_list_of_users_has_pages_as_the_hub_has_them():
    now = datetime.now(timezone.utc)
    users = [world.hub_user(number, now) for number in range(230)]
    url = "http://127.0.0.1:1/hub/api/users?state=ready"
    seen, sizes = [], []
    while url:
        page = world.hub_page(users, url)
        seen += page["items"]
        sizes.append(len(page["items"]))
        following = page["_pagination"]["next"]
        url = following["url"] if following else ""
    assert seen == users
    assert sizes == [50, 50, 50, 50, 30]
    first = world.hub_page(users, "http://127.0.0.1:1/hub/api/users?limit=1000")
    assert len(first["items"]) == 200
    assert first["_pagination"]["next"]["offset"] == 200
