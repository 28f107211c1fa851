"""Containers that do nothing but show what devices they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import docker

from ds01_spawner.images.bases import DEBIAN

LABEL = "ds01-test.gpu"


@contextmanager
def container(client: docker.APIClient, body: Mapping[str, Any]) -> Iterator[str]:
    """Create a container, and remove it in the end."""
    made = client.create_container_from_config({**body, "Labels": {LABEL: "1"}})["Id"]
    try:
        yield made
    finally:
        client.remove_container(made, v=True, force=True)


@contextmanager
def running(client: docker.APIClient, body: Mapping[str, Any]) -> Iterator[str]:
    """Create and start a container."""
    with container(client, body) as made:
        client.start(made)
        yield made


def asks(image: str = DEBIAN, env: Sequence[str] = (), **host: Any) -> dict[str, Any]:
    """Return a request for a container that waits, with this host configuration."""
    return {
        "Image": image,
        "Entrypoint": ["sleep"],
        "Cmd": ["600"],
        "User": "1234:1234",
        "Env": list(env),
        "HostConfig": {"CapDrop": ["ALL"], "NetworkMode": "none", "Init": True, **host},
    }


def pid_of(client: docker.APIClient, container_id: str) -> int:
    """Return the container's first process."""
    return int(client.inspect_container(container_id)["State"]["Pid"])


def seen(client: docker.APIClient, container_id: str) -> set[str]:
    """Return NVIDIA's devices as a program in the container sees them, without control nodes."""
    find = ["find", "/dev", "-type", "c", "-name", "nvidia*[0-9]", "-printf", "%P\\n"]
    handle = client.exec_create(container_id, find)
    return set(client.exec_start(handle["Id"]).decode().split())
