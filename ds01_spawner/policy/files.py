"""Reads a policy: ``resource-limits.yaml`` and the files beside it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from . import older
from .located import FileError, Located, Place, read_text, read_yaml
from .resolve import Policy
from .schema import Exemption, Exemptions, Override, Overrides, PolicyFile

#: What somebody can be exempted from.
EXEMPTIONS = ("idle_timeout_h", "max_runtime_h")
#: DS01's list of people who have left; it gives nobody anything.
_ARCHIVED = "archived"


class PolicyError(ValueError):
    """A policy that cannot be used; `problems` has a line for each thing that is wrong with it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def policy_files(file: Path) -> list[Path]:
    """Return the files that a policy is made of, those that are there now."""
    beside = [
        file.with_name(name)
        for name in ("user-overrides.yaml", "group-overrides.txt", "lifecycle-exemptions.yaml")
    ]
    try:
        members = _members_files(file)
    except PolicyError:
        # Reading them says why.
        members = []
    return [file, *(path for path in beside if path.exists()), *members]


def _members_files(file: Path) -> list[Path]:
    """Return the lists of groups' members.

    Raises
    ------
    PolicyError
        If it cannot be told which there are: that is no empty group.
    """
    folder = file.parent / "groups"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PolicyError([f"{folder}: cannot be read: {error.strerror}"]) from error
    return [folder / name for name in sorted(names) if name.endswith(".members")]


def _names(content: Any, section: str) -> list[str]:
    found = content.get(section) if isinstance(content, dict) else None
    return list(found) if isinstance(found, dict) else []


def load_policy(file: Path) -> Policy:
    """Read a policy.

    Parameters
    ----------
    file
        ``resource-limits.yaml``, by whatever name; the others lie beside it.

    Raises
    ------
    PolicyError
        If it cannot be used; lists everything that is wrong, each with file, line and key.
    """
    return _Reading(file).policy()


class _Reading:
    """One reading of all files, which goes on after a problem to find the others."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._problems: list[str] = []
        self._without_effect: list[str] = []
        self._groups: list[str] = []

    def policy(self) -> Policy:
        main = self._yaml(self._file)
        self._without_effect += older.modernise(main)
        read = self._check(PolicyFile, main) or PolicyFile()
        # As written: a mistake in one group must not make all of them unknown.
        self._groups = _names(main.content, "groups")
        overrides = {**read.user_overrides, **self._overrides()}
        members = self._members(read)
        assigned = self._assigned()
        exemptions = self._exemptions()
        if read.default_group is not None and read.default_group not in self._groups:
            problem = self._no_group(read.default_group)
            self._problems.append(main.at(("default_group",), problem))
        if self._problems:
            raise PolicyError(dict.fromkeys(self._problems))
        return Policy(read, overrides, members, assigned, exemptions, tuple(self._warnings()))

    def _warnings(self) -> Iterator[str]:
        if self._without_effect:
            yield f"These keys have no effect here: {', '.join(self._without_effect)}."

    # -- the files -----------------------------------------------------------------------------

    def _overrides(self) -> dict[str, Override]:
        located = self._beside("user-overrides.yaml")
        if located is None:
            return {}
        self._without_effect += [
            f"{key} (user-overrides.yaml)" for key in older.modernise_overrides(located)
        ]
        return self._check(Overrides, located) or {}

    def _exemptions(self) -> tuple[Exemption, ...]:
        located = self._beside("lifecycle-exemptions.yaml")
        if located is None:
            return ()
        # DS01 has the list under a key of its own.
        if isinstance(located.content, dict) and set(located.content) == {"exemptions"}:
            located.content = located.content["exemptions"]
            located.lines = {place[1:]: line for place, line in located.lines.items() if place[:1]}
        if not located.content:
            return ()
        found = self._check(Exemptions, located) or ()
        for i, exemption in enumerate(found):
            for j, key in enumerate(exemption.exempt_from):
                if key not in EXEMPTIONS:
                    place = (i, "exempt_from", j)
                    self._problems.append(
                        located.at(place, f"{key!r:.60} is not one of {', '.join(EXEMPTIONS)}")
                    )
        return found

    def _members(self, read: PolicyFile) -> Mapping[str, frozenset[str]]:
        members = {name: set(group.members) for name, group in read.groups.items()}
        for path in _members_files(self._file):
            group, names = path.stem, [name for _, name in self._lines(path)]
            if group in self._groups:
                members.setdefault(group, set()).update(names)
            elif group == _ARCHIVED:
                self._without_effect.append(f"groups/{path.name}")
            elif names:
                self._problems.append(f"{path}:1: {self._no_group(group)} in {self._file.name}")
        return {name: frozenset(names) for name, names in members.items()}

    def _assigned(self) -> dict[str, str]:
        path = self._file.with_name("group-overrides.txt")
        found: dict[str, str] = {}
        for number, line in self._lines(path) if path.exists() else ():
            user, colon, group = (part.strip() for part in line.rpartition(":"))
            if not colon or not user or not group:
                problem = f"{line!r:.60} is not user:group"
            elif group not in self._groups:
                problem = self._no_group(group)
            elif found.setdefault(user, group) != group:
                problem = f"{user!r:.60} is in {found[user]!r:.60} already"
            else:
                continue
            self._problems.append(f"{path}:{number}: {problem}")
        return found

    def _no_group(self, group: str) -> str:
        return f"there is no group {group!r:.60}{nearest(group, self._groups)}"

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Give the numbered lines of a list, without its comments."""
        try:
            text = read_text(path)
        except FileError as error:
            self._problems.append(str(error))
            return
        for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
            if name := line.partition("#")[0].strip():
                yield number, name

    def _beside(self, name: str) -> Located | None:
        path = self._file.with_name(name)
        return self._yaml(path) if path.exists() else None

    def _yaml(self, path: Path) -> Located:
        try:
            located = read_yaml(path)
        except FileError as error:
            self._problems.append(str(error))
            return Located(str(path), {})
        if located.content is None:
            located.content = {}
        return located

    # -- what is wrong -------------------------------------------------------------------------

    def _check(self, kind: Any, located: Located) -> Any:
        try:
            return TypeAdapter(kind).validate_python(located.content)
        except ValidationError as error:
            self._problems += explain(error, located, kind)
            return None


def explain(error: ValidationError, located: Located, kind: Any) -> Iterator[str]:
    """Say in a line each what is wrong, with file, line and key.

    Parameters
    ----------
    kind
        What the file was read as: a model, or a dictionary or tuple of one.
    """
    problems = sorted(error.errors(), key=lambda problem: located.line(problem["loc"]))
    for problem in problems:
        place = tuple(part for part in problem["loc"] if part != "[key]")
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key{nearest(str(place[-1]), _known(kind, place[:-1]))}"
        elif problem["type"] == "missing":
            message = "is missing"
        elif problem["type"] in ("model_type", "dict_type"):
            message = "must be a section with keys of its own"
        elif problem["type"] in ("tuple_type", "list_type"):
            message = "must be a list"
        elif problem["input"] is None:
            message = "null is not possible here; leave the line out for the default"
        yield located.at(place, message)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that a word is not known; empty if nothing is known."""
    close = difflib.get_close_matches(word, list(known), 1, cutoff=0)
    return f"; the nearest known is {close[0]!r:.60}" if close else ""


def _known(kind: Any, place: Place) -> list[str]:
    """Return the keys of the section at a place of what a file was read as."""
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            # The values of a dictionary, or of a tuple of any length.
            arguments = [item for item in get_args(kind) if item is not ...]
            kind = arguments[-1]
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
    return list(kind.model_fields)
