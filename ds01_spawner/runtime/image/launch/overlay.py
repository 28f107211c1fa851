"""Overlays: where packages go that a user installs while a server runs.

An overlay is a virtual environment on top of the image's Python, or on top of the image's own
virtual environment, that sees everything below it. ``pip`` then needs no options, replaces nothing
of the image, and is not held up by Debian's guard against it. Made by hand, because an image may
have no ``venv`` module, and because three files take no time.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from .interpreter import FIRST_WITH_ENVIRONMENTS, PACKS, Interpreter
from .places import INSIDE, PIP, TEMPORARY

#: Below `place`: the overlay of the runtime's Python, where the image has a Python for terminals.
FOR_RUNTIME = "notebook"


def place() -> Path:
    """Return the directory for overlays: ours in the container, else a new one under /tmp."""
    if TEMPORARY.is_dir() and os.access(TEMPORARY, os.W_OK | os.X_OK):
        return TEMPORARY
    return Path(tempfile.mkdtemp(prefix="ds01-temporary-"))


def can_have(interpreter: Interpreter) -> bool:
    """Return whether a Python works from an overlay."""
    return (
        interpreter.implementation == "cpython" and interpreter.version >= FIRST_WITH_ENVIRONMENTS
    )


def make(root: Path, interpreter: Interpreter) -> None:
    """Make an overlay on top of a Python; nothing happens if it is there already."""
    if (root / "pyvenv.cfg").exists():
        return
    packages = root / packages_directory(interpreter)
    # Two kernels that start at once may both be here.
    packages.mkdir(parents=True, exist_ok=True)
    (root / "bin").mkdir(exist_ok=True)
    links = {f"bin/{name}": interpreter.executable for name in names(interpreter)}
    for name, target in {"lib64": "lib", **links}.items():
        with contextlib.suppress(FileExistsError):
            (root / name).symlink_to(target)
    for name in ("pip", *(name.replace("python", "pip") for name in names(interpreter)[1:])):
        wrapper = root / "bin" / name
        wrapper.write_text(f"#!{root}/bin/python\n" + (INSIDE / "pip_wrapper.py").read_text())
        wrapper.chmod(0o755)
    lines = path_lines(interpreter)
    if lines:
        (packages / "ds01.pth").write_text("\n".join([*lines, ""]), "utf-8")
    # Last: it is what makes the rest an environment.
    (root / "pyvenv.cfg").write_text(configuration(interpreter), "utf-8")


def names(interpreter: Interpreter) -> tuple[str, str, str]:
    """Return the names that a Python goes by."""
    major, minor = interpreter.version
    return "python", f"python{major}", f"python{major}.{minor}"


def packages_directory(interpreter: Interpreter) -> Path:
    """Return where an environment of this Python keeps its packages, relative to its root."""
    threads = "t" if interpreter.free_threaded else ""
    return Path("lib", names(interpreter)[2] + threads, "site-packages")


def configuration(interpreter: Interpreter) -> str:
    """Return the text of ``pyvenv.cfg``."""
    system = "true" if interpreter.system_packages else "false"
    return (
        f"home = {home(interpreter)}\n"
        f"include-system-site-packages = {system}\n"
        f"version = {interpreter.version[0]}.{interpreter.version[1]}\n"
    )


def home(interpreter: Interpreter) -> str:
    """Return the directory from which Python finds its standard library.

    The executable may be a link from elsewhere (/usr/local/bin to /opt/python/bin); the library
    lies beside what it points to.
    """
    executable = Path(interpreter.executable)
    for path in (executable, executable.resolve()):
        if path.parent.parent == Path(interpreter.base_prefix):
            return str(path.parent)
    return str(executable.parent)


def path_lines(interpreter: Interpreter) -> list[str]:
    """Return the lines of a ``.pth`` file that make visible what lies below the overlay."""
    lines = []
    if interpreter.is_environment:
        lines += [f"import site; site.addsitedir({path!r})" for path in interpreter.packages]
    if not interpreter.has_pip and interpreter.version >= min(PACKS):
        lines.append(str(PIP))
        if interpreter.version < (3, 10):
            # Debian packs distutils apart, and pip wants it up to here unless told otherwise.
            lines.append("import sysconfig; sysconfig._PIP_USE_SYSCONFIG = True")
    return lines
