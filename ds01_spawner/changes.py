"""What has changed in a container since it was made, as the engine tells it."""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

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

#: An answer may take long: short calls must not wait for these threads.
_threads = ThreadPoolExecutor(2, thread_name_prefix="changes")
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
#: By container: those whose turn has not come.
_waiting: dict[str, asyncio.Task[Changes]] = {}


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


async def changes_of(client: Any, container: Mapping[str, Any]) -> Changes:
    """Ask the engine what has changed in a container.

    - Of a user's containers it looks at one at a time.
    - Whoever asks gets what it sees from then on; those who wait for the same share an answer.
    - A cancel lets nobody else of the user's in before the engine is done.

    Parameters
    ----------
    client
        The engine's low-level client.
    container
        Its inspection.

    Raises
    ------
    requests.exceptions.RequestException, docker.errors.DockerException
        If the engine does not say.
    """
    task = _waiting.get(container["Id"])
    if task is None or task.done():
        task = asyncio.create_task(_in_turn(client, container))
        _waiting[container["Id"]] = task
    return await asyncio.shield(task)


async def _in_turn(client: Any, container: Mapping[str, Any]) -> Changes:
    user, id_ = container["Config"]["Labels"]["ds01.user"], container["Id"]
    async with _turns.setdefault(user, asyncio.Lock()):
        del _waiting[id_]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_threads, read_changes, client, id_)


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
    """Yield the directories above a path, the topmost first; a path may have thousands."""
    end = path.find("/", 1)
    while end > 0:
        yield path[:end]
        end = path.find("/", end + 1)


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
