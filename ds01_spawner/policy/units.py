"""Hours, minutes and shares of CPUs as policy files write them."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import date, datetime, timedelta

_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", re.IGNORECASE | re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%", re.ASCII)

#: Longer than any server lives, and short enough to be added to a date.
_LONGEST = timedelta(days=36500)


def parse_time(text: str | int | float, unit: str) -> timedelta:
    """Return a duration, such as ``24`` or ``"30m"``.

    Parameters
    ----------
    unit
        What a bare number counts: ``s``, ``m``, ``h`` or ``d``.

    Raises
    ------
    ValueError
        If this is no duration, or one of more than a hundred years.
    """
    example = f"write for example {1.5:g} or '90m'"
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r:.40} is not a time; {example}")
    match = _TIME.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r:.40} is not a time; {example}")
    seconds = float(match[1]) * _SECONDS[match[2].lower() or unit]
    if not math.isfinite(seconds) or seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r:.40} is longer than a hundred years; write null for no limit")
    return timedelta(seconds=seconds)


def parse_cpu_quota(text: str) -> float:
    """Return the cores in a quota as systemd writes it: ``"9600%"`` are 96 cores.

    Raises
    ------
    ValueError
        If this is no percentage above zero.
    """
    match = _PERCENT.fullmatch(text.strip()) if isinstance(text, str) else None
    cores = float(match[1]) / 100 if match else 0.0
    if not 0 < cores < 1e6:
        raise ValueError(f"{text!r:.40} is not a CPU quota; write for example '400%' for four CPUs")
    return cores


def parse_moment(value: object) -> date | datetime:
    """Return a day, or a moment with its time zone.

    Parameters
    ----------
    value
        A day such as ``2026-12-31``, or a moment such as ``2026-12-31T12:00:00Z``; one without a
        time zone is this machine's.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(value, str):
        text = value.strip().replace("Z", "+00:00")
        with contextlib.suppress(ValueError):
            value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.astimezone()
    if isinstance(value, date):
        return value
    raise ValueError(f"{value!r:.40} is not a date; write for example 2026-12-31")


def is_over(end: date | datetime | None, now: datetime) -> bool:
    """Tell whether a time limit has passed; a day lasts to its end, here. None never passes."""
    if end is None:
        return False
    if isinstance(end, datetime):
        return now > end
    return now.astimezone().date() > end
