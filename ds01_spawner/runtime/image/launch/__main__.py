"""The container's command: look at the image, then become the notebook server."""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from . import environment, interpreter, overlay
from .handover import VARIABLE, Handover
from .interpreter import Interpreter
from .places import ISOLATED, MOUNT, PYTHON


def main() -> None:
    """Become the server."""
    os.execve(PYTHON, [*ISOLATED, "ds01_launch.server", *sys.argv[1:]], server_variables())


def server_variables() -> dict[str, str]:
    """Look at the image and return the environment of a server in it."""
    image = dict(os.environ)
    settings = settings_places(image)
    handover = look(image, settings)
    server = {**server_settings(image, settings), "JUPYTER_PATH": jupyter_path(handover)}
    variables = environment.server_environment(image, server)
    handover = replace(handover, server_names=(*variables, VARIABLE))
    variables[VARIABLE] = handover.dumped()
    return variables


def settings_places(image: Mapping[str, str]) -> dict[str, str]:
    """Return variables that say where settings lie.

    Normally in the user's home; apart from it in a safe start, or where the home cannot be
    written to, so that a server starts whatever lies there.
    """
    scratch = Path(tempfile.mkdtemp(prefix="ds01-server-"))
    places = {"JUPYTER_RUNTIME_DIR": str(scratch / "runtime")}
    home = image.get("HOME", "")
    safe = bool(image.get("DS01_SAFE_START"))
    if not safe and not os.access(home, os.W_OK | os.X_OK):
        print(f"ds01: {home or 'HOME'} is not writable; settings are not kept", file=sys.stderr)
        safe = True
    if safe:
        places["JUPYTER_CONFIG_DIR"] = str(scratch / "config")
        places["JUPYTER_DATA_DIR"] = str(scratch / "data")
        places["IPYTHONDIR"] = str(scratch / "ipython")
    return places


def server_settings(image: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which we set up the server."""
    server = dict(settings)
    server["JUPYTERHUB_ROOT_DIR"] = image.get("JUPYTERHUB_ROOT_DIR") or os.getcwd()
    if "JUPYTER_CONFIG_DIR" in settings:
        server["JUPYTERHUB_DISABLE_USER_CONFIG"] = "1"
    # Which tabs are open belongs to a project, and all projects share the home.
    config = settings.get("JUPYTER_CONFIG_DIR") or f"{image.get('HOME', '')}/.jupyter"
    project = image.get("DS01_PROJECT") or "default"
    server["JUPYTERLAB_WORKSPACES_DIR"] = f"{config}/lab/workspaces/{project}"
    return server


def look(image: Mapping[str, str], settings: Mapping[str, str]) -> Handover:
    """Find the image's Python, and make the overlay in which users install packages."""
    place = overlay.place()
    if place != overlay.TEMPORARY:
        print(f"ds01: {overlay.TEMPORARY} is not usable; packages go to {place}", file=sys.stderr)
    user = environment.user_environment(image, settings)
    found, reason, user = find(user)
    python = found
    if python is None or reason:
        print(f"ds01: notebooks run on the runtime's Python: {reason}", file=sys.stderr)
        python = interpreter.runtime(environment.for_runtime_python(user))
    in_terminals = found or python
    if overlay.can_have(in_terminals):
        overlay.make(place, in_terminals)
        user = environment.with_overlay(user, str(place))
    root = place if in_terminals is python else place / overlay.FOR_RUNTIME
    overlay.make(root, python)
    return Handover(
        user=user,
        server_names=(),  # not known yet
        python=python,
        overlay=str(root),
        place=str(place),
        notice=reason,
    )


def find(user: dict[str, str]) -> tuple[Interpreter | None, str, dict[str, str]]:
    """Return the image's Python, why notebooks cannot run on it, and the environment it needs.

    An image may set PYTHONHOME or a PYTHONPATH with which its own Python does not start.
    """
    found, reason = interpreter.choose(user)
    if found is not None:
        return found, reason, user
    without = environment.for_runtime_python(user)
    found, reason_without = interpreter.choose(without)
    return found, reason if found is None else reason_without, without


def jupyter_path(handover: Handover) -> str:
    """Return where kernels and extensions of the image lie; the runtime's own come after these."""
    python = handover.python
    roots = [handover.place, python.prefix, python.base_prefix, "/usr/local", "/usr"]
    own = [root for root in dict.fromkeys(roots) if root != str(MOUNT)]
    return os.pathsep.join(f"{root}/share/jupyter" for root in own)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # such as a full disk
        sys.exit(f"ds01: the server cannot be set up: {error}")
