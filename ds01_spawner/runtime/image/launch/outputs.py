"""What one cell has shown so far, as a notebook file has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: A text that is printed without an image or an error between is kept up to here; what is beyond
#: it is left out of the middle.
MOST_TEXT = 1 << 20
_BEGINNING = MOST_TEXT // 4
#: Of one cell; nobody scrolls through more.
MOST_ITEMS = 5_000
#: What an item takes beside its content, about.
ITEM_BYTES = 300

TOO_MUCH = "Some of this cell's output was too much to keep while its page was closed.\n"

Output = dict[str, Any]


class Text:
    """What was printed to one stream without a break.

    Takes any amount, and never holds more than twice `MOST_TEXT` characters.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: list[str] = []
        self._length = 0
        self._beginning = ""
        self._lines_left_out = 0

    def __len__(self) -> int:
        return len(self._beginning) + self._length

    def add(self, text: str) -> None:
        """Print it."""
        self._parts.append(text[-2 * MOST_TEXT :])
        self._length += len(self._parts[-1])
        if self._length > 2 * MOST_TEXT:
            self._compact()

    def as_output(self) -> Output:
        """Return it as it stands on a screen."""
        self._compact()
        *lines, last = "".join([self._beginning, self._left_out(), *self._parts]).split("\n")
        text = "\n".join([*lines, _overwritten(last.split("\r"))])
        return {"output_type": "stream", "name": self.name, "text": text}

    def _left_out(self) -> str:
        lines = self._lines_left_out
        return f"\n[{lines:,} lines were too much to keep]\n\n" if lines else ""

    def _compact(self) -> None:
        text = as_shown("".join(self._parts))
        if len(text) + len(self._beginning) > MOST_TEXT:
            if not self._beginning:
                # To a whole line, unless there is none.
                end = text.rfind("\n", 0, _BEGINNING) + 1 or _BEGINNING
                self._beginning, text = text[:end], text[end:]
            end = max(0, len(text) - (MOST_TEXT - _BEGINNING))
            end = (text.find("\n", end) + 1 or end) if end else 0
            self._lines_left_out += max(1, text.count("\n", 0, end)) if end else 0
            text = text[end:]
        self._parts, self._length = [text], len(text)


def as_shown(text: str) -> str:
    """Return what a screen shows of a text, with what a progress bar has overwritten left out.

    What is printed after it goes where it would have gone: without backspaces, as_shown(a + b) is
    as_shown(as_shown(a) + b).
    """
    if "\b" in text:
        text = _without_backspaces(text)
    if "\r" not in text:
        return text
    *lines, last = text.split("\n")
    lines = [_overwritten(line.rstrip("\r").split("\r")) for line in lines]
    *before, current = last.split("\r")
    shown = _overwritten([*before, current])
    # The next character goes behind the current one, not behind the line.
    is_inside = before and len(current) < len(shown)
    return "\n".join([*lines, f"{shown}\r{current}" if is_inside else shown])


def _without_backspaces(text: str) -> str:
    """Return it without what they take away, which is nothing at the beginning of a line."""
    shown: list[str] = []
    for character in text:
        if character != "\b":
            shown.append(character)
        elif shown and shown[-1] not in "\n\r":
            shown.pop()
    return "".join(shown)


def _overwritten(pieces: list[str]) -> str:
    # From the last one on, of which all is seen: what a program prints is not copied each time.
    shown = ""
    for piece in reversed(pieces):
        shown += piece[len(shown) :]
    return shown


@dataclass
class _Shown:
    """An image, a table, a result or an error."""

    output: Output
    size_bytes: int
    display_id: str | None


