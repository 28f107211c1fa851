"""The time now, as everything here counts it."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(timezone.utc)
