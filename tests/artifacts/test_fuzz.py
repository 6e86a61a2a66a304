"""Requests that schemathesis makes of the OpenAPI document: none of them is the service's fault.

Right and wrong ones, about what exists and what does not, by callers with different rights, and
bodies that are right but for a place or two: see `tests/fuzzing.py`.
"""

import json
import random
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis
from dev.routes import COSTS
from diptych_artifacts import app
from diptych_common.openapi import described
from schemathesis import Case
from starlette.types import ASGIApp

from tests.artifacts.service import (
    ADMIN,
    ALICE,
    BOB,
    LOCATION,
    PATCH,
    configuration,
    opened,
    persona,
)
from tests.artifacts.subjects import NEW, Subjects
from tests.fuzzing import IN_EVERY_RUN, WHEN_ASKED, Fuzzed, ask_much, weighted

HERE = "http://artifacts.example"
OPERATIONS = sorted(COSTS["artifacts"])
SHA256 = "0" * 64

# A caller, and how often it asks.
PERSONAS = (
    (ALICE, 45),
    (ADMIN, 35),
    (BOB, 8),
    (persona("gamma", "reader"), 4),
    ({**persona(None, "reader")}, 4),
    ({}, 4),
)

# Which artifact an operation asks about to some purpose.
FITTING = {
    # Each that succeeds takes one with it, and the others are made of many requests.
    "DELETE /artifacts/{type_name}/{artifact_id}": "drafted",
    "DELETE /artifacts/{type_name}/{artifact_id}/{blob}": "with a location",
    "PUT /artifacts/{type_name}/{artifact_id}/{blob}": "drafted",
    "GET /artifacts/{type_name}/{artifact_id}/{blob}": "with blobs",
    "HEAD /artifacts/{type_name}/{artifact_id}/{blob}": "with blobs",
}


@schemathesis.serializer(PATCH["Content-Type"], LOCATION["Content-Type"])
def _as_json(_: schemathesis.SerializationContext, value: object) -> bytes:
    return json.dumps(value).encode()


def patch(op: str, path: str, *value: object) -> dict[str, object]:
    return {"op": op, "path": path, **({"value": value[0]} if value else {})}


# Right ones for the operations that take JSON.
BODIES: dict[str, list[Any]] = {
    "POST /artifacts/{type_name}": [
        *({**NEW, "name": f"fuzzed {at}", "version": f"{at}.1"} for at in range(20)),
        {"name": "fuzzed", "dict_of_str": {"a": "b"}, "float1": 1.5, "bool1": "yes"},
    ],
    "PATCH /artifacts/{type_name}/{artifact_id}": [
        [patch("replace", "/name", "n"), patch("add", "/tags", ["t"])],
        [patch("add", "/list_of_str/-", "c"), patch("remove", "/dict_of_int/one")],
        [patch("replace", "/status", "active"), patch("replace", "/description", "d")],
        [patch("replace", "/visibility", "public")],
        [patch("test", "/str1", "one"), patch("replace", "/version", "2.0")],
        [{"op": "move", "from": "/list_of_str/0", "path": "/metadata/new"}],
        [{"op": "copy", "from": "/str1", "path": "/description"}],
    ],
    "PUT /artifacts/{type_name}/{artifact_id}/{blob}": [
        {"url": "https://example.com/x", "md5": "0" * 32, "sha256": SHA256},
        {"url": "https://example.com/x", "md5": None, "location_type": "external"},
        {"url": "file:///x", "location_type": "internal"},
    ],
    "PUT /quotas": [
        [
            {
                "project_id": "gamma",
                "project_quotas": [{"quota_name": "max_artifact_number", "quota_value": 10}],
            }
        ],
        [],
    ],
}


class Service:
    """The service on a database of its own, which nobody else fills while a test runs."""

    def __init__(self, application: ASGIApp) -> None:
        # What the server sees of an error is an answer, not an exception.
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        self.api = httpx.AsyncClient(transport=transport, base_url=HERE)


