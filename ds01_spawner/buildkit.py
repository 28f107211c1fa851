"""Images built with BuildKit, through the command-line client that belongs to the engine.

The Docker SDK speaks only the old builder's protocol, which has neither secrets nor mounts.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

Log = Callable[[str], None]

#: The engine's own builder, also where somebody made another one the default of buildx.
ENVIRONMENT = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}

#: From this version on the client builds only through its plug-in buildx.
_FIRST_WITHOUT_BUILDKIT = 23
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_LINES_SHOWN_ON_FAILURE = 30
#: What of the machine's pip settings means something inside a build.
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")


class BuildError(RuntimeError):
    """An image that could not be built; the text says why and ends with the build's last lines."""


def build(
    context: Path,
    tag: str,
    *,
    labels: Mapping[str, str] | None = None,
    secrets: Mapping[str, Path] | None = None,
    arguments: Mapping[str, str] | None = None,
    log: Log = lambda line: None,
) -> None:
    """Build the Dockerfile in a directory and tag the image.

    The machine's proxy settings reach the build, and stay out of the image.

    Parameters
    ----------
    context
        Directory with a ``Dockerfile``.
    tag
        Name of the image.
    labels
        Put on the image.
    secrets
        Files for ``RUN --mount=type=secret,id=…``, by id; they never enter a layer.
    arguments
        Values for ``ARG``.
    log
        Called with each line of the build's output.

    Raises
    ------
    BuildError
        If there is no client that can build, or the build fails.
    """
    command = build_command(context, tag, labels or {}, secrets or {}, arguments or {})
    run_logged(command, f"Building {tag}", environment=ENVIRONMENT, log=log)


def build_command(
    context: Path,
    tag: str,
    labels: Mapping[str, str],
    secrets: Mapping[str, Path],
    arguments: Mapping[str, str],
    *more: str,
) -> list[str]:
    """Return the client's command for a build, to be run with `ENVIRONMENT`; see `build`.

    Parameters
    ----------
    more
        Further options.

    Raises
    ------
    BuildError
        If there is no client that can build.
    """
    command = [find_client(), "build", "--progress=plain", "--tag", tag, *more]
    for key, value in labels.items():
        command += ["--label", f"{key}={value}"]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    for name in _PROXIES:
        if name in os.environ:
            command += ["--build-arg", name]
    for key, path in secrets.items():
        command += ["--secret", f"id={key},src={path}"]
    return [*command, str(context)]


def run_logged(
    command: Sequence[str], what: str, *, environment: Mapping[str, str], log: Log
) -> None:
    """Run a command and pass on each line while it comes.

    Parameters
    ----------
    command
        The program and its arguments; it reads nothing.
    what
        Begins the message of a failure, such as ``Building ds01/debian:12``.
    environment
        Variables beside this process's own.
    log
        Called with each line of the output.

    Raises
    ------
    BuildError
        If it cannot be started or fails; with the last lines of its output.
    """
    last: deque[str] = deque(maxlen=_LINES_SHOWN_ON_FAILURE)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        )
    except OSError as error:
        raise BuildError(f"{what} failed: {error}") from error
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip("\n"))
            log(last[-1])
    if process.returncode != 0:
        raise BuildError(f"{what} failed; the end of its output:\n" + "\n".join(last))


@contextmanager
def site_secrets(ca_bundle: Path | None, index: str = "") -> Iterator[dict[str, Path]]:
    """Give builds what they need to reach this site's package registries.

    Parameters
    ----------
    ca_bundle
        Certificates, where the images' own do not do.
    index
        The package index; by default the one that this machine's pip uses.

    Yields
    ------
    dict
        Secrets for `build`: ``ca``, the certificates, if there is a bundle; ``pip``, a
        ``pip.conf`` with the index that this machine's pip uses.
    """
    with tempfile.TemporaryDirectory(prefix="ds01-build-") as directory:
        pip = Path(directory) / "pip.conf"
        settings = {"index-url": index} if index else _pip_settings()
        if ca_bundle is not None:
            settings["cert"] = "/run/secrets/ca"
        lines = [f"{key} = {value}" for key, value in settings.items() if value]
        pip.write_text("\n".join(["[global]", *lines, ""]), "utf-8")
        secrets = {"pip": pip}
        if ca_bundle is not None:
            secrets["ca"] = ca_bundle
        yield secrets


@cache
def find_client() -> str:
    """Return the path of a ``docker`` that can build with BuildKit, the first on PATH.

    Raises
    ------
    BuildError
        If there is none.
    """
    found = []
    for directory in os.get_exec_path():
        path = shutil.which("docker", path=directory)
        if path is None or path in found:
            continue
        found.append(path)
        if _can_build(path):
            return path
    if not found:
        raise BuildError("There is no docker client here; install the package docker.io.")
    raise BuildError(
        f"The docker client {found[0]} cannot build with BuildKit; install the package "
        "docker-buildx (docker-buildx-plugin, if Docker came from its makers)."
    )


def content_hash(directory: Path, *more: str) -> str:
    """Return a hash of a directory's files, names and modes (no bytecode), and of further texts."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            executable = os.access(path, os.X_OK)
            digest.update(f"{path.relative_to(directory)}\0{executable}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    for text in more:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def _pip_settings() -> dict[str, str]:
    settings: dict[str, str] = {}
    # The list has files first and the environment last, which wins with pip too.
    listed = _output(sys.executable, "-m", "pip", "config", "list")
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in _PIP_SETTINGS:
            # A local directory is not there inside a build.
            words = [word for word in ast.literal_eval(value).split() if "file://" not in word]
            settings[key] = " ".join(words)
    return settings


def _can_build(client: str) -> bool:
    version = _output(client, "version", "--format", "{{.Client.Version}}")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _FIRST_WITHOUT_BUILDKIT:
        return True
    return _output(client, "buildx", "version") != ""


def _output(*command: str) -> str:
    """Return what a command prints, also when it ends with an error: no engine, say."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
