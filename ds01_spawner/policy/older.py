"""Keys that other versions of DS01 have: older names, and what has no effect here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .located import Located, Place, dotted

#: Older name -> name, in the order in which DS01 looks for them.
RULES = {
    "max_gpu_slots": "max_gpu_equivalents",
    "max_gpus_per_user": "max_gpu_equivalents",
    "max_mig_instances": "max_gpu_equivalents",
    "max_gpus_per_container": "max_gpu_slots_per_container",
    "max_mig_per_container": "max_gpu_slots_per_container",
    "max_runtime": "max_runtime_h",
    "idle_timeout": "idle_timeout_h",
    "gpu_hold_after_stop": "gpu_hold_after_stop_h",
    "container_hold_after_stop": "container_hold_after_stop_h",
}
POLICIES = {
    "grace_period": "grace_period_m",
    "keepalive_max_duration": "keepalive_max_duration_h",
    "sigterm_grace_seconds": "sigterm_grace_s",
    "gpu_hold_after_manual_stop": "gpu_hold_after_manual_stop_m",
    "created_container_timeout": "created_container_timeout_m",
}

#: DS01 reads these or did so once, and nothing here follows from them.
RULES_DROPPED = frozenset(
    {
        *("gpu_memory", "io_read_bps", "io_write_bps", "ulimit_nofile"),
        *("storage_data", "storage_tmp"),
        *("reservation_start", "reservation_end", "reserved_gpus"),
    }
)
POLICIES_DROPPED = frozenset(
    {
        *("auto_stop_idle", "checkpoint_warning", "require_workspace_mount"),
        *("enforce_storage_quotas", "soft_limit_threshold", "graceful_errors"),
        "suggest_alternatives",
    }
)
#: Kept, shown and checked, but a stop here gives everything back at once.
RULES_WITHOUT_EFFECT = ("gpu_hold_after_stop_h", "container_hold_after_stop_h")
POLICIES_WITHOUT_EFFECT = ("gpu_hold_after_manual_stop_m",)
SECTIONS_WITHOUT_EFFECT = (
    *("enforcement", "gpu_allocation", "container_types", "monitoring"),
    *("bare_metal_access", "access_control", "advanced", "wizard"),
)


def modernise(located: Located) -> list[str]:
    """Give the older keys of a policy file their names of now; change nothing else.

    Returns
    -------
    list of str
        Keys without effect, as people write them: ``groups.student.gpu_memory``.
    """
    content = located.content
    if not isinstance(content, dict):
        return []
    found = [key for key in SECTIONS_WITHOUT_EFFECT if content.get(key) is not None]
    found += _policies(located, content, ())
    found += _rules(located, content.get("defaults"), ("defaults",))
    for section in ("groups", "user_overrides"):
        for name, entry in _entries(content.get(section)):
            found += _rules(located, entry, (section, name))
    return found


def modernise_overrides(located: Located) -> list[str]:
    """Do the same for a file whose top level is the users."""
    return [
        key for name, entry in _entries(located.content) for key in _rules(located, entry, (name,))
    ]


def _entries(section: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(section, dict):
        yield from section.items()


def _rules(located: Located, rules: Any, place: Place) -> list[str]:
    if not isinstance(rules, dict):
        return []
    found = _dropped(rules, RULES_DROPPED, place)
    _rename(located, rules, RULES, place)
    found += [dotted((*place, key)) for key in RULES_WITHOUT_EFFECT if key in rules]
    return found + _policies(located, rules, place)


def _policies(located: Located, rules: dict[str, Any], place: Place) -> list[str]:
    policies = rules.get("policies")
    if not isinstance(policies, dict):
        return []
    place = (*place, "policies")
    found = _dropped(policies, POLICIES_DROPPED, place)
    _rename(located, policies, POLICIES, place)
    return found + [dotted((*place, key)) for key in POLICIES_WITHOUT_EFFECT if key in policies]


def _dropped(section: dict[str, Any], keys: frozenset[str], place: Place) -> list[str]:
    found = [key for key in section if key in keys]
    for key in found:
        del section[key]
    return [dotted((*place, key)) for key in found]


def _rename(
    located: Located, section: dict[str, Any], names: Mapping[str, str], place: Place
) -> None:
    for old, new in names.items():
        if old not in section:
            continue
        value, here = section.pop(old), (*place, new)
        # Where both stand, the newer name counts, as in DS01.
        if new not in section:
            section[new] = value
            located.lines[here] = located.line((*place, old))
