"""Where users' files and servers' own ones lie on this machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..accounts import Account
from .measure import Place


def of_user(account: Account) -> tuple[Place, ...]:
    """Return the places of a user's workspaces and home."""
    if account.owns_workspaces:
        # Below a directory of their own a user may put a link anywhere.
        base = account.workspaces.parent
        return tuple(
            Place(base, str(path.relative_to(base))) for path in (account.workspaces, account.home)
        )
    return tuple(Place(path.parent, path.name) for path in (account.workspaces, account.home))


def of_container(inspected: Mapping[str, Any]) -> tuple[Place, ...]:
    """Return the places of what a container writes: its layer, and volumes of its own.

    Parameters
    ----------
    inspected
        Docker's inspection of it. An engine that does not tell where layers lie (containerd's image
        store) leaves the volumes; see `engine_counts`.
    """
    volumes = (
        Place(Path(mount["Source"]))
        for mount in inspected.get("Mounts") or ()
        # The notebook server is a volume too, which all share to read.
        if mount.get("Type") == "volume" and mount.get("RW") and mount.get("Source")
    )
    layer = _layer(inspected)
    return ((Place(Path(layer)),) if layer else ()) + tuple(volumes)


def engine_counts(inspected: Mapping[str, Any]) -> bool:
    """Tell whether the layer's size must be asked of the engine."""
    return not _layer(inspected)


def _layer(inspected: Mapping[str, Any]) -> str:
    data = (inspected.get("GraphDriver") or {}).get("Data") or {}
    return str(data.get("UpperDir") or "")
