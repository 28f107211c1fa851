"""What the Hub's rows of servers may hold, whoever writes them.

JupyterHub's REST API stores what it is sent without asking the spawner: the options of a server
that is made but not started (``PUT``), changed (``PATCH``), or refused (``POST``), and its name.
Pages, the form and admins read it later, so it is reduced on its way in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jupyterhub import orm
from sqlalchemy import event

from .columns import printable
from .options import PROFILE, SpawnOptions

#: Longer text and larger numbers are no option's value, nor a name.
_LONGEST = 255
_LARGEST = 2.0**63


def guard() -> None:
    """Reduce, from now on, whatever is written to the Hub's rows of servers; for once and more."""
    for column, reduced in (
        (orm.Spawner.user_options, _reduced_options),
        (orm.Spawner.display_name, _reduced_name),
    ):
        if not event.contains(column, "set", reduced):
            event.listen(column, "set", reduced, retval=True)


def kept(raw: Any) -> dict[str, Any]:
    """Return what of these options may be stored: known ones with short, plain values.

    They need not be valid: each start checks them. The Hub's admin page breaks over a value that
    is no text or number.
    """
    if not isinstance(raw, Mapping):
        return {}
    known = (*SpawnOptions.model_fields, PROFILE)
    return {name: raw[name] for name in known if name in raw and _is_plain(raw[name])}


def _reduced_options(_row: orm.Spawner, value: Any, *_: Any) -> dict[str, Any] | None:
    return None if value is None else kept(value)


def _reduced_name(_row: orm.Spawner, value: Any, *_: Any) -> str | None:
    """Return a name as it may stand on the admin's page and in the log, for which it is made."""
    return None if value is None else printable(str(value)[:_LONGEST])


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.isprintable()
    if isinstance(value, int | float):
        # In this order: a huge whole number is finite, and math has no number for it.
        return abs(value) <= _LARGEST and math.isfinite(value)
    return False
