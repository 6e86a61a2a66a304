"""Changes that meet in the middle of an upload, and what a transfer holds of the database."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from dev import postgres
from diptych_common import migrations
from starlette.types import Message

from tests import databases
from tests.images.service import ALICE, OCTETS, PATCH, client, configuration, opened
from tests.waiting import until

UPLOAD = {**ALICE, **OCTETS}
RAW = {"disk_format": "raw", "container_format": "bare"}

Api = httpx.AsyncClient


async def new_image(api: Api) -> dict[str, Any]:
    created = await api.post("/v2/images", json=RAW, headers=ALICE)
    assert created.status_code == 201, created.text
    return created.json()


@asynccontextmanager
async def changing(url: str, image: dict[str, Any], change: str) -> AsyncGenerator[None]:
    """Hold a change of an image's row open, and commit it once somebody waits for it."""
    async with (
        databases.connection(url) as watching,
        databases.connection(url) as other,
        other.transaction(),
    ):

        async def is_waited_for() -> bool:
            return bool(
                await watching.fetchval(
                    "SELECT count(*) > 0 FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )

        await other.execute(f"UPDATE images SET {change} WHERE id = $1", image["id"])
        yield
        await until(is_waited_for)


@pytest.mark.parametrize(
    ("change", "status"), [("disk_format = 'qcow2'", 415), ("disk_format = NULL", 400)]
)
async def test_data_is_judged_by_the_format_that_the_image_has_in_the_end(
    api: Api, images_database: str, change: str, status: int
) -> None:
    image = await new_image(api)
    async with changing(images_database, image, change):
        put = api.put(image["file"], content=b"nothing like QFI", headers=UPLOAD)
        upload = asyncio.create_task(put)
    assert (await upload).status_code == status
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert (shown["status"], shown["size"]) == ("queued", None)


async def test_upload_that_waits_for_a_change_finishes(api: Api, images_database: str) -> None:
    image = await new_image(api)
    started, gate = asyncio.Event(), asyncio.Event()

    async def gated() -> AsyncIterator[bytes]:
        started.set()
        await gate.wait()
        yield b"data"

    upload = asyncio.create_task(api.put(image["file"], content=gated(), headers=UPLOAD))
    await started.wait()
    async with changing(images_database, image, "name = 'changed'"):
        gate.set()
    assert (await upload).status_code == 204
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert (shown["status"], shown["name"], shown["size"]) == ("active", "changed", 4)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {".mark"}


async def sessions(connection: asyncpg.Connection) -> list[tuple[str, bool, bool]]:
    """What the service's sessions do: state, within a transaction, with locks."""
    found = await connection.fetch(
        "SELECT state, xact_start IS NOT NULL AS in_transaction,"
        " EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = pg_stat_activity.pid) AS has_locks"
        " FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'diptych%'"
    )
    return [(row["state"], row["in_transaction"], row["has_locks"]) for row in found]


async def test_no_transaction_is_open_while_bytes_flow(
    images_database: str, tmp_path: Path
) -> None:
    # With a single connection, one that a transfer held would stop everything else.
    environ = configuration(
        images_database,
        tmp_path,
        DATABASE__MAX_POOL_SIZE="1",
        DATABASE__MAX_OVERFLOW="0",
        DATABASE__POOL_TIMEOUT="1",
    )
    async with (
        opened(environ) as app,
        client(app) as api,
        databases.connection(images_database) as watching,
    ):
        saving, active = await new_image(api), await new_image(api)
        await api.put(active["file"], content=b"x" * (8 << 20), headers=UPLOAD)
        sending_on, downloading, reading_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"x" * (2 << 20)
            await sending_on.wait()

        async def stays_idle() -> None:
            for _ in range(5):
                assert set(await sessions(watching)) == {("idle", False, False)}
                await asyncio.sleep(0.02)
            shown = await api.get(saving["self"], headers=ALICE)
            assert (shown.status_code, shown.json()["status"]) == (200, "saving")

        async def receive() -> Message:
            await asyncio.Event().wait()
            return {}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                downloading.set()
                await reading_on.wait()

        upload = asyncio.create_task(api.put(saving["file"], content=slowly(), headers=UPLOAD))
        await until(lambda: any((tmp_path / "fast/.attempts").iterdir()))
        await stays_idle()
        scope = {
            "type": "http",
            "method": "GET",
            "path": active["file"],
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in ALICE.items()],
            "client": ("127.0.0.1", 1),
        }
        download = asyncio.ensure_future(app(scope, receive, send))
        await downloading.wait()
        await stays_idle()
        reading_on.set()
        await download
        sending_on.set()
        assert (await upload).status_code == 204


async def test_requests_beyond_the_pool_are_told_to_try_again(
    custom_api: Callable[..., Awaitable[Api]], images_database: str
) -> None:
    api = await custom_api(
        DATABASE__MAX_POOL_SIZE="1", DATABASE__MAX_OVERFLOW="0", DATABASE__POOL_TIMEOUT="0.3"
    )
    image = await new_image(api)
    rename = [{"op": "replace", "path": "/name", "value": "late"}]
    async with changing(images_database, image, "name = 'early'"):
        patch = api.patch(image["self"], json=rename, headers={**ALICE, **PATCH})
        patching = asyncio.create_task(patch)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            refused = await asyncio.gather(
                *(api.get("/v2/images", headers=ALICE) for _ in range(20))
            )
        assert {answer.status_code for answer in refused} == {503}
        assert all("retry-after" in answer.headers for answer in refused)
    assert (await patching).json()["name"] == "late"
    assert (await api.get("/v2/images", headers=ALICE)).status_code == 200


async def test_upload_hit_at_any_point_is_whole_or_undone(
    images_database: str, tmp_path: Path
) -> None:
    """Cancelled, cut off from the database, its image deleted, each at some moment or other."""
    random = Random(2)
    environ = configuration(
        images_database,
        tmp_path,
        JOBS__WITH_WORKER="true",
        JOBS__LEASE="3",
        JOBS__REAPER_INTERVAL="1",
        JOBS__POLL_INTERVAL="0.2",
    )
    uploads: list[tuple[dict[str, Any], bytes, int | None, bool]] = []
    async with (
        opened(environ) as app,
        client(app) as api,
        databases.connection(images_database) as other,
    ):

        async def cut_off() -> None:
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        for turn in range(60):
            image, data = await new_image(api), os.urandom(150_000)

            async def pieces(data: bytes = data) -> AsyncIterator[bytes]:
                for start in range(0, len(data), 65536):
                    yield data[start : start + 65536]
                    await asyncio.sleep(random.random() * 0.002)

            put = api.put(image["file"], content=pieces(), headers=UPLOAD)
            upload = asyncio.create_task(put)
            await asyncio.sleep(random.random() * 0.03)
            if turn % 4 in (0, 1):
                await cut_off()
            if turn % 4 in (1, 2):
                upload.cancel()
            if turn % 4 == 3:
                assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
            outcome = (await asyncio.gather(upload, return_exceptions=True))[0]
            answered = outcome.status_code if isinstance(outcome, httpx.Response) else None
            uploads.append((image, data, answered, turn % 4 == 3))
            # The pool finds out about the connections that were cut before the next image.
            await asyncio.sleep(0.02)

        async def is_quiet() -> bool:
            return not await other.fetchval(
                "SELECT (SELECT count(*) FROM image_locations WHERE status <> 'active')"
                " + (SELECT count(*) FROM images WHERE status = 'saving')"
            )

        await until(is_quiet)
        whole: set[str] = set()
        for image, data, answered, is_deleted in uploads:
            shown = await api.get(image["self"], headers=ALICE)
            if is_deleted:
                assert shown.status_code == 404
                continue
            status = shown.json()["status"]
            assert status == "active" if answered == 204 else status in ("active", "queued")
            if status == "active":
                whole.add(image["id"])
                assert (await api.get(image["file"], headers=ALICE)).content == data
        assert files(tmp_path) == whole
    # Both outcomes were met, or the moments were badly chosen.
    assert 0 < len(whole) < 45


async def test_lease_outlives_connections_that_fall_silent(
    private_postgres: postgres.Server, tmp_path: Path
) -> None:
    url = await databases.create(private_postgres.url())
    await migrations.upgrade(url, "diptych_images.migrations")
    gate = asyncio.Event()

    async def gated() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        await gate.wait()

    async with (
        databases.connection(url) as watching,
        opened(configuration(url, tmp_path, JOBS__LEASE="6")) as app,
        client(app) as api,
    ):
        image = await new_image(api)
        upload = asyncio.create_task(api.put(image["file"], content=gated(), headers=UPLOAD))
        await until(lambda: any((tmp_path / "fast/.attempts").iterdir()))
        silent = await watching.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'diptych-images'"
        )
        for row in silent:
            os.kill(row["pid"], signal.SIGSTOP)
        try:
            await asyncio.sleep(7)
            assert await watching.fetchval(
                "SELECT lease_until > statement_timestamp() FROM image_locations"
            )
        finally:
            for row in silent:
                os.kill(row["pid"], signal.SIGCONT)
        gate.set()
        assert (await upload).status_code == 204
