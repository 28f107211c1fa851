"""Which devices a container asks the toolkit for, by the toolkit's own rules. Pure functions.

The rules were read in nvidia-container-toolkit 1.17: ``internal/config/image`` and
``cmd/nvidia-container-runtime-hook``. They are told here in our words, holes included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
SUPPORTED = {"compute", "compat32", "graphics", "utility", "video", "display", "ngx"}
DEFAULT = {"compute", "utility"}

#: A version as the toolkit accepts it: NGC's images have longer ones.
_VERSION = re.compile(r"v?\d+(\.\d+){0,2}")


class HookError(Exception):
    """The toolkit refuses, and the container does not start."""


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a container's variables; of one that is there twice, the last."""
    pairs = (line.partition("=") for line in config["process"].get("env") or ())
    return {key: value for key, _, value in pairs}


def requested(
    env: Mapping[str, str],
    swarm: Sequence[str] = (),
    accepts_variables: bool = True,
    privileged: bool = False,
) -> list[str] | None:
    """Return the notations of the devices that are asked for; None if none are at all.

    Parameters
    ----------
    swarm
        Variables of the toolkit's setting ``swarm-resource``: one that is there beats the rest.
    accepts_variables
        The toolkit's ``accept-nvidia-visible-devices-envvar-when-unprivileged``.
    """
    of_swarm = [name for name in swarm if name in env]
    names = of_swarm or ([VISIBLE] if VISIBLE in env else [])
    if not names and is_legacy(env):
        found = ["all"]
    else:
        found = [part.strip() for name in names for part in env[name].split(",") if part.strip()]
    if not found or "void" in found:
        return None
    if not (accepts_variables or privileged):
        return None
    if "none" in found:
        return []
    return ["all"] if "all" in found else found


def is_legacy(env: Mapping[str, str]) -> bool:
    """Tell whether it is an image from before the toolkit had variables."""
    return bool(env.get("CUDA_VERSION")) and not env.get("NVIDIA_REQUIRE_CUDA")


def check_requirements(env: Mapping[str, str]) -> None:
    """Fail as the toolkit does on a version that it cannot read."""
    disabled = env.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "t", "true")
    if not disabled and is_legacy(env) and not _VERSION.fullmatch(env["CUDA_VERSION"]):
        raise HookError(f"invalid CUDA version: {env['CUDA_VERSION']}")


def driver_capabilities(env: Mapping[str, str]) -> list[str]:
    """Return which parts of the driver come into the container."""
    value = env.get("NVIDIA_DRIVER_CAPABILITIES")
    if value is None and is_legacy(env):
        return sorted(SUPPORTED)
    wanted = set((value or "").split(",")) - {""} or DEFAULT
    if "all" in wanted:
        return sorted(SUPPORTED)
    if unknown := wanted - SUPPORTED:
        raise HookError(f"unsupported capabilities: {', '.join(sorted(unknown))}")
    return sorted(wanted)


def nodes(notations: Sequence[str], devices: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the nodes below ``/dev`` that these notations give.

    Parameters
    ----------
    devices
        Each with ``index``, ``uuid``, ``gpu`` (of a MIG device its GPU's UUID) and ``nodes``.
    """
    if list(notations) == ["all"]:
        return {node for device in devices for node in device["nodes"]}
    chosen: set[str] = set()
    for notation in notations:
        named = [device for device in devices if _is(notation, device)]
        if not named:
            raise HookError(f"unknown device: {notation}")
        # A partitioned GPU comes with all that it is cut into.
        gpus = {device["uuid"] for device in named}
        named += [device for device in devices if device["gpu"] in gpus]
        chosen |= {node for device in named for node in device["nodes"]}
    return chosen


def _is(notation: str, device: Mapping[str, Any]) -> bool:
    if notation == device["index"]:
        return True
    by_uuid = notation.startswith(("GPU-", "MIG-")) and len(notation) > len("GPU-")
    return by_uuid and device["uuid"].lower().startswith(notation.lower())
