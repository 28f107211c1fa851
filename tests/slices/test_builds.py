"""All image builds together are held to limits, which BuildKit by itself is not."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ds01_spawner import buildkit
from ds01_spawner.cgroups.builds import choose_build_room, written
from ds01_spawner.cgroups.hierarchies import CGROUP_ROOT
from ds01_spawner.cgroups.limits import SliceError, SliceLimits
from ds01_spawner.cgroups.moved_steps import BUILDS, MovedSteps

from .users import MIB, SLOW, eventually


@pytest.fixture
def room(engine, no_other_builds):
    return choose_build_room(engine.info())


@pytest.fixture
def begin(image, tmp_path):
    """Return a function that begins to build an image with one step."""
    begun = []

    def make(script: str) -> subprocess.Popen[bytes]:
        context = tmp_path / str(len(begun))
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {image}\nRUN {script}\n")
        tag = f"ds01-test/build:{len(begun)}"
        command = buildkit.build_command(context, tag, {}, {}, {}, "--no-cache")
        log = (context / "log").open("wb")
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=dict(buildkit.ENVIRONMENT, PATH="/usr/bin:/bin")
        )
        begun.append(process)
        return process

    yield make
    for process in begun:
        process.terminate()
        process.wait(60)


def test_a_build_that_takes_too_much_memory_is_killed_and_a_server_lives_on(
    room, begin, user, tmp_path
):
    alice = user()
    alice.limit(memory_bytes=100 * MIB)
    server = alice.start(memory_mib=64)
    with room.hold(SliceLimits(memory_bytes=120 * MIB, tasks=200)):
        build = begin("perl -e 'vec($x, (300 << 20) - 1, 8) = 1; sleep 100'")
        assert build.wait(120 * SLOW) != 0

    assert "137" in (tmp_path / "0" / "log").read_text()
    assert server.is_running
    assert alice.usage.oom_kills == 0


def test_a_fork_loop_ends_at_the_limit(room, begin):
    with room.hold(SliceLimits(memory_bytes=500 * MIB, tasks=60)):
        # The first shell forks nothing: it would end, and with it all others.
        begin("(while :; do sleep 100000 & done); while :; do :; done")
        eventually(lambda: len(room.processes()) >= 40, "the loop forks", 60)
        for _ in range(20):
            assert len(room.processes()) <= 60
            time.sleep(0.1)


@pytest.mark.long_in_vm
def test_steps_get_no_more_cpu_than_all_builds_may(room, begin, capsys):
    with room.hold(SliceLimits(cpus=0.5, memory_bytes=500 * MIB, tasks=60)):
        # Two that compute at once, so that one core is no limit.
        begin("(while :; do :; done) & while :; do :; done")
        eventually(lambda: cpu_seconds(room) > 1, "the step computes", 60)
        before, began = cpu_seconds(room), time.monotonic()
        time.sleep(8)
        share = (cpu_seconds(room) - before) / (time.monotonic() - began)
    with capsys.disabled():
        print(f"  CPUs of a build that may have 0.5: {share:.3f}")
    assert 0.3 < share < 0.55


def cpu_seconds(room) -> float:
    """Return what the steps that run now have computed."""
    total = 0.0
    for pid in room.processes():
        # What starts a step is gone by the time that it computes.
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / 100
    return total


@pytest.mark.long_in_vm
def test_where_a_step_writes_is_found(room, begin, engine):
    root = Path(engine.info()["DockerRootDir"])
    with room.hold(SliceLimits(memory_bytes=500 * MIB, tasks=60)):
        # Longer than anybody looks.
        begin("dd if=/dev/zero of=/large bs=1M count=30 && sleep 1000")
        eventually(
            lambda: any(
                (place / "large").exists() and (place / "large").stat().st_size == 30 * MIB
                for place in written(room.processes(), root)
            ),
            "the file is found on the host",
            60,
        )


@pytest.mark.long_in_vm
def test_many_short_steps_are_all_held(room, begin, tmp_path):
    with room.hold(SliceLimits(memory_bytes=200 * MIB, tasks=40)):
        for at in range(3):
            # Forks at once, before anybody can look.
            build = begin("for i in $(seq 2000); do sleep 30 & done")
            assert build.wait(120 * SLOW) != 0
            assert "fork" in (tmp_path / str(at) / "log").read_text().lower()


def test_limits_that_cannot_be_had_are_an_error_and_no_build(room):
    with pytest.raises(SliceError), room.hold(SliceLimits(memory_bytes=-5)):
        pass


#: Prints for how many microseconds the process that a step begins with has run outside its place,
#: and after how many it was there. In between it was frozen.
OUTSIDE = """\
["bash", "-c", "\\
    begun=$EPOCHREALTIME; last=$begun; read -r group </proc/self/cgroup; \\
    until [[ $group == */buildkit* || $group == *builds* ]]; do \\
        last=$EPOCHREALTIME; read -r group </proc/self/cgroup; \\
    done; \\
    there=$EPOCHREALTIME; \\
    echo outside $(( ${last/./} - ${begun/./} )) $(( ${there/./} - ${begun/./} ))"]"""


@pytest.mark.long_in_vm
def test_a_step_runs_outside_its_place_for_a_moment_only(room, begin, tmp_path, capsys):
    steps = 6
    with room.hold(SliceLimits(memory_bytes=500 * MIB, tasks=60)) as check:
        build = begin("\nRUN ".join([OUTSIDE] * steps))
        assert build.wait(300 * SLOW) == 0, (tmp_path / "0" / "log").read_text()
        check(True)
    log = (tmp_path / "0" / "log").read_text()
    found = re.findall(r"^#\d+ [\d.]+ outside (\d+) (\d+)$", log, re.MULTILINE)
    ran, there = (sorted(int(us) / 1000 for us in each) for each in zip(*found, strict=True))
    with capsys.disabled():
        print(f"  milliseconds in which {len(ran)} steps ran outside: {ran}, until there: {there}")
    assert len(ran) == steps
    assert ran[-1] < 1000 * SLOW


def test_a_step_that_cannot_be_moved_is_killed_and_ends_the_build(room, begin):
    if not isinstance(room, MovedSteps):
        pytest.skip("steps are in their place from the beginning")
    place = CGROUP_ROOT / "ds01.slice" / BUILDS
    controls = [each / "cgroup.subtree_control" for each in (place, place / "steps")]
    with room.hold(SliceLimits(memory_bytes=500 * MIB, tasks=60)) as check:
        try:
            for each in controls:
                # Where memory is shared out to what is below, no process may be.
                each.write_text("+memory")
            build = begin("sleep 1000")
            assert build.wait(120 * SLOW) != 0
            with pytest.raises(SliceError, match="limits of image builds do not hold"):
                check(False)
            eventually(lambda: not room.processes(), "nothing runs")
        finally:
            for each in reversed(controls):
                each.write_text("-memory")
