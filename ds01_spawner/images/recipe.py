"""What an image is made of: the recipe that a user's choices in the forms come to. Pure."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

#: Installs packages in a build: uv in the words of pip, with the site's index and a cache.
PIP = "/opt/ds01/build/pip"

#: Sets of packages that are used together. Source: DS01's ``image-create``.
PACKAGE_SETS = {
    "data-science": ("pandas", "scipy", "scikit-learn", "matplotlib", "seaborn"),
    "ml": ("xgboost", "lightgbm", "catboost", "optuna", "shap"),
    "cv": ("timm", "albumentations", "opencv-python-headless", "kornia", "ultralytics"),
    "nlp": (
        *("transformers", "datasets", "tokenizers", "accelerate", "sentencepiece"),
        *("peft", "safetensors", "evaluate"),
    ),
    "rl": ("gymnasium", "stable-baselines3"),
    "audio": ("librosa", "soundfile", "audiomentations"),
    "time-series": ("statsmodels", "prophet", "darts"),
    "llm": ("vllm", "bitsandbytes", "langchain", "einops"),
}

MOST_PACKAGES = 500
_LONGEST = 300
_MOST_VARIABLES = 50
_LONGEST_VALUE = 2000
_MOST_NAMED = 5

#: Debian's names, with a version behind ``=``. Source: Debian Policy 5.6.1, 5.6.12.
_SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}(=[A-Za-z0-9.+:~-]{1,80})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
#: Set at each start, whatever an image says; in a recipe they would only seem to do something.
_OURS = re.compile(r"(NVIDIA_|DOCKER_RESOURCE_|JUPYTERHUB_|JPY_|DS01_).*|LD_PRELOAD|LD_AUDIT|HOME")
_MARK = "# ds01: made from recipe.yaml; sha256 "


class RecipeError(ValueError):
    """A recipe that cannot be used; the text says what to change, a line for each mistake."""


class Recipe(BaseModel):
    """What an image is made of.

    Attributes
    ----------
    base
        Name of the image that it stands on: one of the catalogue's, or a user's
        (``ds01-alice/vision:latest``).
    system
        Debian packages.
    sets
        Names of `PACKAGE_SETS`.
    python
        Requirements as pip writes them (PEP 508), without URLs.
    environment
        Variables.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Annotated[str, Field(min_length=1, max_length=255)]
    system: Annotated[tuple[str, ...], Field(max_length=MOST_PACKAGES)] = ()
    sets: Annotated[tuple[str, ...], Field(max_length=len(PACKAGE_SETS))] = ()
    python: Annotated[tuple[str, ...], Field(max_length=MOST_PACKAGES)] = ()
    environment: Annotated[dict[str, str], Field(max_length=_MOST_VARIABLES)] = {}

    @field_validator("base")
    @classmethod
    def _check_base(cls, base: str) -> str:
        if not re.fullmatch(r"[a-z0-9][A-Za-z0-9._/:-]*", base):
            raise ValueError(f"{base!r:.80} is no name of an image")
        return base

    @field_validator("system")
    @classmethod
    def _check_system(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        for package in packages:
            if not _SYSTEM_PACKAGE.fullmatch(package):
                raise ValueError(
                    f"{package!r:.80} is no Debian package; write a name such as graphviz"
                )
        return _each_once(packages)

    @field_validator("sets")
    @classmethod
    def _check_sets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in PACKAGE_SETS:
                raise ValueError(f"there is no set {name!r:.80}; sets: {', '.join(PACKAGE_SETS)}")
        # In our order, so that the same sets make the same layer.
        return tuple(name for name in PACKAGE_SETS if name in names)

    @field_validator("python")
    @classmethod
    def _check_python(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(map(requirement, lines))

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r:.80} is no name of a variable")
            if _OURS.fullmatch(name):
                raise ValueError(f"{name} is set at each start and cannot be chosen")
            if len(value) > _LONGEST_VALUE or not value.isprintable():
                raise ValueError(
                    f"the value of {name} must be one line of at most {_LONGEST_VALUE} characters"
                )
        return variables

    @property
    def distributions(self) -> tuple[str, ...]:
        """Names of all Python packages that were asked for, normalised.

        Where all lines of a package have markers, the first one's stands behind the name, after a
        semicolon: the image may do without it.
        """
        found = {canonicalize_name(p): "" for name in self.sets for p in PACKAGE_SETS[name]}
        for asked in map(Requirement, self.python):
            name, marker = (
                canonicalize_name(asked.name),
                f"; {asked.marker}" if asked.marker else "",
            )
            found[name] = marker and found.get(name, marker)
        return tuple(name + marker for name, marker in found.items())

    def with_python(self, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Recipe:
        """Return the recipe with other Python packages; one that is there already is replaced.

        Raises
        ------
        RecipeError
            If one to remove is not there, or one to add is none.
        """
        added = [_said(requirement, line) for line in add]
        gone: set[str] = {canonicalize_name(name) for name in remove}
        if missing := gone - {_name(line) for line in self.python}:
            raise RecipeError(f"{', '.join(sorted(missing))} is not among the packages.")
        # A name may have several lines, each for other versions of Python.
        gone |= {_name(line) for line in added}
        kept = [line for line in self.python if _name(line) not in gone]
        return read_recipe({**self.model_dump(), "python": [*kept, *added]})


def requirement(line: str) -> str:
    """Return a requirement as we write it.

    Raises
    ------
    ValueError
        If it is none, or names a place and not a package.
    """
    line = line.strip()
    if len(line) > _LONGEST or not line.isprintable():
        raise ValueError(f"{line!r:.80} is no package")
    try:
        parsed = Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{line!r:.80} is no package ({reason:.120}); write for example torch>=2.0"
        ) from None
    if parsed.url:
        raise ValueError(
            f"{line!r:.80} names a place; use a package of the index, or a Dockerfile of your own"
        )
    return str(parsed)


def read_recipe(raw: Any) -> Recipe:
    """Check what was sent or stored.

    Raises
    ------
    RecipeError
        With a line for each mistake, of a few.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explain(error, tuple(Recipe.model_fields))) from None


def explain(error: ValidationError, fields: Sequence[str]) -> str:
    """Return what is wrong with something that was sent, a line for each mistake, of a few.

    Parameters
    ----------
    fields
        The fields that there are.
    """
    lines = []
    for problem in error.errors()[:_MOST_NAMED]:
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such field; the fields are {', '.join(fields)}"
        lines.append(f"{field:.60}: {message:.300}." if field else f"{message:.300}.")
    return "\n".join(lines)


@dataclass(frozen=True)
class Requirements:
    """What a ``requirements.txt`` comes to: no line of it is left out in silence.

    Attributes
    ----------
    used
        The requirements.
    remarks
        A sentence for each line of which only a part is used.
    refused
        A sentence for each line that is not used, and why.
    """

    used: tuple[str, ...]
    remarks: tuple[str, ...]
    refused: tuple[str, ...]


def read_requirements(text: str) -> Requirements:
    """Read a ``requirements.txt``.

    Raises
    ------
    RecipeError
        If there is too much of it, or it is no text.
    """
    if "\0" in text:
        raise RecipeError("requirements.txt holds a NUL byte and is no text file.")
    lines = list(_whole_lines(text.removeprefix("\ufeff").replace("\r\n", "\n")))
    if len(lines) > 4 * MOST_PACKAGES:
        raise RecipeError(
            f"requirements.txt has {len(lines)} lines; {MOST_PACKAGES} packages are the most."
        )
    used: list[str] = []
    remarks: list[str] = []
    refused: list[str] = []
    for number, line in lines:
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        if not bare:
            continue
        # Hashes hold for one build of a wheel and say nothing of what is wanted.
        without = re.sub(r"\s--hash[= ]\S+", "", f" {bare}").strip()
        try:
            if bare.startswith("-"):
                raise ValueError("options are not used; the site has its own index")
            used.append(requirement(without))
        except ValueError as error:
            refused.append(f"Line {number} is not used: {bare:.80}: {error!s:.200}.")
            continue
        if without != bare:
            remarks.append(f"Line {number} is used without its hashes: {without:.80}.")
    if len(used) > MOST_PACKAGES:
        raise RecipeError(f"{len(used)} packages are too many; {MOST_PACKAGES} are the most.")
    return Requirements(tuple(used), tuple(remarks), tuple(refused))


def _whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield what belongs together, with the number of its first line.

    A line that ends in a backslash goes on in the next, unless it is a comment. Source: pip's
    manual, "Requirements File Format".
    """
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        goes_on = line.endswith("\\") and not line.lstrip().startswith("#")
        parts.append(line.removesuffix("\\") if goes_on else line)
        if not goes_on:
            yield number - len(parts) + 1, " ".join(parts)
            parts = []
    if parts:
        yield number - len(parts) + 1, " ".join(parts)


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as the file ``recipe.yaml``."""
    fields = {key: value for key, value in recipe.model_dump(mode="json").items() if value}
    head = "# What this project's image is made of; the page Images builds it.\n"
    return head + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)


def dockerfile_text(recipe: Recipe) -> str:
    """Return the Dockerfile that a recipe comes to; its first line tells whether it was edited."""
    body = "\n".join([*_instructions(recipe), ""])
    return f"{_MARK}{_hash(body)}\n{body}"


def is_edited(dockerfile: str) -> bool:
    """Tell whether a Dockerfile is something else than what was made from a recipe."""
    first, _, body = dockerfile.replace("\r\n", "\n").partition("\n")
    return first != f"{_MARK}{_hash(body)}"


def _instructions(recipe: Recipe) -> Iterator[str]:
    yield f"# {PIP} is pip while DS01 builds; elsewhere write pip in its place."
    yield f"FROM {recipe.base}"
    if recipe.environment:
        pairs = (f"{name}={_quoted(value)}" for name, value in recipe.environment.items())
        yield "ENV " + " \\\n    ".join(pairs)
    if recipe.system:
        yield (
            "RUN apt-get update \\\n"
            " && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\\n"
            f"{_listed(recipe.system)} \\\n"
            " && rm -rf /var/lib/apt/lists/*"
        )
    for name in recipe.sets:
        yield f"# The set {name}."
        yield f"RUN {PIP} install \\\n{_listed(PACKAGE_SETS[name])}"
    if recipe.python:
        yield f"RUN {PIP} install \\\n{_listed(recipe.python)}"


def _listed(words: Iterable[str]) -> str:
    return " \\\n".join(f"        {shlex.quote(word)}" for word in words)


def _quoted(value: str) -> str:
    """Write a value of ENV as Docker reads it, nothing in it replaced."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _each_once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _name(line: str) -> str:
    return canonicalize_name(Requirement(line).name)


def _said(read: Any, line: str) -> str:
    try:
        return str(read(line))
    except ValueError as error:
        raise RecipeError(f"{error}.") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
