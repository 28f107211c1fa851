"""What was installed in a server: asked through docker-py, of an engine that is a stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import docker
import pytest

from ds01_spawner import engine, inside
from ds01_spawner.changes import Changes
from ds01_spawner.errors import Refused
from ds01_spawner.images.installed import read_installed
from ds01_spawner.lifecycle.leaving import keep_files
from ds01_spawner.runtime.image.launch.installed import found

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(content: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxL", stream, len(content)) + content


def package(name: str = "toolz", version: str = "1.0") -> dict[str, object]:
    return {"name": name, "version": version, "requested": True}


def container(user: str = "alice") -> dict[str, object]:
    return {"Id": "c", "Config": {"User": "1000:1000", "Labels": {"ds01.user": user}}}


class Engine:
    """Answers to the creation of an exec, and to its start with what a test says.

    Attributes
    ----------
    chunks
        What is sent when an exec starts, after the head.
    goes_on
        Whether the last chunk is sent for ever.
    ends
        Whether the connection ends after that, and does not stay open.
    left
        Set when the client has closed the connection.
    sent_bytes
        How much was taken before.
    """

    def __init__(self, path) -> None:
        self.chunks: list[bytes] = []
        self.goes_on = False
        self.ends = True
        self.left = threading.Event()
        self.started = threading.Event()
        self.sent_bytes = 0
        engine = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    length = 0
                    while (header := self.rfile.readline()).strip():
                        if header.lower().startswith(b"content-length:"):
                            length = int(header.split(b":")[1])
                    self.rfile.read(length)
                    if b"/start" in line:
                        engine.run(self.connection)
                        return
                    body = b'{"Id": "e"}'
                    self.wfile.write(
                        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                    )

        self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def run(self, connection) -> None:
        first, *more = [*self.chunks, b""]
        # In one piece: docker-py reads the head through a buffer.
        connection.sendall(HEAD + first)
        self.started.set()
        try:
            for chunk in more:
                time.sleep(0.02)
                connection.sendall(chunk)
            while self.goes_on:
                connection.sendall(first)
                self.sent_bytes += len(first)
            if not self.ends and not connection.recv(1):
                self.left.set()
        except OSError:
            self.left.set()


@pytest.fixture
def stand_in(tmp_path):
    found = Engine(tmp_path / "engine")
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def call(stand_in, tmp_path):
    # One thread: what keeps it is seen at once.
    with ThreadPoolExecutor(1) as executor:
        client = docker.APIClient(f"unix://{tmp_path}/engine", version="1.43", timeout=60)
        yield engine.Caller(client, executor)
        client.close()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(inside, "PATIENCE_S", 0.5)


async def test_the_answer_is_read_also_where_it_comes_with_the_head(stand_in, call):
    answer = json.dumps([package(), package("six", "2")]).encode()
    stand_in.chunks = [frame(answer[:10]), frame(b"a warning", 2), frame(answer[10:])]

    assert await read_installed(call, container()) == [package(), package("six", "2")]


async def test_an_odd_version_hides_no_other_package(stand_in, call):
    listed = [package("odd", "1.0-custom build"), package(), package("../evil", "1")]
    stand_in.chunks = [frame(json.dumps(listed).encode())]

    assert await read_installed(call, container()) == [package()]


async def test_a_server_that_never_answers_keeps_no_thread_and_no_connection(stand_in, call, hasty):
    stand_in.ends = False

    with pytest.raises(Refused) as refused:
        await read_installed(call, container())

    assert refused.value.status_code == 503
    assert await asyncio.to_thread(stand_in.left.wait, 5)
    await asyncio.wait_for(call("exec_create", "c", ["true"]), 5)


async def test_a_server_that_answers_without_end_is_heard_to_a_bound(stand_in, call):
    stand_in.chunks, stand_in.goes_on = [frame(b" " * 65528)], True

    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(read_installed(call, container()), 20)

    assert refused.value.status_code == 503
    assert await asyncio.to_thread(stand_in.left.wait, 5)
    assert stand_in.sent_bytes < 4 << 20


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"OCI runtime exec failed",
        frame(b"[" * 100_000),
        frame(b'[{"name": "a"}]'),
        frame(b"[1]"),
        frame(b"{}"),
        frame(b"null"),
        frame(b"[]")[:-1],
        frame(b"[]") + b"\1\0",
        frame(b"\xff"),
    ],
)
async def test_an_answer_that_is_none_is_told_in_words(stand_in, call, answer):
    stand_in.chunks = [answer]

    with pytest.raises(Refused) as refused:
        await read_installed(call, container())

    assert refused.value.status_code == 503


async def test_a_user_is_asked_once_at_a_time_and_holds_up_nobody_else(stand_in, call, monkeypatch):
    monkeypatch.setattr(inside, "PATIENCE_S", 3.0)
    monkeypatch.setattr(inside, "_PATIENCE_FOR_A_TURN_S", 0.1)
    stand_in.ends = False
    first = asyncio.ensure_future(read_installed(call, container()))
    await asyncio.to_thread(stand_in.started.wait, 5)

    with pytest.raises(Refused) as refused:
        await read_installed(call, container())
    assert refused.value.status_code == 429
    stand_in.chunks, stand_in.ends = [frame(b"[]")], True
    assert await read_installed(call, container("bob")) == []
    assert not first.done()

    with pytest.raises(Refused):
        await first
    assert await read_installed(call, container()) == []


async def test_files_of_a_users_servers_are_kept_beside_each_other(stand_in, call, monkeypatch):
    monkeypatch.setattr(inside, "_PATIENCE_FOR_A_TURN_S", 0.1)
    said = {"number": 0, "bytes": 0, "problem": ""}
    said["missed"] = {"files": [], "number": 0, "bytes": 0, "is_complete": True}

    async def changed(_):
        return Changes(("/tmp/a",))

    def keep(server):
        return keep_files(call, changed, {**container(), "Id": server}, 1, NOW)

    stand_in.ends = False
    first = asyncio.ensure_future(keep("one"))
    await asyncio.to_thread(stand_in.started.wait, 5)
    stand_in.chunks, stand_in.ends = [frame(json.dumps(said).encode())], True
    assert (await keep("two")).number == 0
    with pytest.raises(Refused) as refused:
        await keep("one")
    assert refused.value.status_code == 429
    assert not first.done()
    first.cancel()


# -- in the server --------------------------------------------------------------------------------


def test_packages_are_found_in_a_place_full_of_traps(tmp_path):
    place = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("good", "pipe", "folder", "link", "large"):
        (place / f"{name}-1.dist-info").mkdir(parents=True)
    text = "Name: {}\nVersion: 1\n\n"
    (place / "good-1.dist-info" / "METADATA").write_text(text.format("good"))
    os.mkfifo(place / "pipe-1.dist-info" / "METADATA")
    (place / "folder-1.dist-info" / "METADATA").mkdir()
    (tmp_path / "elsewhere").write_text(text.format("link"))
    (place / "link-1.dist-info" / "METADATA").symlink_to(tmp_path / "elsewhere")
    with (place / "large-1.dist-info" / "METADATA").open("w") as file:
        file.write(text.format("large"))
        file.truncate(2 << 20)

    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(found, tmp_path)
        try:
            listed = asked.result(10)
        finally:
            if not asked.done():
                # Lets go of a thread that opens the pipe.
                os.close(os.open(place / "pipe-1.dist-info" / "METADATA", os.O_RDWR))

    assert listed == [{"name": "good", "version": "1", "requested": True}]


def test_the_command_ends_by_itself_when_something_holds_it_up():
    code = (
        "import time; from ds01_spawner.runtime.image.launch import installed; "
        "installed._PATIENCE_S = 1; installed.found = lambda: time.sleep(30); installed.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=25)

    assert ended.returncode == -signal.SIGALRM
