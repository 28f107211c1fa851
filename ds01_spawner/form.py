"""The start form: what a user may choose, rendered on the Hub's own page."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .admission.offers import Offer
from .endings import Ending
from .gpus.request import parse_request
from .images.catalogue import CatalogueImage
from .images.shelf import UserImage
from .lifecycle import words as life_words
from .options import NO_GPU, SMALLEST_CPUS, SMALLEST_MEMORY_BYTES, Choices
from .pages import seen_by
from .policy import format_bytes, parse_bytes

_ENVIRONMENT = Environment(
    loader=PackageLoader("ds01_spawner", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["size"] = format_bytes

BASES = "Bases"
#: More images than fit a screen can be searched.
_MANY_IMAGES = 8

#: Packages that make an image one for looking at data.
_DATA_PACKAGES = {"pandas", "polars", "scipy", "matplotlib"}


@dataclass(frozen=True)
class OwnImage:
    """A user's image in the words of a catalogue's entry.

    Attributes
    ----------
    problem
        Why its last build failed; empty if it did not.
    can_start
        Whether there is an image; without one, only the problem is shown.
    """

    name: str
    framework: str
    version: str
    description: str
    is_shared: bool = False
    problem: str = ""
    can_start: bool = True
    contents: tuple[str, ...] = ()
    cuda: str | None = None
    needs_gpu: bool = False

    @classmethod
    def of(cls, image: UserImage, viewer: str, problem: str = "") -> OwnImage:
        """Describe an image for somebody."""
        is_shared = image.owner != viewer
        whose = f"Shared by {image.owner}, built" if is_shared else "Built"
        return cls(
            name=image.name,
            framework=f"version {image.number}",
            version=f"on {image.base}" if image.base else "",
            description=f"{whose} on {image.created:%d %b %Y}.",
            is_shared=is_shared,
            problem=problem,
        )

    @classmethod
    def missing(cls, name: str, problem: str) -> OwnImage:
        """Describe an image of which no build has succeeded yet."""
        description = "There is no image yet: its build failed."
        return cls(name, "", "", description, problem=problem, can_start=False)


@dataclass(frozen=True)
class ImageChoice:
    """An image and what this machine has of it.

    Attributes
    ----------
    image
        A catalogue's entry, or a user's image.
    size_bytes
        Its size on this machine; None means that it must be fetched first.
    known
        Whether the engine said; if not, the size means nothing.
    """

    image: CatalogueImage | OwnImage
    size_bytes: int | None
    known: bool = True

    @property
    def kind(self) -> str:
        """Under which heading it stands."""
        if isinstance(self.image, CatalogueImage):
            return BASES
        return "Shared with me" if self.image.is_shared else "My images"

    @property
    def can_start(self) -> bool:
        """Whether it can be chosen."""
        return isinstance(self.image, CatalogueImage) or self.image.can_start

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        return "" if isinstance(self.image, CatalogueImage) else self.image.problem

    @property
    def picture(self) -> str:
        """Name of the picture in ``pictures.html`` that tells what the image is for."""
        if self.image.cuda is not None:
            return "network"
        if _DATA_PACKAGES.intersection(self.image.contents):
            return "chart"
        return "prompt" if self.image.framework == "Python" else "layers"


@dataclass(frozen=True)
class GpuChoices:
    """What can be chosen in GPUs.

    Attributes
    ----------
    offers
        Sizes, smallest first; empty if there is none to choose.
    largest_count
        How many of one size a server may have.
    problem
        Why there is nothing to choose, for the user.
    used
        What the user's servers hold now, in words; empty if nothing.
    """

    offers: tuple[Offer, ...] = ()
    largest_count: int = 0
    problem: str = "There is no GPU on this server."
    used: str = ""


@dataclass(frozen=True)
class _Segment:
    """One button of a row of which one is chosen, with a note below its label.

    One that is `taken` can be chosen, and would be refused now.
    """

    value: str
    label: str
    chosen: bool
    note: str = ""
    taken: bool = False


def render_form(
    images: list[ImageChoice],
    choices: Choices,
    previous: Mapping[str, Any],
    *,
    project: str,
    gpus: GpuChoices | None = None,
    refusal: str = "",
    missing_folders: Container[str] = (),
    ending: Ending | None = None,
    viewer: str | None = None,
    images_url: str = "",
) -> str:
    """Return the form's fields as HTML.

    Parameters
    ----------
    previous
        What was chosen the last time, or just now if it was refused; need not be valid.
    gpus
        GPUs to choose from; none by default.
    refusal
        Why the user may have no more servers at present; empty if they may.
    missing_folders
        Names of shared folders that are not there at the moment.
    ending
        How the project's server ended the last time.
    viewer
        Name of the user who looks at the form; the owner by default.
    images_url
        Where images are made; empty if there is no portal.
    """
    limits = choices.limits
    gpus = gpus or GpuChoices()
    cpus = _read(float, previous.get("cpus"), SMALLEST_CPUS, choices.default_cpus)
    memory = _read(
        parse_bytes, previous.get("memory"), SMALLEST_MEMORY_BYTES, choices.default_memory_bytes
    )
    return _ENVIRONMENT.get_template("spawn_form.html").render(
        images=images,
        limits=limits,
        life=life_words.limits(limits.lifecycle),
        folders=choices.folders,
        missing_folders=missing_folders,
        refusal=refusal,
        project=project,
        ending=seen_by(viewer, ending) if ending and viewer else ending,
        chosen_image=_chosen_image(images, previous),
        gone_image=_gone_image(images, previous),
        images_url=images_url,
        own_images=any(choice.kind != BASES for choice in images),
        many_images=len(images) > _MANY_IMAGES,
        cpus=_segments(SMALLEST_CPUS, limits.cpus, cpus, "{:g}".format),
        memory=_segments(SMALLEST_MEMORY_BYTES, limits.memory_bytes, memory, format_bytes),
        gpus=gpus,
        gpu=_gpu_segments(gpus.offers, str(previous.get("gpu", NO_GPU))),
        gpu_count=_count_segments(gpus.largest_count, previous.get("gpu_count")),
        safe_start=str(previous.get("safe_start", "")).lower() in ("true", "1", "on"),
    )


def _chosen_image(images: list[ImageChoice], previous: Mapping[str, Any]) -> str:
    wanted = str(previous.get("image", ""))
    if wanted in _offered(images):
        return wanted
    # The one that a request without an image gets.
    return next(choice.image.name for choice in images if choice.kind == BASES)


def _offered(images: list[ImageChoice]) -> set[str]:
    return {choice.image.name for choice in images if choice.can_start}


def _gone_image(images: list[ImageChoice], previous: Mapping[str, Any]) -> str:
    """Return the image that was chosen before and is not offered any more; empty if it is."""
    wanted = str(previous.get("image") or "")
    return "" if wanted in {"", *_offered(images)} else wanted[:120]


def _read(read: Callable[[Any], float], value: Any, smallest: float, default: float) -> float:
    """Read what was chosen before; it may be anything, also from an older version."""
    try:
        number = read(value)
    except (TypeError, ValueError, AttributeError):
        return default
    return number if number >= smallest else default


def _segments(
    smallest: float, largest: float, chosen: float, label: Callable[[Any], str]
) -> list[_Segment]:
    """Return doubling steps up to the limit, with the chosen value among them.

    A value above the limit, chosen when the limit was higher, becomes the limit.
    """
    chosen = min(chosen, largest)
    steps = {chosen, largest}
    step = smallest
    while step < largest:
        steps.add(step)
        step *= 2
    return [_Segment(_plain(step), label(step), step == chosen) for step in sorted(steps)]


def _gpu_segments(found: tuple[Offer, ...], chosen: str) -> list[_Segment]:
    """Return "None", the sizes, and what was asked for in other words, such as ``>=20g``.

    A size that does not exist any more falls back to "None".
    """
    sizes = [_Segment(o.value, o.label, o.value == chosen, o.note, not o.can_be_had) for o in found]
    if not any(size.chosen for size in sizes) and (asked := _least_memory(chosen)):
        sizes.append(_Segment(chosen, asked, True, "as you asked before"))
    none = not any(size.chosen for size in sizes)
    return [_Segment(NO_GPU, "None", none, "CPUs only"), *sizes]


def _least_memory(size: str) -> str:
    """Return a request for a least memory in words; empty if it is none."""
    try:
        request = parse_request(size)
    except ValueError:
        return ""
    return request.size if request.memory_bytes else ""


def _count_segments(largest: int, chosen: Any) -> list[_Segment]:
    """Return the numbers to choose from; nothing where there is no choice."""
    if largest < 2:
        return []
    number = int(_read(int, chosen, 1, 1))
    return [_Segment(str(n), str(n), n == min(number, largest)) for n in range(1, largest + 1)]


def _plain(number: float) -> str:
    """Return a number as the form sends it: bytes without a fraction."""
    return str(int(number)) if number == int(number) else str(number)
