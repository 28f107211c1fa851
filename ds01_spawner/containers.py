"""From one request to the exact container that Docker is asked for. Pure functions.

Everything an image could bring along to act by itself (entrypoint, command, user, stop signal,
health check, labels, certain variables) is set here for every container, whatever the image says.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import runtime
from .accounts import Account

WORKSPACE = "/workspace"
CA_BUNDLE = "/etc/ds01/ca-certificates.crt"

#: The image's values of these never reach a container: they ask the NVIDIA toolkit for GPUs, load
#: code into every process, or speak to the Hub and to our launcher in our name.
FORBIDDEN_ENV = (
    "NVIDIA_*",
    "DOCKER_RESOURCE_*",
    "LD_PRELOAD",
    "LD_AUDIT",
    "JUPYTERHUB_*",
    "JPY_*",
    "DS01_*",
)

#: Given back to kernels and terminals by the launcher, under another name until then.
HANDED_OVER = {"LD_PRELOAD": "DS01_IMAGE_LD_PRELOAD", "LD_AUDIT": "DS01_IMAGE_LD_AUDIT"}

#: How programs are told where certificates are.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """What Docker says of an image: its `reference`, `env`, `labels` and places of `volumes`."""

    reference: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    volumes: tuple[str, ...] = ()

    def without_volumes_at(self, targets: Collection[str]) -> Image:
        """Return the image without those volumes in whose place we mount something."""
        return replace(self, volumes=tuple(v for v in self.volumes if v not in targets))

    @classmethod
    def from_inspect(cls, reference: str, inspected: Mapping[str, Any]) -> Image:
        """Read an image's inspection."""
        config = inspected["Config"] or {}
        pairs = (line.partition("=") for line in config.get("Env") or [])
        env = {key: value for key, _, value in pairs}
        volumes = {_cleaned(place) for place in config.get("Volumes") or {}}
        return cls(reference, env, config.get("Labels") or {}, tuple(sorted(volumes)))


@dataclass(frozen=True)
class Hardening:
    """What keeps a server in its container; the spawner's traits of these names loosen it."""

    cap_add: tuple[str, ...] = ()
    no_new_privileges: bool = True
    oci_runtime: str = "runc"


@dataclass(frozen=True)
class Mount:
    """A host directory or file, or a volume if `source` is no path, at `target`.

    A volume without a name is new and empty, and is removed with its container.
    """

    source: str
    target: str
    read_only: bool = False

    def as_docker(self) -> dict[str, Any]:
        """Return Docker's form, which fails on a missing source where the older one makes it."""
        kind = "bind" if self.source.startswith("/") else "volume"
        mount: dict[str, Any] = {
            "Type": kind,
            "Source": self.source,
            "Target": self.target,
            "ReadOnly": self.read_only,
        }
        if kind == "volume":
            # An empty volume would otherwise be filled from the image's files at that place.
            mount["VolumeOptions"] = {"NoCopy": True}
        return mount


@dataclass(frozen=True)
class Plan:
    """All that decides what a server's container is.

    Attributes
    ----------
    name, hostname
        The container's name, and the name that its processes see.
    cpus, memory_bytes, memory_swap_bytes, shm_bytes, pids
        Limits, in the units of `policy.Limits`.
    env
        Variables for the server; they win over the image's.
    labels
        Our labels; the image's are emptied.
    network
        Docker network.
    log_bytes
        Largest size of one of the two log files.
    cgroup_parent
        The cgroup above the container's own, as the engine's cgroup driver wants it; empty leaves
        it to the engine.
    """

    name: str
    hostname: str
    image: Image
    account: Account
    cpus: float
    memory_bytes: int
    memory_swap_bytes: int
    shm_bytes: int
    pids: int
    env: Mapping[str, str]
    labels: Mapping[str, str]
    mounts: tuple[Mount, ...]
    network: str
    hardening: Hardening
    log_bytes: int
    cgroup_parent: str = ""


def _cleaned(place: str) -> str:
    """Write a path as the engine does, which compares mounts' places as text."""
    return posixpath.normpath(f"/{place.lstrip('/')}") if place.startswith("/") else place


def home_in_container(account: Account) -> str:
    """Return ``$HOME`` inside the container."""
    return f"/home/{account.login}"


def server_mounts(
    account: Account, workspace: Path, runtime_volume: str, ca_bundle: Path | None
) -> tuple[Mount, ...]:
    """Return the mounts that every server has."""
    mounts = [
        Mount(runtime_volume, runtime.MOUNT, read_only=True),
        Mount(str(workspace), WORKSPACE),
        Mount(str(account.home), home_in_container(account)),
    ]
    if ca_bundle is not None:
        mounts.append(Mount(str(ca_bundle), CA_BUNDLE, read_only=True))
    return tuple(mounts)


def environment(image: Image, env: Mapping[str, str]) -> dict[str, str]:
    """Return the container's own variables: `env`, and an answer to each forbidden one.

    Docker starts from the image's ENV and lets these override it; a variable cannot be taken
    away, so a forbidden one is emptied.
    """
    emptied = {
        key: ""
        for key in image.env
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in FORBIDDEN_ENV)
    }
    handed = {HANDED_OVER[key]: image.env[key] for key in HANDED_OVER if image.env.get(key)}
    return {
        "PATH": image.env.get("PATH") or DEFAULT_PATH,
        "LANG": image.env.get("LANG") or "C.UTF-8",
        **emptied,
        **handed,
        **env,
        # "void" and not "none": with the NVIDIA runtime as the engine's default, only this one
        # gives no device and no driver files.
        "NVIDIA_VISIBLE_DEVICES": "void",
    }


def ca_environment() -> dict[str, str]:
    """Return the variables that name the site's certificates."""
    return dict.fromkeys(CA_VARIABLES, CA_BUNDLE)


def create_arguments(plan: Plan) -> dict[str, Any]:
    """Return the body of Docker's request to create the container, except its name.

    Source: Docker Engine API 1.41, ``POST /containers/create``.
    """
    return {
        "Image": plan.image.reference,
        "Hostname": plan.hostname,
        "User": f"{plan.account.uid}:{plan.account.gid}",
        "Entrypoint": list(runtime.COMMAND),
        "Cmd": [],
        "WorkingDir": WORKSPACE,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Env": [f"{key}={value}" for key, value in environment(plan.image, plan.env).items()],
        "Labels": {**dict.fromkeys(plan.image.labels, ""), **plan.labels},
        "HostConfig": _host_config(plan),
        "NetworkingConfig": {"EndpointsConfig": {plan.network: {}}},
    }


def _host_config(plan: Plan) -> dict[str, Any]:
    hardening = plan.hardening
    return {
        "CgroupParent": plan.cgroup_parent,
        "Memory": plan.memory_bytes,
        "MemorySwap": plan.memory_swap_bytes,
        "NanoCpus": round(plan.cpus * 1e9),
        "PidsLimit": plan.pids,
        "ShmSize": plan.shm_bytes,
        "CapDrop": ["ALL"],
        "CapAdd": list(hardening.cap_add),
        "SecurityOpt": ["no-new-privileges:true"] if hardening.no_new_privileges else [],
        "GroupAdd": [str(gid) for gid in plan.account.groups],
        "Init": True,
        "Runtime": hardening.oci_runtime,
        "NetworkMode": plan.network,
        "Mounts": [mount.as_docker() for mount in plan.mounts],
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(plan.log_bytes), "max-file": "2"},
        },
    }
