"""YAML with the line of each key, so that an error can name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""

#: What stands below these keys is taken as it is written: 007 and "no" are users' names.
_NAMES = ("members", "username")
#: More is a mistake, or aliases that multiply without end.
_MOST_VALUES = 200_000


class FileError(ValueError):
    """A file that cannot be read; the text names it, and the line where there is one."""


@dataclass
class Located:
    """The content of one file.

    Attributes
    ----------
    file
        Name of the file, for messages.
    content
        What it says, in plain dictionaries with text as keys, lists and scalars.
    lines
        Line of each place, from 1 on.
    """

    file: str
    content: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """Return the line of a place, or of what is nearest around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def at(self, place: Place, problem: str) -> str:
        """Say where a problem is: ``file:line: groups.student.memory: …``."""
        where = f"{self.file}:{self.line(place)}"
        return f"{where}: {dotted(place)}: {problem}" if place else f"{where}: {problem}"


def dotted(place: Place) -> str:
    """Write a place as people do: ``groups.student.members[3]``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(path: Path) -> Located:
    """Read a YAML file.

    Raises
    ------
    FileError
        If it cannot be read, is not YAML, or has a key twice: YAML would silently take the last.
    """
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise FileError(f"{path}:1: {one_line(error)}") from error
    try:
        return _Reader(str(path), loader).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise FileError(f"{path}:{line}: {error.problem or one_line(error)}") from error
    except (yaml.YAMLError, ValueError) as error:
        # A date such as 2026-13-45 is a ValueError of Python's own.
        raise FileError(f"{path}:1: {one_line(error)}") from error
    except RecursionError as error:
        raise FileError(f"{path}:1: is nested too deeply") from error
    finally:
        loader.dispose()


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises
    ------
    FileError
        If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise FileError(f"{path}:{line}: is not UTF-8 text") from error


def one_line(error: Exception) -> str:
    """Return an error's text without its line breaks."""
    return " ".join(str(error).split())


class _Reader:
    """Turns the nodes of one document into plain values, and notes the lines."""

    def __init__(self, file: str, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._located = Located(file, None)
        self._left = _MOST_VALUES

    def read(self) -> Located:
        node = self._loader.get_single_node()
        if node is not None:
            self._located.content = self._value(node, ())
        return self._located

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self._left -= 1
        if self._left < 0:
            raise yaml.MarkedYAMLError(
                problem="there are more values here than a policy has",
                problem_mark=node.start_mark,
            )
        self._located.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, place))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, i)) for i, item in enumerate(node.value)]
        if self._is_name(place) and node.tag != "tag:yaml.org,2002:null":
            return node.value
        return self._loader.construct_object(node)

    def _is_name(self, place: Place) -> bool:
        named = place[-2:-1] if place and isinstance(place[-1], int) else place[-1:]
        return bool(named) and named[0] in _NAMES

    def _pairs(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, Any]]:
        self._refuse_twice(node)
        # A "<<" brings in another mapping's keys, which the mapping's own then replace.
        self._loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*place, key)
            self._located.lines[here] = key_node.start_mark.line + 1
            yield key, self._value(value_node, here)

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a key must be plain text"
            elif key_node.value in seen:
                problem = f"the key {key_node.value!r:.80} comes twice"
            else:
                seen.add(key_node.value)
                continue
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
