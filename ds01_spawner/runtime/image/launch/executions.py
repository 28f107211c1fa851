"""The cells that one kernel was told to run, and what they have shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .outputs import ITEM_BYTES, Outputs

#: All that is kept for one kernel.
MOST_BYTES = 32 << 20

NOT_ENDED = "The kernel stopped before this cell had ended.\n"


@dataclass
class Execution:
    """One run of one cell.

    Attributes
    ----------
    id
        The request's.
    session
        The page that asked for it.
    cell, source
        The cell's id in the notebook, and its text at that time.
    count
        The number in its brackets; None until it runs.
    is_adopted
        Whether another page has begun to follow it.
    is_seen
        Whether it has ended while its page seemed to be there.
    version
        Greater than any other's where it has changed last.
    """

    id: str
    session: str
    cell: str
    source: str
    outputs: Outputs = field(default_factory=Outputs)
    count: int | None = None
    is_done: bool = False
    is_adopted: bool = False
    is_seen: bool = False
    version: int = 0


class Executions:
    """Follows what runs in one kernel.

    - It knows one run of a cell, the last.
    - All of it takes `most_bytes` at most, about; what has been seen goes first.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.version = 0
        self._most_bytes = most_bytes
        self._all: dict[str, Execution] = {}

    def __iter__(self) -> Iterator[Execution]:
        return iter(list(self._all.values()))

    def request(self, id: str, session: str, cell: str, source: str) -> None:
        """Begin to follow a run that a page has asked for."""
        for earlier in self:
            if earlier.cell == cell:
                self.forget(earlier.id)
        self._all[id] = Execution(id, session, cell, source)
        self._changed(self._all[id])

    def wants(self, id: str | None, kind: str) -> bool:
        """Whether a message of this kind, in answer to this request, is one to be taken."""
        return id in self._all or (kind == "update_display_data" and bool(self._all))

    def take(self, id: str | None, kind: str, content: dict[str, Any], size_bytes: int) -> bool:
        """Take what the kernel says, and return whether anything has changed."""
        room = self._room_bytes()
        if size_bytes + ITEM_BYTES > room:
            for earlier in self:
                self.forget_seen(earlier.id)
            room = self._room_bytes()
        if kind == "update_display_data":
            updated = [e for e in self if e.outputs.update(content, size_bytes, room)]
            for execution in updated:
                self._changed(execution)
            return bool(updated)
        if id not in self._all:
            return False
        execution = self._all[id]
        if kind == "execute_input":
            execution.count = content.get("execution_count")
        elif kind == "status":
            if content.get("execution_state") != "idle":
                return False
            execution.is_done = True
        elif not execution.outputs.take(kind, content, size_bytes, room):
            return False
        self._changed(execution)
        return True

    def stop(self) -> None:
        """Note that the kernel is another one now, or none."""
        for execution in self:
            if not execution.is_done:
                if execution.count is not None:
                    execution.outputs.end(NOT_ENDED)
                execution.is_done = True
                self._changed(execution)

    def forget(self, id: str) -> None:
        """Leave a run to others from now on."""
        self._all.pop(id, None)

    def forget_seen(self, id: str) -> None:
        """Leave a run to its page, if that has seen the end."""
        if id in self._all and self._all[id].is_seen:
            self.forget(id)

    def _room_bytes(self) -> int:
        return self._most_bytes - sum(e.outputs.size_bytes for e in self._all.values())

    def _changed(self, execution: Execution) -> None:
        self.version += 1
        execution.version = self.version
