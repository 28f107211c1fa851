"""What kernels there are, as the values of a ``kernel.json``."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .enter import ENVIRONMENT_KERNEL, KERNEL, RUN
from .handover import Handover
from .interpreter import Interpreter

Values = dict[str, Any]


def native(handover: Handover) -> Values:
    """Return the kernel on the image's Python, or on the runtime's where that cannot be."""
    name = handover.python.name
    return _python(f"{name} (not the image's)" if handover.notice else name, KERNEL)


def conda(prefix: Path) -> Values:
    """Return the kernel on a conda environment's Python."""
    return _python(f"Python (conda: {prefix.name})", [*ENVIRONMENT_KERNEL, str(prefix)])


def conda_name(prefix: Path) -> str:
    """Return a valid name for that kernel."""
    return re.sub(r"[^a-z0-9._-]", "-", f"conda-env-{prefix.name}-py".lower())


def _python(title: str, command: list[str]) -> Values:
    return {
        "argv": [*command, "-f", "{connection_file}"],
        "display_name": title,
        "language": "python",
        "metadata": {"debugger": True},
    }


def conda_environments(python: Interpreter) -> Iterator[Path]:
    """Yield the prefixes of the image's conda environments, but not of "Python 3"."""
    root = python.conda_root
    if root is None:
        return
    for prefix in sorted(root.glob("envs/*")):
        if (prefix / "bin" / "python").exists() and str(prefix) != python.prefix:
            yield prefix


def adapted(values: Values, handover: Handover) -> Values | None:
    """Return a kernel of the image as the server must start it, or None if it cannot start.

    Its program runs in the image's environment. A "python" means the image's Python; the server
    would take it for its own. The home's kernels may belong to another image.
    """
    prefix = handover.python.prefix
    program, *rest = (word.replace("{prefix}", prefix) for word in values["argv"])
    if is_image_python(program, handover.python):
        if handover.notice:
            return None
        program = f"{handover.overlay}/bin/python"
    elif shutil.which(program, path=handover.user["PATH"]) is None:
        return None
    variables = json.dumps({name: str(value) for name, value in values.get("env", {}).items()})
    return {**values, "argv": [*RUN, variables, program, *rest], "env": {}}


def is_image_python(program: str, python: Interpreter) -> bool:
    """Return whether a program is the Python that the kernel "Python 3" runs on."""
    major, minor = python.version
    directory, _, name = program.rpartition("/")
    if name not in ("python", f"python{major}", f"python{major}.{minor}"):
        return False
    return not directory or directory == f"{python.prefix}/bin"
