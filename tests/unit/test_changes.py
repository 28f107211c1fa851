"""What has changed in a container: the engine's answer, however long and odd it is."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import docker.errors
import pytest
import requests

from ds01_spawner import changes
from ds01_spawner.changes import Changes, changes_in, changes_of, read_changes

MODIFIED, ADDED, DELETED = 0, 1, 2


def answer(*entries: tuple[int, str]) -> bytes:
    return json.dumps([{"Path": path, "Kind": kind} for kind, path in entries]).encode()


def test_a_new_directory_stands_for_what_is_in_it():
    said = answer(
        (MODIFIED, "/tmp"),
        (ADDED, "/tmp/a"),
        (ADDED, "/tmp/a/b"),
        (ADDED, "/tmp/a/b/c"),
        (ADDED, "/tmp/ab"),
        (DELETED, "/etc/motd"),
        (MODIFIED, "/srv/notes"),
    )
    assert changes_in([said]) == Changes(("/tmp/a", "/tmp/ab"), ("/tmp", "/srv/notes"))


@pytest.mark.parametrize("said", [b"null\n", b"[]\n", b""])
def test_nothing_has_changed(said):
    assert changes_in([said]).added == ()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_an_answer_is_read_in_whatever_pieces_it_comes(size):
    names = ['/a "quoted"} ,{', "/new\nline", "/[{", "/\u202eevil", "/naïve 🙂", "/\ufffd\ufffd"]
    said = json.dumps(
        [{"Path": name, "Kind": ADDED} for name in names], ensure_ascii=False
    ).encode()
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    assert changes_in(pieces) == Changes(tuple(names))


@pytest.mark.parametrize(
    "said",
    [
        b'{"message": "no"}',
        b'[{"Path": "/a"}]',
        b'[{"Path": "/a", "Kind": null}]',
        b'[{"Path": "/a", "Kind": 1},{"Path": "/b',
        b"<html>",
        b'[{"Path": "' + b"x" * 200_000,
    ],
)
def test_what_is_no_answer_is_not_taken_for_nothing(said):
    with pytest.raises((ValueError, LookupError, TypeError)):
        changes_in([said, b"]" if said.endswith(b"}") else b""])


def test_a_million_new_files_take_little_memory_and_are_told_to_be_more():
    def pieces():
        yield b"["
        for number in range(50_000):
            yield b'{"Path":"/tmp/file-%d","Kind":1},' % number

    tracemalloc.start()
    found = changes_in(pieces())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found.is_complete
    assert len(found.added) <= 10_000
    assert most < 20 << 20


def test_a_large_installation_is_one_change_and_hides_nothing_after_it():
    below = [(ADDED, f"/opt/temporary/lib/{number}") for number in range(20_000)]
    found = changes_in([answer((ADDED, "/opt/temporary"), *below, (ADDED, "/tmp/mine"))])
    assert found == Changes(("/opt/temporary", "/tmp/mine"))


def test_a_path_with_thousands_of_directories_takes_little_time():
    deep = [(ADDED, f"/tmp/{'d/' * 1900}{number}") for number in range(2_000)]
    said = answer((ADDED, "/tmp/d"), *deep)
    began = time.process_time()
    assert changes_in([said]) == Changes(("/tmp/d",))
    assert time.process_time() - began < 1


# -- one at a time ---------------------------------------------------------------------------------


class Reads:
    """Reads that last until a test lets them end."""

    def __init__(self, monkeypatch):
        self.begun = queue.Queue()
        self.go_on = {id_: threading.Semaphore(0) for id_ in ("a1", "a2", "b1")}
        monkeypatch.setattr(changes, "read_changes", self.read)

    def read(self, _client, container_id):
        self.begun.put(container_id)
        assert self.go_on[container_id].acquire(timeout=20)
        return Changes((container_id,))

    def ask(self, user, container_id):
        labels = {"ds01.user": user}
        container = {"Id": container_id, "Config": {"Labels": labels}}
        return asyncio.ensure_future(changes_of(None, container))

    async def next(self):
        return await asyncio.to_thread(self.begun.get, timeout=10)


async def test_whoever_asks_again_and_again_has_one_thread_and_one_turn_more(monkeypatch):
    reads = Reads(monkeypatch)
    first = reads.ask("ada", "a1")
    assert await reads.next() == "a1"
    again, other = [reads.ask("ada", "a1") for _ in range(8)], reads.ask("ada", "a2")
    # Whoever gave up has not let another one in.
    first.cancel()
    bob = reads.ask("bob", "b1")
    assert await reads.next() == "b1"

    reads.go_on["b1"].release()
    assert await bob == Changes(("b1",))
    assert reads.begun.empty()
    reads.go_on["a1"].release()
    assert await reads.next() == "a1"
    assert not any(each.done() for each in again)
    reads.go_on["a1"].release()
    assert await asyncio.gather(*again) == [Changes(("a1",))] * 8
    assert await reads.next() == "a2"
    reads.go_on["a2"].release()
    assert await other == Changes(("a2",))
    assert reads.begun.empty()


async def test_an_engine_that_does_not_say_lets_the_next_one_ask(monkeypatch):
    reads = Reads(monkeypatch)
    monkeypatch.setattr(changes, "read_changes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await reads.ask("ada", "a1")
    monkeypatch.setattr(changes, "read_changes", lambda *_: Changes())
    assert await reads.ask("ada", "a1") == Changes()


# -- of the engine ---------------------------------------------------------------------------------


@pytest.fixture
def engine():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, pieces = self.server.says
            assert self.path == "/v1.41/containers/c1/changes"
            self.send_response(status)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except OSError:
                self.server.left.set()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.left = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = docker.APIClient(f"tcp://127.0.0.1:{server.server_port}", version="1.41")
        server.read = lambda: read_changes(client, "c1")
        yield server
        client.close()
        server.shutdown()


def test_the_engine_is_asked_through_its_client(engine):
    engine.says = (200, [answer((ADDED, "/tmp/a"))])
    assert engine.read() == Changes(("/tmp/a",))


def test_an_engine_that_refuses_or_makes_no_sense_has_not_said_nothing(engine):
    engine.says = (404, [b'{"message": "No such container"}'])
    with pytest.raises(requests.exceptions.RequestException):
        engine.read()
    engine.says = (200, [b"[{}]"])
    with pytest.raises(docker.errors.DockerException):
        engine.read()


def test_an_answer_without_end_is_left(engine, monkeypatch):
    monkeypatch.setattr(changes, "_LARGEST_ANSWER", 1 << 20)

    def pieces():
        yield b"["
        while True:
            yield b'{"Path":"/tmp","Kind":0},' * 100

    engine.says = (200, pieces())
    assert engine.read() == Changes(modified=("/tmp",), is_complete=False)
    assert engine.left.wait(10)
