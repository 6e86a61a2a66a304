"""As test_map.py, of the artifacts service."""

from typing import Any

import jsonschema
import pytest
from dev.routes import COSTS, Place, places, rules_of
from diptych_artifacts import app
from diptych_artifacts.api.resources import refuse_body
from diptych_common.openapi import described
from diptych_common.routing import is_direct
from fastapi.routing import APIRoute

ROUTES = [route for router in app.ROUTERS for route in router.routes if isinstance(route, APIRoute)]

# What is not in the module that its URL names, as app.py says at its top, and why.
EXCEPTIONS = {
    "PATCH /artifacts/{type_name}/{artifact_id}": "patch",  # artifacts.py would be too long
    # A noun of its own in the code.
    "GET /project-quotas": "quotas",
    "GET /project-quotas/{project_id}": "quotas",
}


def guess(operation: str) -> str:
    """The module by the two-guess rule."""
    segments = operation.partition(" ")[2].strip("/").split("/")
    below_an_artifact = segments[0] == "artifacts" and len(segments) > 3
    return "blobs" if below_an_artifact else segments[0]


def name(route: APIRoute) -> str:
    return f"{'|'.join(sorted(route.methods or ()))} {route.path_format}"


@pytest.mark.parametrize("place", list(places("artifacts")), ids=lambda place: place.operation)
def test_a_route_is_where_one_looks(place: Place) -> None:
    assert place.module == EXCEPTIONS.get(place.operation, guess(place.operation))


def test_every_exception_is_one_and_is_told() -> None:
    assert EXCEPTIONS.keys() <= COSTS["artifacts"].keys()
    assert app.__doc__ is not None
    for operation, module in EXCEPTIONS.items():
        assert guess(operation) != module
        assert f"`api/{module}.py`" in app.__doc__


@pytest.mark.parametrize("place", list(places("artifacts")), ids=lambda place: place.operation)
def test_a_route_names_its_rule(place: Place) -> None:
    assert rules_of(place)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return described(title="Artifacts", routers=app.ROUTERS)


def test_the_openapi_document_has_every_route(document: dict[str, Any]) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == COSTS["artifacts"].keys()


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
        "POST /artifacts/{type_name}",
        "PATCH /artifacts/{type_name}/{artifact_id}",
        "PUT /artifacts/{type_name}/{artifact_id}/{blob}",
        "PUT /quotas",
    }


@pytest.mark.parametrize("route", [route for route in ROUTES if takes_body(route)], ids=name)
def test_a_route_with_a_body_declares_it_and_its_answer(route: APIRoute) -> None:
    declared = route.openapi_extra or {}
    body = declared["requestBody"]
    assert body["required"]
    assert body["content"]
    answer = declared["responses"][str(route.status_code or 200)]
    assert answer["description"]
    for content in (*body["content"].values(), *answer["content"].values()):
        jsonschema.Draft202012Validator.check_schema(content["schema"])
        assert content["schema"]


def test_no_route_takes_what_is_slow_to_solve() -> None:
    assert [route.path for route in ROUTES if not is_direct(route)] == []
