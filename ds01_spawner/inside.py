"""Asks a running server: one of the runtime's commands runs in it, and what it prints is read.

The command runs as the server's user and can do nothing that its owner cannot; and whoever is in
there can keep it from answering, or answer in its place. So an answer is bounded and believed no
further than its owner is.
"""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from . import runtime
from .engine import Docker
from .errors import Refused

_RUN = [f"{runtime.MOUNT}/bin/python3", "-I", "-X", "utf8", "-m"]
#: Seconds for an answer; a command itself gives up earlier.
PATIENCE_S = 30.0
#: Seconds for an earlier question of the same user's to be over.
_PATIENCE_FOR_A_TURN_S = 5.0
#: Bytes of what comes from a container.
_LARGEST_ANSWER = 1 << 20
_AT_ONCE = 1 << 16
#: Which stream, and how many bytes of it follow. Source: Docker's API, "Attach to a container".
_FRAME = struct.Struct(">BxxxL")
_STDOUT = 1

_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

Answer = TypeVar("Answer")


async def ask(
    docker_call: Docker,
    container: Mapping[str, Any],
    command: Sequence[str],
    read: Callable[[Any], Answer],
    *,
    about: str,
    patience_s: float | None = None,
    turn_of: str | None = None,
) -> Answer:
    """Return what a command of the runtime says in a server.

    A user's servers are asked one after the other: each question leaves a process in there if it is
    not answered.

    Parameters
    ----------
    container
        The inspection of a server that runs.
    command
        One of the runtime's modules, and its arguments.
    read
        Makes an answer of the JSON that it prints; what is none raises a ValueError, LookupError or
        TypeError.
    about
        What is asked, to follow "The server does not say".
    patience_s
        Seconds for the answer; `PATIENCE_S` if None.
    turn_of
        What is asked one question at a time; the server's user if None.

    Raises
    ------
    Refused
        503 if it gives no usable answer, as what runs in there is its owner's; 429 if its turn does
        not come, as another question has no answer yet.
    Exception
        Whatever the engine raises when it gives no answer.
    """
    turn_of = turn_of or container["Config"]["Labels"]["ds01.user"]
    turn = _turns.setdefault(turn_of, asyncio.Lock())
    try:
        await asyncio.wait_for(turn.acquire(), _PATIENCE_FOR_A_TURN_S)
    except asyncio.TimeoutError:
        raise Refused(
            "A server of yours is being asked something already. Try again in a minute.",
            reason="server",
            status_code=429,
        ) from None
    try:
        patience_s = PATIENCE_S if patience_s is None else patience_s
        answer = await _answer(docker_call, container, [*_RUN, *command], patience_s)
        return read(json.loads(_stdout(answer)))
    except (ValueError, LookupError, TypeError, RecursionError, struct.error) as error:
        raise Refused(
            f"The server does not say {about}. Try again in a minute.",
            reason="server",
            status_code=503,
        ) from error
    finally:
        turn.release()


# -- the answer, in no thread: whoever sends it may stop in the middle -----------------------------


async def _answer(
    docker_call: Docker, container: Mapping[str, Any], command: Sequence[str], patience_s: float
) -> bytes:
    """Run the command in a container and return all that comes from it.

    Raises
    ------
    ValueError
        If it is too much, breaks off or does not end in time.
    """
    made = await docker_call(
        "exec_create", container["Id"], command, stderr=False, user=container["Config"]["User"]
    )
    stream = await docker_call("exec_start", made["Id"], socket=True)
    try:
        return await asyncio.wait_for(_whole(stream), patience_s)
    except (OSError, asyncio.TimeoutError) as error:
        raise ValueError("the answer has no end") from error
    finally:
        _close(stream)


async def _whole(stream: Any) -> bytes:
    # docker-py gives the raw file of an unencrypted connection, and the socket of others.
    connection = getattr(stream, "_sock", stream)
    connection.setblocking(False)
    content = bytearray(_read_ahead(stream))
    while len(content) <= _LARGEST_ANSWER:
        chunk = await _receive(connection)
        if not chunk:
            return bytes(content)
        content += chunk
    raise ValueError("the answer is too long")


def _read_ahead(stream: Any) -> bytes:
    """Return what came along with the head of the engine's answer.

    docker-py leaves it in the buffer through which the head was read.
    """
    response = getattr(stream, "_response", None)
    file = response.raw._fp.fp if response is not None else None
    return file.peek() if isinstance(file, io.BufferedReader) else b""


async def _receive(connection: Any) -> bytes:
    while True:
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            return bytes(connection.recv(_AT_ONCE))
        await _readable(connection)


async def _readable(connection: Any) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _close(stream: Any) -> None:
    """Close a connection that the engine took over; the response holds it open as well."""
    response = getattr(stream, "_response", None)
    if response is not None:
        response.close()
    stream.close()


def _stdout(answer: bytes) -> bytes:
    return b"".join(content for stream, content in _frames(answer) if stream == _STDOUT)


def _frames(answer: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(answer):
        stream, size = _FRAME.unpack_from(answer, at)
        at += _FRAME.size
        yield stream, answer[at : at + size]
        at += size
