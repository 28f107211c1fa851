"""What users do with images, and how builds end, with an engine that can be told to fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import docker.errors
import pytest

from ds01_spawner.errors import Refused
from ds01_spawner.images import shelf
from ds01_spawner.images.builder import Builder, Site
from ds01_spawner.images.catalogue import Catalogue
from ds01_spawner.images.holdings import Holdings
from ds01_spawner.images.layers import Layer
from ds01_spawner.images.members import Member
from ds01_spawner.images.orders import Orders
from ds01_spawner.images.records import Build, ImageRecords, Shared, State
from ds01_spawner.images.shelf import Shelf
from ds01_spawner.images.workshop import Workshop
from ds01_spawner.policy import ImageRules

HUB = "0123456789abcdef"
ALICE = Member("alice", frozenset({"team"}), ImageRules(share_with_all="approve"))


class Engine:
    """Has one image of alice's, with two versions.

    Attributes
    ----------
    refuses
        Names that it neither gives nor removes.
    """

    def __init__(self) -> None:
        self.names = {"a1": ["build-1"], "a2": ["build-2", "latest"]}
        self.refuses: set[str] = set()

    async def __call__(self, method, *args, **options):
        return getattr(self, method)(*args, **options)

    def images(self, **options):
        return [
            {
                "Id": image,
                "Labels": {
                    shelf.HUB: HUB,
                    shelf.OWNER: "alice",
                    shelf.PROJECT: "vision",
                    shelf.NUMBER: image[-1],
                    shelf.BASE: "python",
                },
                "RepoTags": [f"ds01-alice/vision:{tag}" for tag in tags],
                "Size": 1,
                "Created": 1,
            }
            for image, tags in self.names.items()
            if tags
        ]

    def containers(self, **options):
        return []

    def tag(self, image, repository, tag, force):
        if tag in self.refuses:
            raise docker.errors.APIError("no")
        for tags in self.names.values():
            if tag in tags:
                tags.remove(tag)
        self.names.setdefault(image, []).append(tag)

    def remove_image(self, reference):
        tag = reference.partition(":")[2]
        if tag in self.refuses:
            answer = SimpleNamespace(status_code=409, url="", reason="Conflict")
            raise docker.errors.APIError("in use", response=answer)
        for tags in self.names.values():
            if tag in tags:
                tags.remove(tag)


class Queue:
    """Builds nothing; `building` says what is under way."""

    def __init__(self) -> None:
        self.building = False

    def is_building(self, owner, project):
        return self.building


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def records(tmp_path):
    return ImageRecords(tmp_path / "db")


@pytest.fixture
def workshop(engine, records):
    shelf_ = Shelf(engine, HUB)
    holdings = Holdings(engine, shelf_, records, lambda: Catalogue(()))
    return Workshop(engine, shelf_, records, Queue(), holdings, None, None)


async def test_a_version_that_cannot_be_removed_keeps_its_records(workshop, engine, records):
    build = records.add(Build("alice", "vision", "latest", "FROM python\n"))
    engine.refuses = {"build-2"}

    with pytest.raises(Refused) as refused:
        await workshop.delete(ALICE, "alice", "vision")

    assert refused.value.status_code == 409
    assert records.get(build.id) is not None


async def test_no_version_has_the_number_of_all_of_them(workshop, engine):
    with pytest.raises(Refused) as refused:
        await workshop.delete(ALICE, "alice", "vision", 0)

    assert refused.value.status_code == 404
    assert all(engine.names.values())


async def test_a_build_asked_for_while_its_image_is_deleted_is_kept(workshop, engine, records):
    remove = engine.remove_image

    def remove_slowly(reference):
        workshop.queue.building = True
        remove(reference)

    engine.remove_image = remove_slowly
    build = records.add(Build("alice", "vision", "latest", "FROM python\n"))

    await workshop.delete(ALICE, "alice", "vision")

    assert records.get(build.id) is not None


async def test_asking_again_takes_no_approval_back(workshop, records):
    asked = await workshop.share(ALICE, "vision", "*")
    assert not asked.approved
    records.share(replace(asked, approved=True))

    assert (await workshop.share(ALICE, "vision", "*")).approved
    assert records.shares() == [Shared("alice", "vision", "*")]


async def test_what_is_shared_with_nobody_by_name_stays_shared(workshop, records):
    await workshop.share(ALICE, "vision", "team")
    workshop.unshare(ALICE, "vision", "")

    assert records.shares() == [Shared("alice", "vision", "team")]


# -- how a build ends --------------------------------------------------------------------------


@pytest.fixture
def builder(engine, records, tmp_path):
    return Builder(Site(HUB, "uv", work=tmp_path), engine, records, None, None)


def finished(records) -> Build:
    build = records.add(Build("alice", "vision", "latest", "FROM python\n"))
    return replace(build, number=3, image_id="a3", own_bytes=5)


async def test_a_version_is_published_and_kept_as_one(builder, engine, records):
    version = finished(records)

    await builder._publish(version, [Layer("sha256:l", 5, "RUN x")])

    assert engine.names["a3"] == ["build-3", "latest"]
    kept = records.get(version.id)
    assert (kept.state, kept.number, kept.image_id) == (State.SUCCEEDED, 3, "a3")
    assert records.makers() == {"sha256:l": (version.id, "alice")}


async def test_a_version_whose_tag_cannot_be_moved_leaves_no_number_behind(
    builder, engine, records
):
    version = finished(records)
    engine.refuses = {"latest"}

    with pytest.raises(docker.errors.APIError):
        await builder._publish(version, [])

    assert engine.names == {"a1": ["build-1"], "a2": ["build-2", "latest"], "a3": []}
    assert records.get(version.id).number == 0


async def test_names_that_cannot_be_removed_fail_no_build(builder, engine):
    def silent(**options):
        raise docker.errors.DockerException("down")

    engine.images = silent
    async with builder._held("ds01_building/x", {}):
        pass


# -- orders ------------------------------------------------------------------------------------


async def test_what_is_saved_from_an_experiment_goes_into_the_experiment(engine, records):
    engine.names["a2"].append("experiment-42")
    holdings = Holdings(engine, Shelf(engine, HUB), records, lambda: Catalogue(()))
    orders = Orders(engine, HUB, holdings, None, records, None, disk=None, lowest_free_bytes=0)
    label, asked = "ds01-alice/vision:experiment-42", []

    async def server(member, name):
        return {"Config": {"Labels": {"ds01.image": label}}}

    async def update(*order):
        asked.append(order)

    orders._server, orders.update = server, update

    await orders.save(ALICE, "default", ["six"])
    label = "ds01-alice/vision:build-2"
    await orders.save(ALICE, "default", ["six"])

    assert asked == [
        (ALICE, "vision", ["six"], (), "experiment-42"),
        (ALICE, "vision", ["six"], (), ""),
    ]


async def test_two_orders_at_once_do_not_write_into_one_folder(engine, records, tmp_path):
    steps = []

    class Line(Queue):
        def check(self, owner, project):
            if self.building:
                raise Refused("It is being built.", reason="image", status_code=409)

        def add(self, make, build):
            self.check(build.owner, build.project)
            self.building = True
            return build

    class Sources:
        async def read(self, member, project):
            return SimpleNamespace(is_edited=False)

        async def keep(self, member, project, recipe):
            steps.append(recipe.environment)
            await asyncio.sleep(0.01)

        async def folder(self, member, project):
            return SimpleNamespace(uid=1), SimpleNamespace(path=tmp_path)

    holdings = SimpleNamespace(id_of=lambda member, name: asyncio.sleep(0, "sha256:x"))
    rules = replace(ALICE, rules=ImageRules(storage_bytes=None))
    orders = Orders(
        engine, HUB, holdings, Sources(), records, Line(), disk=tmp_path, lowest_free_bytes=0
    )

    async def order(value):
        raw = {"base": "python", "environment": {"A": value}}
        return await orders.build_recipe(rules, "vision", raw)

    first, second = await asyncio.gather(order("1"), order("2"), return_exceptions=True)

    assert isinstance(first, Build)
    assert isinstance(second, Refused)
    assert steps == [{"A": "1"}]
