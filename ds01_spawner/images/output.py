"""What a build prints, read: its steps, what failed, and what to try. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from .steps import MARK

#: ``#7 [stage-1 3/5] RUN …``: a step begins. Source: BuildKit, ``--progress=plain``.
_STEP = re.compile(r"#(\d+) \[(?:\S+ +)?(\d+)/(\d+)\] (.*)")
_TEXT = re.compile(r"#(\d+) \d+\.\d+ (.*)")
_TEXT_BEGINS = re.compile(rb"#\d+ \d+\.\d+ ")
_END = re.compile(r"#(\d+) (DONE \d.*|CACHED|ERROR:? .*|CANCELED)")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_OPTIONS = re.compile(r"--(?:mount|network)=\S+\s+")

_LONGEST_LINE = 2000
#: Steps that are remembered; a Dockerfile has a fifth of them at most.
_MOST_STEPS = 1000
#: Lines that are remembered of what steps print last, and of what the builder says of a failure.
_LAST_LINES = 40

#: What is printed -> what to try.
_ADVICE = (
    (
        r"no solution found when resolving|no matching distribution|not found in the package reg",
        "The package index has no such package, or no version that goes with the others and with "
        "this image's Python. Check its name, and loosen the versions.",
    ),
    (
        r"unable to locate package (\S+)|has no installation candidate|version .* was not found",
        "Debian has no such package under this name. Search for it on packages.debian.org.",
    ),
    (
        r"temporary failure|could not resolve|dns error|network is unreachable|connection (re|ti)",
        "The build did not reach the network. Try again in a few minutes; if it stays so, tell an "
        "admin.",
    ),
    (
        r"no space left on device|disk quota exceeded",
        "There is no room left on the disk. Delete images that you do not need, or tell an admin.",
    ),
    (
        r"\bkilled\b|exit code: 137|cannot allocate memory|out of memory",
        "It took more memory than builds may have. Packages that come ready-made (wheels) need "
        "little; what is compiled needs much.",
    ),
    (
        r"resource temporarily unavailable|can.t start new thread|cannot fork|pthread_create",
        "It started more processes than builds may have.",
    ),
    (
        r"(gcc|cc|g\+\+|make|cmake): (command )?not found|failed building wheel|failed to build|"
        r"command '.*(gcc|cc)' failed",
        "A package has to be compiled and does not. Try a version that comes as a wheel, or add "
        "the Debian packages build-essential and python3-dev.",
    ),
    (
        r"pip: not found|python3?: not found|no virtual environment|no interpreter found",
        "The image has no Python that packages could be installed for. Choose another base.",
    ),
)


@dataclass(frozen=True)
class Line:
    """One line for whoever watches.

    Attributes
    ----------
    text
        Without control characters.
    step, of
        Which step of how many it belongs to; 0 for none.
    begins
        Whether the step begins here: the text is the instruction.
    """

    text: str
    step: int = 0
    of: int = 0
    begins: bool = False


class Output:
    """Reads the lines of one build, one after the other.

    - What a step prints is its text and nothing else, whatever it looks like.
    - However much is printed, it remembers the same few lines, the last ones.

    Parameters
    ----------
    names
        What the build calls an image -> what its owner does.

    Attributes
    ----------
    failed
        The instruction that failed; empty if none did.
    ran
        Whether a ``RUN`` has run: one has printed something, or is done and was not cached.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.failed = ""
        self.ran = False
        self._names = {f"docker.io/{name}": known for name, known in (names or {}).items()}
        self._names.update(names or {})
        self._steps: dict[str, tuple[int, int, str]] = {}
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._ends: deque[str] = deque(maxlen=_LAST_LINES)

    def read(self, raw: str) -> Line | None:
        """Return the line as people should see it, None for one that tells them nothing."""
        # First, as a step may print what looks like any other line.
        if found := _TEXT.fullmatch(raw):
            return self._text(*found.groups())
        line = _shown(raw)
        if found := _STEP.fullmatch(line):
            return self._begin(*found.groups())
        if found := _END.fullmatch(line):
            return self._end(*found.groups())
        if line and not line.startswith(("#", "---", " >")):
            self._ends.append(line)
        return None

    def advice(self) -> str:
        """Return what to try after a failure; empty if it says nothing."""
        text = "\n".join([*self._last, *self._ends]).lower()
        return next((advice for pattern, advice in _ADVICE if re.search(pattern, text)), "")

    @property
    def last(self) -> str:
        """The last thing that a step printed, else what the builder says."""
        said = [*self._ends, *self._last]
        return next((" ".join(line.split()) for line in reversed(said) if line.strip()), "")

    def _begin(self, number: str, step: str, of: str, instruction: str) -> Line | None:
        # Printed again whenever its output goes on.
        if number in self._steps:
            return None
        if len(self._steps) >= _MOST_STEPS:
            del self._steps[next(iter(self._steps))]
        self._steps[number] = int(step), int(of), instruction
        if instruction == MARK:
            return None
        shown = " ".join(without_options(instruction).split())
        for name, known in self._names.items():
            shown = shown.replace(name, known)
        return Line(shown, int(step), int(of), begins=True)

    def _text(self, number: str, raw: str) -> Line | None:
        step, of, instruction = self._steps.get(number, (0, 0, ""))
        self.ran = self.ran or instruction.startswith("RUN ")
        # Of a line that is written over again and again, such as a progress bar, the last state.
        text = _shown(raw.rstrip("\r").rpartition("\r")[2])
        if not text:
            return None
        self._last.append(text)
        return Line(text, step, of)

    def _end(self, number: str, how: str) -> Line | None:
        step, of, instruction = self._steps.get(number, (0, 0, ""))
        if how.startswith("ERROR"):
            self.failed = instruction
            self._ends.append(how)
            code = re.search(r"exit code: \d+", how)
            return Line(f"This step failed ({code[0] if code else how}).", step, of)
        if how.startswith("DONE") and instruction.startswith("RUN "):
            self.ran = True
        if how == "CACHED" and step and instruction != MARK:
            return Line("as before, nothing to do", step, of)
        return None


def next_piece(raw: bytes) -> bytes:
    """Return what the rest of a line must begin with when the line is read in pieces.

    So that what follows belongs to the same step, and is never taken for the builder's own words.
    """
    found = _TEXT_BEGINS.match(raw)
    # The rest of any other line tells nothing.
    return found[0] if found else b"# "


def _shown(raw: str) -> str:
    return _CONTROL.sub("", raw)[:_LONGEST_LINE].rstrip()


def without_options(instruction: str) -> str:
    """Return an instruction without what the builder adds to it."""
    return _OPTIONS.sub("", instruction)
