"""The tables of `tests/images/rbac` are Glance's, but for the differences that are listed there."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests import databases
from tests.compat import glance
from tests.images.rbac import tables
from tests.images.rbac.asking import (
    CONTENT,
    ON_IMAGES,
    ON_NAMESPACES,
    ON_THE_SERVICE,
    REQUESTS,
    send,
    words,
)
from tests.images.rbac.callers import CALLERS, MEMBERS, OWNER
from tests.images.rbac.differences import DIFFERENCES
from tests.images.rbac.stock import STATUSES, Found
from tests.images.service import ADMIN

pytestmark = pytest.mark.compat

_VISIBILITIES = ("private", "shared", "public")
_NOW = datetime(2026, 1, 1)  # noqa: DTZ001  # Glance's columns have no zone

_ROWS = {
    "images": (
        *("id", "name", "status", "visibility", "os_hidden", "owner", "deleted", "created_at"),
        *("updated_at", "disk_format", "container_format", "min_disk", "min_ram", "protected"),
        "size",
    ),
    "image_members": ("image_id", "member", "status", "can_share", "deleted", "created_at"),
    "image_tags": ("image_id", "value", "deleted", "created_at"),
    "image_locations": ("image_id", "value", "meta_data", "status", "deleted", "created_at"),
}


@dataclass(frozen=True)
class Theirs:
    """The real Glance, which believes the headers of whoever asks."""

    client: httpx.AsyncClient
    server: asyncpg.Connection
    folder: Path

    async def word(self, name: str, caller: str, **names: str) -> str:
        """What the caller is answered, as the tables have it."""
        known = {"web": "http://127.0.0.1/image", "new": f"new-{uuid4().hex[:8]}", **names}
        request = REQUESTS[name]
        return words(request, await send(self.client, request, CALLERS[caller].headers, **known))

    async def images(self, wanted: Sequence[Found]) -> list[str]:
        """Make the images, as rows; their ids."""
        rows: dict[str, list[Sequence[object]]] = {table: [] for table in _ROWS}
        ids = [str(uuid4()) for _ in wanted]
        for image, found in zip(ids, wanted, strict=True):
            has_bytes = found.status in ("active", "deactivated", "pending_delete")
            is_gone = found.status in ("deleted", "pending_delete")
            rows["images"].append(
                (
                    *(image, "web", found.status, found.visibility, found.hidden, OWNER, is_gone),
                    *(_NOW, _NOW, "raw", "bare", 0, 0, False, 5 if has_bytes else None),
                )
            )
            rows["image_members"] += [
                (image, member, said, False, False, _NOW) for member, said in MEMBERS.items()
            ]
            rows["image_tags"].append((image, "old", False, _NOW))
            if found.status == "uploading":
                (self.folder / "staging" / image).write_bytes(b"bytes")
            if not has_bytes:
                continue
            for store in ("fast", "cheap"):
                file = self.folder / store / image
                file.write_bytes(b"bytes")
                metadata = json.dumps({"store": store})
                rows["image_locations"].append(
                    (image, f"file://{file}", metadata, "active", False, _NOW)
                )
        for table, columns in _ROWS.items():
            places = ", ".join(f"${number + 1}" for number in range(len(columns)))
            await self.server.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows[table]
            )
        return ids

    async def namespace(self, visibility: str) -> str:
        """Make a namespace with one of each kind in it; its name."""
        name = f"namespace-{uuid4().hex[:8]}"
        body = {
            "namespace": name,
            "owner": OWNER,
            "visibility": "public" if visibility == "guarded" else visibility,
            "protected": visibility == "guarded",
            **CONTENT,
        }
        made = await self.client.post("/v2/metadefs/namespaces", json=body, headers=ADMIN)
        made.raise_for_status()
        return name


@pytest.fixture
async def theirs(postgres_url: str, tmp_path: Path) -> AsyncGenerator[Theirs]:
    async def confirm(request: httpx.Request) -> None:
        if "X-Roles" in request.headers:
            request.headers["X-Identity-Status"] = "Confirmed"

    folder = tmp_path / "glance"
    database = await databases.create(postgres_url)
    served = glance.started(
        folder,
        database=database,
        keystone=None,
        backends="fast:file, cheap:file, third:file, web:http",
        options={"allow_anonymous_access": "true"},
    )
    hooks = {"request": [confirm]}
    async with (
        httpx.AsyncClient(base_url=served.url, timeout=60, event_hooks=hooks) as client,
        databases.connection(database) as server,
    ):
        yield Theirs(client, server, folder)
    served.stop()
    await databases.drop(database)


# Served by the flavor cachemanagement only, which reads no identities from headers.
_OF_THE_CACHE = ("/v2/cache", "/v2/cached_images", "/v2/queued_images")


def _is_asked(name: str) -> bool:
    path = REQUESTS[name].operation.partition(" ")[2]
    return not path.startswith(_OF_THE_CACHE)


@dataclass(frozen=True)
class Cell:
    """One request by one caller, about what `names` says, and the tables' word."""

    asked: str
    about: str
    caller: str
    names: Mapping[str, str]
    expected: str


