"""What somebody asks for: so many GPUs or MIG devices of a size. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from ..columns import printable
from .devices import Device

#: How a whole GPU is written.
FULL = "full"

_PROFILE = re.compile(
    r"(?:([1-9]\d{0,2})c\.)?([1-9]\d{0,2})g\.([1-9]\d{0,2})gb([+-][a-z0-9.]+)?", re.ASCII
)
_AT_LEAST = re.compile(r">=\s*(\d+(?:\.\d+)?)\s*gi?b?", re.ASCII)
_LONGEST_MODEL = 60
_MODEL = re.compile(rf"[A-Za-z0-9 ._-]{{1,{_LONGEST_MODEL}}}")
_SOLD_WITH = re.compile(r"\b(\d+)GB\b", re.IGNORECASE | re.ASCII)
_GB = 10**9

HOW_TO_WRITE = (
    'Write "full" for a whole GPU, a MIG profile such as "3g.40gb", or ">=20g" for at least '
    '20 GB of memory; "@A100" behind it asks for that model.'
)


@dataclass(frozen=True)
class GpuRequest:
    """So many devices of a size.

    Attributes
    ----------
    count
        How many devices.
    profile
        MIG profile that each has at least the compute slices and memory of; empty for any.
    memory_bytes
        Least memory of each device, in the makers' decimal bytes (20 GB are 20 * 10**9): so
        counted, no GPU has less than what it is sold with. 0 for any.
    whole
        Whole GPUs only.
    model
        Part of the model's name, such as ``A100`` or ``H100-SXM``; case and punctuation do not
        matter. Empty for any.
    """

    count: int = 1
    profile: str = ""
    memory_bytes: int = 0
    whole: bool = False
    model: str = ""

    @property
    def size(self) -> str:
        """The size of one device, as `parse_request` reads it."""
        if self.profile:
            text = self.profile
        elif self.memory_bytes:
            text = f">={self.memory_bytes / _GB:g}g"
        else:
            text = FULL
        return f"{text}@{self.model}" if self.model else text

    @property
    def extras(self) -> str:
        """What the profile has beyond slices and memory, such as ``+me``; empty if nothing."""
        numbers = _numbers(self.profile)
        return numbers[2] if numbers else ""

    def __str__(self) -> str:
        """Name it in a sentence: ``2 × 3g.40gb``, ``a whole GPU (A100)``."""
        if self.profile:
            text = f"{self.count} × {self.profile}" if self.count > 1 else f"a {self.profile}"
        elif self.whole or not self.memory_bytes:
            text = f"{self.count} whole GPUs" if self.count > 1 else "a whole GPU"
        else:
            text = f"{self.count} devices" if self.count > 1 else "a device"
        if self.memory_bytes:
            text += f" of at least {self.memory_bytes / _GB:g} GB"
        return f"{text} ({self.model})" if self.model else text


def parse_request(text: str, count: int = 1) -> GpuRequest:
    """Read a size as people write it.

    Parameters
    ----------
    text
        ``full``, a MIG profile such as ``3g.40gb``, or ``>=20g``; ``@A100`` behind it names a
        model.
    count
        How many of them.

    Raises
    ------
    ValueError
        It cannot be understood; the text says what to write.
    """
    size, at, model = (part.strip() for part in text.partition("@"))
    size = size.lower()
    if count < 1:
        raise ValueError(f"{count} GPUs cannot be asked for: ask for one or more, or for none")
    if at and not (_MODEL.fullmatch(model) and _letters(model)):
        raise ValueError(f'"{_shown(text)}" names no model behind "@". {HOW_TO_WRITE}')
    if size == FULL:
        return GpuRequest(count, whole=True, model=model)
    if _PROFILE.fullmatch(size):
        return GpuRequest(count, profile=size, model=model)
    if at_least := _AT_LEAST.fullmatch(size):
        memory_bytes = round(float(at_least[1]) * _GB)
        if memory_bytes:
            return GpuRequest(count, memory_bytes=memory_bytes, model=model)
    raise ValueError(f'"{_shown(text)}" is no size of a GPU. {HOW_TO_WRITE}')


def model_to_ask_for(device: Device) -> str:
    """Return a device's model as it can stand behind the "@" of a size."""
    return re.sub(r"[^A-Za-z0-9 ._-]+", " ", device.model)[:_LONGEST_MODEL].strip()


