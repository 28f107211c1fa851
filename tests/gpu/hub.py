"""A Hub on a machine with pretended GPUs."""

from __future__ import annotations

from pathlib import Path

from tests.hub import Hub

from .machine import Pretended


class GpuHub(Hub):
    """A Hub whose servers get GPUs by what stands in for NVIDIA's toolkit.

    Attributes
    ----------
    machine
        The machine it is on.
    """

    def __init__(
        self, data: Path, name: str, machine: Pretended, backend: str, **services: bool
    ) -> None:
        self.machine = machine
        self._backend = backend
        super().__init__(data, name, machine.environment(), **services)

    def configure(self, text: str) -> None:
        """Add lines to the site's configuration; takes effect at the next start."""
        super().configure(f"c.DS01Spawner.gpu_backend = {self._backend!r}\n{text}")
