"""A changed catalogue is read, and a broken one breaks nothing."""

import os

import pytest

from ds01_spawner.errors import Refused
from ds01_spawner.images.live import LiveCatalogue

from .conftest import CATALOGUE


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    return file


def change(file, text):
    """Write a file so that its time differs, however coarse the disk's clock is."""
    later = file.stat().st_mtime_ns + 10**9
    file.write_text(text)
    os.utime(file, ns=(later, later))


def names(live):
    return [image.name for image in live.current()]


def test_a_change_is_seen_at_the_next_look(file):
    live = LiveCatalogue(file)
    assert names(live) == ["python", "datascience"]
    change(file, CATALOGUE.replace("name: python", "name: snake"))
    assert names(live) == ["snake", "datascience"]


@pytest.mark.parametrize("broken", ["", "images: [", "images: []", "images: [{name: x}]"])
def test_a_mistake_changes_nothing_and_is_logged_once(file, broken, caplog):
    live = LiveCatalogue(file)
    live.current()
    change(file, broken)
    assert names(live) == names(live) == ["python", "datascience"]
    assert len(caplog.records) == 1
    change(file, CATALOGUE)
    assert names(live) == ["python", "datascience"]


def test_a_catalogue_that_was_never_good_is_explained(file):
    file.unlink()
    with pytest.raises(Refused, match="tell an admin") as refused:
        LiveCatalogue(file).current()
    assert refused.value.status_code == 503
