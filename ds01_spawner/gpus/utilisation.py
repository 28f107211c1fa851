"""How busy devices are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pynvml

from .devices import Device
from .enumeration import Found

#: Seconds between two samples of which NVML can tell the difference (nvml.h asks for 0.1 s).
_BETWEEN_SAMPLES_S = 0.2


class Meter:
    """Asks devices how busy they are.

    A whole GPU tells the last second or less. Of a MIG device, from Hopper on, there are samples,
    and two of them tell the time between: that since the last call, or `_BETWEEN_SAMPLES_S` if
    there was none.
    """

    def __init__(self) -> None:
        self._samples: dict[str, Any] = {}

    def read(self, found: Iterable[Found]) -> dict[str, float]:
        """Return UUID -> share of the time, from 0 to 1, of the devices that can tell."""
        found = list(found)
        handles = {one.device.uuid: one.handle for one in found}
        reachable = [one for one in found if one.handle is not None]
        parts = [one.device for one in reachable if one.device.kind == "mig"]
        cut = {part.parent for part in parts}
        busy: dict[str, float] = {}
        for one in reachable:
            if one.device.kind == "gpu" and one.device.uuid not in cut:
                share = _of_gpu(one.handle)
                if share is not None:
                    busy[one.device.uuid] = share
        return busy | self._of_parts(parts, handles)

    def _of_parts(self, parts: list[Device], handles: dict[str, Any]) -> dict[str, float]:
        capable = {gpu for gpu in {part.parent for part in parts} if _has_samples(handles[gpu])}
        parts = [part for part in parts if part.parent in capable]
        before = self._samples
        new = [part for part in parts if part.uuid not in before]
        if new:
            for part in new:
                before[part.uuid] = _take_sample(handles[part.parent], part)
            time.sleep(_BETWEEN_SAMPLES_S)
        self._samples = {part.uuid: _take_sample(handles[part.parent], part) for part in parts}
        busy: dict[str, float] = {}
        for uuid, sample in self._samples.items():
            share = _difference(before[uuid], sample)
            if share is not None:
                busy[uuid] = share
        for sample in before.values():
            _free(sample)
        return busy


def _of_gpu(handle: Any) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except pynvml.NVMLError:
        return None


def _has_samples(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
    except pynvml.NVMLError:
        return False


def _take_sample(gpu: Any, part: Device) -> Any:
    """Return a sample of a MIG device's GPU instance, None if there is none."""
    try:
        sample = pynvml.nvmlGpmSampleAlloc()
    except pynvml.NVMLError:
        return None
    try:
        return pynvml.nvmlGpmMigSampleGet(gpu, part.gpu_instance, sample)
    except pynvml.NVMLError:
        _free(sample)
        return None


def _free(sample: Any) -> None:
    if sample is not None:
        # If the driver went away in between, so did the sample.
        with suppress(pynvml.NVMLError):
            pynvml.nvmlGpmSampleFree(sample)


def _difference(first: Any, second: Any) -> float | None:
    if first is None or second is None:
        return None
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    request.numMetrics = 1
    request.sample1, request.sample2 = first, second
    request.metrics[0].metricId = pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL
    try:
        metric = pynvml.nvmlGpmMetricsGet(request).metrics[0]
    except pynvml.NVMLError:
        return None
    if metric.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return min(1.0, max(0.0, float(metric.value) / 100))
