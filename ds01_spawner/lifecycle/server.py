"""A server that runs, as the service sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..names import project_of
from .hub import HubServer
from .meters import Watched


@dataclass(frozen=True)
class Server:
    """A server that runs: the Hub's and Docker's view of it together.

    Attributes
    ----------
    address
        Where its notebook server answers, with a slash at the end; empty if that is not known.
    token
        Its own, which its owner has as well: what answers may be any program of theirs.
    gpu_weight
        What it holds, in GPU equivalents.
    """

    hub: HubServer
    watched: Watched
    address: str
    token: str = field(default="", repr=False)
    gpu_weight: float = 0.0

    @property
    def project(self) -> str:
        """The project that it works on."""
        return project_of(self.hub.name)

    @property
    def label(self) -> str:
        """What it is called in the log."""
        return f"{self.hub.user}/{self.project}"


def server_of(hub: HubServer, inspected: Mapping[str, Any]) -> Server:
    """Return a server, by the inspection of its container."""
    labels = inspected["Config"]["Labels"]
    networks = inspected["NetworkSettings"]["Networks"].values()
    ip = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")
    # What JupyterHub tells a server of where to listen.
    variables = dict(line.partition("=")[::2] for line in inspected["Config"]["Env"])
    told = urlsplit(variables.get("JUPYTERHUB_SERVICE_URL", ""))
    return Server(
        hub=hub,
        watched=Watched(
            container_id=inspected["Id"],
            pid=int(inspected["State"]["Pid"]),
            cpus=inspected["HostConfig"]["NanoCpus"] / 1e9 or 1.0,
            gpu_uuids=tuple(filter(None, labels.get("ds01.gpu.uuids", "").split(","))),
        ),
        address=f"http://{ip}:{told.port}{told.path}" if ip and told.port else "",
        token=variables.get("JUPYTERHUB_API_TOKEN", ""),
        gpu_weight=float(labels.get("ds01.gpu.allocated") or 0),
    )
