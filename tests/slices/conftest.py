"""Users with containers under their slices, and time for a slow machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import docker
import pytest

from ds01_spawner.cgroups.slices import choose_slices
from ds01_spawner.cgroups.user_slices import UserSlices

from .users import User


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here; pytest hands over the tests of other folders too."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def engine():
    """Return a low-level client of the engine; without one the tests fail here."""
    return docker.APIClient(version="auto")


@pytest.fixture(scope="session")
def image(request):
    """Return the image of the containers."""
    given = os.environ.get("DS01_SLICE_IMAGE")
    if not given:
        request.getfixturevalue("built")
    return given or "ds01/debian:12"


@pytest.fixture
def slices(engine):
    return choose_slices(engine.info())


@pytest.fixture
def user_slices(slices):
    # With the locks of all Hubs here: a sweep looks at the slices of all of them.
    return UserSlices(slices)


@pytest.fixture
def user(engine, image, slices):
    """Return a function that makes a user of this test alone, without a slice."""
    made = []

    def make(name: str = "") -> User:
        made.append(User(name or f"test-{secrets.token_hex(4)}", engine, image, slices))
        return made[-1]

    yield make
    for each in made:
        each.close()
