"""From the layers of a policy to what one user may have, and where each value comes from. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from .limits import Aggregate, ImageRules, Lifecycle, Limits
from .schema import Exemption, Override, Policies, PolicyFile, Rules
from .sizes import parse_bytes
from .units import is_over, parse_cpu_quota, parse_time

BUILT_IN = "built-in default"


@dataclass(frozen=True)
class Value:
    """A value in the file's own unit, and the layer that it comes from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Resolved:
    """What one user may have.

    Attributes
    ----------
    user
        Their name.
    groups
        Groups that they are in, in the file's order.
    group
        The one whose rules hold; None for nobody's member where no group is the default.
    why
        Why this group, in words.
    values
        Each key, such as ``memory`` or ``aggregate.cpu_quota``, with its value and source.
    limits
        The same in bytes, cores and times.
    """

    user: str
    groups: tuple[str, ...]
    group: str | None
    why: str
    values: Mapping[str, Value]
    limits: Limits


@dataclass(frozen=True)
class Policy:
    """The lab's rules, as one reading of the files has them.

    Attributes
    ----------
    file
        What stands in ``resource-limits.yaml``.
    overrides
        Users' own rules, of both files.
    members
        Group -> its members by the files.
    assigned
        User -> the group that holds for them where several do.
    exemptions
        Who is freed of a lifecycle rule.
    warnings
        What an admin should know of the files.
    """

    file: PolicyFile = field(default_factory=PolicyFile)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    assigned: Mapping[str, str] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()
    warnings: tuple[str, ...] = ()

    def resolve(self, user: str, hub_groups: Collection[str], now: datetime) -> Resolved:
        """Return what a user may have: defaults < group < the user's override, key by key.

        Parameters
        ----------
        hub_groups
            The user's groups on the Hub; those that the file does not have count for nothing.
        now
            Decides whether overrides and exemptions still hold.
        """
        groups = self._groups_of(user, hub_groups)
        group, why = self._group(user, groups)
        values: dict[str, Value] = {}
        for source, layer in self._layers(user, group, now):
            for key, value in _set_keys(layer, everything=source == BUILT_IN):
                values[key] = Value(value, source)
        for exemption in self.exemptions:
            if exemption.username == user and not is_over(exemption.expires_on, now):
                until = f" until {exemption.expires_on}" if exemption.expires_on else ""
                for key in exemption.exempt_from:
                    values[key] = Value(None, f"exemption{until}")
        return Resolved(user, groups, group, why, MappingProxyType(values), _limits(values))

    def _groups_of(self, user: str, hub_groups: Collection[str]) -> tuple[str, ...]:
        """Return the user's groups, in the order of the file."""
        return tuple(
            name
            for name in self.file.groups
            if name in hub_groups
            or user in self.members.get(name, ())
            or self.assigned.get(user) == name
        )

    def _group(self, user: str, groups: tuple[str, ...]) -> tuple[str | None, str]:
        if user in self.assigned:
            return self.assigned[user], "group-overrides.txt says so"
        if len(groups) > 1:
            return groups[0], f"the first of {', '.join(groups)} in the order of the file"
        if groups:
            return groups[0], "a member"
        if self.file.default_group:
            return self.file.default_group, "in no other group: the default"
        return None, "in no group"

    def _layers(
        self, user: str, group: str | None, now: datetime
    ) -> Iterator[tuple[str, Rules | dict[str, Any]]]:
        """Give the layers from the weakest to the strongest."""
        yield BUILT_IN, Rules()
        yield BUILT_IN, {"policies": Policies()}
        yield "policies", {"policies": self.file.policies}
        yield "defaults", self.file.defaults
        if group is not None:
            yield f"group {group}", self.file.groups[group]
        override = self.overrides.get(user)
        if override is not None and not is_over(override.until, now):
            until = f" until {override.until}" if override.until else ""
            yield f"user override{until}", override


#: Parts of a group or an override that are no rules.
_NOT_RULES = frozenset({"members", "description", "until", "reason", "approved_by", "approved_on"})


