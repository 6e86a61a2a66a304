"""What tests of artifacts send, and what they look up where clients cannot."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests import databases
from tests.artifacts.service import ADMIN, ALICE, PATCH

# What sample_artifact needs before it can be active.
REQUIRED = {"string_required": "given"}

Operation = Mapping[str, Any]


def add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: Any) -> Operation:
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> Operation:
    return {"op": "remove", "path": path}


def move(source: str, path: str) -> Operation:
    return {"op": "move", "from": source, "path": path}


def copy(source: str, path: str) -> Operation:
    return {"op": "copy", "from": source, "path": path}


def expect(path: str, value: Any) -> Operation:
    """The operation `test`."""
    return {"op": "test", "path": path, "value": value}


ACTIVATE = replace("/status", "active")
DEACTIVATE = replace("/status", "deactivated")
PUBLISH = replace("/visibility", "public")


def path_of(artifact: Mapping[str, Any], blob: str = "", *, kind: str = "sample_artifact") -> str:
    """Where an artifact is, or a blob of it."""
    return f"/artifacts/{kind}/{artifact['id']}" + (f"/{blob}" if blob else "")


async def patch(
    api: httpx.AsyncClient, path: str, *operations: object, headers: Mapping[str, str] = ALICE
) -> httpx.Response:
    return await api.patch(path, json=operations, headers={**headers, **PATCH})


async def changed(
    api: httpx.AsyncClient, path: str, *operations: object, headers: Mapping[str, str] = ALICE
) -> dict[str, Any]:
    """The artifact after a patch that succeeds."""
    answer = await patch(api, path, *operations, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def shown(
    api: httpx.AsyncClient, path: str, headers: Mapping[str, str] = ADMIN
) -> dict[str, Any]:
    answer = await api.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def events(database: str) -> list[tuple[str, dict[str, Any]]]:
    """What is to be told: events without their common prefix, and their payloads."""
    async with databases.connection(database) as server:
        rows = await server.fetch("SELECT event_type, payload FROM outbox ORDER BY id")
    return [
        (row["event_type"].removeprefix("artifact.artifact:"), json.loads(row["payload"]))
        for row in rows
    ]


async def put_blob(
    database: str,
    artifact: Mapping[str, Any],
    field: str,
    key: str = "",
    *,
    status: str = "active",
    external: bool = False,
) -> str:
    """Give the artifact a blob as an upload does, without the bytes; the blob's id."""
    async with databases.connection(database) as server:
        row = await server.fetchrow(
            "INSERT INTO blobs (artifact_id, owner, type_name, field, key, status, size, md5,"
            " external, url, store, content_type, lease_until)"
            " VALUES ($1, $2, 'sample_artifact', $3, $4, $5, 3, 'sum', $6, $7, $8, 'text', $9)"
            " RETURNING id::text",
            *(artifact["id"], artifact["owner"], field, key, status, external),
            "http://files.example/x" if external else "file:///nowhere/x",
            None if external else "fast",
            datetime.now(UTC) + timedelta(hours=1) if status == "saving" else None,
        )
    assert row is not None
    return row["id"]
