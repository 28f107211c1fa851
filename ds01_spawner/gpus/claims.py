"""What a container has of the GPUs, in its own words, from the engine's inspection. No I/O here."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Low-level runtimes without an eye for NVIDIA's variables.
_PLAIN_RUNTIMES = frozenset(
    {"runc", "crun", "youki", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}
)

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
#: What Swarm calls its resources in a container; the toolkit can be told to read one of them.
_RESOURCE = "DOCKER_RESOURCE_"
#: Where a container lists its devices as mounts of /dev/null, for NVIDIA's toolkit.
MOUNT_LIST = "/var/run/nvidia-container-devices"
#: More than any machine has; beyond that a number means all the same.
_MOST_GPUS = 256
CDI_ANNOTATION = "cdi.k8s.io/"


@dataclass(frozen=True)
class Request:
    """One of Docker's device requests: ``docker run --gpus`` or ``--device nvidia.com/gpu=…``."""

    driver: str
    count: int
    ids: tuple[str, ...]

    @classmethod
    def from_inspect(cls, request: Mapping[str, Any]) -> Request:
        """Read a ``DeviceRequests`` entry."""
        return cls(
            driver=request.get("Driver") or "",
            count=request.get("Count") or 0,
            ids=tuple(request.get("DeviceIDs") or ()),
        )

    @property
    def by_nvidia(self) -> bool:
        """Whether NVIDIA's hook serves it, so that Docker sets the variable for the hook."""
        return self.driver in ("", "nvidia")

    def words(self) -> tuple[str, ...]:
        """Return the devices; a number of them means the first by index, as Docker counts."""
        if self.driver == "amd":
            return ()
        if self.driver not in ("", "nvidia", "cdi"):
            return (f"driver {self.driver}",)
        if self.count < 0 or (self.count == 0 and not self.ids and self.by_nvidia):
            return ("all",)
        return (*map(str, range(min(self.count, _MOST_GPUS))), *self.ids)


@dataclass(frozen=True)
class Claims:
    """What a container was created with, of all that can give it a GPU.

    Attributes
    ----------
    runtime
        The engine's name of the OCI runtime; empty for the engine's default.
    requests
        Docker's device requests.
    variables
        Environment variables that speak of GPUs.
    nodes
        Device nodes of the host, and Docker's rules for devices.
    listed
        Devices listed as mounts or annotations, which the NVIDIA runtime reads.
    """

    runtime: str
    requests: tuple[Request, ...]
    variables: Mapping[str, str]
    nodes: tuple[str, ...]
    listed: tuple[str, ...]

    @classmethod
    def from_inspect(
        cls, inspected: Mapping[str, Any], real_path: Callable[[str], str] = str
    ) -> Claims:
        """Read what never changes in a container's inspection.

        Parameters
        ----------
        real_path
            Follows links on the host, as the engine does when the container starts.
        """
        host = inspected["HostConfig"]
        annotations = host.get("Annotations") or {}
        return cls(
            runtime=host.get("Runtime") or "",
            requests=tuple(map(Request.from_inspect, host.get("DeviceRequests") or [])),
            variables=_variables(inspected["Config"].get("Env") or []),
            nodes=(
                *(_node(entry, real_path) for entry in host.get("Devices") or []),
                *(host.get("DeviceCgroupRules") or []),
            ),
            listed=(
                *_listed_as_mounts(inspected.get("Mounts") or []),
                *(annotations[key] for key in annotations if key.startswith(CDI_ANNOTATION)),
            ),
        )

    def words(self, runtimes: Runtimes) -> tuple[str, ...]:
        """Return the names of all devices that it has, beside its `nodes`: see `notation.Names`."""
        hooked = any(request.by_nvidia for request in self.requests)
        words = [word for request in self.requests for word in request.words()]
        if runtimes.heeds_nvidia(self.runtime):
            # Docker adds its own value last, where its request goes through NVIDIA's hook.
            words += [] if hooked else self._visible()
            hooked = True
        if hooked:
            words += [v for name, v in self.variables.items() if name.startswith(_RESOURCE)]
            words += self.listed
        return tuple(words)

    def _visible(self) -> list[str]:
        visible = self.variables.get(VISIBLE)
        if visible is None:
            # NVIDIA's first images had no such variable: what has CUDA gets every GPU.
            return ["all"] if "CUDA_VERSION" in self.variables else []
        return [] if visible.rstrip("/") == MOUNT_LIST else [visible]


@dataclass(frozen=True)
class Runtimes:
    """The engine's OCI runtimes: name -> what is run for it, and the default's name."""

    programs: Mapping[str, tuple[str, ...]]
    default: str = "runc"

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Runtimes:
        """Read the engine's own description."""
        described = info.get("Runtimes") or {}
        return cls(
            {name: _programs(entry) for name, entry in described.items()},
            info.get("DefaultRuntime") or "runc",
        )

    def heeds_nvidia(self, runtime: str) -> bool:
        """Tell whether a runtime may give GPUs because of variables; an unknown one may."""
        name = runtime or self.default
        programs = self.programs.get(name) or (name,)
        return self.is_nvidias(name) or not all(
            posixpath.basename(program) in _PLAIN_RUNTIMES for program in programs
        )

    def is_nvidias(self, runtime: str) -> bool:
        """Tell whether a runtime is one of the NVIDIA toolkit's, by its name or its program."""
        named = (runtime, *self.programs.get(runtime, ()))
        return any("nvidia" in name for name in named)


def _programs(entry: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what an entry of the engine's runtimes names: a path, a shim, the shim's program."""
    entry = entry or {}
    named = (
        entry.get("path"),
        entry.get("runtimeType"),
        (entry.get("options") or {}).get("BinaryName"),
    )
    return tuple(program for program in named if program)


def _node(entry: Mapping[str, str], real_path: Callable[[str], str]) -> str:
    """Return the host's node that a container has; a pretended one is /dev/null by its name."""
    on_host = real_path(entry["PathOnHost"])
    return entry["PathInContainer"] if on_host == "/dev/null" else on_host


def _variables(lines: list[str]) -> dict[str, str]:
    """Return those of a container's variables that count; the last of a name wins."""
    variables: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if name not in (VISIBLE, "CUDA_VERSION") and not name.startswith(_RESOURCE):
            continue
        if equals:
            variables[name] = value
        else:
            # A name alone takes the variable away.
            variables.pop(name, None)
    return variables


def _listed_as_mounts(mounts: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the devices that mounts of /dev/null name; an image's volume there names none."""
    words = []
    for mount in mounts:
        folder, _, name = str(mount.get("Destination")).partition(f"{MOUNT_LIST}/")
        if folder or not name or mount.get("Source") != "/dev/null":
            continue
        cdi = name.split("/")
        words.append(f"{cdi[1]}/{cdi[2]}={cdi[3]}" if cdi[0] == "cdi" and len(cdi) == 4 else name)
    return tuple(words)
