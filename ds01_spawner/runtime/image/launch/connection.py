"""Between a page's kernel and the server: what it asks for and what it is told is kept too."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from jupyter_client.session import Session
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from .keeper import Keeper
from .waiting import Waiting


class KeepingConnection(ZMQChannelsWebsocketConnection):
    """The connection of a page to a kernel, with the keeper beside it."""

    #: One for the server; without it, this is JupyterLab's own connection.
    keeper: ClassVar[Keeper | None] = None

    _is_closed = False

    def connect(self) -> asyncio.Future[None] | None:
        """Begin."""
        self._watch(self.websocket_handler.ws_connection)
        if self.keeper is not None:
            self.keeper.came(self.kernel_id, self, self.session_id, self._listen)
        return super().connect()

    def disconnect(self) -> None:
        """End."""
        if self.keeper is not None:
            self.keeper.left(self.kernel_id, self, self._is_closed)
        super().disconnect()
        waiting = self.multi_kernel_manager._kernel_buffers.get(self.kernel_id)
        if waiting and not isinstance(waiting["buffer"], Waiting):
            waiting["buffer"] = Waiting(waiting["buffer"])

    def _watch(self, socket: Any) -> None:
        """Notice when the page says that it closes the connection.

        Tornado then closes its own side; of a connection that was lost it calls both sides
        terminated before. There is a code only where a page is closed, not a notebook in it.
        """
        answer = socket.close

        def close(*args: Any, **kwargs: Any) -> None:
            if socket.client_terminated and not socket.server_terminated:
                self._is_closed = True
            answer(*args, **kwargs)

        socket.close = close

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass on what the page says to the kernel."""
        if self.keeper is not None:
            try:
                self._note(self.keeper, incoming_msg)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                self.log.warning("A request to run a cell was not understood: %s", error)
        super().handle_incoming_message(incoming_msg)

    def _note(self, keeper: Keeper, message: Any) -> None:
        if self.subprotocol == "v1.kernel.websocket.jupyter.org":
            channel, parts = deserialize_msg_from_ws_v1(message)
            if channel != "shell" or b"execute_request" not in parts[0]:
                return
            header, _, metadata, content = (json.loads(part) for part in parts[:4])
        elif isinstance(message, str) and "execute_request" in message:
            whole = json.loads(message)
            header, metadata, content = whole["header"], whole["metadata"], whole["content"]
        else:
            return
        cell = metadata.get("cellId")
        if header["msg_type"] == "execute_request" and cell and not content.get("silent"):
            keeper.requested(
                self.kernel_id, header["msg_id"], header["session"], str(cell), content["code"]
            )

    def _listen(self) -> KernelListener:
        assert self.keeper is not None
        return KernelListener(self.kernel_manager, self.keeper)

    @classmethod
    async def close_all(cls) -> None:
        """End all of them, with the server."""
        if cls.keeper is not None:
            await cls.keeper.close()
        await super().close_all()


class KernelListener:
    """Hears what a kernel says to everybody, and tells the keeper."""

    def __init__(self, kernel: Any, keeper: Keeper) -> None:
        self._kernel = kernel
        self._keeper = keeper
        self._open()

    def refresh(self) -> None:
        """Hear the kernel also where it speaks elsewhere after a restart."""
        if self._ports != self._kernel.ports:
            self.close()
            self._open()

    def close(self) -> None:
        """Hear nothing more."""
        if not self._stream.closed():
            self._stream.close()

    def _open(self) -> None:
        self._ports = list(self._kernel.ports)
        # Remembers each message that it has seen, so it cannot be the kernel manager's own.
        self._session = Session(config=self._kernel.session.config, key=self._kernel.session.key)
        self._stream = self._kernel.connect_iopub()
        self._stream.on_recv(self._hear)

    def _hear(self, parts: list[bytes]) -> None:
        _, parts = self._session.feed_identities(parts)
        message = self._session.deserialize(parts, content=False)
        request = message["parent_header"].get("msg_id")
        kind = message["header"]["msg_type"]
        if self._keeper.wants(self._kernel.kernel_id, request, kind):
            content = self._session.unpack(message["content"])
            size = len(message["content"])
            self._keeper.said(self._kernel.kernel_id, request, kind, content, size)
