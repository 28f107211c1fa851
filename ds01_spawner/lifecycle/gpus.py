"""The machine's GPUs as the service asks them: a driver that hangs holds up nothing else."""

from __future__ import annotations

import asyncio
import logging

from ..gpus.nvml import Nvml
from ..lone_thread import LoneThread
from .meters import GpuLoad, read_gpus

_LOG = logging.getLogger(__name__)

_PATIENCE_S = 20.0


class MachineGpus:
    """See `service.Gpus`.

    Parameters
    ----------
    nvml
        Asks the driver; blocks.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._thread = LoneThread("nvml")
        self._hanging: asyncio.Future[GpuLoad] | None = None

    async def load(self) -> GpuLoad:
        """Return what they do; nothing is known of a driver that fails or does not answer."""
        if self._hanging is not None and not self._hanging.done():
            return GpuLoad()
        asked = asyncio.ensure_future(self._thread.run(lambda: read_gpus(self._nvml)))
        asked.add_done_callback(_report)
        # Not cancelled when the time is up: until its thread is free, nobody else is to wait.
        done, _ = await asyncio.wait({asked}, timeout=_PATIENCE_S)
        if not done:
            self._hanging = asked
            return GpuLoad()
        return GpuLoad() if asked.exception() else asked.result()


def _report(asked: asyncio.Future[GpuLoad]) -> None:
    if not asked.cancelled() and (error := asked.exception()) is not None:
        _LOG.error("The GPUs could not be asked", exc_info=error)
