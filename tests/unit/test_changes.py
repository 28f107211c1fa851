"""What has changed in a container: whatever its user does to its layer meanwhile."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time

import pytest

from ds01_spawner import changes
from ds01_spawner.changes import Changes, Layer, changes_of, layer_of, read_changes


class Layers:
    """A container's layer over two of its image, as plain directories."""

    def __init__(self, folder):
        self.own, *self.image = (folder / name for name in ("own", "new", "old"))
        for each in (self.own, *self.image):
            each.mkdir()
        for path in ("tmp", "usr/lib"):
            (self.image[1] / path).mkdir(parents=True)

    def write(self, path, text="x"):
        file = self.own / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self):
        found = read_changes(Layer(str(self.own), tuple(map(str, self.image))))
        return Changes(
            tuple(sorted(found.directories)), tuple(sorted(found.files)), found.is_complete
        )


@pytest.fixture
def layers(tmp_path):
    return Layers(tmp_path)


def test_a_new_directory_stands_for_what_is_in_it(layers):
    for path in ("tmp/a/b/c", "tmp/ab", "usr/lib/python/x", "new/y", "usr/lib/changed"):
        layers.write(path)
    (layers.image[0] / "usr").mkdir()
    (layers.image[0] / "usr/lib").mkdir()
    # What was deleted stands there as a device, and links go without a word.
    (layers.own / "tmp/link").symlink_to("/etc")
    os.mkfifo(layers.own / "tmp/pipe")
    assert layers.read() == Changes(
        ("/new", "/tmp/a", "/usr/lib/python"), ("/tmp/ab", "/usr/lib/changed")
    )


def test_nothing_has_changed(layers):
    (layers.own / "tmp").mkdir()
    assert layers.read() == Changes()


def test_a_link_of_the_images_leads_nowhere(layers, tmp_path):
    (tmp_path / "machine/secret").mkdir(parents=True)
    (layers.image[0] / "srv").symlink_to(tmp_path / "machine")
    layers.write("srv/secret/x")
    # It is no directory of the image's, so that it is new.
    assert layers.read() == Changes(("/srv",))


def test_a_directory_that_becomes_a_link_is_not_followed(layers, tmp_path, monkeypatch):
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/secret").write_text("x")
    layers.write("tmp/a")
    opened = os.open

    def swapped(path, *args, **kwargs):
        if path == "tmp":
            (layers.own / "tmp").rename(layers.own / "gone")
            (layers.own / "tmp").symlink_to(tmp_path / "machine")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(changes.os, "open", swapped)
    assert layers.read() == Changes(is_complete=False)


def test_bytes_that_are_no_text_are_told_as_the_engine_tells_them(layers):
    (layers.own / "tmp").mkdir()
    with open(os.fsencode(layers.own / "tmp") + b"/\xff\xfe\n", "w") as file:
        file.write("x")
    assert layers.read().files == ("/tmp/\ufffd\ufffd\n",)


def test_a_large_installation_is_one_change_and_hides_nothing_beside_it(layers):
    for number in range(2_000):
        layers.write(f"opt/temporary/lib/{number % 50}/{number}")
    layers.write("tmp/mine")
    assert layers.read() == Changes(("/opt",), ("/tmp/mine",))


@pytest.mark.parametrize(
    ("bound", "most"), [("_MOST", 100), ("_MOST_BYTES", 1000), ("_MOST_ENTRIES", 100)]
)
def test_of_too_many_files_it_is_said_that_there_are_more(layers, monkeypatch, bound, most):
    for number in range(300):
        layers.write(f"tmp/file-{number}")
    monkeypatch.setattr(changes, bound, most)
    found = layers.read()
    assert not found.is_complete
    assert 50 < len(found.files) <= 100


def test_the_time_is_bounded(layers, monkeypatch):
    layers.write("tmp/a")
    monkeypatch.setattr(changes, "_LOOK_S", -1.0)
    assert layers.read() == Changes(is_complete=False)