def _set_keys(
    layer: BaseModel | dict[str, Any], *, everything: bool, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Give the keys that a layer sets, sections flattened: ``aggregate.cpu_quota``."""
    names = list(layer) if isinstance(layer, dict) else list(type(layer).model_fields)
    for name in names:
        value = layer[name] if isinstance(layer, dict) else getattr(layer, name)
        is_set = everything or isinstance(layer, dict) or name in layer.model_fields_set
        if not is_set or (not prefix and name in _NOT_RULES):
            continue
        if isinstance(value, BaseModel):
            yield from _set_keys(value, everything=everything, prefix=f"{name}.")
        else:
            yield prefix + name, value


def _limits(values: Mapping[str, Value]) -> Limits:
    """Parse the values, which the schema has checked."""

    def get(key: str, parse: Any = lambda value: value) -> Any:
        value = values[key].value
        return None if value is None else parse(value)

    def hours(value: Any) -> Any:
        return parse_time(value, "h")

    memory = get("memory", parse_bytes)
    return Limits(
        cpus=get("max_cpus", float),
        memory_bytes=memory,
        # Two layers may set one of them each.
        memory_swap_bytes=max(memory, get("memory_swap", parse_bytes)),
        shm_bytes=get("shm_size", parse_bytes),
        pids=get("pids_limit"),
        gpu_equivalents=_lower(get("max_gpu_equivalents"), get("aggregate.gpu_limit")),
        gpus_per_server=get("max_gpu_slots_per_container"),
        full_gpu=get("allow_full_gpu"),
        servers=get("max_containers_per_user"),
        priority=get("priority"),
        aggregate=Aggregate(
            cpus=get("aggregate.cpu_quota", parse_cpu_quota),
            memory_bytes=get("aggregate.memory_max", parse_bytes),
            memory_high_bytes=get("aggregate.memory_high", parse_bytes),
            tasks=_lower(get("max_tasks"), get("aggregate.tasks_max")),
        ),
        lifecycle=Lifecycle(
            max_runtime=get("max_runtime_h", hours),
            idle_timeout=get("idle_timeout_h", hours),
            gpu_idle_percent=get("policies.gpu_idle_threshold"),
            cpu_idle_percent=get("policies.cpu_idle_threshold"),
            # A page that is open talks to its server: the network counts where the lab says so.
            network_idle_bytes=None
            if values["policies.network_idle_threshold"].source == BUILT_IN
            else get("policies.network_idle_threshold"),
            stalled_network_bytes=get("policies.network_idle_threshold"),
            idle_checks=get("policies.idle_detection_window"),
            stalled_kernel=get("policies.stalled_kernel_h", hours),
            grace=get("policies.grace_period_m", lambda value: parse_time(value, "m")),
            keepalive_most=get("policies.keepalive_max_duration_h", hours),
            stop_grace=get("policies.sigterm_grace_s", lambda value: parse_time(value, "s")),
            rescue_bytes=get(
                "policies.rescue_size", lambda value: parse_bytes(value) if value else 0
            ),
            high_demand_share=get("policies.high_demand_threshold"),
            high_demand_factor=get("policies.high_demand_idle_reduction"),
            never_started=get(
                "policies.created_container_timeout_m", lambda value: parse_time(value, "m")
            ),
            workspace_bytes=get("storage_workspace", parse_bytes),
            container_bytes=get("storage_container", parse_bytes),
        ),
        images=ImageRules(
            may_build=get("images.may_build"),
            storage_bytes=get("images.storage", parse_bytes),
            largest_bytes=get("images.largest", parse_bytes),
            versions=get("images.versions"),
            build_time=get("images.build_time_m", lambda value: parse_time(value, "m")),
            build_network=get("images.build_network"),
            share_with_all=get("images.share_with_all"),
        ),
    )


def _lower(first: Any, second: Any) -> Any:
    """Return the lower of two limits; None is no limit."""
    return first if second is None else second if first is None else min(first, second)
