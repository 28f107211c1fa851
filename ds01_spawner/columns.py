"""Text in columns of a terminal, in any script. Pure functions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

#: Between two columns of a table.
GAP = "  "


def printable(text: str) -> str:
    """Return somebody else's words without what moves a terminal's cursor or turns its line round.

    Control and formatting characters and separators of lines become question marks.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def width(text: str) -> int:
    """Return how many columns a text takes: East Asian letters take two, accents none."""
    return sum(map(_width, text))


def shortened(text: str, columns: int) -> str:
    """Return a text that takes at most so many columns, an ellipsis in place of the rest."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for letter in text:
        room -= _width(letter)
        if room < 0:
            break
        kept += letter
    return f"{kept}…"


def aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a table, its columns as wide as they need to be."""
    rows = list(rows)
    widths = widths_of(rows)
    for row in rows:
        cells = (cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True))
        yield GAP.join(cells).rstrip()


def widths_of(rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of each column."""
    return [max(map(width, column)) for column in zip(*rows, strict=True)]


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
