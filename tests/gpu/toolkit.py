"""NVIDIA's toolkit as the tests' engine finds it on its PATH, and what it was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds01_spawner.gpus.devices import Device
from ds01_spawner.gpus.nodes import device_nodes

_STANDIN = Path(__file__).parent / "standin"

HOOK = "nvidia-container-runtime-hook"
RUNTIME = "nvidia-container-runtime"


@dataclass(frozen=True)
class Call:
    """One call of the hook.

    Attributes
    ----------
    container_id
        Which container it was called for.
    wanted
        The devices in the words of whoever asked; None if nobody asked for any.
    nodes, capabilities
        What the hook made, and which parts of the driver came along.
    """

    container_id: str
    wanted: list[str] | None
    nodes: tuple[str, ...]
    capabilities: tuple[str, ...]


class Toolkit:
    """The stand-ins in a directory of their own, with their settings.

    Parameters
    ----------
    folder
        Made here; its `bin` belongs first on the engine's PATH.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.hook = self.bin / HOOK
        self.runtime = self.bin / RUNTIME
        _write_program(self.hook, _STANDIN / "hook.py", folder)
        _write_program(self.runtime, _STANDIN / "runtime.py", self.hook)
        self._devices: list[dict[str, Any]] = []
        self.behave()

    def knows(self, devices: Iterable[Device], capabilities: Path) -> None:
        """Be on a machine with these devices."""
        self._devices = [
            {
                "uuid": device.uuid,
                "index": device.index,
                "gpu": device.gpu,
                "nodes": sorted(device_nodes(device, capabilities)),
            }
            for device in devices
        ]
        self.behave()

    def behave(
        self, how: str = "", *, swarm_resource: Iterable[str] = (), accepts_variables: bool = True
    ) -> None:
        """Set how the hook behaves from now on.

        Parameters
        ----------
        how
            ``nothing``, ``one too many``, ``fails``, or as it should.
        swarm_resource, accepts_variables
            Settings of the toolkit; see `tests.gpu.standin.request.requested`.
        """
        settings = {
            "devices": self._devices,
            "misbehave": how,
            "swarm_resource": list(swarm_resource),
            "accepts_variables": accepts_variables,
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))

    def calls(self, container_id: str) -> list[Call]:
        """Return the calls for a container, in order."""
        journal = self.folder / "calls.jsonl"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [
            Call(
                call["id"],
                call["wanted"],
                tuple(call.get("nodes", ())),
                tuple(call.get("capabilities", ())),
            )
            for call in map(json.loads, lines)
            if call["id"] == container_id
        ]


def _write_program(path: Path, script: Path, argument: Path) -> None:
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {script} {argument} "$@"\n')
    path.chmod(0o755)
