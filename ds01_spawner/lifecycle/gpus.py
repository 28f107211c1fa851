"""The machine's GPUs as the service asks them: a driver that hangs holds up nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..gpus.devices import State
from ..gpus.nvml import Nvml
from ..lone_thread import LoneThread
from .meters import read_gpus

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
        self._hanging: asyncio.Future[Any] | None = None

    async def percent(self) -> Mapping[str, float]:
        """Return UUID -> how busy a device is in percent, of those of which it is known."""
        found: Mapping[str, float] = await self._in_time(lambda: read_gpus(self._nvml), {})
        return found

    async def weight(self) -> float:
        """Return how many GPU equivalents the machine has; 0 if that is not known."""
        return float(await self._in_time(lambda: _weight(self._nvml), 0.0))

    async def _in_time(self, call: Callable[[], Any], otherwise: Any) -> Any:
        if self._hanging is not None and not self._hanging.done():
            return otherwise
        asked = asyncio.ensure_future(self._thread.run(call))
        asked.add_done_callback(_report)
        # Not cancelled when the time is up: until its thread is free, nobody else is to wait.
        done, _ = await asyncio.wait({asked}, timeout=_PATIENCE_S)
        if not done:
            self._hanging = asked
            return otherwise
        return otherwise if asked.exception() else asked.result()


def _report(asked: asyncio.Future[Any]) -> None:
    if not asked.cancelled() and (error := asked.exception()) is not None:
        _LOG.error("The GPUs could not be asked", exc_info=error)


def _weight(nvml: Nvml) -> float:
    devices = nvml.read().inventory.devices
    return sum(device.weight for device in devices if device.state is State.OK)
