"""What a Hub that died left with the engine."""

import docker.errors
import pytest

from ds01_spawner.admission.lock import Pending
from ds01_spawner.admission.settle import settle

from .test_engine import api_error

PENDING = Pending("default._.anna", "sha256:asked-for")


class Held:
    """The lock, with what its last holder asked for."""

    def __init__(self):
        self.noted = PENDING

    def pending(self):
        return self.noted

    def clear(self):
        self.noted = None


class Engine:
    """Has images, of some of which no container can be made; a name may be taken for a while."""

    def __init__(self, *images, broken=(), taken=0):
        self.images, self.broken, self.taken = images, broken, taken
        self.tried, self.removed = [], []

    async def __call__(self, method, *args, **_):
        return getattr(self, f"_{method}")(*args)

    def _inspect_container(self, _):
        raise docker.errors.NotFound("no")

    def _images(self):
        return [{"Id": name, "RepoTags": [name]} for name in self.images]

    def _create_container_from_config(self, body, name):
        assert name == PENDING.name
        self.tried.append(body["Image"])
        if body["Image"] in self.broken:
            raise api_error(500)
        if self.taken:
            self.taken -= 1
            raise api_error(409)
        return {"Id": "probe"}

    def _remove_container(self, container, **_):
        self.removed.append(container)


async def test_a_name_that_is_free_settles_it_and_no_probe_is_left():
    engine, held = Engine("ds01/debian:12"), Held()

    await settle(engine, held)

    assert held.noted is None
    assert engine.removed == ["probe"]


async def test_a_create_under_way_is_waited_for():
    engine, held = Engine("ds01/debian:12", taken=2), Held()

    await settle(engine, held)

    assert len(engine.tried) == 3
    assert held.noted is None


async def test_an_image_of_which_no_container_can_be_made_blocks_nobody():
    engine = Engine("a", "ds01/debian:12", PENDING.image, broken=("a", PENDING.image))

    await settle(engine, Held())

    # The machine's own images come first, and what was asked for last.
    assert engine.tried == ["ds01/debian:12"]


async def test_any_image_will_do_where_there_is_none_of_our_own():
    engine = Engine("a", "b", broken=("a",))

    await settle(engine, Held())

    assert engine.tried == ["a", "b"]


async def test_where_no_image_serves_nothing_is_known_and_nothing_granted():
    engine, held = Engine("a", broken=("a", PENDING.image)), Held()

    with pytest.raises(docker.errors.DockerException):
        await settle(engine, held)

    assert held.noted is PENDING
