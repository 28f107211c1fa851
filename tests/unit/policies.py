"""Valid policies of every shape, for hypothesis, and what each must come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

GROUPS = ("student", "researcher", "faculty", "admin")
USERS = ("alice", "bob", "204214@school.lan", "h.baker@school.lan", "007", "no")

_SIZE = st.builds(
    "{}{}".format, st.integers(1, 4096), st.sampled_from(["g", "G", "GB", " GiB", "t"])
) | st.integers(6 << 20, 1 << 45)
_HOURS = st.none() | st.integers(0, 1000) | st.floats(0, 1000).map(lambda n: round(n, 3))
_COUNT = st.integers(0, 100)
_SEVERAL = st.integers(1, 10**6)
_WEIGHT = st.floats(0, 64).map(lambda n: round(n, 3)) | st.integers(0, 64)
_PERCENT = st.floats(0, 100).map(lambda n: round(n, 2)) | st.integers(0, 100)

#: Key -> values that it may have.
PLAIN = {
    "max_gpu_equivalents": st.none() | _WEIGHT,
    "max_gpu_slots_per_container": st.none() | _COUNT,
    "allow_full_gpu": st.booleans(),
    "max_cpus": st.integers(1, 512) | st.floats(0.25, 64).map(lambda n: round(n, 2)),
    "memory": _SIZE,
    "memory_swap": _SIZE,
    "shm_size": _SIZE,
    "pids_limit": _SEVERAL,
    "max_containers_per_user": _COUNT,
    "storage_workspace": _SIZE,
    "storage_container": _SIZE,
    "max_runtime_h": _HOURS,
    "idle_timeout_h": _HOURS,
    "gpu_hold_after_stop_h": _HOURS,
    "container_hold_after_stop_h": _HOURS,
    "max_tasks": st.none() | _SEVERAL,
    "priority": st.integers(-100, 100),
}
AGGREGATE = {
    "cpu_quota": st.none() | st.integers(1, 99_999).map("{}%".format),
    "memory_max": st.none() | _SIZE,
    "memory_high": st.none() | _SIZE,
    "tasks_max": st.none() | _SEVERAL,
    "gpu_limit": st.none() | _WEIGHT,
}
IMAGES = {
    "may_build": st.booleans(),
    "storage": st.none() | _SIZE,
    "largest": _SIZE,
    "versions": _SEVERAL,
    "build_time_m": st.integers(0, 600),
    "build_network": st.booleans(),
    "share_with_all": st.sampled_from(["yes", "approval", "no"]),
}
IDLE = {
    "gpu_idle_threshold": _PERCENT,
    "cpu_idle_threshold": _PERCENT,
    "network_idle_threshold": st.integers(0, 1 << 30),
    "idle_detection_window": st.integers(1, 100),
    "stalled_kernel_h": st.integers(0, 600),
}
GLOBAL = {
    "high_demand_threshold": st.floats(0, 1).map(lambda n: round(n, 2)),
    "high_demand_idle_reduction": st.floats(0, 1).map(lambda n: round(n, 2)),
    "grace_period_m": st.integers(0, 600),
    "keepalive_max_duration_h": st.integers(0, 600),
    "sigterm_grace_s": st.integers(0, 600),
    "rescue_size": st.just(0) | _SIZE,
    "gpu_hold_after_manual_stop_m": st.integers(0, 600),
    "created_container_timeout_m": st.integers(0, 600),
}
#: All keys: DS01's, and those of images.
KEYS = (
    *PLAIN,
    *(f"aggregate.{key}" for key in AGGREGATE),
    *(f"images.{key}" for key in IMAGES),
    *(f"policies.{key}" for key in (*IDLE, *GLOBAL)),
)

#: Key -> default.
BUILT_IN: dict[str, Any] = {
    "max_gpu_equivalents": 1.0,
    "max_gpu_slots_per_container": 1,
    "allow_full_gpu": True,
    "max_cpus": 32,
    "memory": "32g",
    "memory_swap": "32g",
    "shm_size": "16g",
    "pids_limit": 4096,
    "max_containers_per_user": 3,
    "storage_workspace": None,
    "storage_container": None,
    "max_runtime_h": 24,
    "idle_timeout_h": 0.5,
    "gpu_hold_after_stop_h": 0.25,
    "container_hold_after_stop_h": 0.5,
    "max_tasks": 32768,
    "priority": 10,
    **{f"aggregate.{key}": None for key in AGGREGATE},
    "images.may_build": True,
    "images.storage": "50g",
    "images.largest": "20g",
    "images.versions": 3,
    "images.build_time_m": 60,
    "images.build_network": True,
    "images.share_with_all": "approval",
    "policies.gpu_idle_threshold": 5,
    "policies.cpu_idle_threshold": 2.0,
    "policies.network_idle_threshold": 1048576,
    "policies.idle_detection_window": 3,
    "policies.stalled_kernel_h": 1,
    "policies.high_demand_threshold": 0.8,
    "policies.high_demand_idle_reduction": 0.5,
    "policies.grace_period_m": 30,
    "policies.keepalive_max_duration_h": 24,
    "policies.sigterm_grace_s": 60,
    "policies.rescue_size": "1g",
    "policies.gpu_hold_after_manual_stop_m": 15,
    "policies.created_container_timeout_m": 30,
}


@dataclass
class Written:
    """A policy as its files have it.

    Attributes
    ----------
    main
        ``resource-limits.yaml``.
    overrides
        ``user-overrides.yaml``.
    members
        Group -> names in its file.
    assigned
        ``group-overrides.txt``.
    """

    main: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    assigned: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write all files and return the main one."""
        file = folder / "resource-limits.yaml"
        file.write_text(yaml.safe_dump(self.main, sort_keys=False))
        (folder / "user-overrides.yaml").write_text(
            yaml.safe_dump(self.overrides) if self.overrides else "# nobody\n"
        )
        (folder / "groups").mkdir(exist_ok=True)
        for group, names in self.members.items():
            lines = [f"{name}  # somebody" for name in names]
            (folder / "groups" / f"{group}.members").write_text("\n".join(["# A list", *lines]))
        lines = [f"{user}:{group}   # so it is" for user, group in self.assigned.items()]
        (folder / "group-overrides.txt").write_text("\n".join(lines))
        return file


