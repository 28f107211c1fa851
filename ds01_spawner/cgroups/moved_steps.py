"""Steps of image builds under the systemd driver: each is moved into a slice of ours as it begins.

The engine's filter of devices stays behind, so the slice has its own.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from . import devices, files
from .hierarchies import CGROUP_ROOT, PREFIX, SUFFIX
from .limits import SliceError, SliceLimits
from .slices import Slices
from .steps import Check, for_the_owner, problems, processes_below, refuse_elsewhere, verify

_LOG = logging.getLogger(__name__)

#: No user's slice: no name is escaped with capital hexadecimal digits, and the longest have more.
BUILDS = rf"{PREFIX}\x2Dbuilds{SUFFIX}"
_LEAF = "steps"
#: What the engine's runc makes of "<parent>.slice:docker:<id>" without systemd's help.
_STEP = re.compile(r"[^/]*\.slice:docker:[a-z0-9]+")
_LOOK_S = 0.004
#: A process that waits for a disk freezes late; until then it does nothing else either.
_FREEZE_S = 10.0
#: systemd's answer comes before its deed.
_CLOSE_S = 10.0


class MovedSteps:
    """Steps under the systemd driver: each is moved into a slice of ours as it begins.

    What cannot be moved is killed, and ends every build that runs then: whose step it was is not
    known.

    Parameters
    ----------
    slices
        Makes the slice.
    bundles
        What runc is told of each step that runs.
    root
        Where cgroup v2 is mounted.
    close_devices
        Holds a slice, by its name, from the machine's devices.
    may_open
        Tells whether processes in a cgroup may open them.
    """

    def __init__(
        self,
        slices: Slices,
        bundles: Path,
        root: Path = CGROUP_ROOT,
        *,
        close_devices: Callable[[str], None],
        may_open: Callable[[Path], bool] = devices.may_open,
    ) -> None:
        self._slices = slices
        self._bundles = bundles
        self._root = root
        self._close_devices = close_devices
        self._may_open = may_open
        self._leaf = root / "ds01.slice" / BUILDS / _LEAF
        self._holders = 0
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._mover: threading.Thread | None = None
        # Counted, so that each build knows what was before it.
        self._seen = self._failures = 0
        self._problem = ""

    @contextmanager
    def hold(self, limits: SliceLimits) -> Iterator[Check]:
        """Set the limits, and move what begins until it is over."""
        with self._changing:
            # Set again, a filter of devices is gone for a moment, and a step may run.
            if problems(self._slices, BUILDS, limits):
                self._slices.set(BUILDS, limits)
                verify(self._slices, BUILDS, limits)
            files.make(self._leaf)
            if self._may_open(self._leaf):
                self._close()
            if self._mover is None:
                self._over.clear()
                mover = threading.Thread(target=self._move_all, name="builds", daemon=True)
                mover.start()
                self._mover = mover
            self._holders += 1
        try:
            yield partial(self._check, limits, self._seen, self._failures)
        finally:
            self._release()

    def parent(self) -> str:
        """Return the slice."""
        return self._slices.parent(BUILDS)

    def processes(self) -> list[int]:
        """Return the processes of steps that run now."""
        moved = processes_below(self._leaf)
        return moved + [pid for step in self._steps() for pid in processes_below(step)]

    def _check(self, limits: SliceLimits, seen: int, failures: int, ran: bool) -> None:
        with for_the_owner():
            if self._mover is None or not self._mover.is_alive():
                self._kill_all()
                raise SliceError("The thread that moves the steps of builds has died.")
            if self._failures > failures:
                raise SliceError(self._problem)
            verify(self._slices, BUILDS, limits)
            refuse_elsewhere(self._bundles, _STEP)
            if ran and self._seen == seen:
                raise SliceError("A step has run, and not where steps are looked for.")

    def _close(self) -> None:
        self._close_devices(BUILDS)
        deadline = time.monotonic() + _CLOSE_S
        while self._may_open(self._leaf):
            if time.monotonic() > deadline:
                raise SliceError(
                    f"systemd was asked to hold {BUILDS} from the machine's devices "
                    "(DevicePolicy=closed), and does not. See `journalctl -b _PID=1` for why."
                )

    def _release(self) -> None:
        with self._changing:
            self._holders -= 1
            if self._holders or self._mover is None:
                return
            if not self._mover.is_alive():
                self._kill_all()
            self._over.set()
            self._mover.join()
            self._mover = None

    def _move_all(self) -> None:
        deadlines: dict[Path, float] = {}
        over = False
        # Once more when it is over: a step may have begun since the last look.
        while not over:
            over = self._over.wait(_LOOK_S)
            try:
                deadlines = self._look(deadlines)
            except OSError as error:
                self._fail(f"The steps of builds cannot be looked for: {error}")

    def _look(self, deadlines: Mapping[Path, float]) -> dict[Path, float]:
        """Move all steps; return until when those must be moved that could not be yet."""
        late: dict[Path, float] = {}
        for step in self._steps():
            self._seen += 1
            now = time.monotonic()
            deadline = deadlines.get(step, now + _FREEZE_S)
            problem = f"not done within {_FREEZE_S:g} s" if now > deadline else ""
            try:
                if _move(step, self._leaf):
                    continue
            except OSError as error:
                # Over, which the next look shows: its files go a moment before its directory.
                if not files.is_gone(error):
                    problem = str(error)
            if problem:
                self._fail(f"The step {step} of a build cannot be moved: {problem}")
                _kill(step)
            late[step] = deadline
        return late

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._failures += 1

    def _kill_all(self) -> None:
        for step in self._steps():
            _kill(step)

    def _steps(self) -> Iterator[Path]:
        # Beside the engine's own cgroup, which is in system.slice or another.
        for above in (self._root, *files.children(self._root)):
            for child in files.children(above):
                if _STEP.fullmatch(child.name):
                    yield child


def _move(step: Path, leaf: Path) -> bool:
    """Move all processes of a step; tell whether none is left.

    Frozen, they cannot make others meanwhile.

    Raises
    ------
    OSError
        If they cannot be moved; as of a file that is gone, if the step is over already.
    """
    freeze = step / "cgroup.freeze"
    if pids := processes_below(step):
        files.write(freeze, "1")
        if "frozen 1" not in (step / "cgroup.events").read_text():
            return False
        for pid in pids:
            with suppress(ProcessLookupError):
                files.write(leaf / "cgroup.procs", str(pid))
        if processes_below(step):
            return False
    if freeze.read_text().strip() != "0":
        files.write(freeze, "0")
    return True


def _kill(step: Path) -> None:
    """Kill all that runs in a step, also what is frozen.

    Raises
    ------
    OSError
        If that is impossible.
    """
    try:
        files.write(step / "cgroup.kill", "1")
    except OSError as error:
        if not files.is_gone(error):
            raise
        # Before Linux 5.14; also of a step that is over.
        for pid in processes_below(step):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
