"""A step of a build opens no device of this machine, neither before it is held nor after."""

from __future__ import annotations

from pathlib import Path

from ds01_spawner.cgroups.limits import SliceLimits

from .test_builds import begin, room  # noqa: F401
from .users import MIB, SLOW

#: Makes nodes as soon as it runs, and opens them at once and when it is where it stays.
SCRIPT = """\
["bash", "-c", "mknod /disk b {disk}; mknod /mem c 1 1; mknod /harmless c 1 3; \\
    try() {{ for node in /disk /mem /harmless; do (: <$node) && echo opened-$node-$1; done }}; \\
    try first; \\
    for i in $(seq 2000); do read -r group </proc/self/cgroup; \\
        [[ $group == */buildkit* || $group == *builds* ]] && break; sleep 0.05; done; \\
    try later; true"]"""


def test_a_step_opens_no_device(room, begin, tmp_path):  # noqa: F811
    disk = next(d for d in sorted(Path("/sys/block").iterdir()) if not d.name.startswith("loop"))
    numbers = (disk / "dev").read_text().strip().replace(":", " ")

    with room.hold(SliceLimits(memory_bytes=500 * MIB, tasks=60)) as check:
        status = begin(SCRIPT.format(disk=numbers)).wait(300 * SLOW)
        check(True)

    log = (tmp_path / "0" / "log").read_text()
    assert status == 0, log
    opened = [line.split()[-1] for line in log.splitlines() if " opened-" in line[:20]]
    assert opened == ["opened-/harmless-first", "opened-/harmless-later"]
