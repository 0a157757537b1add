"""The description of the port by OpenAPI 3.1, for programs that make clients and pages of it. Its schemas are those of
the very types that are encoded and decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from .answers import HEADERS
from .described import QUERY, ROUTES, Problem, Route

REFS = "#/components/schemas/{name}"
RAW = {"args": list[Any], "kwargs": dict[str, Any]}
"""What stays as it was written is no type that a schema can tell."""

FAILURES = {
    400: "it makes no sense", 401: "the token is missing, or wrong", 404: "there is no such thing",
    429: "too much at the moment: `Retry-After` says when to come back", 500: "the node's log says more",
    503: "this node or the store cannot do it now",
}
OWN_FAILURES = {
    "enqueue": {403: "signed with a key that is not this cluster's", 409: "another job has the `unique_key`",
                413: "over 256 KiB of arguments", 504: "it may be stored: repeat it with the same Idempotency-Key"},
}
DESCRIPTION = """\
Enqueue jobs from any language, look at them and at the cluster, and operate it. Moments are seconds since 1970,
durations seconds. Fields that have their default value may be left out of an answer; fields may be added in later
versions."""


async def serve(_request: web.Request) -> web.Response:
    return web.Response(body=_encoded(), content_type="application/json", headers=HEADERS)


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(description())


def description() -> dict[str, Any]:
    kinds = {id(kind): kind for route in ROUTES for kind in _kinds(route)}
    schemas, components = msgspec.json.schema_components(kinds.values(), ref_template=REFS)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _described(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rota", "version": version("rota"), "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: _tidied(schema) for name, schema in components.items()},
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer", "description": "the cluster's token: `rota token` prints it",
            }},
        },
    }


def _kinds(route: Route) -> Iterator[Any]:
    """All types of a route, as they are known to `_shape`."""
    for answer in route.answers.values():
        for kind in answer if isinstance(answer, tuple) else (answer,):
            if kind is not None and not isinstance(kind, str):
                yield kind
    if route.body is not None:
        yield _shape(route.body)
    yield Problem
    for name in route.query:
        yield QUERY[name][0]


@cache
def _shape(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same, where raw JSON has a type."""
    fields = msgspec.structs.fields(kind)
    if all(field.type is not msgspec.Raw for field in fields):
        return kind
    return msgspec.defstruct(
        kind.__name__, [_field(field) for field in fields], kw_only=True, namespace={"__doc__": kind.__doc__},
        forbid_unknown_fields=kind.__struct_config__.forbid_unknown_fields,
    )


def _field(field: msgspec.structs.FieldInfo) -> tuple[str, Any, Any]:
    if field.type is msgspec.Raw:
        return field.name, RAW[field.name], msgspec.field(default_factory=dict if field.name == "kwargs" else list)
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, field.type, msgspec.field(default_factory=field.default_factory)
    return field.name, field.type, msgspec.field() if field.required else msgspec.field(default=field.default)


def _described(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    def schema(kind: Any) -> Any:
        return schema_of[id(kind)]

    described: dict[str, Any] = {"operationId": route.id, "summary": route.summary, "parameters": [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
          for name in re.findall(r"{(\w+)}", route.path)),
        *({"name": name, "in": "query", "description": QUERY[name][1], "schema": schema(QUERY[name][0])}
          for name in route.query),
        *({"name": name, "in": "header", "schema": {"type": "string"}} for name in route.headers),
    ]}
    if route.body is not None:
        body = {"application/json": {"schema": schema(_shape(route.body))}}
        described["requestBody"] = {"required": True, "content": body}
    failures = {} if route.is_open else FAILURES | OWN_FAILURES.get(route.id, {})
    problem = {"application/json": {"schema": schema(Problem)}}
    described["responses"] = {
        **{str(status): {"description": _words(status), "content": _content(answer, schema)}
           for status, answer in route.answers.items()},
        **{str(status): {"description": why, "content": problem}
           for status, why in failures.items() if status not in route.answers},
    }
    if route.is_open:
        described["security"] = []
    if route.deprecated:
        described["deprecated"] = True
    return described


def _content(answer: Any, schema: Callable[[Any], Any]) -> dict[str, Any]:
    kinds = answer if isinstance(answer, tuple) else (answer,)
    found: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in kinds if isinstance(kind, str)}
    shapes = [schema(kind) for kind in kinds if kind is not None and not isinstance(kind, str)]
    if shapes:
        found["application/json"] = {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}
    return found


def _words(status: int) -> str:
    return {
        101: "the connection is a WebSocket from here on", 201: "it is stored", 202: "it goes on",
        426: "another protocol", 503: "not now",
    }.get(status, "done")


def _tidied(schema: Any) -> Any:
    """Docstrings without the line breaks of our source."""
    if isinstance(schema.get("description"), str):
        schema = schema | {"description": re.sub(r"\s+", " ", schema["description"])}
    return schema
