"""An engine that answers late, or not at all: a door in front of the real one."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import socketserver
import threading
from pathlib import Path


def _engine() -> str:
    """Return the socket of the engine that these tests are for."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class SlowEngine:
    """Passes every request on to the real engine, and can hold some of them back.

    Parameters
    ----------
    path
        Where the door listens, a Unix socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.reached = threading.Event()
        self._pattern: re.Pattern[str] | None = None
        self._keep_answer = False
        self._released = threading.Event()
        self._clients: set[socket.socket] = set()
        self._server: socketserver.ThreadingUnixStreamServer | None = None
        self.open()

    def open(self) -> None:
        """Let requests through."""
        door = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                door._serve(self.request)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.path.unlink(missing_ok=True)
        self._server = Server(str(self.path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Be an engine that is down: connections break, and new ones are refused."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)
        for client in tuple(self._clients):
            self._clients.discard(client)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def hold(self, pattern: str, *, answer: bool = False) -> None:
        """Hold requests whose first line matches until `release`.

        Parameters
        ----------
        answer
            Let the engine do it, and hold its answer.
        """
        self.reached.clear()
        self._released.clear()
        self._keep_answer = answer
        self._pattern = re.compile(pattern)

    def release(self) -> None:
        """Let everything go on."""
        self._pattern = None
        self._released.set()

    def _serve(self, client: socket.socket) -> None:
        """Pass one connection's requests on, and its answers back unless they are held."""
        may_answer = threading.Event()
        may_answer.set()
        self._clients.add(client)
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(_engine())
            back = threading.Thread(target=_pass_back, args=(engine, client, may_answer))
            back.start()
            try:
                while data := client.recv(65536):
                    self._pass_on(data, client, engine, may_answer)
            except OSError:
                # One side has gone, as a cancelled client does.
                return
            finally:
                self._clients.discard(client)
                may_answer.set()
                with contextlib.suppress(OSError):
                    engine.shutdown(socket.SHUT_RDWR)
                back.join(5)

    def _pass_on(
        self,
        data: bytes,
        client: socket.socket,
        engine: socket.socket,
        may_answer: threading.Event,
    ) -> None:
        line = data.split(b"\r\n", 1)[0].decode("latin-1")
        if self._pattern is None or not self._pattern.search(line):
            engine.sendall(data)
            return
        self.reached.set()
        if self._keep_answer:
            may_answer.clear()
            engine.sendall(data)
            self._released.wait()
            may_answer.set()
        else:
            self._released.wait()
            if client not in self._clients:
                raise ConnectionError("closed while it was held")
            engine.sendall(data)


def _pass_back(engine: socket.socket, client: socket.socket, may_answer: threading.Event) -> None:
    try:
        while data := engine.recv(65536):
            may_answer.wait()
            client.sendall(data)
    except OSError:
        return
    finally:
        client.close()
