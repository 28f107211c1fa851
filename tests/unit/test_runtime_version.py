"""A version of the runtime is known by what it is made from."""

import shutil

from ds01_spawner import runtime
from ds01_spawner.buildkit import content_hash
from ds01_spawner.runtime import build
from ds01_spawner.runtime.image.launch import fill, places


def test_any_change_makes_another_version_and_bytecode_does_not(tmp_path):
    context = tmp_path / "image"
    shutil.copytree(runtime.CONTEXT, context)
    assert content_hash(context)[:12] == runtime.version()
    (context / "launch/__pycache__").mkdir(exist_ok=True)
    (context / "launch/__pycache__/server.cpython-311.pyc").write_bytes(b"x")
    assert content_hash(context)[:12] == runtime.version()
    with (context / "locks/server.lock").open("a") as lock:
        lock.write("# changed\n")
    assert content_hash(context)[:12] != runtime.version()


def test_the_volume_is_named_by_the_version():
    assert runtime.volume_name() == f"ds01-runtime-{runtime.version()}"
    assert len(runtime.version()) == 12


def test_both_sides_mean_the_same_places():
    assert str(places.MOUNT) == runtime.MOUNT
    assert str(places.TEMPORARY) == runtime.TEMPORARY
    assert runtime.COMMAND[:-1] == places.ISOLATED
    assert fill.MARK == build.MARK
