"""A thread for calls that may never return, such as those into a driver that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any


class LoneThread(Executor):
    """Runs calls one after the other, in a thread that nobody else needs.

    - A call that hangs holds up the ones behind it, and nothing else.
    - It does not keep the process from ending.

    Parameters
    ----------
    name
        What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Put a call behind those that wait."""
        future: Future[Any] = Future()
        self._calls.put((future, partial(call, *args, **kwargs)))
        return future

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return what a call returns, without holding up the loop."""
        return await asyncio.get_running_loop().run_in_executor(self, call, *args)

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
