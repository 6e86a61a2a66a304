"""The migrated schema is the one that the code describes."""

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from diptych_images.db.tables import metadata
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from tests.images.rows import make_image, open_database


async def test_migrations_make_the_tables_of_the_code(images_database: str):
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return [
            difference
            for difference in compare_metadata(context, metadata)
            if "alembic_version" not in str(difference)
        ]

    async with open_database(images_database) as db, db.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_constraints_have_the_names_and_conditions_of_the_code(images_database: str):
    # Autogenerate does not look at CHECK constraints.
    described = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
    }
    async with open_database(images_database) as db, db.read() as connection:
        found = await connection.execute(
            text(
                "SELECT conname FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
                " AND conrelid <> 'alembic_version'::regclass"
            )
        )
        assert set(found.scalars()) == described


@pytest.mark.parametrize(
    "values",
    [
        {"status": "burning"},
        {"visibility": "secret"},
        {"size": -1},
        {"min_disk": -1},
        {"properties": ["a"]},
    ],
)
async def test_rows_that_mean_nothing_are_refused(images_database: str, values: dict[str, object]):
    async with open_database(images_database) as db, db.read() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await make_image(connection, **values)


@pytest.mark.parametrize(
    "values",
    [
        "'pending', NULL, NULL, NULL",
        "'pending', NULL, gen_random_uuid(), NULL",
        "'active', NULL, NULL, NULL",
        "'active', 'file:///x', gen_random_uuid(), now()",
    ],
)
async def test_a_location_is_held_or_has_landed(images_database: str, values: str):
    insert = (
        "INSERT INTO image_locations (image_id, store, status, url, attempt, lease_until)"
        f" SELECT id, 'fast', {values} FROM images"
    )
    async with open_database(images_database) as db, db.read() as connection:
        await make_image(connection)
        with pytest.raises(IntegrityError, match="held_or_landed"):
            await connection.execute(text(insert))