def test_a_tree_of_the_images_that_is_deeper_than_any_costs_nothing(layers):
    """Its user made the image, and touched a file at the bottom: all above it is copied up."""
    for base in (layers.own, layers.image[1]):
        where = os.open(base, os.O_RDONLY)
        for _ in range(200):
            os.mkdir("d", dir_fd=where)
            below = os.open("d", os.O_RDONLY, dir_fd=where)
            os.close(where)
            where = below
        os.close(where)
    began = time.process_time()
    assert layers.read() == Changes(is_complete=False)
    assert time.process_time() - began < 1


def test_a_layer_that_is_not_there_has_not_said_nothing(layers):
    layers.own.rmdir()
    with pytest.raises(FileNotFoundError):
        layers.read()


# -- where it lies ---------------------------------------------------------------------------------


def inspected(**data):
    return {"Id": "c1", "GraphDriver": {"Data": data or None}, "State": {"Pid": 42}}


def test_the_engine_says_where_the_layers_lie():
    assert layer_of(inspected(UpperDir="/d/own", LowerDir="/d/init:/d/image")) == Layer(
        "/d/own", ("/d/init", "/d/image")
    )


@pytest.mark.parametrize(
    ("mounted", "layer"),
    [
        (
            "1 2 0:3 / / rw shared:4 - overlay overlay rw,lowerdir=/s/2/fs:/s/1/fs,"
            "upperdir=/s/a\\040b/fs,workdir=/s/3/work\n",
            Layer("/s/a b/fs", ("/s/2/fs", "/s/1/fs")),
        ),
        (
            "1 2 0:3 /a\x85b\x1cc /workspace rw - ext4 /dev/vda rw\n"
            "1 2 0:3 / / rw - overlay overlay rw,lowerdir=/s/1/fs,upperdir=/s/2/fs\n",
            Layer("/s/2/fs", ("/s/1/fs",)),
        ),
        # Relative to a directory that only the engine knows.
        ("1 2 0:3 / / rw - overlay overlay rw,lowerdir=l/A:l/B,upperdir=/s/3/fs\n", None),
        ("1 2 0:3 / / rw - btrfs /dev/vda rw,subvol=/x\n", None),
        ("1 2 0:3 / /proc rw - proc proc rw\n", None),
    ],
)
def test_or_the_kernel_does(tmp_path, mounted, layer):
    (tmp_path / "42").mkdir()
    (tmp_path / "42/mountinfo").write_text(mounted)
    assert layer_of(inspected(), tmp_path) == layer


async def test_where_there_are_no_layers_nothing_is_known(tmp_path, monkeypatch):
    (tmp_path / "42").mkdir()
    (tmp_path / "42/mountinfo").write_text("1 2 0:3 / / rw - zfs pool rw\n")
    monkeypatch.setattr(changes, "layer_of", lambda c: layer_of(c, tmp_path))
    container = inspected() | {"Config": {"Labels": {"ds01.user": "ada"}}}
    assert await changes_of(container) == Changes(is_complete=False)


# -- one at a time ---------------------------------------------------------------------------------


class Reads:
    """Reads that last until a test lets them end."""

    def __init__(self, monkeypatch):
        self.begun = queue.Queue()
        self.go_on = {id_: threading.Semaphore(0) for id_ in ("a1", "a2", "b1")}
        monkeypatch.setattr(changes, "_changes_of", self.read)

    def read(self, container):
        container_id = container["Id"]
        self.begun.put(container_id)
        assert self.go_on[container_id].acquire(timeout=20)
        return Changes((container_id,))

    def ask(self, user, container_id):
        labels = {"ds01.user": user}
        container = {"Id": container_id, "Config": {"Labels": labels}}
        return asyncio.ensure_future(changes_of(container))

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


async def test_a_disk_that_does_not_say_lets_the_next_one_ask(monkeypatch):
    reads = Reads(monkeypatch)
    monkeypatch.setattr(changes, "_changes_of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await reads.ask("ada", "a1")
    monkeypatch.setattr(changes, "_changes_of", lambda _: Changes())
    assert await reads.ask("ada", "a1") == Changes()
