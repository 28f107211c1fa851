"""The catalogue file: what loads, and how a mistake in it is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ds01_spawner.images.catalogue import Catalogue, CatalogueError

SHIPPED = Path(__file__).parents[2] / "images" / "catalogue.yaml"
PLAIN = {
    "name": "plain",
    "image": "lab/plain:1",
    "framework": "Python",
    "version": "3.13",
    "description": "Nothing special.",
}


@pytest.fixture
def write(tmp_path):
    """Write entries as a catalogue file and return its path."""

    def _write(*entries: object) -> Path:
        path = tmp_path / "catalogue.yaml"
        path.write_text(yaml.safe_dump({"images": list(entries)}), "utf-8")
        return path

    return _write


def problems_of(path: Path) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        Catalogue.load(path)
    return str(caught.value).splitlines()


def test_shipped_catalogue_offers_python_first_then_datascience():
    catalogue = Catalogue.load(SHIPPED)

    assert [image.name for image in catalogue][:2] == ["python", "datascience"]
    assert catalogue.get("python").image == "ds01/python:3.11"
    assert "pandas" in catalogue.get("datascience").contents


def test_what_is_large_is_on_request_and_the_first_never(write):
    assert [image.name for image in Catalogue.load(SHIPPED) if image.on_request] == [
        *("pytorch", "tensorflow", "jax", "aime-pytorch", "aime-tensorflow")
    ]
    (problem,) = problems_of(write({**PLAIN, "on_request": True}))
    assert "entry 1 (plain): on_request: the first" in problem


@pytest.mark.parametrize(
    ("driver", "runs"),
    [
        ("525.60.13", True),
        ("525.60.12", False),
        ("525.60", False),
        ("580.65.06", True),
        ("1000.1", True),
        ("", True),
        ("unknown", True),
    ],
)
def test_an_image_runs_with_its_driver_or_a_newer_one(write, driver, runs):
    entry = {**PLAIN, "cuda": "12.4", "minimum_driver": "525.60.13"}
    assert Catalogue.load(write(entry)).get("plain").runs_with(driver) is runs


def test_order_of_the_file_is_kept(write):
    names = ["zebra", "ant", "moose"]
    catalogue = Catalogue.load(write(*({**PLAIN, "name": name} for name in names)))

    assert [image.name for image in catalogue] == names
    assert len(catalogue) == 3


def test_unknown_name_raises_key_error(write):
    with pytest.raises(KeyError):
        Catalogue.load(write(PLAIN)).get("other")


def test_images_cannot_be_changed_after_loading(write):
    image = Catalogue.load(write(PLAIN)).get("plain")

    with pytest.raises(ValidationError):
        image.image = "evil/other:1"


@pytest.mark.parametrize(
    "reference",
    [
        "debian:12",
        "lab/plain:1.0-rc_2",
        "registry.example.org:5000/a/b__c:latest",
        "debian:12@sha256:" + "a" * 64,
        "debian@sha256:" + "a" * 64,
    ],
)
def test_references_that_docker_takes_are_taken(write, reference):
    assert Catalogue.load(write({**PLAIN, "image": reference})).get("plain").image == reference


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "Big Name", "lower-case letters"),
        ("name", "../etc", "lower-case letters"),
        ("name", "a" * 64, "at most 63"),
        ("image", "debian", "has no tag"),
        ("image", "registry.example.org:5000/debian", "has no tag"),
        ("image", "Debian:12", "not an image reference"),
        ("image", "debian:12 --privileged", "not an image reference"),
        ("image", "debian:12\n", "not an image reference"),
        ("version", 3.11, "write it in quotes: '3.11'"),
        ("cuda", 12.4, "write it in quotes: '12.4'"),
        ("needs_gpu", "perhaps", "boolean"),
        ("description", "", "at least 1 character"),
        ("contents", "pandas", "tuple"),
        ("minimum_driver", "new", "not a driver version"),
        ("gpu", True, "unknown; the fields are name, image"),
    ],
)
def test_a_mistake_names_file_entry_and_field(write, field, value, says):
    path = write({**PLAIN, "name": "fine"}, {**PLAIN, field: value})

    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}: entry 2")
    assert f": {field}: " in problem
    assert says in problem


def test_a_driver_without_cuda_is_a_mistake(write):
    (problem,) = problems_of(write({**PLAIN, "minimum_driver": "550.54"}))
    assert "cuda is not" in problem


def test_all_mistakes_are_listed_at_once(write):
    found = problems_of(write({**PLAIN, "image": "debian"}, "text", {"name": "short"}))

    assert "entry 1 (plain): image: has no tag" in found[0]
    assert "entry 2: " in found[1]
    missing = {line.split(": ")[2] for line in found[2:]}
    assert missing == {"image", "framework", "version", "description"}


def test_two_images_of_one_name_are_refused(write):
    (problem,) = problems_of(write(PLAIN, PLAIN))
    assert "entry 2 (plain): name: there are two" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "one top-level key, 'images'"),
        ("- name: python", "one top-level key, 'images'"),
        ("images: []", "at least one entry"),
        ("images: {name: python}", "must be a list"),
        ("images: [}", "is not YAML"),
        ("images: []\nimages: []", "the key 'images' comes twice"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text, says):
    path = tmp_path / "catalogue.yaml"
    path.write_text(text, "utf-8")

    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}: ")
    assert says in problem


def test_missing_file_and_wrong_encoding_are_said(tmp_path):
    (missing,) = problems_of(tmp_path / "none.yaml")
    assert "No such file" in missing

    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"images: [\xe9]")
    (wrong,) = problems_of(latin)
    assert "not UTF-8" in wrong
