"""A finished image, tried: a notebook's kernel starts in it and imports what was asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors

from .. import engine, image_volumes, runtime
from ..containers import WORKSPACE, Image, Mount, environment
from ..engine import Docker
from ..errors import Refused
from ..names import login_name
from . import shelf

_LOG = logging.getLogger(__name__)

#: On a container that only tries an image.
LABEL = "ds01.image.check"
_COMMAND = [f"{runtime.MOUNT}/bin/python3", "-I", "-X", "utf8", "-m", "ds01_launch.check"]
_LARGEST_REPORT = 2 * 1024**2
#: Places to write to, as a server has them; /tmp is the home too.
_WRITABLE = ("/tmp", "/var/tmp", WORKSPACE, runtime.TEMPORARY)
#: In each of them at most; all together count as the container's memory.
_WRITABLE_BYTES = 1024**3

_removals: set[asyncio.Task[None]] = set()


class CheckFailed(Exception):
    """An image that could not be tried; the text is for its owner."""


@dataclass(frozen=True)
class Imported:
    """How the import of one package went; `needs_gpu` if only NVIDIA's driver was missing."""

    package: str
    ok: bool
    error: str = ""
    needs_gpu: bool = False


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes
    ----------
    kernel
        ``ok``, or why none starts.
    packages
        All Python packages -> version.
    """

    kernel: str
    imports: tuple[Imported, ...]
    packages: Mapping[str, str]


@dataclass(frozen=True)
class Room:
    """What the container of a check may use: limits in the units of `policy.Limits`.

    Attributes
    ----------
    hub_id
        Whose check it is.
    """

    hub_id: str
    cgroup_parent: str
    memory_bytes: int
    cpus: float
    pids: int
    seconds: float


async def check_image(
    docker_call: Docker, image_id: str, packages: tuple[str, ...], uid: int, room: Room
) -> Report:
    """Try an image as a server of its owner's would use it, without network and without GPU.

    Raises
    ------
    CheckFailed
        If it gave no answer, or no server could start from it.
    """
    image = Image.from_inspect(image_id, await docker_call("inspect_image", image_id))
    _check_volumes(image)
    nonce = secrets.token_hex(16)
    # What is printed is the image's to choose as well; it does not know this.
    request = json.dumps({"packages": packages, "nonce": nonce, "seconds": room.seconds})
    name, start = f"ds01-check-{nonce[:12]}", secrets.token_hex(8)
    body = _body(image, uid, room, request, start)
    creating = asyncio.ensure_future(engine.create(docker_call, name, body, start))
    try:
        container = await asyncio.shield(creating)
        await _start(docker_call, container)
        return await _report(docker_call, container, nonce, room.seconds)
    finally:
        await _let_go(docker_call, creating, name, start)


def _check_volumes(image: Image) -> None:
    """See that servers start from an image with its volumes, also those of what it stands on.

    Raises
    ------
    CheckFailed
        If they would not.
    """
    owner = image.labels.get(shelf.OWNER)
    home = f"/home/{login_name(owner)}" if owner else "/home"
    for place in image.volumes:
        try:
            image_volumes.check(image.reference, [place], home)
        except Refused:
            raise CheckFailed(
                f"The image was built, but no server starts from it: a volume at {place!r:.80} "
                "would hide your files, or what a server needs. Take this VOLUME out, or choose "
                "another base if it is not yours."
            ) from None
    try:
        image_volumes.check(image.reference, image.volumes, home)
    except Refused:
        raise CheckFailed(
            f"The image was built, but no server starts from it: {len(image.volumes)} volumes are "
            "too many, those of what it stands on among them. Take VOLUMEs out."
        ) from None


def _body(image: Image, uid: int, room: Room, request: str, start: str) -> dict[str, Any]:
    """Return the body of Docker's request to create the container, except its name.

    Nothing that runs in it reaches the disk: what can be written to is in memory, which is the
    container's own and limited.
    """
    volumes = [place for place in image.volumes if place != runtime.MOUNT]
    # A volume of ours for each of the image's, or the engine would make one and copy what lies
    # there, which is the whole image where a link leads to it. Memory then comes in its place.
    mounts = [Mount(runtime.volume_name(), runtime.MOUNT, read_only=True)]
    mounts += [Mount("", place) for place in volumes]
    # Packages may compile something when they are first imported, and load it: no "noexec".
    options = f"rw,exec,nosuid,nodev,size={_WRITABLE_BYTES},mode=1777,uid={uid},gid={uid}"
    return {
        "Image": image.reference,
        "User": f"{uid}:{uid}",
        "Entrypoint": _COMMAND,
        "Cmd": [request],
        "WorkingDir": "/tmp",
        "Healthcheck": {"Test": ["NONE"]},
        "Env": [f"{k}={v}" for k, v in environment(image, {"HOME": "/tmp"}).items()],
        "Labels": {
            **dict.fromkeys(image.labels, ""),
            LABEL: room.hub_id,
            "ds01.managed": "true",
            "ds01.start": start,
        },
        "NetworkDisabled": True,
        "HostConfig": {
            "CgroupParent": room.cgroup_parent,
            "Memory": room.memory_bytes,
            "MemorySwap": room.memory_bytes,
            "NanoCpus": round(room.cpus * 1e9),
            "PidsLimit": room.pids,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Init": True,
            "Runtime": "runc",
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "Mounts": [mount.as_docker() for mount in mounts],
            "Tmpfs": dict.fromkeys((*_WRITABLE, *volumes), options),
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "1"}},
        },
    }


async def _start(docker_call: Docker, container: str) -> None:
    try:
        await docker_call("start", container)
    except docker.errors.APIError as error:
        why = " ".join(str(error.explanation or error).split())
        raise CheckFailed(
            f"The image was built, but no container of it starts: {why[-300:]}"
        ) from error


async def _report(docker_call: Docker, name: str, nonce: str, seconds: float) -> Report:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds + 30
    while (await docker_call("inspect_container", name))["State"]["Running"]:
        if loop.time() > deadline:
            raise CheckFailed(f"The image was built, but no notebook ran in it in {seconds:.0f} s.")
        await asyncio.sleep(0.2)
    printed: bytes = await docker_call("logs", name, stdout=True, stderr=False)
    for line in reversed(printed[-_LARGEST_REPORT:].decode("utf-8", "replace").splitlines()):
        if line.startswith(nonce):
            return _read(json.loads(line.removeprefix(nonce)))
    said = (await docker_call("logs", name, stdout=False, stderr=True, tail=5)).decode(
        "utf-8", "replace"
    )
    raise CheckFailed(
        f"The image was built, but nothing starts in it: {' '.join(said.split())[-300:]}"
    )


def _read(found: Mapping[str, Any]) -> Report:
    return Report(
        kernel=str(found["kernel"]),
        imports=tuple(
            Imported(i["package"], i["ok"], i.get("error", ""), i.get("needs_gpu", False))
            for i in found["imports"]
        ),
        packages={str(name): str(version) for name, version in found["packages"].items()},
    )


async def _let_go(
    docker_call: Docker, creating: asyncio.Future[str], name: str, start: str
) -> None:
    """Remove the container; where that takes long, it goes on in the background."""
    removing = asyncio.ensure_future(_remove(docker_call, creating, name, start))
    _removals.add(removing)
    removing.add_done_callback(_removals.discard)
    await asyncio.wait({removing}, timeout=engine.PATIENCE_S)


async def _remove(
    docker_call: Docker, creating: asyncio.Future[str], name: str, start: str
) -> None:
    """Remove the container until it is gone.

    The engine makes a container also for who does not wait for its answer any more, and lists it
    only when it is done. So one that may still come is looked for.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + engine.LONG_PATIENCE_S, 0.1
    (made,) = await asyncio.gather(creating, return_exceptions=True)
    may_come = isinstance(made, BaseException) and _says_nothing(made)
    while loop.time() < deadline:
        try:
            found = await engine.inspect(docker_call, name)
            if found is not None and found["Config"]["Labels"].get("ds01.start") == start:
                may_come = False
                await engine.remove_once(docker_call, found["Id"])
            elif not may_come:
                return
        except engine.UNREACHABLE as error:
            _LOG.info("%s cannot be removed at the moment: %s", name, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 10.0)
    _LOG.warning("%s may still be there: it did not go in an hour", name)


def _says_nothing(error: BaseException) -> bool:
    """Tell whether a create that ended so may still give a container."""
    # 409: the name is taken, by this very create.
    is_taken = isinstance(error, docker.errors.APIError) and error.status_code == 409
    return is_taken or isinstance(error, Refused) or engine.is_silent(error)
