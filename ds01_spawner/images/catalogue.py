"""The catalogue: which images users are offered, read from ``images/catalogue.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

# Docker's grammar for references: [registry[:port]/]path[:tag][@sha256:digest].
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_DRIVER = re.compile(r"[0-9]+(?:\.[0-9]+)*")


class CatalogueError(ValueError):
    """A catalogue that cannot be used; the text names the file, the entry and the field."""


class CatalogueImage(BaseModel):
    """One image on the start form.

    Attributes
    ----------
    name
        What users pick and the Hub stores: lower-case letters, digits, ``.``, ``_``, ``-``.
    image
        Docker's reference, with a tag or a digest.
    framework, version
        Main content, such as ``PyTorch`` and ``2.8.0``.
    cuda
        CUDA's version inside, or None.
    description
        One sentence for a student.
    contents
        Main packages, for the form.
    needs_gpu
        Offered only with a GPU.
    minimum_driver
        Oldest NVIDIA driver on the host that runs this, such as ``550.54``, or None.
    on_request
        Comes to the machine only with ``ds01 images build <name>``, as it is large, and is offered
        only once it is there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrictStr
    image: StrictStr
    framework: StrictStr = Field(min_length=1, max_length=60)
    version: StrictStr = Field(min_length=1, max_length=60)
    cuda: StrictStr | None = None
    description: StrictStr = Field(min_length=1, max_length=400)
    contents: tuple[StrictStr, ...] = ()
    needs_gpu: StrictBool = False
    minimum_driver: StrictStr | None = None
    on_request: StrictBool = False

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, '.', '_' and '-', at most 63")
        return name

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: str) -> str:
        if not _REFERENCE.fullmatch(image):
            raise ValueError("is not an image reference; write for example ds01/python:3.11")
        last_part = image.rpartition("/")[2]
        if ":" not in last_part:
            raise ValueError("has no tag; write for example ds01/python:3.11")
        return image

    @field_validator("minimum_driver")
    @classmethod
    def _check_driver(cls, driver: str | None) -> str | None:
        if driver is not None and not _DRIVER.fullmatch(driver):
            raise ValueError("is not a driver version; write for example '550.54'")
        return driver

    @model_validator(mode="after")
    def _check_gpu(self) -> CatalogueImage:
        if self.minimum_driver is not None and self.cuda is None:
            raise ValueError("minimum_driver is set, but cuda is not: a driver matters to CUDA")
        return self

    def runs_with(self, driver: str) -> bool:
        """Tell whether an NVIDIA driver is new enough; one that is not known counts as such."""
        if self.minimum_driver is None or not _DRIVER.fullmatch(driver):
            return True
        return _numbers(driver) >= _numbers(self.minimum_driver)


class Catalogue:
    """The images on offer, in the order of the file; iterate over it to get them all.

    Parameters
    ----------
    images
        At least one; names are unique.
    """

    def __init__(self, images: tuple[CatalogueImage, ...]) -> None:
        self._images = {image.name: image for image in images}

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Read a catalogue file.

        Raises
        ------
        CatalogueError
            If the file cannot be read or used; lists everything that is wrong with it.
        """
        path = Path(path)
        images: list[CatalogueImage] = []
        problems: list[str] = []
        for number, entry in enumerate(_read_entries(path), 1):
            try:
                image = CatalogueImage.model_validate(entry)
            except ValidationError as error:
                problems += _explain(_label(number, entry), error)
                continue
            if any(image.name == other.name for other in images):
                problems.append(f"{_label(number, entry)}: name: there are two of this name")
            images.append(image)
        if images and images[0].on_request:
            problems.append(
                f"entry 1 ({images[0].name}): on_request: the first is what users get who choose "
                "nothing, so it must always be there"
            )
        if problems:
            raise CatalogueError("\n".join(f"{path}: {problem}" for problem in problems))
        return cls(tuple(images))

    def get(self, name: str) -> CatalogueImage:
        """Return the image of this name.

        Raises
        ------
        KeyError
            If there is none.
        """
        return self._images[name]

    def __iter__(self) -> Iterator[CatalogueImage]:
        return iter(self._images.values())

    def __len__(self) -> int:
        return len(self._images)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


class _UniqueKeys(yaml.SafeLoader):
    """YAML, except that a key given twice is an error: PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} comes twice", problem_mark=key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read_entries(path: Path) -> list[Any]:
    try:
        content = yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise CatalogueError(f"{path}: is not YAML: {_one_line(error)}") from error
    if not isinstance(content, dict) or set(content) != {"images"}:
        raise CatalogueError(f"{path}: must have one top-level key, 'images'")
    entries = content["images"]
    if not isinstance(entries, list) or not entries:
        raise CatalogueError(f"{path}: images: must be a list with at least one entry")
    return entries


def _label(number: int, entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"entry {number} ({name})" if isinstance(name, str) else f"entry {number}"


def _explain(label: str, error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
            message = f"write it in quotes: '{problem['input']}' (YAML reads it as a number)"
        elif problem["type"] == "extra_forbidden":
            message = f"unknown; the fields are {', '.join(CatalogueImage.model_fields)}"
        lines.append(f"{label}: {field}: {message}" if field else f"{label}: {message}")
    return lines


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
