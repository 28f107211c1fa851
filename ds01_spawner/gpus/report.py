"""Devices and their holders for an admin: as a table to read, and as JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..columns import GAP, printable, shortened, widths_of
from ..names import project_of
from ..policy import format_bytes
from .devices import Device, Holder, Snapshot, State

HEADINGS = ("DEVICE", "MODEL", "MEMORY", "WEIGHT", "STATE", "HELD BY", "SINCE", "USE")

#: A line that every terminal shows, and how far the two free columns give way to it.
_LINE = 100
_LEAST_HOLDER, _LEAST_MODEL = 14, 8


def table(snapshot: Snapshot, utilisation: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return the rows of a table of at most 100 columns, the headings first.

    Parameters
    ----------
    utilisation
        UUID -> share of the time in which the device computed, 0 to 1.
    """
    rows = _rows(snapshot, utilisation, _LINE, _LINE)
    widths = widths_of(rows)
    model, holder = widths[HEADINGS.index("MODEL")], widths[HEADINGS.index("HELD BY")]
    others = sum(widths) - model - holder + len(GAP) * (len(widths) - 1)
    holder = min(holder, max(_LEAST_HOLDER, _LINE - others - model))
    model = min(model, max(_LEAST_MODEL, _LINE - others - holder))
    return _rows(snapshot, utilisation, model, holder)


def remarks(snapshot: Snapshot) -> list[str]:
    """Return what stands below the table: why a device does not work, and warnings."""
    devices = snapshot.inventory.devices
    return [
        *(f"{d.index} ({d.uuid}): {d.state.value}: {d.detail}" for d in devices if d.detail),
        *(
            f"{d.index} ({d.uuid}) has several holders: {', '.join(map(_who, holders))}"
            for d in devices
            if len(holders := snapshot.holders.get(d.uuid, ())) > 1 and d.state is State.OK
        ),
        *(f"Warning: {warning}" for warning in snapshot.warnings),
    ]


def objects(snapshot: Snapshot, utilisation: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the devices as values that JSON has; `table` says what `utilisation` is."""
    return [_object(device, snapshot, utilisation) for device in snapshot.inventory.devices]


def _rows(
    snapshot: Snapshot, utilisation: Mapping[str, float], model: int, holder: int
) -> list[tuple[str, ...]]:
    """Return the table with so many columns for a model and a holder."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for device in snapshot.inventory.devices:
        holders = snapshot.holders.get(device.uuid, ())
        share = utilisation.get(device.uuid)
        row = (
            f"{device.index} {device.profile}".rstrip(),
            shortened(device.model, model) or "-",
            format_bytes(device.memory_bytes) if device.memory_bytes else "-",
            f"{device.weight:.2f}",
            device.state.value,
            _holders(holders, holder),
            _when(holders[0].since) if holders else "-",
            "-" if share is None else f"{share:.0%}",
        )
        rows.append(row)
    return rows


def _holders(holders: tuple[Holder, ...], columns: int) -> str:
    """Return who is to be named, and how many more there are."""
    if not holders:
        return "-"
    more = f" +{len(holders) - 1}" if len(holders) > 1 else ""
    return shortened(_who(holders[0]), columns - len(more)) + more


def _who(holder: Holder) -> str:
    if holder.user is not None:
        return printable(f"{holder.user}/{project_of(holder.server or '')}")
    return holder.container or holder.detail


def _when(since: datetime | None) -> str:
    return f"{since.astimezone():%d %b %H:%M}" if since else "-"


def _object(device: Device, snapshot: Snapshot, utilisation: Mapping[str, float]) -> dict[str, Any]:
    holders = snapshot.holders.get(device.uuid, ())
    first = holders[0] if holders else None
    return {
        "uuid": device.uuid,
        "index": device.index,
        "kind": device.kind,
        "model": device.model,
        "profile": device.profile or None,
        "parent": device.parent or None,
        "memory_bytes": device.memory_bytes,
        "weight": device.weight,
        "state": device.state.value,
        "detail": device.detail or None,
        "holder": first and _holder(first),
        "holders": [_holder(holder) for holder in holders],
        "held_since": first.since.isoformat() if first and first.since else None,
        "utilisation": utilisation.get(device.uuid),
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "user": holder.user,
        "server": holder.server,
        "container": holder.container or None,
        "detail": holder.detail or None,
    }
