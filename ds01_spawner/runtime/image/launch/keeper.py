"""Keeps what cells show while nobody has their notebook open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from tornado.web import HTTPError

from . import notebook_file
from .executions import Execution, Executions

#: A page that is loaded anew, or asks for a new connection, is back by then.
AFTER_CLOSING_S = 3.0
#: What is printed for hours reaches the file so often.
WRITE_EVERY_S = 30.0
AFTER_THE_END_S = 1.0
#: A lost connection is noticed by then: the server waits for three of its pings, 90 seconds.
NOTICED_S = 180.0
#: Writing may take such a part of the server's time, with large notebooks.
_BUSY_SHARE = 0.05


class Listener(Protocol):
    """Hears what a kernel says, and tells it to `Keeper.said`."""

    def refresh(self) -> None:
        """Hear the kernel also where it speaks elsewhere after a restart."""

    def close(self) -> None:
        """Hear nothing more."""


@dataclass
class _Kernel:
    listener: Listener
    executions: Executions = field(default_factory=Executions)
    #: Connections, and the session of the page that each is from.
    pages: dict[object, str] = field(default_factory=dict)
    #: Pages that did not say that they close: a laptop sleeps, a network is away.
    away: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    written_version: int = 0
    #: The times of the files that were written here.
    written: dict[str, str] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Keeper:
    """Follows every cell that a page runs, and writes what it shows where no page does.

    - As long as the page is there, or may come back by itself, its cells are its own. One that ends
      is remembered until it is clear that the page was still connected.
    - When all pages of a kernel have closed, what its cells show is put into the notebook: what
      there is after three seconds, then every half a minute, and at their end.
    - A page that opens the notebook again follows what still runs (`answer`), and has it alone
      again when it has taken the end (`taken`). So does a page that was away, as what was on its
      way when the network failed is lost. While a page is open, the file is never written; once
      another one has opened the notebook, those that are away are not waited for.
    - A server that stops writes what pages that are away have not seen.

    Parameters
    ----------
    contents
        The server's contents manager.
    paths
        Returns the notebooks that a kernel, given by its id, belongs to.
    is_alive
        Whether there is this kernel.
    log
        Where it is said what could not be written.
    """

    def __init__(
        self,
        contents: Any,
        paths: Callable[[str], Awaitable[set[str]]],
        is_alive: Callable[[str], bool],
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self._contents = contents
        self._paths = paths
        self._is_alive = is_alive
        self._log = log
        self._kernels: dict[str, _Kernel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- pages ---------------------------------------------------------------------------------

    def came(self, id: str, page: object, session: str, listen: Callable[[], Listener]) -> None:
        """Note that a page has connected to a kernel.

        Parameters
        ----------
        id
            The kernel's.
        page, session
            The connection, and what the page calls itself in all of its connections to a kernel.
        listen
            Begins to hear the kernel.
        """
        if id in self._kernels:
            self._kernels[id].listener.refresh()
        else:
            self._kernels[id] = _Kernel(listen())
        kernel = self._kernels[id]
        kernel.pages[page] = session
        kernel.away.discard(session)

    def left(self, id: str, page: object, is_closed: bool) -> None:
        """Note that a connection has ended, and whether the page said that it closes it."""
        kernel = self._kernels.get(id)
        if kernel is None or page not in kernel.pages:
            return
        session = kernel.pages.pop(page)
        if session not in kernel.pages.values():
            if not is_closed and not kernel.pages:
                kernel.away.add(session)
            for execution in kernel.executions:
                if execution.session == session and is_closed:
                    kernel.executions.forget_seen(execution.id)
                elif execution.session == session:
                    # The connection may have been lost before the end.
                    execution.is_seen = False
        self._write_in(AFTER_CLOSING_S, id, kernel)

    def requested(self, id: str, request: str, session: str, cell: str, source: str) -> None:
        """Note that a page has asked a kernel to run a cell."""
        kernel = self._kernels.get(id)
        if kernel is None:
            return
        kernel.executions.request(request, session, cell, source)
        if not kernel.paths:
            # A kernel that has been shut down belongs to no notebook any more.
            self._run(self._look_up_paths(id, kernel))

    async def answer(
        self, id: str, session: str, path: str, since: int, own: bool
    ) -> dict[str, Any]:
        """Return what a page is to follow that other pages have begun and left.

        Parameters
        ----------
        id
            The kernel's.
        session
            What the page calls itself.
        path
            The notebook that it has open.
        since
            The ``version`` of the answer before, to leave out what has not changed; else 0.
        own
            Whether the page has been away, and is to follow its own cells too.

        Returns
        -------
        dict
            ``cells``: with their ``outputs`` if something has changed; ``others``: whether cells
            run that other pages follow; ``written``: the file's time, if it was written here.
        """
        kernel = self._kernels.get(id)
        if kernel is None:
            return {"version": 0, "cells": [], "others": False, "written": None}
        # Nothing is written to a file that a page just reads.
        async with kernel.lock:
            # This page has read the file, and saves it from now on.
            kernel.away &= {session}
            others = set(kernel.pages.values()) - {session}
            cells, is_followed = [], False
            for execution in kernel.executions:
                if execution.session in others and not execution.is_adopted:
                    is_followed = is_followed or not execution.is_seen
                elif execution.session != session or own or execution.is_adopted:
                    has_changed = execution.version > since or not execution.is_adopted
                    cells.append(_told(execution, has_changed))
                    execution.is_adopted, execution.is_seen = True, False
            return {
                "version": kernel.executions.version,
                "cells": cells,
                "others": is_followed,
                "written": kernel.written.get(path),
            }

    def taken(self, id: str, request: str) -> None:
        """Leave a run that has ended to the page that has taken all of it."""
        if id in self._kernels:
            self._kernels[id].executions.forget(request)

    # -- kernels -------------------------------------------------------------------------------

    def wants(self, id: str, request: str | None, kind: str) -> bool:
        """Whether `said` is to be told of a message."""
        return id in self._kernels and self._kernels[id].executions.wants(request, kind)

    def said(
        self, id: str, request: str | None, kind: str, content: dict[str, Any], size_bytes: int
    ) -> None:
        """Take what a kernel says in answer to a request."""
        kernel = self._kernels[id]
        if kernel.executions.take(request, kind, content, size_bytes):
            self._leave_to_pages(kernel)
            if not kernel.pages:
                self._write_in(AFTER_THE_END_S if kind == "status" else WRITE_EVERY_S, id, kernel)

    def stopped(self, id: str) -> None:
        """Note that a kernel has stopped; it may be back already."""
        if id in self._kernels:
            kernel = self._kernels[id]
            kernel.executions.stop()
            self._leave_to_pages(kernel)
            self._write_in(AFTER_THE_END_S, id, kernel)

    async def close(self) -> None:
        """Write what no page has seen, before the server ends."""
        for id, kernel in list(self._kernels.items()):
            kernel.executions.stop()
            self._leave_to_pages(kernel)
            await self._write(id, kernel, is_last=True)
            kernel.listener.close()
        self._kernels.clear()

    # ------------------------------------------------------------------------------------------

    @staticmethod
    def _leave_to_pages(kernel: _Kernel) -> None:
        """Forget soon what has ended under the eyes of the page that asked for it."""
        loop, present = asyncio.get_running_loop(), set(kernel.pages.values())
        for execution in kernel.executions:
            is_left = execution.session in present and not execution.is_adopted
            if execution.is_done and is_left and not execution.is_seen:
                execution.is_seen = True
                loop.call_later(NOTICED_S, kernel.executions.forget_seen, execution.id)

    def _write_in(self, seconds: float, id: str, kernel: _Kernel) -> None:
        """Write soon, or sooner than it was going to be."""
        loop = asyncio.get_running_loop()
        if kernel.timer is not None:
            if kernel.timer.when() <= loop.time() + seconds:
                return
            kernel.timer.cancel()
        kernel.timer = loop.call_later(seconds, self._write_now, id, kernel)

    def _write_now(self, id: str, kernel: _Kernel) -> None:
        kernel.timer = None
        self._run(self._write(id, kernel))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up_paths(self, id: str, kernel: _Kernel) -> None:
        kernel.paths = await self._paths(id) or kernel.paths

    async def _write(self, id: str, kernel: _Kernel, is_last: bool = False) -> None:
        is_alive = self._is_alive(id) and not is_last
        if not is_alive:
            kernel.executions.stop()
        began = asyncio.get_running_loop().time()
        async with kernel.lock:
            if not kernel.pages and (not kernel.away or not is_alive):
                await self._write_all(id, kernel, is_alive)
        if not is_alive and not kernel.pages and not is_last:
            kernel.listener.close()
            self._kernels.pop(id, None)
        elif is_alive and not kernel.pages and kernel.executions.version > kernel.written_version:
            took = asyncio.get_running_loop().time() - began
            self._write_in(max(WRITE_EVERY_S, took / _BUSY_SHARE), id, kernel)

    async def _write_all(self, id: str, kernel: _Kernel, is_alive: bool) -> None:
        version = kernel.executions.version
        due = [e for e in kernel.executions if e.version > kernel.written_version]
        if not due:
            return
        if is_alive:
            await self._look_up_paths(id, kernel)
        has_failed = False
        for path in sorted(kernel.paths):
            try:
                time = await notebook_file.save(
                    self._contents, path, due, lambda: bool(kernel.pages)
                )
            except Exception as error:  # noqa: BLE001 - whatever a contents manager raises
                # A notebook that was deleted needs nothing more.
                if not (isinstance(error, HTTPError) and error.status_code == 404):
                    self._log.warning("What cells showed was not written to %s: %s", path, error)
                    has_failed = True
                continue
            if kernel.pages:
                return
            if time is not None:
                kernel.written[path] = time
        if has_failed:
            return
        kernel.written_version = version
        for execution in due:
            if execution.is_done and execution.version <= version:
                kernel.executions.forget(execution.id)


def _told(execution: Execution, with_outputs: bool) -> dict[str, Any]:
    told = {
        "id": execution.id,
        "cell": execution.cell,
        "is_done": execution.is_done,
    }
    if with_outputs:
        told["source"] = execution.source
        told["outputs"] = execution.outputs.as_list()
        told["execution_count"] = execution.count
    return told
