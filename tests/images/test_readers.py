"""Whom a backend with lists of its own lets read the bytes of an image."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from diptych_common.database import Database
from diptych_images import readers
from diptych_images.db import images, members
from diptych_images.db.images import ImageRow
from diptych_images.readers import Readers
from diptych_images.settings import load
from diptych_store.drivers.memory import MemoryStore
from diptych_store.errors import NotFound, StoreError, Unreachable
from diptych_store.registry import StoreInfo, Stores

from tests import databases
from tests.images.rows import OWNER, finish, make_active, make_image, open_database
from tests.images.service import configuration
from tests.images.workers import equipped, running
from tests.waiting import until


class Listed(MemoryStore):
    """A backend that keeps lists, and fails to with `failures`, one after the other."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lists: dict[str, Readers] = {}
        self.failures: list[StoreError] = []

    def recognises(self, location: str) -> bool:
        return True

    async def allow_reading(self, location: str, *, projects: Iterable[str], public: bool) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.lists[location.rpartition("/")[2]] = Readers(tuple(projects), public)


def registry(*stores: MemoryStore, read_only: bool = False) -> Stores:
    about = {
        store.name: StoreInfo(
            name=store.name,
            type="memory",
            description="",
            weight=0,
            read_only=read_only,
            is_default=store is stores[0],
            properties={},
        )
        for store in stores
    }
    return Stores({store.name: store for store in stores}, about, is_multiple=True)


@pytest.fixture
async def db(images_database: str) -> AsyncGenerator[Database]:
    async with open_database(images_database) as opened:
        yield opened


async def change(db: Database, stores: Stores, row: ImageRow, **values: object) -> None:
    """Change the image as a route does."""
    async with db.write() as connection:
        changed = await images.update(connection, row["id"], values)
        await readers.changed(connection, stores, changed)


async def waiting_jobs(url: str) -> int:
    async with databases.connection(url) as server:
        return int(
            await server.fetchval("SELECT count(*) FROM jobs WHERE kind = $1", readers.JOB) or 0
        )


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"visibility": "private"}, Readers((OWNER,))),
        ({"visibility": "shared"}, Readers((OWNER, "beta", "gamma"))),
        ({"visibility": "community"}, Readers(public=True)),
        ({"visibility": "public"}, Readers(public=True)),
        ({"visibility": "public", "status": "deactivated"}, Readers()),
        ({"visibility": "shared", "status": "deactivated"}, Readers()),
        ({"visibility": "shared", "owner": None}, Readers(("beta", "gamma"))),
        ({"visibility": "private", "owner": "delta"}, Readers(("delta",))),
    ],
    ids=str,
)
async def test_who_may_read(db: Database, values: dict[str, object], allowed: Readers) -> None:
    store = Listed("fast")
    async with db.write() as connection:
        row = await make_active(connection)
        for member in ("beta", "gamma"):
            await members.add(connection, row["id"], member, quota=-1)
        # Whatever it answered.
        await members.set_status(connection, row["id"], "gamma", "rejected")
        await images.update(connection, row["id"], values)
    await readers.apply(db, registry(store), row["id"])
    assert store.lists == {row["id"]: allowed}


async def test_changes_of_one_image_are_one_job(db: Database, images_database: str) -> None:
    stores = registry(MemoryStore("slow"), Listed("fast"))
    async with db.write() as connection:
        row, other = [await make_active(connection) for _ in range(2)]
    for visibility in ("public", "private", "shared"):
        await change(db, stores, row, visibility=visibility)
    assert await waiting_jobs(images_database) == 1
    await change(db, stores, other, visibility="public")
    assert await waiting_jobs(images_database) == 2


async def test_without_bytes_or_lists_there_is_no_job(db: Database, images_database: str) -> None:
    async with db.write() as connection:
        queued, active = await make_image(connection), await make_active(connection)
    await change(db, registry(Listed("fast")), queued, visibility="public")
    await change(db, registry(MemoryStore("fast")), active, visibility="public")
    await change(db, registry(Listed("fast"), read_only=True), active, visibility="public")
    assert await waiting_jobs(images_database) == 0


@asynccontextmanager
async def working(database: str, folder: Path, stores: Stores) -> AsyncGenerator[None]:
    settings = load(environ=configuration(database, folder)).settings
    async with open_database(database) as db:
        with equipped(settings, db, stores) as equipment:
            async with running(equipment):
                yield


async def test_a_list_that_cannot_be_set_is_set_later(
    db: Database, images_database: str, tmp_path: Path
) -> None:
    store = Listed("fast")
    store.failures += [Unreachable("The backend is away."), Unreachable("It still is.")]
    stores = registry(store)
    async with db.write() as connection:
        row = await make_active(connection)
    await change(db, stores, row, visibility="public")

    async def is_set() -> bool:
        return bool(store.lists)

    async with working(images_database, tmp_path, stores):
        await until(is_set)
    assert store.lists == {row["id"]: Readers(public=True)}


async def test_one_backend_that_fails_keeps_no_other_from_being_told(
    db: Database, images_database: str
) -> None:
    gone, away, well = Listed("gone"), Listed("away"), Listed("well")
    gone.failures.append(NotFound("There is no such object."))
    away.failures.append(Unreachable("The backend is away."))
    async with db.write() as connection:
        row = await make_active(connection, visibility="public")
    async with databases.connection(images_database) as server:
        await server.execute("DELETE FROM image_locations")
        for store in ("gone", "away", "well", "not-configured"):
            await server.execute(
                "INSERT INTO image_locations (image_id, store, url, status)"
                " VALUES ($1, $2, $3, 'active')",
                row["id"],
                store,
                f"memory://{store}/{row['id']}",
            )
    with pytest.raises(Unreachable):
        await readers.apply(db, registry(gone, away, well), row["id"])
    assert well.lists == {row["id"]: Readers(public=True)}


async def test_a_deleted_image_has_no_readers(db: Database) -> None:
    store = Listed("fast")
    async with db.write() as connection:
        row = await make_active(connection)
        await images.mark_deleted(connection, row["id"])
    await readers.apply(db, registry(store), row["id"])
    assert store.lists == {}


async def test_a_member_is_told_of_though_the_upload_ends_meanwhile(
    db: Database, images_database: str
) -> None:
    """The row that `get_for_update` waited for may miss the location that was added meanwhile."""
    stores = registry(Listed("fast"))
    async with db.write() as connection:
        row = await make_image(connection)
        attempt = "3d0f3f0a-6d58-4d5e-9d5c-9a4d3f2a1b0c"
        await images.start_upload(connection, row["id"], store="fast", attempt=attempt, lease_s=60)

    async def add_a_member() -> None:
        async with db.write() as connection:
            found = await images.get_for_update(
                connection, row["id"], project_id=OWNER, is_admin=False
            )
            assert found is not None
            assert found["status"] == "active"
            await readers.changed(connection, stores, found)

    async with db.write() as connection:
        assert await finish(connection, row["id"], attempt)
        adding = asyncio.create_task(add_a_member())
        async with databases.connection(images_database) as server:

            async def is_waiting() -> bool:
                return bool(
                    await server.fetchval(
                        "SELECT count(*) > 0 FROM pg_stat_activity"
                        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )
                )

            await until(is_waiting)
    await adding
    assert await waiting_jobs(images_database) == 1
