"""Two environments out of the one that a container starts with.

An image's variables are for the image's programs: they may name libraries, Python modules or
settings that the notebook server must not load. So the server gets the few it needs, and kernels
and terminals get all of the image's back.
"""

from collections.abc import Mapping, Sequence

from .places import COMMANDS

#: All that the server takes over of what it is started with.
SERVER_NAMES = frozenset(
    [
        *("HOME", "HOSTNAME", "LOGNAME", "PATH", "TZ", "USER"),
        *("CPU_GUARANTEE", "CPU_LIMIT", "MEM_GUARANTEE", "MEM_LIMIT"),
        *("CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        *("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"),
        *("all_proxy", "http_proxy", "https_proxy", "no_proxy"),
    ]
)
SERVER_PREFIXES = ("DS01_", "JUPYTERHUB_")
#: Would put another application in the server's place.
NOT_FOR_SERVER = ("DS01_IMAGE_", "JUPYTERHUB_SINGLEUSER_")

#: The spawner empties these for every process, and hands over what the image had in them.
PRELOADS = ("LD_PRELOAD", "LD_AUDIT")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def server_environment(image: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return what the server runs with: the few names it needs, and our settings."""
    kept = {
        name: value
        for name, value in image.items()
        if (name in SERVER_NAMES or name.startswith(SERVER_PREFIXES))
        and not name.startswith(NOT_FOR_SERVER)
    }
    return {**kept, "LANG": "C.UTF-8", **settings}


def user_environment(image: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return what kernels and terminals run with: the image's own variables, and our settings.

    Packages in the user's home are off: the home is shared by servers of different images.
    """
    user = {name: value for name, value in image.items() if not name.startswith("DS01_IMAGE_")}
    for name in PRELOADS:
        user.pop(name, None)
        original = image.get(f"DS01_IMAGE_{name}", "")
        if original:
            user[name] = original
    if not any(user.get(name) for name in ("LANG", "LC_ALL")):
        user["LANG"] = "C.UTF-8"
    user["PATH"] = f"{user.get('PATH') or DEFAULT_PATH}:{COMMANDS}"
    user |= {"PYTHONNOUSERSITE": "1", "PIP_USER": "0", "UV_SYSTEM_PYTHON": "0"}
    return {**user, **settings}


def entered(
    current: Mapping[str, str], server_names: Sequence[str], user: Mapping[str, str]
) -> dict[str, str]:
    """Return the user's environment, with what the server added for this one process.

    Parameters
    ----------
    current
        What the server gave the process: its own environment, and for example TERM on top.
    server_names
        The names in the server's environment when it started.
    user
        The environment made by `user_environment`.
    """
    added = {name: value for name, value in current.items() if name not in server_names}
    return {**user, **added}


def with_overlay(user: Mapping[str, str], overlay: str) -> dict[str, str]:
    """Return an environment in which the Python of an overlay comes first."""
    entries = [entry for entry in user["PATH"].split(":") if entry != f"{overlay}/bin"]
    path = ":".join([f"{overlay}/bin", *entries])
    return {**user, "PATH": path, "VIRTUAL_ENV": overlay}


def for_runtime_python(user: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for the runtime's Python: nothing meant for another Python."""
    return {
        name: value
        for name, value in user.items()
        if name not in PRELOADS and (not name.startswith("PYTHON") or name == "PYTHONNOUSERSITE")
    }
