"""Whatever happens in whichever order: no device twice, none lost, nobody refused without a reason.

Hypothesis makes up the order: starts, stops, cancels, Hubs that are killed, an engine that is slow,
loses answers or restarts, other people's containers and processes, GPUs that break or are cut up.
The engine and NVML are models; everything that decides is the real code.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ds01_spawner import engine, file_lock
from ds01_spawner.gpus import snapshot
from ds01_spawner.gpus.request import parse_request

from .model_engine import IMAGE
from .model_machine import FIRST, LAYOUTS, NOTATIONS, SECOND, mig_uuid
from .model_world import World

HUBS = st.sampled_from(["hub0", "hub1"])
DEVICES = (FIRST, SECOND, mig_uuid(1, 0), mig_uuid(1, 1), mig_uuid(2, 0))
#: Who starts what; each Hub has users of its own.
PEOPLE = {"hub0": ("ann", "ben"), "hub1": ("cem", "dia")}
SIZES = st.sampled_from(
    [("full", 1), ("full", 2), ("2g.20gb", 1), ("2g.20gb", 2), ("3g.40gb", 1), (">=30g", 1), None]
)
STATES = st.sampled_from(["created", "running"])
CROWD = st.lists(
    st.tuples(HUBS, st.integers(0, 1), st.sampled_from("pq"), SIZES), min_size=1, max_size=4
)
ANY = st.integers(0, 50)
#: How far the engine gets before the next thing happens.
STEPS = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89])


#: How many grants there were in each of the runs.
granted: list[int] = []


class Grants(RuleBasedStateMachine):
    """The rules by which the world goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if _has_shm() else None)
        self.world = World(Path(self.folder.name) / "lock")
        _locate_in(self.world)

    @initialize(layout=st.integers(0, len(LAYOUTS) - 1), crowd=CROWD, then=STEPS)
    def begin(self, layout, crowd, then):
        self.world.machine.layout = layout
        self._go(60)
        self.start(crowd, False, then)

    def _go(self, steps):
        """Let the engine do so many pieces of work, the oldest calls first."""
        self.world.run()
        for _ in range(steps):
            if not self.world.engine.calls:
                break
            self.world.engine.step(self.world.engine.calls[0])
            self.world.run()
        self._look()

    def _look(self):
        self.world.run()
        assert not self.world.wrong, self.world.wrong

    # Few rules with many forms, so that each is drawn often; all but one let the engine go on.

    @rule(crowd=CROWD, mended=st.booleans(), then=STEPS)
    def start(self, crowd, mended, then):
        if mended:
            self.world.mend()
        for hub, person, project, size in crowd:
            if self.world.hubs[hub] is not None:
                request = parse_request(*size) if size else None
                self.world.hubs[hub].begin(PEOPLE[hub][person], project, request)
        self._go(then)

    @rule(number=ANY, then=STEPS)
    @precondition(lambda self: any(not a.task.done() for a in self.world.attempts))
    def cancel(self, number, then):
        under_way = [a for a in self.world.attempts if not a.task.done()]
        under_way[number % len(under_way)].task.cancel()
        self._go(then)

    @rule(number=ANY, then=STEPS)
    @precondition(lambda self: any(a.is_up and not a.stopping for a in self.world.attempts))
    def stop(self, number, then):
        up = [a for a in self.world.attempts if a.is_up and not a.stopping]
        up[number % len(up)].stop()
        self._go(then)

    @rule(what=st.sampled_from(["engine", "engine", "one call", "time"]), number=ANY)
    def go_on(self, what, number):
        calls = self.world.engine.calls
        if what == "engine":
            self._go(number)
        elif what == "time":
            self.world.pass_time((0.1, 1, 10, 70)[number % 4])
        elif calls:
            self.world.engine.step(calls[number % len(calls)])
        self._look()

    @rule(what=st.sampled_from(["lost", "lost", "500", "restart", "down"]), number=ANY, then=STEPS)
    def engine_has_trouble(self, what, number, then):
        engine_, calls = self.world.engine, self.world.engine.calls
        call = calls[number % len(calls)] if calls else None
        if what == "restart":
            engine_.restart()
        elif what == "down":
            engine_.down = not engine_.down
        elif call is not None and call.method != "in_thread":
            (engine_.lose if what == "lost" else engine_.fail)(call)
        self._go(then)

    @rule(hub=HUBS, forget=st.booleans(), cleanly=st.booleans(), then=STEPS)
    def hub_ends_or_begins(self, hub, forget, cleanly, then):
        if self.world.hubs[hub] is None:
            self.world.restart(hub)
        else:
            self.world.kill(hub, forget=forget, cleanly=cleanly)
        self._go(then)

    @rule(how=st.sampled_from(["comes", "exits", "goes", "process"]), number=ANY, state=STATES)
    def somebody_else(self, how, number, state):
        if how == "comes":
            self.world.put_foreign(number % len(NOTATIONS), state)
        elif how == "process":
            self.world.machine.toggle_process(number % 3, DEVICES[number % len(DEVICES)])
        elif self.world.foreign:
            self.world.take_foreign(number, how)

    @rule(what=st.sampled_from(["health", "cut", "nvml", "unasked", "cdi", "image"]), number=ANY)
    def machine_changes(self, what, number):
        machine, device = self.world.machine, DEVICES[number % len(DEVICES)]
        if what == "health":
            machine.broken ^= {device}
        elif what == "cut":
            machine.layout = number % len(LAYOUTS)
        elif what == "nvml":
            machine.problem = "" if machine.problem else "The driver is not loaded"
        elif what == "unasked" and not machine.unasked.pop(device, None):
            machine.unasked[device] = "Not Supported"
        elif what == "cdi":
            machine.unattachable ^= {device}
        elif what == "image":
            self.world.engine.images = ([IMAGE], ["sha256:other"], [])[number % 3]

    # -- the end -----------------------------------------------------------------------------

    def teardown(self):
        try:
            if not self.world.wrong:
                self.world.end_in_peace()
                granted.append(self.world.granted)
                assert not self.world.wrong, self.world.wrong
        finally:
            self.world.close()
            self.folder.cleanup()


def _has_shm() -> bool:
    return os.access("/dev/shm", os.W_OK)


def _locate_in(world: World) -> None:
    snapshot.locate = world.machine.locate


@pytest.fixture
def in_the_model(monkeypatch):
    """Let the model decide what processes are, and keep the logs of thousands of starts away."""
    monkeypatch.setattr(snapshot, "locate", snapshot.locate)
    monkeypatch.setattr(file_lock, "_RETRY_S", 1.0)
    monkeypatch.delenv("DS01_PRETEND_GPUS", raising=False)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    engine._removals.clear()


def run(examples: int, steps: int, derandomize: bool = True) -> None:
    granted.clear()
    run_state_machine_as_test(
        Grants,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # In how few nothing was granted tells whether anything was put to the test.
    assert sum(map(bool, granted)) > examples / 4


def test_no_device_twice_and_none_lost_whatever_happens(in_the_model):
    run(150, 40)


@pytest.mark.long
def test_no_device_twice_and_none_lost_whatever_happens_for_a_long_time(in_the_model):
    run(5000, 80, derandomize=False)
