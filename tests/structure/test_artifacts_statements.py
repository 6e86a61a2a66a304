"""As test_statements.py, of the artifacts service."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev.routes import COSTS, Cost, places

from tests import databases
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    LOCATION,
    OCTETS,
    PATCH,
    client,
    configuration,
    opened,
)

Make = Callable[..., Awaitable[str]]
Request = tuple[str, dict[str, Any]]

SAMPLES = "/artifacts/sample_artifact"
QUOTAS = [
    {"project_id": name, "project_quotas": [{"quota_name": "max_uploaded_data", "quota_value": -1}]}
    for name in ("alpha", "beta", "gamma")
]


@pytest.fixture
async def api(artifacts_database: str, tmp_path: Path) -> AsyncGenerator[httpx.AsyncClient]:
    # Nothing is measured while statements are counted.
    environ = configuration(artifacts_database, tmp_path, METRICS__ENABLED="false")
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
def make(api: httpx.AsyncClient) -> Make:
    """`await make(data=b"…")`: the path of an artifact of Alice's; with data, of its blob.

    `elsewhere` makes the path of a blob that has an address and no data.
    """

    async def make_artifact(*, data: bytes | None = None, elsewhere: bool = False) -> str:
        created = await api.post(SAMPLES, json={"name": uuid4().hex, "int1": 5}, headers=ALICE)
        path = f"{SAMPLES}/{created.json()['id']}"
        if data is not None:
            stored = await api.put(f"{path}/blob", content=data, headers={**ALICE, **OCTETS})
            assert stored.is_success, stored.text
            return f"{path}/blob"
        if elsewhere:
            location = {"url": "https://example.com/x", "md5": None}
            headers = {**ALICE, **LOCATION}
            stored = await api.put(f"{path}/blob", json=location, headers=headers)
            assert stored.is_success, stored.text
            return f"{path}/blob"
        return path

    return make_artifact


async def listed(make: Make) -> Request:
    await make(data=b"x")
    marker = (await make()).rpartition("/")[2]
    asked = {"int1": "gt:1", "tags": "or:a", "name": "or:like:%", "version": "latest"}
    return SAMPLES, {"params": {**asked, "sort": "str1:asc", "marker": marker}}


async def create(make: Make) -> Request:
    return SAMPLES, {"json": {"name": uuid4().hex, "tags": ["a"], "int1": 5}}


async def artifact(make: Make) -> Request:
    return await make(), {}


async def patch(make: Make) -> Request:
    operations = [{"op": "replace", "path": "/name", "value": uuid4().hex}]
    return await make(), {"json": operations, "headers": {**ALICE, **PATCH}}


async def upload(make: Make) -> Request:
    return f"{await make()}/blob", {"content": b"bytes", "headers": {**ALICE, **OCTETS}}


async def download(make: Make) -> Request:
    return await make(data=b"bytes"), {}


async def elsewhere(make: Make) -> Request:
    return await make(elsewhere=True), {}


def fixed(
    path: str, headers: dict[str, str] = ALICE, **arguments: Any
) -> Callable[[Make], Awaitable[Request]]:
    async def request(make: Make) -> Request:
        return path, {"headers": headers, **arguments}

    return request


BLOB = "/artifacts/{type_name}/{artifact_id}/{blob}"
REQUESTS: dict[str, Callable[[Make], Awaitable[Request]]] = {
    "GET /artifacts/{type_name}": listed,
    "POST /artifacts/{type_name}": create,
    "GET /artifacts/{type_name}/{artifact_id}": artifact,
    "PATCH /artifacts/{type_name}/{artifact_id}": patch,
    "DELETE /artifacts/{type_name}/{artifact_id}": artifact,
    f"PUT {BLOB}": upload,
    f"GET {BLOB}": download,
    f"HEAD {BLOB}": download,
    f"DELETE {BLOB}": elsewhere,
    "GET /schemas": fixed("/schemas"),
    "GET /schemas/{type_name}": fixed("/schemas/images"),
    "PUT /quotas": fixed("/quotas", ADMIN, json=QUOTAS),
    "GET /quotas": fixed("/quotas", ADMIN),
    "GET /project-quotas": fixed("/project-quotas"),
    "GET /project-quotas/{project_id}": fixed("/project-quotas/alpha", ADMIN),
}


def test_every_route_has_a_known_cost() -> None:
    assert {place.operation for place in places("artifacts")} == COSTS["artifacts"].keys()


@pytest.mark.parametrize("operation", COSTS["artifacts"])
async def test_a_request_costs_what_is_told(
    api: httpx.AsyncClient, make: Make, artifacts_database: str, operation: str
) -> None:
    method = operation.partition(" ")[0]

    async def send(path: str, arguments: dict[str, Any]) -> None:
        arguments = {"headers": ALICE, **arguments}
        answer = await api.request(method, path, **arguments)
        assert answer.is_success, answer.text

    # Once to make the connection ready, once to be counted.
    await send(*await REQUESTS[operation](make))
    path, arguments = await REQUESTS[operation](make)
    async with databases.statements(artifacts_database) as seen:
        await send(path, arguments)
    transactions = [text for text in seen.texts if text.startswith("COMMIT")]
    statements = [
        text for text in seen.texts if not text.startswith(("BEGIN", "COMMIT", "ROLLBACK"))
    ]
    assert Cost(len(statements), len(transactions)) == COSTS["artifacts"][operation], seen.texts


@pytest.mark.parametrize(
    "operation",
    [
        place.operation
        for place in places("artifacts")
        if place.operation.startswith(("GET", "HEAD"))
    ],
)
def test_reading_takes_one_statement_at_most(operation: str) -> None:
    assert COSTS["artifacts"][operation] in (Cost(0), Cost(1))
