"""The artifacts service's own store, which keeps blobs in its database."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from diptych_artifacts.db.blob_store import DatabaseStore
from diptych_artifacts.db.tables import blob_data, blob_objects
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings

from tests.store import database_store
from tests.store.conformance import CALLS, MIB, Calls, StoreConformance, WritableRig


class DatabaseRig(WritableRig):
    # Several statements of pieces.
    several_parts = 3 * MIB + 4321
    # A block in pieces, and once more as it is sent.
    held_writing = 4 * MIB
    held_reading = 2 * MIB

    def __init__(self, url: str, db: Database) -> None:
        self._url = url
        self._db = db
        self.calls = Calls()
        self.store = DatabaseStore("database", db, on_call=self.calls)
        self.crash = (
            f"{database_store.__name__}:{database_store.open_there.__name__}",
            url,
            CALLS,
        )

    async def open_read_only(self) -> DatabaseStore:
        return DatabaseStore("database", self._db, read_only=True)

    async def open_another(self) -> DatabaseStore:
        return database_store.store_at(self._url)

    async def everything(self) -> list[str]:
        async with self._db.read() as connection:
            found = await connection.execute(_EVERYTHING)
        return list(found.scalars())


_EVERYTHING = sa.union_all(
    sa.select(blob_objects.c.key), sa.select(sa.cast(blob_data.c.id, sa.Text)).distinct()
)


@pytest.fixture(scope="module")
async def place(_artifacts_schema: tuple[str, list[str]]) -> AsyncIterator[tuple[str, Database]]:
    """A database that the suite itself leaves empty, and a pool for all cases."""
    url, _ = _artifacts_schema
    async with Database(DatabaseSettings(connection=url)) as db:
        yield url, db


class TestDatabaseConformance(StoreConformance):
    @pytest.fixture
    async def rig(self, place: tuple[str, Database]) -> WritableRig:
        return DatabaseRig(*place)

    # Half a minute together; tests/artifacts/test_crash.py kills uploads into the database too.
    test_many_transfers_take_little_memory = pytest.mark.long(
        StoreConformance.test_many_transfers_take_little_memory
    )
    test_killed_while_writing_the_object_is_whole_or_not_there = pytest.mark.long(
        StoreConformance.test_killed_while_writing_the_object_is_whole_or_not_there
    )
    test_killed_while_cleaning_up_the_rest_is_found_and_removed = pytest.mark.long(
        StoreConformance.test_killed_while_cleaning_up_the_rest_is_found_and_removed
    )
    test_killed_while_deleting_the_object_is_whole_or_gone = pytest.mark.long(
        StoreConformance.test_killed_while_deleting_the_object_is_whole_or_gone
    )
