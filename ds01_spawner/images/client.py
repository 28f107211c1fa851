"""One run of the docker client that builds an image: watched, limited, and ended when it must."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..buildkit import ENVIRONMENT
from ..cgroups.builds import Check
from .build_cache import Growth
from .disk import bytes_below, is_almost_full
from .log import Excerpt
from .output import Line, Output, next_piece

#: Seconds between two looks at what a build has written.
_LOOK_S = 2.0
#: Seconds that the client has to end the build at the engine.
_GRACE_S = 15.0
#: A line that is longer is read in pieces.
_LONGEST_PIECE_BYTES = 65536


@dataclass(frozen=True)
class Bounds:
    """What one build may take.

    Attributes
    ----------
    seconds
        Time.
    layer_bytes
        Written by one step into one place: its layer, or a cache.
    total_bytes
        Left in the engine's cache by all steps.
    free_bytes
        Left on the disk by everybody together.
    """

    seconds: float
    layer_bytes: int
    total_bytes: int
    free_bytes: int


class Stopped(Exception):
    """A build that was ended for going beyond its bounds; the text says which, for its owner."""


async def run_client(
    command: Sequence[str],
    bounds: Bounds,
    *,
    written: Callable[[], list[Path]],
    growth: Growth,
    others: Callable[[], bool],
    check: Check,
    disk: Path,
    say: Callable[[Line], None],
    names: Mapping[str, str],
) -> tuple[int, Output]:
    """Run a build to its end.

    The client dies with this process, and the engine ends a build whose client has gone. However
    this ends, the client has ended before.

    Parameters
    ----------
    written
        Gives the directories in which the steps of all builds that run now write.
    growth
        Tells how much the engine's cache has grown.
    others
        Tells whether other builds run now.
    check
        Tells whether the steps are held to their limits.
    disk
        A path on the disk that builds fill.
    say
        Called with each line for whoever watches, within the bounds of `log.Excerpt`.
    names
        See `output.Output`.

    Returns
    -------
    (int, Output)
        The client's exit status, and what it printed.

    Raises
    ------
    Stopped
        If the build goes beyond its bounds.
    SliceError
        If its steps are not held to their limits.
    OSError
        If the client cannot be run.
    Exception
        Whatever the engine raises when it gives no answer.
    """
    output = Output(names)
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **ENVIRONMENT},
        # A signal to the portal's group is the portal's to pass on.
        start_new_session=True,
    )
    reader = asyncio.ensure_future(_read(process, output, say))
    watcher = asyncio.ensure_future(
        _watch(bounds, written, growth, others, disk, lambda: check(output.ran))
    )
    try:
        await asyncio.wait({reader, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if watcher.done():
            raise watcher.exception() or Stopped("The build was stopped.")
        await reader
        status = await process.wait()
        check(output.ran)
        # Steps that were too short to be watched.
        if await growth.exceeds(bounds.total_bytes):
            raise _too_much(bounds, alone=not others())
        return status, output
    finally:
        watcher.cancel()
        await _in_any_case(_end(process, reader))


async def _end(process: asyncio.subprocess.Process, reader: asyncio.Future[None]) -> None:
    """End the client if it still runs, first in a way that lets it tell the engine."""
    for number, patience in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        if process.returncode is not None:
            break
        with suppress(ProcessLookupError):
            # With its plug-ins, which are processes of their own.
            os.killpg(process.pid, number)
        try:
            await asyncio.wait_for(process.wait(), patience)
        except asyncio.TimeoutError:
            continue
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)


async def _in_any_case(work: Coroutine[Any, Any, None]) -> None:
    """Wait until work is done, however often this is cancelled; be cancelled only then.

    Who waits gives back what the build holds, and its steps may run as long as its client.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            # Leaves the task alone when it is cancelled itself.
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _read(
    process: asyncio.subprocess.Process, output: Output, say: Callable[[Line], None]
) -> None:
    assert process.stdout is not None
    excerpt, rest = Excerpt(say), b""
    try:
        while block := await process.stdout.read(65536):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > _LONGEST_PIECE_BYTES:
                lines, rest = [*lines, rest], next_piece(rest)
            for raw in lines:
                line = output.read(raw.decode("utf-8", "replace"))
                if line is not None:
                    excerpt.say(line)
    finally:
        excerpt.end()


async def _watch(
    bounds: Bounds,
    written: Callable[[], list[Path]],
    growth: Growth,
    others: Callable[[], bool],
    disk: Path,
    check: Callable[[], None],
) -> None:
    """Wait until a build has gone beyond its bounds, and say so.

    Raises
    ------
    Stopped, SliceError, Exception
        Always one of them; an engine that does not say how much was written, too.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bounds.seconds
    alone = True
    while True:
        left = deadline - loop.time()
        if left <= 0:
            raise Stopped(
                f"The build took longer than the {bounds.seconds / 60:g} minutes that it may."
            )
        await asyncio.sleep(min(left, _LOOK_S))
        check()
        if is_almost_full(disk, bounds.free_bytes):
            raise Stopped(
                "The machine's disk is almost full, so the build was stopped. Try again later, "
                "or tell an admin."
            )
        # Kept: what another build has begun may last a moment longer than the build.
        alone = alone and not others()
        for directory in await asyncio.to_thread(written):
            most = bounds.layer_bytes
            if await asyncio.to_thread(bytes_below, directory, most) > most:
                whose = "One step" if alone else "A step of this build, or of one beside it,"
                raise Stopped(
                    f"{whose} wrote more than the {bounds.layer_bytes / 1024**3:.1f} GiB that an "
                    "image may have."
                )
        if await growth.may_exceed(bounds.total_bytes):
            raise _too_much(bounds, alone)


def _too_much(bounds: Bounds, alone: bool) -> Stopped:
    whose = "The build" if alone else "This build, with one beside it,"
    return Stopped(
        f"{whose} wrote more than {bounds.total_bytes / 1024**3:.1f} GiB in all its steps: twice "
        "what an image may have. Take steps out, or remove in each step what it needs no more."
    )
