"""From the server into the user's world: start a terminal's shell or a kernel.

Everything that the server starts for the user comes through here, because a process otherwise
inherits the server's environment, and not the image's.
"""

import json
import os
import shutil
import string
import sys
from collections.abc import Mapping
from pathlib import Path

from . import environment, interpreter, overlay
from .handover import Handover
from .places import BASH_RC, INSIDE, ISOLATED, SH_RC

#: The commands with which the server starts kernels; arguments follow. For terminals it is in
#: etc/jupyter/jupyter_server_config.json.
KERNEL = [*ISOLATED, "ds01_launch.enter", "kernel"]
ENVIRONMENT_KERNEL = [*ISOLATED, "ds01_launch.enter", "environment-kernel"]
RUN = [*ISOLATED, "ds01_launch.enter", "run"]

#: Read by inside/kernel.py.
NOTICE = "DS01_KERNEL_NOTICE"
_KERNEL = str(INSIDE / "kernel.py")


def main() -> None:
    """Replace this process by what the arguments ask for."""
    what, *arguments = sys.argv[1:]
    command, variables = _WAYS[what](arguments)
    os.execvpe(command[0], command, variables)


Started = tuple[list[str], Mapping[str, str]]


def shell(_: list[str]) -> Started:
    """Return a shell with our prompt: bash, else sh, else Python's own."""
    handover = Handover.load()
    variables = handover.entered()
    for name in ("bash", "sh"):
        path = shutil.which(name, path=variables["PATH"])
        if path:
            variables["SHELL"] = path
            variables["ENV"] = str(SH_RC)
            options = ["--rcfile", str(BASH_RC)] if name == "bash" else []
            return [path, *options, "-i"], variables
    print("This image has no shell; here is Python instead.")
    return [f"{handover.overlay}/bin/python", "-q"], variables


def kernel(arguments: list[str]) -> Started:
    """Return the kernel of the kind "Python 3"."""
    handover = Handover.load()
    variables = environment.with_overlay(handover.entered(), handover.overlay)
    if handover.notice:
        variables = for_runtime_kernel(variables, handover.notice)
    return [f"{handover.overlay}/bin/python", _KERNEL, *arguments], variables


def environment_kernel(arguments: list[str]) -> Started:
    """Return a kernel on a conda environment's Python, given its prefix."""
    prefix, *rest = arguments
    handover = Handover.load()
    name = Path(prefix).name
    user = handover.entered()
    user = {**user, "CONDA_PREFIX": prefix, "CONDA_DEFAULT_ENV": name}
    user["PATH"] = f"{prefix}/bin:{user['PATH']}"
    root = Path(handover.place, "envs", name)
    overlay.make(root, interpreter.probe(f"{prefix}/bin/python", user))
    return [f"{root}/bin/python", _KERNEL, *rest], environment.with_overlay(user, str(root))


def runtime_kernel(arguments: list[str]) -> Started:
    """Return a kernel on the runtime's Python; called where one on the image's did not start.

    Runs in the user's environment already.
    """
    reason, *rest = arguments
    variables = for_runtime_kernel(os.environ, reason)
    root = Path(variables["VIRTUAL_ENV"], overlay.FOR_RUNTIME)
    overlay.make(root, interpreter.runtime(variables))
    return [f"{root}/bin/python", _KERNEL, *rest], environment.with_overlay(variables, str(root))


def for_runtime_kernel(user: Mapping[str, str], reason: str) -> dict[str, str]:
    """Return the environment of a kernel on the runtime's Python, with what to tell the user."""
    notice = (
        f"ds01: this notebook runs on the platform's Python, not on the image's: {reason}.\n"
        "ds01: packages of the image are not visible here."
    )
    return {**environment.for_runtime_python(user), NOTICE: notice}


def run(arguments: list[str]) -> Started:
    """Return a program of the image, given variables as JSON, and its command."""
    extra, *command = arguments
    variables = Handover.load().entered()
    for name, value in json.loads(extra).items():
        variables[name] = string.Template(value).safe_substitute(variables)
    return command, variables


_WAYS = {
    "shell": shell,
    "kernel": kernel,
    "environment-kernel": environment_kernel,
    "runtime-kernel": runtime_kernel,
    "run": run,
}

if __name__ == "__main__":
    main()
