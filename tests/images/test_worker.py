"""The jobs of the images service, run by a worker in this process."""

import asyncio
import os
import time
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from dev import ports
from diptych_common import jobs
from diptych_images.db import images, imports
from diptych_images.db.tables import jobs as jobs_table

from tests import databases
from tests.images.rows import make_active, make_image, open_database
from tests.images.service import configuration
from tests.images.workers import working
from tests.waiting import until


@pytest.fixture
def environ(images_database: str, tmp_path: Path) -> dict[str, str]:
    return configuration(images_database, tmp_path, JOBS__REAPER_INTERVAL="1", JOBS__LEASE="3")


async def until_run(database: str, kind: str) -> None:
    """Wait until a recurring job has ended once, and raise what it failed with."""
    async with asyncio.timeout(10), databases.connection(database) as server:
        while True:
            row = await server.fetchrow(
                "SELECT state, error, run_after > now() AS again FROM jobs WHERE kind = $1", kind
            )
            if row and row["state"] == "waiting" and row["again"]:
                assert row["error"] is None
                return
            await asyncio.sleep(0.05)


async def test_attempts_that_no_row_knows_are_swept_after_days(
    images_database: str, environ: dict[str, str], tmp_path: Path
) -> None:
    async with working(environ):
        await until_run(images_database, "sweep")
    attempts = tmp_path / "fast" / ".attempts"
    old, young = (attempts / f"{uuid4()}.{uuid4()}" for _ in range(2))
    for path in (old, young):
        path.write_bytes(b"x")
    days_ago = time.time() - 3 * 86400
    os.utime(old, (days_ago, days_ago))
    async with databases.connection(images_database) as server:
        await server.execute("UPDATE jobs SET run_after = now() WHERE kind = 'sweep'")
    async with working(environ):
        await until_run(images_database, "sweep")
    assert list(attempts.iterdir()) == [young]


async def test_a_store_that_is_away_keeps_no_other_from_being_swept(
    images_database: str, environ: dict[str, str], tmp_path: Path
) -> None:
    nobody = ports.any_free()
    stores = {
        "DEFAULT__ENABLED_BACKENDS": "away:s3, fast:file",
        "AWAY__S3_STORE_HOST": f"http://127.0.0.1:{nobody}",
        "AWAY__S3_STORE_ACCESS_KEY": "access",
        "AWAY__S3_STORE_SECRET_KEY": "secret",
        "AWAY__S3_STORE_BUCKET": "images",
        "AWAY__S3_STORE_RETRIES": "0",
    }
    environ |= {f"DIPTYCH_IMAGES__{name}": value for name, value in stores.items()}
    attempts = tmp_path / "fast" / ".attempts"
    attempts.mkdir()
    old = attempts / f"{uuid4()}.{uuid4()}"
    old.write_bytes(b"x")
    days_ago = time.time() - 3 * 86400
    os.utime(old, (days_ago, days_ago))

    async def is_swept() -> bool:
        return not old.exists()

    async with databases.connection(images_database) as server:

        async def is_told() -> bool:
            told = await server.fetchval("SELECT error FROM jobs WHERE kind = 'sweep'")
            return "away" in (told or "")

        async with working(environ):
            await until(is_swept)
            await until(is_told)


async def test_old_jobs_and_events_are_forgotten(
    images_database: str, environ: dict[str, str]
) -> None:
    async with databases.connection(images_database) as server:
        for days in (1, 30):
            await server.execute(
                "INSERT INTO outbox (event_type, priority, payload, created_at)"
                " VALUES ('x', 'INFO', '{}', now() - make_interval(days => $1))",
                days,
            )
            await server.execute(
                "INSERT INTO jobs (kind, payload, state, finished_at)"
                " VALUES ('old', '{}', 'succeeded', now() - make_interval(days => $1))",
                days,
            )
        async with working(environ):
            await until_run(images_database, "purge")
        assert await server.fetchval("SELECT count(*) FROM outbox") == 1
        assert await server.fetchval("SELECT count(*) FROM jobs WHERE kind = 'old'") == 1


async def test_a_dead_upload_in_a_store_that_is_gone_stops_no_other(
    images_database: str, environ: dict[str, str]
) -> None:
    dead = {store: (str(uuid4()), str(uuid4())) for store in ("gone", "fast")}
    async with databases.connection(images_database) as server:
        for store, (image, attempt) in dead.items():
            await server.execute("INSERT INTO images (id, status) VALUES ($1, 'saving')", image)
            await server.execute(
                "INSERT INTO image_locations (image_id, store, status, attempt, lease_until)"
                " VALUES ($1, $2, 'pending', $3, now() - interval '1 minute')",
                image,
                store,
                attempt,
            )
        wanted = {dead["gone"][0]: "saving", dead["fast"][0]: "queued"}
        # Not in one run for certain: one that is held up beyond its lease leaves the rest to a
        # later one.
        async with asyncio.timeout(20), working(environ):
            while True:
                states = dict(await server.fetch("SELECT id::text, status FROM images"))
                if states == wanted:
                    break
                await asyncio.sleep(0.05)


async def test_what_died_while_it_was_staged_is_removed_and_the_image_queued(
    images_database: str, environ: dict[str, str], tmp_path: Path
) -> None:
    token = str(uuid4())
    async with open_database(images_database) as db, db.write() as connection:
        image = await make_image(connection)
        await imports.start_stage(
            connection, image["id"], store="fast", attempt=token, lease_s=-1, project_id="alpha"
        )
    (tmp_path / "fast" / ".attempts").mkdir()
    half = tmp_path / "fast" / ".attempts" / f"{token}.{imports.staged_key(image['id'], token)}"
    half.write_bytes(b"x")

    async def is_queued() -> bool:
        async with databases.connection(images_database) as server:
            return await server.fetchval("SELECT status FROM images") == "queued"

    async with working(environ):
        await until(is_queued)
    assert not half.exists()
    async with databases.connection(images_database) as server:
        assert await server.fetchval("SELECT count(*) FROM image_locations") == 0


async def test_bytes_in_a_store_that_is_read_only_now_stay(
    images_database: str, environ: dict[str, str], tmp_path: Path
) -> None:
    async with open_database(images_database) as db, db.write() as connection:
        image = await make_active(connection)
        path = tmp_path / "fast" / image["id"]
        path.write_bytes(b"x")
        await connection.execute(
            sa.text("UPDATE image_locations SET url = :url"), {"url": f"file://{path}"}
        )
        await images.mark_deleted(connection, image["id"])
        await jobs.enqueue(connection, jobs_table, "remove_bytes", {"image_id": image["id"]})

    async def is_done() -> bool:
        async with databases.connection(images_database) as server:
            return (
                await server.fetchval("SELECT state FROM jobs WHERE kind = 'remove_bytes'")
                == "succeeded"
            )

    async with working(environ | {"DIPTYCH_IMAGES__FAST__READ_ONLY": "true"}):
        await until(is_done)
    assert path.exists()
    async with databases.connection(images_database) as server:
        assert await server.fetchval("SELECT status FROM image_locations") == "deleted"


async def test_tasks_that_are_not_shown_any_more_are_removed(
    images_database: str, environ: dict[str, str]
) -> None:
    async with databases.connection(images_database) as server:
        for hours in (-1, 1):
            await server.execute(
                "INSERT INTO tasks (id, type, status, input, expires_at) VALUES"
                " (gen_random_uuid(), 'import', 'success', '{}',"
                " now() + make_interval(hours => $1))",
                hours,
            )
        async with working(environ):
            await until_run(images_database, "purge")
        assert await server.fetchval("SELECT count(*) FROM tasks") == 1
