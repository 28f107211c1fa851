"""The start form: what a user may choose, rendered on the Hub's own page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .images.catalogue import CatalogueImage
from .options import SMALLEST_CPUS, SMALLEST_MEMORY_BYTES, Choices
from .policy import GIB, format_bytes, parse_bytes

_ENVIRONMENT = Environment(
    loader=PackageLoader("ds01_spawner", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["size"] = format_bytes


@dataclass(frozen=True)
class ImageChoice:
    """A catalogue image with its size on this machine; None means that it must be fetched first."""

    image: CatalogueImage
    size_bytes: int | None


def render_form(
    images: list[ImageChoice],
    choices: Choices,
    previous: Mapping[str, Any],
    *,
    project: str,
) -> str:
    """Return the form's fields as HTML.

    Parameters
    ----------
    previous
        What was chosen the last time, or just now if it was refused; need not be valid.
    """
    return _ENVIRONMENT.get_template("spawn_form.html").render(
        images=images,
        limits=choices.limits,
        project=project,
        chosen_image=_chosen_image(images, previous),
        cpus=_steps(SMALLEST_CPUS, choices.limits.cpus),
        chosen_cpus=_read(float, previous.get("cpus"), choices.default_cpus),
        memory=_steps(SMALLEST_MEMORY_BYTES, choices.limits.memory_bytes),
        chosen_memory=_read(parse_bytes, previous.get("memory"), choices.default_memory_bytes),
        safe_start=str(previous.get("safe_start", "")).lower() in ("true", "1", "on"),
        GIB=GIB,
    )


def _chosen_image(images: list[ImageChoice], previous: Mapping[str, Any]) -> str:
    names = [choice.image.name for choice in images]
    wanted = str(previous.get("image", ""))
    return wanted if wanted in names else names[0]


def _read(read: Callable[[Any], float], value: Any, default: float) -> float:
    """Read what was chosen before; it may be anything, also from an older version."""
    try:
        return read(value)
    except (TypeError, ValueError, AttributeError):
        return default


def _steps(smallest: float, largest: float) -> list[float]:
    """Return doubling steps from the smallest to the limit, and the limit itself."""
    steps = []
    step = smallest
    while step < largest:
        steps.append(step)
        step *= 2
    return [*steps, largest]
