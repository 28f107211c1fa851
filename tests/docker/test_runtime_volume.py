"""The runtime's volume: filled whole or not at all, and kept while something uses it."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import docker
import pytest

from ds01_spawner import runtime
from ds01_spawner.runtime.build import LABEL, build, fill, is_complete, list_runtimes, prune
from tests.containers import output_of

IMAGE = f"ds01/runtime:{runtime.version()}"
WRITE = ["/opt/ds01/bin/python3", "-I", "-c", "open('/target/half', 'w')"]


@pytest.fixture
def client(built):
    return docker.from_env()


@pytest.fixture
def volume(client):
    """Return the name of a volume that is not there."""
    name = f"ds01-runtime-test-{uuid4().hex[:8]}"
    yield name
    for found in client.volumes.list(filters={"name": name}):
        found.remove(force=True)


def printed_in(volume, client, code):
    """Return the words that code prints which sees the volume."""
    command = ["/opt/ds01/bin/python3", "-I", "-c", code]
    volumes = [f"{volume}:/target"]
    return output_of(client, IMAGE, command, volumes=volumes).decode().split()


def names(client):
    return {found.volume for found in list_runtimes(client)}


def test_what_is_there_is_not_built_again(client):
    lines = []
    assert build(client, "no/such-image", log=lines.append) == runtime.volume_name()
    assert lines == []


def test_half_a_copy_is_none_and_two_at_once_make_one(client, volume):
    assert not is_complete(client, volume, IMAGE)
    interrupted = client.containers.create(
        IMAGE, WRITE, name=f"{volume}-fill", volumes=[f"{volume}:/target"]
    )
    interrupted.start()
    interrupted.wait()
    assert not is_complete(client, volume, IMAGE)
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda _: fill(client, volume, IMAGE), range(2)))
    assert is_complete(client, volume, IMAGE)
    there = printed_in(volume, client, "import jupyterlab, os; print(*os.listdir('/target'))")
    assert "half" not in there
    assert {"bin", "lib", "kernels"} <= set(there)


def test_a_volume_that_is_complete_is_never_written_to_again(client, volume):
    client.volumes.create(volume)
    printed_in(volume, client, "open('/target/.complete', 'w'); open('/target/half', 'w')")
    fill(client, volume, IMAGE)
    there = printed_in(volume, client, "import os; print(*sorted(os.listdir('/target')))")
    assert there == [".complete", "half"]


def test_an_old_version_stays_while_a_container_uses_it(client, volume):
    client.volumes.create(volume, labels={LABEL: "old"})
    user = client.containers.create(IMAGE, ["x"], volumes=[f"{volume}:/opt/old:ro"])
    try:
        prune(client)
        assert {volume, runtime.volume_name()} <= names(client)
        used = next(found for found in list_runtimes(client) if found.volume == volume)
        assert used.containers == (user.name,)
        assert not used.current
    finally:
        user.remove()
    assert volume in prune(client)
    assert volume not in names(client)
    assert runtime.volume_name() in names(client)
