"""Building the runtime, and keeping its versions as volumes of the engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from .. import buildkit
from ..buildkit import BuildError, Log
from . import CONTEXT, MOUNT, version, volume_name

#: On the image and the volume of each version.
LABEL = "ds01.runtime"
#: Written into a volume by ``ds01_launch.fill`` when everything else is there.
MARK = ".complete"
#: How long somebody else's copy into the same volume may take.
FILL_SECONDS = 600
#: How long a container may lie between its creation and its start.
START_SECONDS = 30

_TARGET = "/target"
_FILL = [f"{MOUNT}/bin/python3", "-I", "-m", "ds01_launch.fill", _TARGET]


@dataclass(frozen=True)
class Runtime:
    """A version of the runtime on this engine.

    Attributes
    ----------
    containers
        Names of the containers that use it, running or not.
    current
        Whether servers that start now get this one.
    """

    volume: str
    created: str
    containers: tuple[str, ...]
    current: bool


def build(
    client: DockerClient, base_image: str, ca_bundle: Path | None = None, log: Log = print
) -> str:
    """Make sure that the current version is there.

    Parameters
    ----------
    client
        The engine.
    base_image
        A Debian 12 that the runtime's parts are taken from.
    ca_bundle
        Certificates that the package registries need here; not part of the result.
    log
        Called with each line that the build prints.

    Returns
    -------
    str
        The name of the volume; it is complete.

    Raises
    ------
    BuildError
        If the image cannot be built, or the volume cannot be filled.
    """
    volume, image = volume_name(), f"ds01/runtime:{version()}"
    try:
        if is_complete(client, volume, image):
            return volume
        with buildkit.site_secrets(ca_bundle) as secrets:
            buildkit.build(
                CONTEXT,
                image,
                labels={LABEL: version()},
                secrets=secrets,
                arguments={"BASE": base_image},
                log=log,
            )
        log(f"Copying the runtime into the volume {volume}.")
        fill(client, volume, image)
    except DockerException as error:
        raise BuildError(f"The runtime's volume {volume} cannot be made: {error}") from error
    return volume


def is_complete(client: DockerClient, volume: str, image: str) -> bool:
    """Return whether a volume is there and was filled to the end."""
    try:
        client.volumes.get(volume)
        client.images.get(image)
    except (NotFound, ImageNotFound):
        return False
    # A container that never runs: it only lets the engine read the volume.
    reader = client.containers.create(image, _FILL, volumes=[f"{volume}:{_TARGET}:ro"])
    try:
        reader.get_archive(f"{_TARGET}/{MARK}")
    except NotFound:
        return False
    finally:
        reader.remove()
    return True


def fill(client: DockerClient, volume: str, image: str) -> None:
    """Copy the image's tree into the volume; the mark comes last, so half a copy is none."""
    client.volumes.create(volume, labels={LABEL: version()})
    filler = _only_filler(client, volume, image)
    if filler is None:
        return
    try:
        filler.start()
        code = filler.wait(timeout=FILL_SECONDS)["StatusCode"]
        if code != 0:
            lines = filler.logs().decode(errors="replace").strip()
            raise BuildError(f"The runtime's volume {volume} cannot be filled: {lines}")
    finally:
        with _gone_is_fine():
            filler.remove(force=True)


def _only_filler(client: DockerClient, volume: str, image: str) -> Container | None:
    """Return a container to fill the volume; None if somebody else has just filled it."""
    deadline = time.monotonic() + FILL_SECONDS
    while time.monotonic() < deadline:
        try:
            return client.containers.create(
                image, _FILL, name=f"{volume}-fill", volumes=[f"{volume}:{_TARGET}"]
            )
        except APIError as error:
            if error.status_code != 409:  # the name is taken: a fill is going on, or broke off
                raise
        _wait_for_other(client, f"{volume}-fill")
        if is_complete(client, volume, image):
            return None
    raise BuildError(f"Somebody else's copy into {volume} does not end.")


def _wait_for_other(client: DockerClient, name: str) -> None:
    """Wait until a fill has ended, and remove what one left whose starter is gone."""
    given_up = time.monotonic() + START_SECONDS
    with _gone_is_fine():
        other = client.containers.get(name)
        while other.status == "created" and time.monotonic() < given_up:
            time.sleep(0.2)
            other.reload()
        if other.status == "running":
            other.wait(timeout=FILL_SECONDS)
        other.remove(force=True)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """Ignore that a container is gone already, or is just being removed by somebody else."""
    try:
        yield
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


def list_runtimes(client: DockerClient) -> list[Runtime]:
    """Return the versions on this engine, the newest first."""
    used: dict[str, list[str]] = {}
    for container in client.containers.list(all=True, ignore_removed=True):
        for mount in container.attrs["Mounts"]:
            used.setdefault(mount.get("Name", ""), []).append(container.name)
    found = [
        Runtime(
            volume=volume.name,
            created=volume.attrs["CreatedAt"],
            containers=tuple(sorted(used.get(volume.name, ()))),
            current=volume.name == volume_name(),
        )
        for volume in client.volumes.list(filters={"label": LABEL})
    ]
    return sorted(found, key=lambda runtime: runtime.created, reverse=True)


def prune(client: DockerClient) -> list[str]:
    """Remove the versions that nothing uses, except the current one; return their names."""
    removed = []
    for runtime in list_runtimes(client):
        if runtime.current or runtime.containers:
            continue
        try:
            client.volumes.get(runtime.volume).remove()
        except APIError as error:
            if error.status_code not in (404, 409):  # gone already, or a container came in between
                raise
            continue
        _remove_image(client, runtime.volume)
        removed.append(runtime.volume)
    return removed


def _remove_image(client: DockerClient, volume: str) -> None:
    with contextlib.suppress(ImageNotFound):
        client.images.remove(f"ds01/runtime:{volume.rpartition('-')[2]}")
