"""What in a request to create a container could give it GPUs beside a grant. Pure functions.

Which variables, mounts and annotations the toolkit listens to was read in nvidia-container-toolkit
1.17 (``internal/config/image``, ``cmd/nvidia-container-runtime-hook``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from .claims import CDI_ANNOTATION, MOUNT_LIST, Runtimes

#: Variables by which the toolkit is asked for devices.
_ASKING = ("NVIDIA_*", "DOCKER_RESOURCE_*")
#: Of these, what CUDA's libraries read and the toolkit does not.
_HARMLESS = ("NVIDIA_TF32_OVERRIDE",)


def conflicts(body: Mapping[str, Any], runtimes: Runtimes) -> list[str]:
    """Return what is in the way of an exact grant, in words for an admin.

    Parameters
    ----------
    body
        Of ``POST /containers/create``.
    runtimes
        The engine's, of which NVIDIA's add GPUs by themselves.
    """
    return [*_in_variables(body), *_in_host(body.get("HostConfig") or {}, runtimes)]


def asks_for_gpus(variable: str) -> bool:
    """Tell whether the toolkit may give GPUs, or parts of the driver, for a variable's name."""
    asking = any(fnmatch.fnmatchcase(variable, pattern) for pattern in _ASKING)
    return asking and variable not in _HARMLESS


def _in_variables(body: Mapping[str, Any]) -> list[str]:
    return [
        f"the variable {line}"
        for line in body.get("Env") or ()
        for key, _, value in [line.partition("=")]
        if asks_for_gpus(key) and value and line != "NVIDIA_VISIBLE_DEVICES=void"
    ]


def _in_host(host: Mapping[str, Any], runtimes: Runtimes) -> list[str]:
    found = []
    if host.get("DeviceRequests"):
        found.append("DeviceRequests")
    if host.get("Privileged"):
        found.append("Privileged, which gives every device")
    if host.get("DeviceCgroupRules"):
        found.append("DeviceCgroupRules")
    runtime = host.get("Runtime") or ""
    if runtimes.is_nvidias(runtime):
        found.append(f"the runtime {runtime}")
    for device in host.get("Devices") or ():
        paths = (str(device.get("PathOnHost", "")), str(device.get("PathInContainer", "")))
        if any(_is_nvidias(path) for path in paths):
            found.append(f"the device {paths[0]}")
    found += [f"the mount of {source} at {target}" for source, target in _asking_mounts(host)]
    found += [
        f"the annotation {key}"
        for key in host.get("Annotations") or ()
        if key.startswith(CDI_ANNOTATION)
    ]
    return found


def _asking_mounts(host: Mapping[str, Any]) -> list[tuple[str, str]]:
    mounts = [
        (str(mount.get("Source", "")), str(mount.get("Target", "")))
        for mount in host.get("Mounts") or ()
    ]
    binds = [str(bind).split(":") for bind in host.get("Binds") or ()]
    mounts += [(parts[0], parts[1]) for parts in binds if len(parts) > 1]
    return [(source, target) for source, target in mounts if _asks(source, target)]


def _asks(source: str, target: str) -> bool:
    if PurePosixPath(normpath(target)).is_relative_to(MOUNT_LIST):
        return True
    return any(_is_nvidias(path) or _is_all_of_dev(path) for path in (source, target))


def _is_nvidias(path: str) -> bool:
    return normpath(path).startswith("/dev/nvidia")


def _is_all_of_dev(path: str) -> bool:
    return normpath(path) in ("/", "/dev")