def _some(keys: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


def _rules(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    sections = {
        "aggregate": st.none() | _some(AGGREGATE),
        "images": st.none() | _some(IMAGES),
        "policies": st.none() | _some(IDLE),
    }
    return _some({**PLAIN, **sections, **more})


_NAMES = st.lists(st.sampled_from(USERS), max_size=3, unique=True)
_OVERRIDES = st.dictionaries(
    st.sampled_from(USERS),
    st.none()
    | _rules(
        until=st.sampled_from(["2020-01-31", "2999-12-31"]), reason=st.text("abc ", max_size=9)
    ),
    max_size=3,
)


@st.composite
def policies(draw: Any) -> Written:
    """Make a policy with several layers, all valid."""
    names = draw(st.lists(st.sampled_from(GROUPS), unique=True))
    groups = {
        name: draw(st.none() | _rules(members=st.none() | _NAMES, description=st.just("people")))
        for name in names
    }
    main: dict[str, Any] = {
        "defaults": draw(st.none() | _rules()),
        "groups": groups or None,
        "user_overrides": draw(st.none() | _OVERRIDES),
        "policies": draw(st.none() | _some({**IDLE, **GLOBAL})),
        "enforcement": {"cgroup_driver": "systemd"},
    }
    if names and draw(st.booleans()):
        main["default_group"] = draw(st.sampled_from(names))
    members = {name: draw(_NAMES) for name in names if draw(st.booleans())}
    assigned = draw(
        st.dictionaries(st.sampled_from(USERS), st.sampled_from(names), max_size=2)
        if names
        else st.just({})
    )
    return Written(main, draw(_OVERRIDES), members, assigned)


def flat(rules: dict[str, Any] | None) -> dict[str, Any]:
    """Return the keys that a section sets, with those of its sections."""
    found = {}
    for key, value in (rules or {}).items():
        if key in ("aggregate", "images", "policies"):
            found |= {f"{key}.{name}": each for name, each in (value or {}).items()}
        elif key in PLAIN:
            found[key] = value
    return found


def group_of(written: Written, user: str, hub_groups: tuple[str, ...]) -> str | None:
    """Return the group that counts for a user."""
    if user in written.assigned:
        return written.assigned[user]
    for name, rules in (written.main["groups"] or {}).items():
        listed = ((rules or {}).get("members") or []) + written.members.get(name, [])
        if user in listed or name in hub_groups:
            return name
    return written.main.get("default_group")


def expected(written: Written, user: str, hub_groups: tuple[str, ...]) -> dict[str, Any]:
    """Return each key's value and source, worked out from the strongest layer down."""
    overrides = {**(written.main["user_overrides"] or {}), **written.overrides}
    own = overrides.get(user) or {}
    group = group_of(written, user, hub_groups)
    layers = [
        (f"group {group}", flat((written.main["groups"] or {}).get(group))),
        ("defaults", flat(written.main["defaults"])),
        ("policies", {f"policies.{k}": v for k, v in (written.main["policies"] or {}).items()}),
        ("built-in default", BUILT_IN),
    ]
    if own.get("until") != "2020-01-31":
        layers.insert(0, ("user override", flat(own)))
    return {
        key: next((layer[key], source) for source, layer in layers if key in layer) for key in KEYS
    }
