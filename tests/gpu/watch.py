"""Somebody who looks all the time whether two containers hold the same device."""

from __future__ import annotations

import threading
from typing import Any

import docker


def held(client: docker.APIClient) -> dict[str, list[str]]:
    """Return the devices that containers hold by their labels: UUID -> the containers' names."""
    holders: dict[str, list[str]] = {}
    for container in client.containers(all=True):
        labels = container["Labels"] or {}
        if "ds01.hub" in labels:
            for uuid in filter(None, labels.get("ds01.gpu.uuids", "").split(",")):
                holders.setdefault(uuid, []).append(_name(container))
    return holders


def attached(client: docker.APIClient, container: str) -> set[str]:
    """Return the devices that the engine was asked to attach to a container."""
    found: dict[str, Any] = client.inspect_container(container)
    requests = found["HostConfig"]["DeviceRequests"] or []
    return {uuid for request in requests for uuid in request["DeviceIDs"]}


class Watch:
    """Looks again and again until it is left, and fails then if it ever saw a device twice."""

    def __init__(self) -> None:
        self._client = docker.from_env().api
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.twice: dict[str, list[str]] = {}
        self.looks = 0
        self.most = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.twice, f"held twice: {self.twice}"
        assert self.looks, "nobody looked"

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            now = held(self._client)
            self.looks += 1
            self.most = max(self.most, len(now))
            self.twice.update({uuid: names for uuid, names in now.items() if len(names) > 1})


def _name(container: dict[str, Any]) -> str:
    return str(container["Names"][0]).lstrip("/") if container["Names"] else container["Id"]
