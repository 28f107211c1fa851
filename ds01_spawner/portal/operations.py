"""What the API can do, said once: each method's scope, body and answer; all of it as OpenAPI."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, StrictInt, StrictStr
from pydantic.json_schema import JsonSchemaMode, models_json_schema

#: Scopes of tokens. Source: JupyterHub, "Custom scopes"; jupyterhub_config.py gives them to users.
READ, WRITE = "custom:ds01:images:read", "custom:ds01:images"

_METHODS = ("get", "post", "put", "delete")
_GROUP = re.compile(r"\([^()]*\)")
#: What any answer may be instead.
_ERRORS = {
    400: "The request makes no sense; the message says what to change.",
    403: "The token or the lab's policy does not allow it.",
    404: "There is no such thing, or it is not for you.",
    409: "It cannot be done now; the message says what is in its way.",
    503: "The Hub or the engine does not answer. Try again later.",
}

Method = TypeVar("Method", bound=Callable[..., Any])


class Problem(BaseModel):
    """Why a request was not done."""

    status: StrictInt
    message: StrictStr


@dataclass(frozen=True)
class Operation:
    """What one method of one address does.

    Attributes
    ----------
    summary
        In a few words.
    scope
        What a token must have beside access to the portal; empty for nothing.
    body
        What is sent; None for nothing.
    answer
        What comes back; None for nothing.
    status
        Of success.
    media
        Type of the answer.
    """

    summary: str
    scope: str = ""
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    media: str = "application/json"


def operation(summary: str, **more: Any) -> Callable[[Method], Method]:
    """Say what a handler's method does: see `Operation`."""

    def note(method: Method) -> Method:
        method.operation = Operation(summary, **more)  # type: ignore[attr-defined]
        return method

    return note


def operation_of(handler: object, method: str) -> Operation | None:
    """Return what a handler's method does, None if it does not say."""
    found: Operation | None = getattr(getattr(handler, method.lower(), None), "operation", None)
    return found


def document(routes: Iterable[tuple[str, type, Any]], prefix: str, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of what the routes' handlers can do.

    Parameters
    ----------
    routes
        Patterns of addresses with their handlers, as Tornado takes them.
    prefix
        What every address begins with.
    """
    said = list(_said(routes, prefix))
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for _, _, found, _ in said:
        models += [(found.body, "validation")] if found.body else []
        models += [(found.answer, "serialization")] if found.answer else []
    names, schemas = models_json_schema(
        list(dict.fromkeys(models)), ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for path, method, found, names_in_path in said:
        paths.setdefault(path, {})[method] = _described(found, names_in_path, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DS01: limits and images",
            "version": version,
            "description": "Every request carries a token of the Hub's that may use the portal.",
        },
        "servers": [{"url": prefix.rstrip("/")}],
        "paths": paths,
        "components": {
            **{"schemas": schemas.get("$defs", {})},
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token` and a token of the Hub's, with a space between.",
                }
            },
        },
        "security": [{"token": []}],
    }


def _said(
    routes: Iterable[tuple[str, type, Any]], prefix: str
) -> Iterator[tuple[str, str, Operation, Sequence[str]]]:
    """Yield path, method, what it does, and the names in the path."""
    for pattern, handler, *_ in routes:
        for method in _METHODS:
            found = operation_of(handler, method)
            if found is None:
                continue
            names = list(inspect.signature(getattr(handler, method)).parameters)[1:]
            path = pattern
            for name in names:
                path = _GROUP.sub(f"{{{name}}}", path, count=1)
            yield path.removeprefix(prefix.rstrip("/")), method, found, names


def _described(found: Operation, names: Sequence[str], refs: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": found.summary, "responses": {}}
    if found.scope:
        described["description"] = f"The token needs the scope `{found.scope}`."
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if found.body:
        ref = refs[found.body, "validation"]
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": ref}},
        }
    success: dict[str, Any] = {"description": "Done."}
    if found.answer:
        schema = refs[found.answer, "serialization"]
        success["content"] = {found.media: {"schema": schema}}
    elif found.media != "application/json":
        success["content"] = {found.media: {"schema": {"type": "string"}}}
    problem = {"application/json": {"schema": refs[Problem, "serialization"]}}
    described["responses"] = {
        str(found.status): success,
        **{
            str(status): {"description": words, "content": problem}
            for status, words in _ERRORS.items()
        },
    }
    return described
