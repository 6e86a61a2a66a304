"""The same images for both: made by statements in our tables, and copied into Glance's."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings

from tests import databases
from tests.bench.servers import Pair
from tests.images.catalogue import fill

# Of every size of catalogue the caller's project sees these, hidden ones among them.
SEEN: Final = 1000

# table: its columns, and where they come from in ours
_GLANCE: Final = {
    "images": (
        (
            *("id", "name", "disk_format", "container_format", "size", "status", "visibility"),
            *("checksum", "os_hash_value", "min_disk", "min_ram", "owner", "protected"),
            *("os_hidden", "created_at", "updated_at", "deleted_at", "deleted"),
        ),
        """
        SELECT id::text, name, disk_format, container_format, size, status, visibility, checksum,
            os_hash_value, min_disk, min_ram, owner, protected, os_hidden,
            created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC',
            deleted_at AT TIME ZONE 'UTC', deleted_at IS NOT NULL
        FROM images WHERE {these}
        """,
    ),
    "image_properties": (
        ("image_id", "name", "value", "created_at", "updated_at", "deleted"),
        """
        SELECT id::text, key, value, created_at AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC',
            deleted_at IS NOT NULL
        FROM images, jsonb_each_text(properties) WHERE {these}
        """,
    ),
    "image_tags": (
        ("image_id", "value", "created_at", "updated_at", "deleted"),
        """
        SELECT id::text, tag, created_at AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC',
            deleted_at IS NOT NULL
        FROM images, unnest(tags) tag WHERE {these}
        """,
    ),
    "image_locations": (
        ("image_id", "value", "meta_data", "status", "created_at", "updated_at", "deleted"),
        # Without the store's name Glance would write it on the first read.
        """
        SELECT image_id::text, url, '{{"store": "fast"}}'::text, 'active'::text,
            images.created_at AT TIME ZONE 'UTC', images.created_at AT TIME ZONE 'UTC', false
        FROM image_locations JOIN images ON image_id = images.id WHERE {these}
        """,
    ),
    "image_members": (
        ("image_id", "member", "can_share", "status", "created_at", "updated_at", "deleted"),
        """
        SELECT image_id::text, member, false, image_members.status,
            images.created_at AT TIME ZONE 'UTC', images.created_at AT TIME ZONE 'UTC',
            deleted_at IS NOT NULL
        FROM image_members JOIN images ON image_id = images.id WHERE {these}
        """,
    ),
}
_OURS: Final = ("images", "image_members", "image_locations")


def grow(pair: Pair, first: int, last: int, *, me: str, folder: Path) -> None:
    """Add the images of these numbers to both, for project `me`, and have PostgreSQL look at them.

    `folder` holds what is copied meanwhile.
    """
    asyncio.run(_grow(pair, first, last, me, folder))


async def _grow(pair: Pair, first: int, last: int, me: str, folder: Path) -> None:
    # A million in one statement take longer than a service would wait.
    patient = DatabaseSettings(connection=pair.ours.database, statement_timeout=0)
    async with (
        _without_indexes(pair.ours.database, _OURS),
        Database(patient) as db,
        db.write() as connection,
    ):
        await fill(connection, first, last, me=me, seen=SEEN)
    async with (
        _without_indexes(pair.theirs.database, tuple(_GLANCE)) as theirs,
        databases.connection(pair.ours.database) as ours,
    ):
        for table, (columns, query) in _GLANCE.items():
            file = folder / f"{table}.copy"
            these = f"images.size BETWEEN {first * 1000} AND {last * 1000}"
            await ours.copy_from_query(query.format(these=these), output=file, format="binary")
            await theirs.copy_to_table(table, source=file, columns=columns, format="binary")
            file.unlink()
    for server in pair.both:
        async with databases.connection(server.database) as connection:
            await connection.execute("VACUUM ANALYZE")


@asynccontextmanager
async def _without_indexes(url: str, tables: Sequence[str]) -> AsyncGenerator[asyncpg.Connection]:
    """A connection, while the tables lack all indexes but those of their keys.

    They are made anew at the end: ten times as fast as one entry after the other.
    """
    async with databases.connection(url) as connection:
        # Keys to other tables are not checked row by row: what is copied fits together.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off")
        indexes = await connection.fetch(
            """
            SELECT indexname, indexdef FROM pg_indexes
            WHERE schemaname = 'public' AND tablename = ANY($1)
                AND indexname NOT IN (SELECT conname FROM pg_constraint)
            """,
            list(tables),
        )
        for index in indexes:
            await connection.execute(f'DROP INDEX "{index["indexname"]}"')
        yield connection
        for index in indexes:
            await connection.execute(index["indexdef"])