@pytest.fixture(scope="module")
async def _service(
    _artifacts_schema: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Service]:
    environ = configuration(
        _artifacts_schema[0],
        tmp_path_factory.mktemp("fuzz"),
        DEFAULT__ALLOW_ANONYMOUS_ACCESS="true",
    )
    async with opened(environ) as application:
        service = Service(application)
        yield service
        await service.api.aclose()


@pytest.fixture
async def service(_service: Service, artifacts_database: str) -> Service:
    """The service without artifacts."""
    return _service


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return described(title="Artifacts", routers=app.ROUTERS)


@pytest.fixture(scope="module")
def schema(document: dict[str, Any]) -> Any:
    """schemathesis' operations by path and method."""
    return schemathesis.openapi.from_dict(document)


async def request_of(
    name: str, subjects: Subjects, choose: random.Random, case: Case, body: object
) -> httpx.Request:
    """The case with what exists in place of what is made up; with this body if there is one."""
    kind = FITTING.get(name) if body is None and choose.random() < 0.5 else None
    path = await subjects.path_of(case.path, case.path_parameters, kind=kind)
    sent = case.as_transport_kwargs(base_url=HERE)
    headers: dict[str, Any] = dict(case.headers)
    if "Content-Type" in sent["headers"]:
        headers["Content-Type"] = sent["headers"]["Content-Type"]
    content: dict[str, Any] = {part: sent[part] for part in ("data", "json") if part in sent}
    if body is not None:
        kinds = {"PATCH": PATCH["Content-Type"], "PUT": LOCATION["Content-Type"]}
        is_location = case.method != "PUT" or path != "/quotas"
        headers["Content-Type"] = (
            kinds.get(case.method, "application/json") if is_location else "application/json"
        )
        content = {"data": json.dumps(body).encode()}
    params = await subjects.query(case.query)
    plain = requests.Request(case.method, HERE + path, params=params, headers=headers, **content)
    ready = plain.prepare()
    headers = {**ready.headers, **weighted(choose, PERSONAS)}
    # Values may hold what is not ASCII, which goes out as servers read it.
    raw = [(each.encode(), str(value).encode("latin-1")) for each, value in headers.items()]
    return httpx.Request(
        case.method, str(ready.url), headers=raw, content=cast("bytes | None", ready.body)
    )


def wrong_error(answer: httpx.Response) -> str | None:
    if answer.request.method == "HEAD":
        return "has a body" if answer.content else None
    fault = answer.json()
    is_right = (
        fault.keys() == {"code", "title", "explanation", "error"}
        and fault["code"] == answer.status_code
        and fault["error"].keys() == {"message", "type"}
    )
    return None if is_right else "is no error of the API"


def fuzzed(
    name: str, service: Service, document: dict[str, Any], schema: Any, choose: random.Random
) -> Fuzzed:
    subjects = Subjects(service.api, choose)
    return Fuzzed(
        name,
        service.api,
        document,
        schema,
        subjects,
        partial(request_of, name, subjects, choose),
        wrong_error,
        right_bodies=BODIES.get(name, []),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_requests_made_up_are_answered(
    service: Service,
    document: dict[str, Any],
    schema: Any,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = -(-IN_EVERY_RUN // len(OPERATIONS))
    choose = random.Random(name)
    asked = fuzzed(name, service, document, schema, choose)
    await ask_much(asked, choose, count=count, seed=name, always_same=True)
    unexpected = [record for record in caplog.records if record.exc_info]
    assert unexpected == [], caplog.text


@pytest.mark.fuzz
@pytest.mark.parametrize("name", OPERATIONS)
async def test_more_requests_made_up_are_answered(
    service: Service, document: dict[str, Any], schema: Any, name: str
) -> None:
    count = -(-WHEN_ASKED // len(OPERATIONS))
    seed = random.SystemRandom().getrandbits(32)
    choose = random.Random(f"{seed}")
    asked = fuzzed(name, service, document, schema, choose)
    await ask_much(asked, choose, count=count, seed=seed, always_same=False)
