"""What may stand in a policy file: DS01's keys, their units, and what they are called in old files.

The models check; what is parsed into bytes and times is made in `limits`.
Source of keys, units and defaults: DS01's ``resource-limits.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from .sizes import parse_bytes
from .units import parse_cpu_quota, parse_moment, parse_time

#: The smallest memory that the engine gives a container (Docker: 6 MB).
_SMALLEST_BYTES = 6 * 1024**2


def _checked(parse: Callable[[Any], Any]) -> AfterValidator:
    """Check a value by parsing it, and keep it as it is written."""

    def check(value: Any) -> Any:
        parse(value)
        return value

    return AfterValidator(check)


def _memory(value: Any) -> None:
    if parse_bytes(value) < _SMALLEST_BYTES:
        raise ValueError(f"{value!r:.40} is less than 6 MiB; a bare number is bytes, write 32g")


def _size_or_zero(value: Any) -> None:
    if value != 0:
        parse_bytes(value)


def _size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r:.40} is not a size; write for example 32g")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _no_limit(value: Any) -> Any:
    """Read what older files write for null."""
    return None if value in ("unlimited", "indefinite") else value


def _section(value: Any) -> Any:
    """Read a section without content, as after all of its lines were commented out."""
    return {} if value is None else value


def _list(value: Any) -> Any:
    return [] if value is None else value


def _time(unit: str) -> AfterValidator:
    """Check a time, and keep it as a number of the key's unit: older files write ``24h``."""

    def check(value: Any) -> Any:
        parsed = parse_time(value, unit) / parse_time(1, unit)
        return value if isinstance(value, int | float) else parsed

    return AfterValidator(check)


Size = Annotated[
    Any,
    BeforeValidator(_size),
    _checked(_memory),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["32g", "512m"]}),
]
SizeOrZero = Annotated[
    Any,
    BeforeValidator(_size),
    _checked(_size_or_zero),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["1g", 0]}),
]
Count = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Several = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Weight = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, BeforeValidator(_number), Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]
Hours = Annotated[
    Any,
    _time("h"),
    WithJsonSchema({"type": ["number", "string"], "examples": [24, 0.5, "30m"]}),
]
Minutes = Annotated[Any, _time("m"), WithJsonSchema({"type": ["number", "string"]})]
Seconds = Annotated[Any, _time("s"), WithJsonSchema({"type": ["number", "string"]})]
Quota = Annotated[
    Any,
    _checked(parse_cpu_quota),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$", "examples": ["400%"]}),
]
Moment = Annotated[
    Any,
    AfterValidator(parse_moment),
    WithJsonSchema({"type": "string", "format": "date"}),
]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Anything = Annotated[Any, WithJsonSchema({})]


class _Section(BaseModel):
    """Unknown keys are errors; null is the same as no key unless the field allows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Aggregate(_Section):
    """Over all of a user's servers together; null is no limit."""

    cpu_quota: Quota | None = None
    memory_max: Size | None = None
    memory_high: Size | None = None
    tasks_max: Several | None = None
    gpu_limit: Weight | None = None


class Images(_Section):
    """A user's own images, and how they are built; null is no limit."""

    may_build: Annotated[bool, Field(strict=True)] = True
    storage: Annotated[Size | None, BeforeValidator(_no_limit)] = "50g"
    largest: Size = "20g"
    versions: Several = 3
    build_time_m: Minutes = 60
    build_network: Annotated[bool, Field(strict=True)] = True
    share_with_all: Literal["yes", "approval", "no"] = "approval"


class IdlePolicies(_Section):
    """What counts as idle."""

    gpu_idle_threshold: Percent = 5
    cpu_idle_threshold: Percent = 2.0
    network_idle_threshold: Count = 1048576
    idle_detection_window: Several = 3
    stalled_kernel_h: Hours = 1


class Policies(IdlePolicies):
    """The same for everybody, and what concerns the machine as a whole."""

    high_demand_threshold: Share = 0.8
    high_demand_idle_reduction: Share = 0.5
    grace_period_m: Minutes = 30
    keepalive_max_duration_h: Hours = 24
    sigterm_grace_s: Seconds = 60
    rescue_size: SizeOrZero = "1g"
    gpu_hold_after_manual_stop_m: Minutes = 15
    created_container_timeout_m: Minutes = 30


class Rules(_Section):
    """What may stand in ``defaults``, in a group and in an override.

    The defaults are DS01's; which of the fields a file has set is in ``model_fields_set``.
    """

    max_gpu_equivalents: Annotated[Weight | None, BeforeValidator(_no_limit)] = 1.0
    max_gpu_slots_per_container: Annotated[Count | None, BeforeValidator(_no_limit)] = 1
    allow_full_gpu: Annotated[bool, Field(strict=True)] = True
    max_cpus: Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)] = 32
    memory: Size = "32g"
    memory_swap: Size = "32g"
    shm_size: Size = "16g"
    pids_limit: Several = 4096
    max_containers_per_user: Count = 3
    storage_workspace: Annotated[Size | None, BeforeValidator(_no_limit)] = None
    storage_container: Annotated[Size | None, BeforeValidator(_no_limit)] = None
    max_runtime_h: Annotated[Hours | None, BeforeValidator(_no_limit)] = 24
    idle_timeout_h: Annotated[Hours | None, BeforeValidator(_no_limit)] = 0.5
    gpu_hold_after_stop_h: Annotated[Hours | None, BeforeValidator(_no_limit)] = 0.25
    container_hold_after_stop_h: Annotated[Hours | None, BeforeValidator(_no_limit)] = 0.5
    max_tasks: Annotated[Several | None, BeforeValidator(_no_limit)] = 32768
    priority: Annotated[int, BeforeValidator(_number)] = 10
    aggregate: Annotated[Aggregate, BeforeValidator(_section)] = Aggregate()
    images: Annotated[Images, BeforeValidator(_section)] = Images()
    policies: Annotated[IdlePolicies, BeforeValidator(_section)] = IdlePolicies()


class Group(Rules):
    """A group's rules, and its members."""

    members: Annotated[tuple[Name, ...], BeforeValidator(_list)] = ()
    description: str | None = None


class Override(Rules):
    """One user's own rules; after the day `until` they have no effect."""

    until: Moment | None = None
    reason: str | None = None
    approved_by: str | None = None
    approved_on: Moment | None = None


class Exemption(_Section):
    """Frees one user of a lifecycle rule; after `expires_on` no more."""

    username: Name
    exempt_from: tuple[str, ...] = Field(min_length=1)
    expires_on: Moment | None = None
    reason: str | None = None
    category: str | None = None
    approved_by: str | None = None
    approved_on: Moment | None = None


Groups = dict[Name, Annotated[Group, BeforeValidator(_section)]]
Overrides = dict[Name, Annotated[Override, BeforeValidator(_section)]]
Exemptions = tuple[Exemption, ...]


class PolicyFile(_Section):
    """``resource-limits.yaml``."""

    defaults: Annotated[Rules, BeforeValidator(_section)] = Rules()
    default_group: Name | None = None
    groups: Annotated[Groups, BeforeValidator(_section)] = {}
    user_overrides: Annotated[Overrides, BeforeValidator(_section)] = {}
    policies: Annotated[Policies, BeforeValidator(_section)] = Policies()
    enforcement: Anything = None
    gpu_allocation: Anything = None
    container_types: Anything = None
    monitoring: Anything = None
    bare_metal_access: Anything = None
    access_control: Anything = None
    advanced: Anything = None
    wizard: Anything = None
