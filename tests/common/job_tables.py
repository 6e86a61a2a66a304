"""Tables of jobs and events with a table to write in, and waiting for things to happen."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from diptych_common.database import METADATA_NAMING, Database
from diptych_common.events import outbox_table
from diptych_common.jobs import jobs_table
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy import Column, MetaData, Table, Text, text

metadata = MetaData(naming_convention=dict(METADATA_NAMING))
jobs = jobs_table(metadata)
outbox = outbox_table(metadata)
notes = Table("notes", metadata, Column("note", Text, nullable=False))


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[Database]:
    """A pool on an empty database, with the tables in it."""
    async with Database(DatabaseSettings(connection=url, **options)) as db:
        async with db.write() as connection:
            await connection.run_sync(metadata.create_all)
        yield db


async def rows(db: Database, query: str, **parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    async with db.read() as connection:
        return [tuple(row) for row in await connection.execute(text(query), parameters)]


async def noted(db: Database) -> list[str]:
    """What has been written into `notes`, sorted."""
    return [note for (note,) in await rows(db, "SELECT note FROM notes ORDER BY note")]
