"""What has changed in a container since it was made, as its layer on the disk shows it.

The engine is not asked: its ``diff`` looks at everything that was written, for as long as that
takes, and meanwhile nobody can inspect or stop that container.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from .cgroups.hierarchies import PROC

#: Seconds for one look.
_LOOK_S = 5.0
#: Entries that are looked at, and levels of directories. What is beyond that is not known.
_MOST_ENTRIES, _DEEPEST = 50_000, 64
#: Paths that are kept of it: somebody may have a million, and they go to the container again.
_MOST, _MOST_BYTES = 10_000, 512 << 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: A disk may hang: short calls must not wait for these threads.
_threads = ThreadPoolExecutor(2, thread_name_prefix="changes")
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
#: By container: those whose turn has not come.
_waiting: dict[str, asyncio.Task[Changes]] = {}


@dataclass(frozen=True)
class Changes:
    """What is in a container and was not in its image.

    Attributes
    ----------
    directories
        Paths of those that are new; each stands for all that is below it.
    files
        Paths of other files that are new or different now.
    is_complete
        Whether these are all.
    """

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class Layer:
    """Where a container's files lie.

    Attributes
    ----------
    own
        The directory of what was written in it.
    image
        Those of its image, which nothing changes any more.
    """

    own: str
    image: tuple[str, ...]


async def changes_of(container: Mapping[str, Any]) -> Changes:
    """Look what has changed in a container.

    - Of a user's containers it looks at one at a time.
    - Whoever asks gets what it sees from then on; those who wait for the same share an answer.
    - A cancel lets nobody else of the user's in before the look is done.

    Parameters
    ----------
    container
        Its inspection, while it runs.

    Raises
    ------
    OSError
        If the disk does not say.
    """
    task = _waiting.get(container["Id"])
    if task is None or task.done():
        task = asyncio.create_task(_in_turn(container))
        task.add_done_callback(_forget_failure)
        _waiting[container["Id"]] = task
    return await asyncio.shield(task)


def _forget_failure(task: asyncio.Task[Changes]) -> None:
    """Whoever waits is told; that nobody does any more needs no line in a log."""
    if not task.cancelled():
        task.exception()


async def _in_turn(container: Mapping[str, Any]) -> Changes:
    user, id_ = container["Config"]["Labels"]["ds01.user"], container["Id"]
    async with _turns.setdefault(user, asyncio.Lock()):
        del _waiting[id_]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_threads, _changes_of, container)


def _changes_of(container: Mapping[str, Any]) -> Changes:
    layer = layer_of(container)
    return read_changes(layer) if layer else Changes(is_complete=False)


def layer_of(container: Mapping[str, Any], proc: Path = PROC) -> Layer | None:
    """Return where a container's files lie; None where they are in no layers of overlayfs.

    Parameters
    ----------
    container
        Its inspection. An engine that keeps images with containerd does not tell in it, and the
        kernel does, while the container runs.

    Raises
    ------
    OSError
        If the kernel does not say.
    """
    data = (container.get("GraphDriver") or {}).get("Data") or {}
    own, image = data.get("UpperDir"), data.get("LowerDir")
    if not (own and image):
        own, image = _mounted(proc / str(container["State"]["Pid"]) / "mountinfo")
    layers = tuple(image.split(":")) if own and image else ()
    if not layers or not all(map(os.path.isabs, (own, *layers))):
        return None
    return Layer(own, layers)


def _mounted(mountinfo: Path) -> tuple[str, str]:
    """Return the two from what is mounted at the root; empty if that is no overlayfs.

    Source: proc(5), /proc/pid/mountinfo; the kernel's overlayfs.rst.
    """
    # Not splitlines: a path may have characters that Python takes for ends of lines.
    for line in os.fsdecode(mountinfo.read_bytes()).rstrip("\n").split("\n"):
        here, _, there = line.partition(" - ")
        place, (kind, _, options) = here.split(" ")[4], there.split(" ", 2)
        if place == "/" and kind == "overlay":
            said = dict(re.findall(r"(?:^|,)(upperdir|lowerdir)=([^,]*)", options))
            plain = {key: _without_escapes(text) for key, text in said.items()}
            return plain.get("upperdir", ""), plain.get("lowerdir", "")
    return "", ""


def _without_escapes(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def read_changes(layer: Layer) -> Changes:
    """Look what has changed; blocks, for some seconds at most.

    Raises
    ------
    OSError
        If the layer cannot be read at all.
    """
    look = _Look()
    try:
        look.at(os.open(layer.own, _DIRECTORY), "", layer.image, _DEEPEST)
    except _Enough:
        look.is_complete = False
    return Changes(tuple(look.directories), tuple(look.files), look.is_complete)


class _Enough(Exception):
    """The rest is not looked at."""


class _Look:
    """One look at a layer; its user may rename what is in it all the while."""

    def __init__(self) -> None:
        self.directories: list[str] = []
        self.files: list[str] = []
        self.is_complete = True
        self._entries_left, self._bytes_left = _MOST_ENTRIES, _MOST_BYTES
        self._end = time.monotonic() + _LOOK_S

    def at(self, fd: int, path: str, image: Sequence[str], levels: int) -> None:
        """Look at a directory, and at those below that were in the image, too; closes it.

        Parameters
        ----------
        image
            The same directory in the image's layers.

        Raises
        ------
        _Enough
            Where a bound is reached.
        """
        old: list[tuple[str, list[str]]] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self._count()
                    if entry.is_dir(follow_symlinks=False):
                        # By one name at a time: what is a link in the image leads nowhere.
                        same = [f"{each}/{entry.name}" for each in image]
                        if found := [each for each in same if _is_directory(each)]:
                            old.append((entry.name, found))
                        else:
                            self._keep(self.directories, f"{path}/{entry.name}")
                    elif entry.is_file(follow_symlinks=False):
                        self._keep(self.files, f"{path}/{entry.name}")
            for name, found in old:
                self._below(fd, name, path, found, levels - 1)
        finally:
            os.close(fd)

    def _below(self, fd: int, name: str, path: str, image: list[str], levels: int) -> None:
        if not levels:
            raise _Enough
        try:
            below = os.open(name, _DIRECTORY, dir_fd=fd)
        except OSError:
            # It was renamed meanwhile, or is a link now.
            self.is_complete = False
            return
        self.at(below, f"{path}/{name}", image, levels)

    def _count(self) -> None:
        self._entries_left -= 1
        if self._entries_left < 0 or time.monotonic() > self._end:
            raise _Enough

    def _keep(self, where: list[str], path: str) -> None:
        # As Docker writes a byte that is no text.
        text = "".join("\ufffd" if "\udc80" <= letter <= "\udcff" else letter for letter in path)
        self._bytes_left -= len(text.encode())
        if self._bytes_left < 0 or len(self.directories) + len(self.files) >= _MOST:
            raise _Enough
        where.append(text)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
