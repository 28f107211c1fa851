"""What a kernel says while the page that it says it to is away."""

from __future__ import annotations

import json

#: So much of it waits in memory.
MOST_BYTES = 32 << 20
#: What the page needs to know of the kernel, and cannot have from the keeper.
_NEEDED = {"status", "execute_input", "error"}


class Waiting(list[tuple[str, list[bytes]]]):
    """Messages that wait for a page that is away, up to `MOST_BYTES`.

    Beyond that, what cells show is left out, which the page has from the keeper, and so is what
    widgets are told.
    """

    def __init__(self, before: list[tuple[str, list[bytes]]]) -> None:
        super().__init__()
        self._size_bytes = 0
        for message in before:
            self.append(message)

    def append(self, message: tuple[str, list[bytes]]) -> None:
        """Let a message wait: its channel, and its parts as they came from the kernel."""
        channel, parts = message
        size = sum(len(part) for part in parts)
        if channel == "iopub" and self._size_bytes + size > MOST_BYTES:
            # Behind the delimiter come the signature, the header and the content.
            header = parts[parts.index(b"<IDS|MSG>") + 2]
            if json.loads(header)["msg_type"] not in _NEEDED:
                return
        self._size_bytes += size
        super().append((channel, parts))
