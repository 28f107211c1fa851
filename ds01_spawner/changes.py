"""What has changed in a container since it was made, as the engine tells it."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import docker.errors

#: Seconds for the engine's whole answer; it looks at every file that was written.
_PATIENCE_S = 20.0
#: Bytes of the answer: a few hundred thousand files. What comes after them is not known.
_LARGEST_ANSWER = 64 << 20
_AT_ONCE = 1 << 16
#: Paths that are kept of it: somebody may have a million, and they go to the container again.
_MOST, _MOST_BYTES = 10_000, 512 << 10
#: Kinds of changes. Source: Docker's API, "Get changes on a container's filesystem".
_MODIFIED, _ADDED = 0, 1


@dataclass(frozen=True)
class Changes:
    """What is in a container and was not in its image.

    Attributes
    ----------
    added
        Paths of what is new; a directory stands for all that is below it.
    modified
        Paths of what was in the image and is different now: files, and directories of which
        something has changed.
    is_complete
        Whether these are all.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    is_complete: bool = True


def read_changes(client: Any, container_id: str) -> Changes:
    """Ask the engine what has changed in a container; blocks.

    Its answer is read as it comes, and to a bound: whoever makes files decides how long it is.

    Parameters
    ----------
    client
        The engine's low-level client.

    Raises
    ------
    requests.exceptions.RequestException, docker.errors.DockerException
        If the engine does not say.
    """
    address = f"{client.base_url}/v{client.api_version}/containers/{container_id}/changes"
    deadline = time.monotonic() + _PATIENCE_S
    with client.get(address, stream=True, timeout=_PATIENCE_S) as answer:
        answer.raise_for_status()
        try:
            return changes_in(_until(answer.iter_content(_AT_ONCE), deadline))
        except (ValueError, LookupError, TypeError) as error:
            raise docker.errors.DockerException(f"No changes but {error!r:.200}") from error


def changes_in(chunks: Iterable[bytes | None]) -> Changes:
    """Return the changes in the engine's answer.

    Parameters
    ----------
    chunks
        The answer in pieces; None where it was broken off.

    Raises
    ------
    ValueError, LookupError, TypeError
        If it is none.
    """
    added: dict[str, None] = {}
    modified: dict[str, None] = {}
    left, is_complete = _MOST_BYTES, True
    for entry in _entries(chunks):
        if entry is None:
            is_complete = False
            break
        path, kind = str(entry["Path"]), int(entry["Kind"])
        if kind not in (_ADDED, _MODIFIED) or any(map(added.__contains__, _above(path))):
            continue
        left -= len(path.encode("utf-8", "replace"))
        if left < 0 or len(added) + len(modified) >= _MOST:
            is_complete = False
            break
        (added if kind == _ADDED else modified)[path] = None
    return Changes(tuple(added), tuple(modified), is_complete)


def _above(path: str) -> Iterator[str]:
    """Yield the directories above a path."""
    return map(str, PurePosixPath(path).parents)


def _until(chunks: Iterable[bytes], deadline: float) -> Iterator[bytes | None]:
    """Yield what comes in time and within the bound, and None in place of the rest."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if size > _LARGEST_ANSWER or time.monotonic() > deadline:
            yield None
            return


def _entries(chunks: Iterable[bytes | None]) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a JSON array as they come; None at last if it was broken off."""
    decoder, read = codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder().raw_decode
    text, at = "", 0
    for chunk in chunks:
        if chunk is None:
            yield None
            return
        text, at = text[at:] + decoder.decode(chunk), 0
        while (begin := text.find("{", at)) >= 0:
            try:
                entry, at = read(text, begin)
            except ValueError:
                # The rest of it is still to come.
                at = begin
                break
            yield entry
        if len(text) - at > _AT_ONCE:
            raise ValueError("a path without an end")
    # The engine says null for no changes.
    if text[at:].strip("[], \n") not in ("", "null"):
        raise ValueError("the answer breaks off")
