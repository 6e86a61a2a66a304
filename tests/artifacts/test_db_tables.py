"""The migrated schema is the one that the code describes."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from diptych_artifacts.db.tables import metadata
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy import Connection

from tests import databases


async def test_migrations_make_the_tables_of_the_code(artifacts_database: str) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return [
            difference
            for difference in compare_metadata(context, metadata)
            if "alembic_version" not in str(difference)
        ]

    settings = DatabaseSettings(connection=artifacts_database)
    async with Database(settings) as db, db.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_indexes_and_constraints_have_the_conditions_of_the_code(
    artifacts_database: str, empty_database: str
) -> None:
    # Autogenerate looks neither at CHECK constraints nor at what partial indexes are partial by.
    settings = DatabaseSettings(connection=empty_database)
    async with Database(settings) as db, db.write() as connection:
        await connection.run_sync(metadata.create_all)

    async def definitions(url: str) -> set[tuple[str, str]]:
        async with databases.connection(url) as server:
            rows = await server.fetch(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
                " UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace"
            )
        return {tuple(row) for row in rows if "alembic_version" not in str(row)}

    assert await definitions(artifacts_database) == await definitions(empty_database)
