"""The image's Python: finding it, and asking it what it is."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .places import INSIDE, PYTHON

#: The kernel packs that the runtime has.
PACKS = frozenset((3, minor) for minor in range(9, 15))
#: From this version on ``pyvenv.cfg`` makes an environment of its directory.
FIRST_WITH_ENVIRONMENTS = (3, 3)
PROBE_SECONDS = 20
_MARK = "ds01-probe:"


class NoPython(Exception):
    """There is no Python that works; the text says why, to be read by the user."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that an image brings, or the runtime's own.

    Attributes
    ----------
    executable
        Of the installation itself, also where this is a virtual environment.
    packages
        Directories with the packages of a virtual environment.
    system_packages
        Whether packages of the installation below count too.
    """

    version: tuple[int, int]
    implementation: str
    platform: str
    free_threaded: bool
    executable: str
    prefix: str
    base_prefix: str
    packages: tuple[str, ...]
    has_ipykernel: bool
    has_pip: bool
    system_packages: bool

    @property
    def name(self) -> str:
        """Readable, such as "Python 3.11"."""
        return f"Python {self.version[0]}.{self.version[1]}"

    @property
    def is_environment(self) -> bool:
        """Whether it is a virtual environment on top of an installation."""
        return self.prefix != self.base_prefix

    @property
    def conda_root(self) -> Path | None:
        """The conda installation that it belongs to."""
        prefix = Path(self.prefix)
        if not (prefix / "conda-meta").is_dir():
            return None
        return prefix.parent.parent if prefix.parent.name == "envs" else prefix

    def why_no_kernel(self) -> str:
        """Return why notebooks cannot run on it, or "" if they can."""
        if self.implementation != "cpython":
            return f"{self.implementation} is not CPython"
        if self.has_ipykernel and self.version >= (3, 6):
            return ""
        if self.version not in PACKS:
            return f"{self.name} is too {'old' if self.version < min(PACKS) else 'new'}"
        if "musl" in self.platform:
            return f"{self.name} uses another C library (musl)"
        if self.free_threaded:
            return f"{self.name} is free-threaded"
        return ""


def choose(user: Mapping[str, str]) -> tuple[Interpreter | None, str]:
    """Return the image's Python, and why notebooks cannot run on it ("" if they can).

    The first on PATH that notebooks can run on; if there is none, the first that works at all.
    """
    works, reasons = None, []
    for path in candidates(user["PATH"]):
        try:
            interpreter = probe(path, user)
        except NoPython as error:
            reasons.append(str(error))
            continue
        reason = interpreter.why_no_kernel()
        if not reason:
            return interpreter, ""
        works = works or interpreter
        reasons.append(reason)
    return works, reasons[0] if reasons else "there is no Python in this image"


def candidates(path: str) -> Iterator[str]:
    """Yield the first ``python3`` and the first ``python`` in the absolute entries of a PATH."""
    absolute = os.pathsep.join(entry for entry in path.split(os.pathsep) if entry.startswith("/"))
    for name in ("python3", "python"):
        found = shutil.which(name, path=absolute)
        if found:
            yield found


def runtime(user: Mapping[str, str]) -> Interpreter:
    """Return the runtime's own Python, without the server's packages."""
    return replace(probe(str(PYTHON), user), system_packages=False)


def probe(path: str, user: Mapping[str, str]) -> Interpreter:
    """Ask a Python what it is.

    Raises
    ------
    NoPython
        If it does not answer.
    """
    try:
        done = subprocess.run(
            [path, str(INSIDE / "probe.py")],
            env=dict(user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPython(f"{path} does not start: {error}") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0 or _MARK not in output:
        complaint = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise NoPython(f"{path} does not work: {complaint[-1]}")
    return from_facts(json.loads(output.rpartition(_MARK)[2].splitlines()[0]))


def from_facts(facts: dict) -> Interpreter:
    """Return the interpreter that `probe.py` described."""
    facts = {**facts, "version": tuple(facts["version"]), "packages": tuple(facts["packages"])}
    facts.setdefault("system_packages", _system_packages(Path(facts["prefix"])))
    return Interpreter(**facts)


def _system_packages(prefix: Path) -> bool:
    """Return what an environment's ``pyvenv.cfg`` says; an installation has its own packages."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text("utf-8").splitlines()
    except OSError:
        return True
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip().lower() == "include-system-site-packages":
            return value.strip().lower() == "true"
    return False
