"""Sizes as people write them: ``8g``, ``512 MB``, ``1.5 GiB``."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


def parse_bytes(text: str | int | float) -> int:
    """Return a size in bytes; units are powers of 1024, as Docker reads them.

    Raises
    ------
    ValueError
        If this is not a positive, finite size.
    """
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a size; write for example 8g or 512m")
    if isinstance(text, int | float):
        number, unit = text, ""
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r:.40} is not a size; write for example 8g or 512m")
        number, unit = float(match[1]), match[2].lower()
    try:
        size = float(number) * _UNITS[unit]
    except OverflowError:
        size = math.inf
    if not math.isfinite(size) or size < 1:
        raise ValueError(f"{text!r:.40} is not a size above zero")
    return int(size)


def format_bytes(size: int) -> str:
    """Return a size for people: the largest unit that keeps it at one or above."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
