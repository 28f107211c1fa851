"""What was installed with pip into a running server since it started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import inside
from ..engine import Docker
from .recipe import requirement

_MOST = 1000


async def read_installed(docker_call: Docker, container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the packages: ``name``, ``version``, ``requested``.

    One that no recipe could name, such as by an odd version, is left out.

    Parameters
    ----------
    container
        The inspection of a server that runs.

    Raises
    ------
    Refused
        As `inside.ask`.
    """
    command = ["ds01_launch.installed"]
    about = "what was installed in it"
    return await inside.ask(docker_call, container, command, _read, about=about)


def _read(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": str(each["name"]),
            "version": str(each["version"]),
            "requested": bool(each["requested"]),
        }
        for each in answer[:_MOST]
        if _has_a_line(each)
    ]


def _has_a_line(package: Mapping[str, Any]) -> bool:
    try:
        return bool(requirement(f"{package['name']}=={package['version']}"))
    except ValueError:
        return False
