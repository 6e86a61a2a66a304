"""Where a route is can be guessed from its URL, and what it takes can be read in the OpenAPI."""

from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from dev.routes import COSTS, Place, places, rules_of
from diptych_common.openapi import described
from diptych_common.routing import is_direct
from diptych_images import app
from diptych_images.api.resources import refuse_body
from fastapi.routing import APIRoute

ROUTES = [route for router in app.ROUTERS for route in router.routes if isinstance(route, APIRoute)]

# What is not in the module that its URL names, as app.py says at its top, and why.
EXCEPTIONS = {
    "PUT /v2/images/{image_id}/file": "data",  # bytes: a file is anything in Python
    "GET /v2/images/{image_id}/file": "data",
    "HEAD /v2/images/{image_id}/file": "data",
    "POST /v2/images/{image_id}/import": "imports",  # a keyword in Python
    "PATCH /v2/images/{image_id}": "patch",  # images.py would be too long
    # The same as /v2/cache, in the words of before.
    "GET /v2/cached_images": "cache",
    "DELETE /v2/cached_images": "cache",
    "DELETE /v2/cached_images/{image_id}": "cache",
    "GET /v2/queued_images": "cache",
    "DELETE /v2/queued_images": "cache",
    "PUT /v2/queued_images/{image_id}": "cache",
    "DELETE /v2/queued_images/{image_id}": "cache",
}

# What needs a token and asks no rule: the same for everybody.
WITHOUT_RULE = {
    "GET /v2/info/import",
    "GET /v2/info/stores",
    "GET /v2/info/usage",
    "GET /v2/schemas/{name}",
}


def guess(operation: str) -> str:
    """The module by the two-guess rule."""
    segments = operation.partition(" ")[2].strip("/").split("/")
    for before, segment in pairwise(segments):
        if before == "{image_id}":
            return segment
    if segments[1] == "metadefs":
        return f"metadefs.{segments[4] if len(segments) > 4 else segments[2]}"
    return segments[1]


def name(route: APIRoute) -> str:
    return f"{'|'.join(sorted(route.methods or ()))} {route.path_format}"


@pytest.mark.parametrize("place", list(places("images")), ids=lambda place: place.operation)
def test_a_route_is_where_one_looks(place: Place) -> None:
    assert place.module == EXCEPTIONS.get(place.operation, guess(place.operation))


def test_every_exception_is_one_and_is_told() -> None:
    assert EXCEPTIONS.keys() <= COSTS["images"].keys()
    assert app.__doc__ is not None
    for operation, module in EXCEPTIONS.items():
        assert guess(operation) != module
        assert f"`{module}.py`" in app.__doc__


@pytest.mark.parametrize("place", list(places("images")), ids=lambda place: place.operation)
def test_a_route_names_its_rule(place: Place) -> None:
    assert bool(rules_of(place)) is (place.operation not in WITHOUT_RULE)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return described(title="Images", routers=app.ROUTERS)


def test_the_openapi_document_has_every_route(document: dict[str, Any]) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == COSTS["images"].keys()


def test_errors_are_described_as_clients_get_them(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "default" in operation["responses"], (method, path)
            assert "422" not in operation["responses"], (method, path)


def test_every_operation_is_summed_up_for_people(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert len(operation["summary"].split()) > 1, (method, path)
            assert "Source" not in operation.get("description", ""), (method, path)


def takes_body(route: APIRoute) -> bool:
    """Whether a request may have a body: those that may not refuse it by a dependency."""
    can = bool((route.methods or set()) & {"POST", "PUT", "PATCH"})
    return can and refuse_body not in [each.call for each in route.dependant.dependencies]


def test_a_body_is_refused_or_taken() -> None:
    assert {name(route) for route in ROUTES if takes_body(route)} == {
        "POST /v2/images",
        "PATCH /v2/images/{image_id}",
        "PUT /v2/images/{image_id}/file",
        "PUT /v2/images/{image_id}/stage",
        "POST /v2/images/{image_id}/import",
        "POST /v2/images/{image_id}/locations",
        "POST /v2/tasks",
        "POST /v2/images/{image_id}/members",
        "PUT /v2/images/{image_id}/members/{member}",
        "POST /v2/metadefs/namespaces",
        "PUT /v2/metadefs/namespaces/{namespace}",
        "POST /v2/metadefs/namespaces/{namespace}/resource_types",
        "POST /v2/metadefs/namespaces/{namespace}/objects",
        "PUT /v2/metadefs/namespaces/{namespace}/objects/{name}",
        "POST /v2/metadefs/namespaces/{namespace}/properties",
        "PUT /v2/metadefs/namespaces/{namespace}/properties/{name}",
        "POST /v2/metadefs/namespaces/{namespace}/tags",
        "PUT /v2/metadefs/namespaces/{namespace}/tags/{name}",
    }


@pytest.mark.parametrize("route", [route for route in ROUTES if takes_body(route)], ids=name)
def test_a_route_with_a_body_declares_it_and_its_answer(route: APIRoute) -> None:
    declared = route.openapi_extra or {}
    body = declared["requestBody"]
    assert body["required"]
    assert body["content"]
    contents = [*body["content"].values()]
    success = str(route.status_code or 200)
    answer = declared["responses"][success]
    assert answer["description"]
    if success in ("202", "204"):
        assert "content" not in answer
    else:
        contents += answer["content"].values()
    for content in contents:
        jsonschema.Draft202012Validator.check_schema(content["schema"])
        assert content["schema"]


def test_no_route_takes_what_is_slow_to_solve() -> None:
    assert [route.path for route in ROUTES if not is_direct(route)] == []