def suffices(device: Device, request: GpuRequest) -> bool:
    """Return whether one such device is at least what is asked for, be it free or not."""
    return (
        (not request.model or _letters(request.model) in _letters(device.model))
        and (device.kind == "gpu" or not asks_for_whole(request))
        and _memory_bytes(device) >= request.memory_bytes
        and (not request.profile or _has_profile(device, request.profile))
    )


def like(device: Device, request: GpuRequest) -> GpuRequest:
    """Ask for what this device is, in the words of another request (count, model, kind)."""
    if request.memory_bytes and not request.profile:
        return replace(request, memory_bytes=sold_gb(device) * _GB)
    if device.parent:
        return GpuRequest(request.count, profile=device.profile, model=request.model)
    return GpuRequest(request.count, whole=True, model=request.model)


def is_smaller(device: Device, request: GpuRequest) -> bool:
    """Return whether such a device is less than what is asked for, in nothing more."""
    if suffices(device, request):
        return False
    has, wanted = _numbers(device.profile), _numbers(request.profile)
    return not (has and wanted) or (has[0] <= wanted[0] and has[1] <= wanted[1])


def asks_for_whole(request: GpuRequest) -> bool:
    """Return whether only whole GPUs will do: so it is if nothing is said of the size, too."""
    return request.whole or not (request.profile or request.memory_bytes)


def _has_profile(device: Device, profile: str) -> bool:
    """Compare by the numbers of the profiles' names: a 3g.40gb really has 39.3 GiB."""
    wanted = _numbers(profile)
    if wanted is None:
        return False
    slices, memory_gb, extras = wanted
    if device.kind == "gpu":
        # A GPU that cannot be cut counts no slices that could be compared.
        enough = device.slices >= slices or device.slices <= 1
        return enough and _memory_bytes(device) >= memory_gb * _GB
    has = _numbers(device.profile)
    if has is None:
        return device.profile == profile
    return has[0] >= slices and has[1] >= memory_gb and (not extras or has[2] == extras)


def sold_gb(device: Device) -> int:
    """Memory as a device is sold with, in GB: what drivers report differs among equal ones."""
    return _named_gb(device) or device.memory_bytes // _GB


def _memory_bytes(device: Device) -> int:
    """Return the larger of what is reported and what the name says."""
    return max(device.memory_bytes, _named_gb(device) * _GB)


def _named_gb(device: Device) -> int:
    """Read the GB off the device's name, 0 if it says none."""
    if device.parent:
        numbers = _numbers(device.profile)
        return numbers[1] if numbers else 0
    return _gb_of_model(device.model)


@lru_cache(maxsize=1024)
def _gb_of_model(model: str) -> int:
    named = _SOLD_WITH.search(model)
    return int(named[1]) if named else 0


@lru_cache(maxsize=1024)
def _numbers(profile: str) -> tuple[int, int, str] | None:
    """Read compute slices, GB and extras such as ``+me`` off a profile, None if it is none."""
    match = _PROFILE.fullmatch(profile.lower())
    return (int(match[1] or match[2]), int(match[3]), match[4] or "") if match else None


def _shown(text: str) -> str:
    """Return somebody's words as they may stand in a message and in a log: short, and printable."""
    return printable(text if len(text) <= 40 else f"{text[:40]}…")


@lru_cache(maxsize=1024)
def _letters(text: str) -> str:
    """Reduce a model's name to its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
