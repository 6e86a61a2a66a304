"""`db purge`: what is kept of images, tasks and jobs that are over."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_common.database import Database
from diptych_common.purge import Removed
from diptych_common.settings import Database as DatabaseSettings
from diptych_images.cli import main
from diptych_images.db import deletion
from diptych_images.db.tables import images
from typer.testing import CliRunner

from tests import databases
from tests.images.service import ALICE, OCTETS, client, configuration, opened

OLD = "now() - interval '40 days'"


async def purge(database: str, *options: str, code: int = 0) -> list[str]:
    done = await asyncio.to_thread(
        CliRunner(env={"DIPTYCH_IMAGES__DATABASE__CONNECTION": database}).invoke,
        main,
        ["db", "purge", *options],
    )
    assert done.exit_code == code, done.output
    return done.stdout.splitlines()


async def rows(database: str, query: str) -> Sequence[Any]:
    async with databases.connection(database) as connection:
        return [tuple(row) for row in await connection.fetch(query)]


async def image(api: httpx.AsyncClient, **properties: object) -> str:
    document = {"disk_format": "raw", "container_format": "bare", **properties}
    made = await api.post("/v2/images", json=document, headers=ALICE)
    return made.json()["id"]


@pytest.fixture
async def kept(images_database: str, tmp_path: Path) -> dict[str, str]:
    """Images: one lives; of those deleted one is recent, two are old, and one still has bytes."""
    ids: dict[str, str] = {}
    async with opened(configuration(images_database, tmp_path)) as app, client(app) as api:
        for name in ("living", "recent", "old", "older", "with_bytes"):
            ids[name] = await image(api, name=name, tags=["a"], property=name)
        await api.put(
            f"/v2/images/{ids['with_bytes']}/file", content=b"x", headers={**ALICE, **OCTETS}
        )
        for name in ("recent", "old", "older", "with_bytes"):
            await api.delete(f"/v2/images/{ids[name]}", headers=ALICE)
    old = [ids[name] for name in ("old", "older", "with_bytes")]
    async with databases.connection(images_database) as connection:
        await connection.execute(
            f"UPDATE images SET deleted_at = {OLD} WHERE id = ANY($1::uuid[])", old
        )
        # Its bytes are to go, and no worker runs here; of the others' jobs there are none.
        await connection.execute("DELETE FROM jobs")
    return ids


async def test_deleted_images_are_forgotten_but_for_their_ids(
    kept: dict[str, str], images_database: str, tmp_path: Path
) -> None:
    said = ["deleted images.", "tasks that have ended.", "jobs that have ended."]
    assert await purge(images_database, "--dry-run") == [
        f"To be removed: {number} {name}" for number, name in zip((2, 0, 0), said, strict=True)
    ]
    assert (await purge(images_database, "--age_in_days", "50"))[0] == "Removed: 0 deleted images."
    assert (await purge(images_database, "--max_rows", "1"))[0] == "Removed: 1 deleted images."
    assert (await purge(images_database))[0] == "Removed: 1 deleted images."
    assert (await purge(images_database))[0] == "Removed: 0 deleted images."
    names = await rows(images_database, "SELECT name FROM images WHERE owner IS NOT NULL")
    assert {name for (name,) in names} == {"living", "recent", "with_bytes"}
    (husk,) = await rows(
        images_database,
        "SELECT status, name, size, tags, properties, deleted_at IS NULL FROM images"
        f" WHERE id = '{kept['old']}'",
    )
    assert husk == ("deleted", None, None, [], "{}", False)
    async with opened(configuration(images_database, tmp_path)) as app, client(app) as api:
        again = await api.post("/v2/images", json={"id": kept["old"]}, headers=ALICE)
        assert again.status_code == 409
        listed = (await api.get("/v2/images", headers=ALICE)).json()["images"]
    assert [one["id"] for one in listed] == [kept["living"]]
    everything = await purge(images_database, "--age-in-days", "0")
    assert everything[0] == "Removed: 1 deleted images."


async def test_more_than_one_transaction_forgets_are_forgotten(
    kept: dict[str, str], images_database: str
) -> None:
    listed = ", ".join(column.name for column in images.columns if column.name != "id")
    async with databases.connection(images_database) as connection:
        await connection.execute(
            f"INSERT INTO images (id, {listed}) SELECT gen_random_uuid(), {listed} FROM images,"
            f" generate_series(1, 10000) WHERE id = '{kept['old']}'"
        )
    assert (await purge(images_database))[0] == "Removed: 10002 deleted images."
    assert await rows(images_database, "SELECT count(*) FROM images WHERE name = 'old'") == [(0,)]


async def test_the_next_transaction_begins_after_the_last_id(
    kept: dict[str, str], images_database: str
) -> None:
    first, second = sorted((kept["old"], kept["older"]))
    month = timedelta(days=30)
    async with (
        Database(DatabaseSettings(connection=images_database)) as db,
        db.write() as connection,
    ):
        assert await deletion.purge(connection, month, 1, None) == Removed(1, first)
        assert await deletion.purge(connection, month, 1, second) == Removed(0, None)
        assert await deletion.purge(connection, month, 1, first) == Removed(1, second)


async def test_tasks_and_jobs_that_are_over_are_removed(images_database: str) -> None:
    async with databases.connection(images_database) as connection:
        for number, (status, when) in enumerate(
            [("success", OLD), ("failure", OLD), ("processing", OLD), ("success", "now()")]
        ):
            await connection.execute(
                "INSERT INTO tasks (id, type, status, input, updated_at)"
                f" VALUES ('0000000{number}-0000-0000-0000-000000000000', 'import', '{status}',"
                f" '{{}}', {when})"
            )
        for state, when in (("failed", OLD), ("succeeded", OLD), ("waiting", "NULL")):
            await connection.execute(
                "INSERT INTO jobs (kind, payload, state, finished_at)"
                f" VALUES ('import', '{{}}', '{state}', {when})"
            )
        await connection.execute(
            "INSERT INTO jobs (kind, payload, state, finished_at)"
            " VALUES ('import', '{}', 'failed', now() - interval '1 day')"
        )
    assert await purge(images_database) == [
        "Removed: 0 deleted images.",
        "Removed: 2 tasks that have ended.",
        "Removed: 2 jobs that have ended.",
    ]
    assert await rows(images_database, "SELECT status FROM tasks ORDER BY id") == [
        ("processing",),
        ("success",),
    ]
    assert await rows(images_database, "SELECT state FROM jobs ORDER BY id") == [
        ("waiting",),
        ("failed",),
    ]


async def test_an_age_that_is_none_is_refused(images_database: str) -> None:
    await purge(images_database, "--age-in-days", "-1", code=2)
    await purge(images_database, "--age-in-days", "100000000", code=2)
