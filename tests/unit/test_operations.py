"""The API's description: a valid document of every answer, and what scopes it asks for."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ds01_spawner.images.holdings import Details, Offer
from ds01_spawner.images.layers import Layer
from ds01_spawner.images.records import Build, Shared
from ds01_spawner.images.shelf import UserImage
from ds01_spawner.portal import image_models as models
from ds01_spawner.portal.app import api_routes
from ds01_spawner.portal.operations import READ, WRITE, document, operation_of

PREFIX = "/services/ds01/"
ROUTES = api_routes(PREFIX, {})
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
IMAGE = UserImage("ann", "vision", "sha256:1", 3, ("latest",), "python", 1000, NOW)


@pytest.fixture(scope="module")
def described():
    return document(ROUTES, PREFIX, "1")


def methods(handler):
    """Return the methods that a handler has of its own or from ours, not Tornado's refusals."""
    return [
        name
        for name in ("get", "post", "put", "patch", "delete")
        if getattr(handler, name).__module__.startswith("ds01_spawner")
    ]


def test_the_document_is_valid_openapi(described):
    OpenAPIV31SpecValidator(described).validate()


def test_every_method_of_every_address_is_in_it(described):
    for _, handler, *_ in ROUTES:
        assert methods(handler)
        for method in methods(handler):
            assert operation_of(handler, method) is not None, (handler, method)
    assert sum(len(path) for path in described["paths"].values()) == sum(
        len(methods(handler)) for _, handler, *_ in ROUTES
    )
    assert described["paths"].keys() >= {
        "/api/limits",
        "/api/images/{owner}/{project}/tags/{tag}",
        "/api/builds/{number}/log",
    }


def test_an_address_made_from_a_path_leads_to_its_answer(described):
    for (pattern, *_), path in zip(ROUTES, described["paths"], strict=True):
        assert re.fullmatch(pattern, PREFIX.rstrip("/") + re.sub(r"\{\w+\}", "7", path))


def test_what_changes_something_needs_the_scope_for_it(described):
    for _, handler, *_ in ROUTES:
        for method in methods(handler):
            found = operation_of(handler, method)
            assert found.scope in ((READ, "") if method == "get" else (WRITE,)), found


def test_the_answers_are_as_described():
    build = Build("ann", "vision", "latest", "FROM python\n", recipe="base: python\n", id=4)
    details = Details(
        "ann",
        "vision",
        (IMAGE,),
        (build,),
        layers=(Layer("sha256:a", 900, "base"), Layer("sha256:b", 100, "RUN pip")),
        shared_layers=1,
        servers={3: ("vision._.ann",)},
        shares=(Shared("ann", "vision", "team"),),
        built_from=build,
    )
    answer = models.OneImage.of(details).model_dump(mode="json")

    assert answer["versions"][0]["used_by"] == ["vision._.ann"]
    assert answer["versions"][0]["created"] == "2026-06-01T00:00:00Z"
    assert [layer["shared"] for layer in answer["layers"]] == [True, False]
    assert answer["recipe"]["base"] == "python"
    assert answer["shares"] == [{"group": "team", "approved": True}]
    assert models.OneImage.model_validate(answer).model_dump(mode="json") == answer
    listed = models.Images.of(Offer((IMAGE,), (), ())).model_dump(mode="json")
    assert [image["name"] for image in listed["own"]] == ["ds01-ann/vision"]
