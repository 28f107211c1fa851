"""What a user may have, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import older
from .resolve import Resolved, Value
from .schema import PolicyFile

#: What a value's unit is called, where the key does not say it.
_UNITS = {
    "max_gpu_equivalents": "GPU equivalents over all servers",
    "max_gpu_slots_per_container": "GPUs or MIG devices per server",
    "max_cpus": "CPUs per server",
    "max_containers_per_user": "servers at a time",
    "storage_workspace": "in all workspaces and the home",
    "storage_container": "per server, outside of these",
    "pids_limit": "processes per server",
    "max_tasks": "processes over all servers",
    "max_runtime_h": "hours",
    "idle_timeout_h": "hours",
}


def as_objects(resolved: Resolved) -> dict[str, dict[str, Any]]:
    """Return each key with its value, in the file's own unit, and its source."""
    return {
        key: {"value": value.value, "source": value.source}
        for key, value in resolved.values.items()
    }


def rows(resolved: Resolved) -> Iterator[tuple[str, str, str]]:
    """Give a row of text for each key: key, value, source."""
    for key, value in resolved.values.items():
        yield key, _in_words(key, value), value.source


def schema() -> dict[str, Any]:
    """Return the JSON Schema of ``resource-limits.yaml``, for editors, with its older keys."""
    found = PolicyFile.model_json_schema()
    for name, definition in found["$defs"].items():
        properties = definition["properties"]
        names = older.POLICIES if name == "Policies" else older.RULES
        if name in ("Policies", "Rules", "Group", "Override"):
            for old, new in names.items():
                about = {"deprecated": True, "description": f"Older name of {new}."}
                properties[old] = {**properties[new], **about}
        dropped = older.POLICIES_DROPPED if "Policies" in name else older.RULES_DROPPED
        if name not in ("Aggregate", "Images"):
            for old in sorted(dropped):
                properties[old] = {"deprecated": True, "description": "Has no effect."}
    return found


def _in_words(key: str, value: Value) -> str:
    if value.value is None:
        return "no limit"
    if isinstance(value.value, bool):
        return "yes" if value.value else "no"
    written = f"{value.value:g}" if isinstance(value.value, float) else str(value.value)
    return f"{written} {_UNITS[key]}" if key in _UNITS else written
