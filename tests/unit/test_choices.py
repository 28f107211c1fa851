"""Whatever is wrong with the GPUs, the form comes, and says so."""

import asyncio
from datetime import datetime, timezone

import docker.errors
import pytest
import requests

from ds01_spawner import choices
from ds01_spawner.choices import gpu_choices, image_choices, users_choices
from ds01_spawner.errors import Refused
from ds01_spawner.gpus.devices import Inventory, Snapshot
from ds01_spawner.images.catalogue import CatalogueImage
from ds01_spawner.images.records import Build, State
from ds01_spawner.images.shelf import UserImage
from ds01_spawner.policy import GIB, Limits

from .machine import INVENTORY

LIMITS = Limits(4, GIB, GIB, GIB, 100, gpus_per_server=2)


class Grants:
    """Answers with a snapshot, with an error, or not at all."""

    def __init__(self, answer=None):
        self.answer = answer

    async def stand(self, user):
        assert user == "alice"
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer, {"thesis": 0.25}


async def test_what_is_free_is_offered():
    found = await gpu_choices(Grants(Snapshot(INVENTORY)), "alice", LIMITS)

    assert [(o.value, o.free) for o in found.offers] == [("2g.20gb", 3), ("full", 2)]
    assert [o.within for o in found.offers] == [True, False]
    assert found.largest_count == 2
    assert found.used == "thesis (0.25)"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Snapshot(Inventory()), "There is no GPU on this server"),
        (Snapshot(Inventory(problem="The driver is not loaded.")), "tell an admin"),
        (requests.exceptions.ConnectionError(), "cannot be read"),
        (Refused("GPUs cannot be attached.", reason="gpu"), "GPUs cannot be attached"),
        (KeyError("Labels"), "cannot be read"),
    ],
)
async def test_what_is_wrong_is_said_in_place_of_the_sizes(answer, words):
    found = await gpu_choices(Grants(answer), "alice", LIMITS)

    assert found.offers == ()
    assert words in found.problem
    # What only helps an admin is for the log.
    assert "driver" not in found.problem


async def test_a_driver_that_hangs_does_not_keep_the_form(monkeypatch):
    monkeypatch.setattr(choices, "_PATIENCE_S", 0.1)

    assert "cannot be read" in (await gpu_choices(Grants(), "alice", LIMITS)).problem


# -- users' images --------------------------------------------------------------------------------


def own(project, *tags, owner="alice", number=1):
    created = datetime(2026, 1, number, tzinfo=timezone.utc)
    return UserImage(owner, project, f"sha256:{project}", number, tags, "python", 1000, created)


def failed(project, tag="latest", state=State.FAILED):
    return Build("alice", project, tag, "FROM python", state=state, problem=f"{project} broke.")


def test_ones_own_images_come_first_and_what_is_only_kept_is_not_offered():
    images = [own("team", "latest", owner="bob"), own("new", "latest"), own("new"), own("x", "e1")]
    shown = users_choices(images, "alice", [])

    assert [(choice.kind, choice.image.name) for choice in shown] == [
        ("My images", "ds01-alice/new"),
        ("My images", "ds01-alice/x:e1"),
        ("Shared with me", "ds01-bob/team"),
    ]
    assert all(choice.can_start and not choice.problem for choice in shown)


def test_an_image_whose_last_build_failed_is_offered_with_why():
    images = [own("vision", "latest", number=2), own("fine", "latest")]
    builds = [failed("vision"), failed("fine", state=State.CANCELLED)]
    vision, fine = users_choices(images, "alice", builds)

    assert (vision.can_start, vision.problem) == (True, "vision broke.")
    assert (fine.can_start, fine.problem) == (True, "")


def test_an_image_that_was_never_built_is_shown_with_why_and_cannot_be_chosen():
    images = [own("fine", "latest"), own("team", "latest", owner="bob")]
    shown = users_choices(images, "alice", [failed("first"), failed("fine", "e2")])

    assert [choice.image.name for choice in shown] == [
        *("ds01-alice/fine", "ds01-alice/first", "ds01-alice/fine:e2", "ds01-bob/team")
    ]
    assert [choice.can_start for choice in shown] == [True, False, False, True]
    assert shown[1].problem == "first broke."


# -- the catalogue's images -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "offered"),
    [
        ({"Size": 5}, [("small", 5, True), ("large", 5, True)]),
        (docker.errors.NotFound("no such image"), [("small", None, True)]),
        # Whether it is there is not known, which is not the same as that it is not.
        (requests.ConnectionError(), [("small", None, False), ("large", None, False)]),
    ],
)
async def test_what_comes_on_request_is_offered_once_it_is_here(answer, offered):
    entry = {"image": "x/y:1", "framework": "f", "version": "1", "description": "d"}
    catalogue = [
        CatalogueImage(name="small", **entry),
        CatalogueImage(name="large", on_request=True, **entry),
    ]

    async def engine(method, *args):
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = await image_choices(engine, catalogue)
    assert [(choice.image.name, choice.size_bytes, choice.known) for choice in found] == offered