@dataclass
class Outputs:
    """What a cell has shown so far.

    Attributes
    ----------
    is_cut
        Whether there was more than could be kept.
    size_bytes
        How much memory it takes, about.
    """

    is_cut: bool = False
    size_bytes: int = 0
    _items: list[Text | _Shown] = field(default_factory=list)
    _clears_next: bool = False

    def take(self, kind: str, content: dict[str, Any], size_bytes: int, room_bytes: int) -> bool:
        """Take what the kernel says.

        Parameters
        ----------
        kind, content
            A message of the kernel's, as the Jupyter protocol has it.
        size_bytes
            Its size.
        room_bytes
            What it may take. More than that, or than `MOST_ITEMS`, is left out; the list then ends
            in words that say so.

        Returns
        -------
        bool
            Whether anything has changed.
        """
        if kind == "clear_output":
            self._clears_next = bool(content.get("wait"))
            return not self._clears_next and self._clear()
        if kind == "stream":
            return self._print(str(content.get("name")), content.get("text"), room_bytes)
        output = _output(kind, content)
        if output is None:
            return False
        if self._clears_next:
            self._clear()
        if self._fits(size_bytes, room_bytes):
            self._append(_Shown(output, size_bytes, _display_id(content)), size_bytes)
        return True

    def update(self, content: dict[str, Any], size_bytes: int, room_bytes: int) -> bool:
        """Take a new content for what is shown under its name, wherever it came from."""
        changed = False
        name = _display_id(content)
        for item in self._items:
            if name is None or not isinstance(item, _Shown) or item.display_id != name:
                continue
            changed = True
            if size_bytes - item.size_bytes > room_bytes:
                self.is_cut = True
                continue
            item.output["data"] = content.get("data") or {}
            item.output["metadata"] = content.get("metadata") or {}
            self.size_bytes += size_bytes - item.size_bytes
            item.size_bytes = size_bytes
        return changed

    def end(self, words: str) -> None:
        """Add a last line of our own."""
        self._add_text("stderr", words)

    def as_list(self) -> list[Output]:
        """Return it as the list that a cell in a notebook file has."""
        outputs = [i.as_output() if isinstance(i, Text) else i.output for i in self._items]
        if self.is_cut:
            outputs.append({"output_type": "stream", "name": "stderr", "text": TOO_MUCH})
        return outputs

    def _print(self, name: str, text: Any, room_bytes: int) -> bool:
        if not isinstance(text, str):
            return False
        if self._clears_next:
            self._clear()
        if self._last_text(name) is not None or self._fits(len(text), room_bytes):
            self._add_text(name, text)
        return True

    def _last_text(self, name: str) -> Text | None:
        last = self._items[-1] if self._items else None
        return last if isinstance(last, Text) and last.name == name else None

    def _add_text(self, name: str, text: str) -> None:
        last = self._last_text(name)
        if last is None:
            last = Text(name)
            self._append(last, 0)
        self.size_bytes -= len(last)
        last.add(text)
        self.size_bytes += len(last)

    def _fits(self, size_bytes: int, room_bytes: int) -> bool:
        fits = len(self._items) < MOST_ITEMS and size_bytes + ITEM_BYTES <= room_bytes
        self.is_cut = self.is_cut or not fits
        return fits

    def _append(self, item: Text | _Shown, size_bytes: int) -> None:
        self._items.append(item)
        self.size_bytes += size_bytes + ITEM_BYTES

    def _clear(self) -> bool:
        self._clears_next = self.is_cut = False
        self._items.clear()
        self.size_bytes = 0
        return True


def _output(kind: str, content: dict[str, Any]) -> Output | None:
    if kind == "error":
        keys: dict[str, Any] = {"ename": "", "evalue": "", "traceback": []}
    elif kind == "display_data":
        keys = {"data": {}, "metadata": {}}
    elif kind == "execute_result":
        keys = {"data": {}, "metadata": {}, "execution_count": None}
    else:
        return None
    return {"output_type": kind, **{key: content.get(key, none) for key, none in keys.items()}}


def _display_id(content: dict[str, Any]) -> str | None:
    return (content.get("transient") or {}).get("display_id")