async def _on_images(theirs: Theirs) -> list[Cell]:
    table = tables.by_visibility(tables.IMAGES)
    cells = [
        (name, status, seen, caller)
        for name, request in ON_IMAGES.items()
        for status, seen, caller in (
            *product([request.finds], _VISIBILITIES, CALLERS),
            *product(STATUSES, ["shared"], ("admin", "member", "reader", "accept", "osrvc")),
        )
        if _is_asked(name)
    ]
    ids = await theirs.images([Found(status, seen) for _, status, seen, _ in cells])
    return [
        Cell(
            name,
            f"{status} {seen}",
            caller,
            {"image_id": image},
            table[name, seen, caller]
            if status == ON_IMAGES[name].finds
            else tables.in_status(name, status, caller, table[name, seen, caller]),
        )
        for (name, status, seen, caller), image in zip(cells, ids, strict=True)
    ]


async def _on_namespaces(theirs: Theirs) -> list[Cell]:
    common = {seen: await theirs.namespace(seen) for seen in ("private", "public", "guarded")}
    return [
        Cell(
            name,
            seen,
            caller,
            {
                "namespace": await theirs.namespace(seen)
                if cell == "ok" and ON_NAMESPACES[name].changes
                else common[seen]
            },
            cell,
        )
        for (name, seen, caller), cell in tables.by_visibility(tables.NAMESPACES).items()
    ]


def _on_the_service() -> list[Cell]:
    return [
        Cell(name, "", caller, {}, cell)
        for name in ON_THE_SERVICE
        if _is_asked(name)
        for row in tables.rows(tables.SERVICE)[name]
        for caller, cell in row.cells.items()
    ]


async def test_the_tables_are_glances(theirs: Theirs) -> None:
    cells = [*await _on_images(theirs), *await _on_namespaces(theirs), *_on_the_service()]
    at_a_time = asyncio.Semaphore(4)

    async def found(cell: Cell) -> str:
        async with at_a_time:
            return await theirs.word(cell.asked, cell.caller, **cell.names)

    unexpected: list[str] = []
    outlived = set(DIFFERENCES)
    words_found = await asyncio.gather(*map(found, cells))
    for cell, word in zip(cells, words_found, strict=True):
        if word == cell.expected:
            continue
        reasons = {
            one
            for one in DIFFERENCES
            if one.covers(asked=cell.asked, caller=cell.caller, theirs=word, ours=cell.expected)
        }
        outlived -= reasons
        if not reasons:
            unexpected.append(
                f"{cell.asked}, {cell.about}, by {cell.caller}: {word}, not {cell.expected}"
            )
    assert (unexpected, outlived) == ([], set())
