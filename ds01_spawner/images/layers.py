"""The layers of an image, with the command that made each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine import Docker
from .steps import MARK

#: What makes a layer; the rest of an image's history only sets something.
_MAKES_A_LAYER = re.compile(r"(RUN|COPY|ADD|WORKDIR)\b|/bin/sh -c (?!#\(nop\))|Imported from")
_NOISE = re.compile(r"# buildkit$|^RUN \|\d+ .*?(?=/bin/sh)|--mount=\S+ ")
#: Bytes of more than what `MARK` copies.
_LARGEST_MARK = 4096


@dataclass(frozen=True)
class Layer:
    """One layer, lowest first: its `digest`, its size, and the command that made it."""

    digest: str
    size_bytes: int
    command: str


async def layers_of(docker_call: Docker, image_id: str) -> list[Layer]:
    """Return an image's layers, lowest first.

    Raises
    ------
    Exception
        Whatever the engine raises when it gives no answer, or has no such image.
    """
    inspected = await docker_call("inspect_image", image_id)
    history = await docker_call("history", image_id)
    return read_layers(inspected["RootFS"].get("Layers") or [], history)


def read_layers(digests: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """Put digests and history together, which Docker keeps apart; without what we add to a build.

    Parameters
    ----------
    history
        Newest first, with an entry for each instruction, whether it made a layer or not.
    """
    oldest_first = list(reversed(history))
    made = [e for e in oldest_first if e["Size"] or _MAKES_A_LAYER.search(e["CreatedBy"] or "")]
    if len(made) != len(digests):
        made = [entry for entry in oldest_first if entry["Size"]]
    if len(made) != len(digests):
        # Not to be told apart: all of it is the top layer's.
        total = sum(entry["Size"] for entry in history)
        sizes = [0] * (len(digests) - 1) + [total]
        return [Layer(d, s, "") for d, s in zip(digests, sizes, strict=True)]
    layers = [
        Layer(digest, int(entry["Size"]), _command(entry["CreatedBy"] or ""))
        for digest, entry in zip(digests, made, strict=True)
    ]
    return [layer for layer, entry in zip(layers, made, strict=True) if not _is_mark(layer, entry)]


def _is_mark(layer: Layer, entry: Mapping[str, Any]) -> bool:
    """Tell whether a layer is what we add to a build.

    Others can have the same words in their history: a RUN of a program named COPY, and a COPY of
    another stage's file. A layer that counts for nobody must be no RUN, and small.
    """
    is_run = (entry["CreatedBy"] or "").lstrip().startswith("RUN")
    return layer.command == MARK and not is_run and layer.size_bytes < _LARGEST_MARK


def _command(created_by: str) -> str:
    text = _NOISE.sub("", created_by).strip()
    return " ".join(text.removeprefix("RUN ").replace("/bin/sh -c ", "RUN ", 1).split())[:500]
