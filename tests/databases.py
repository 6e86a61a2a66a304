"""Databases for tests, made and dropped on the run's PostgreSQL."""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

import asyncpg
from diptych_common.database import Direct
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

_STATISTICS_LOCK = 7_161_803


def address(url: str, database: str) -> str:
    """The same server, another database."""
    return url.rpartition("/")[0] + "/" + database


@asynccontextmanager
async def connection(url: str) -> AsyncGenerator[asyncpg.Connection]:
    """A plain asyncpg connection to one of SQLAlchemy's addresses."""
    opened = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://"))
    try:
        yield opened
    finally:
        await opened.close()


async def create(url: str, name: str = "", *, template: str = "template0") -> str:
    """Make a database (under a name of its own if none is given) and return its address."""
    name = name or f"test_{secrets.token_hex(6)}"
    async with connection(url) as server:
        # Copying the files of a small template is three times as fast as writing them to the WAL.
        await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    return address(url, name)


async def drop(url: str) -> None:
    """Drop the database, whoever is still connected to it."""
    async with connection(address(url, "postgres")) as server:
        await server.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')


async def empty(url: str, tables: Sequence[str]) -> None:
    """Delete all rows of the tables, which are named in an order that their keys allow."""
    statements = ";".join(f'DELETE FROM "{table}"' for table in tables)
    async with connection(url) as database:
        for _ in range(5):
            # A service that stays open for several tests may write between two of the deletions.
            with contextlib.suppress(asyncpg.ForeignKeyViolationError):
                await database.execute(statements)
                return
        await database.execute(statements)


@dataclass
class Statements:
    """What the server ran; `texts` is filled when the recording ends, a text for each execution."""

    texts: list[str] = field(default_factory=list)


@asynccontextmanager
async def statements(url: str) -> AsyncGenerator[Statements]:
    """Record every statement that the server runs in this database meanwhile, as the server saw it.

    BEGIN, COMMIT and their like count too; so do the statements that make a new connection ready,
    so have one open. Order is not kept. Needs pg_stat_statements, which the run's own server has.
    """
    name = url.rpartition("/")[2]
    seen = Statements()
    async with connection(address(url, "postgres")) as server:
        async with server.transaction():
            await server.execute("SELECT pg_advisory_xact_lock($1)", _STATISTICS_LOCK)
            await server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        which = await server.fetchval("SELECT oid FROM pg_database WHERE datname = $1", name)
        await server.fetchval("SELECT pg_stat_statements_reset(0, $1, 0)", which)
        yield seen
        rows = await server.fetch(
            "SELECT query, calls FROM pg_stat_statements WHERE dbid = $1", which
        )
    for row in rows:
        seen.texts.extend([row["query"]] * row["calls"])


@contextmanager
def noted(connection: AsyncConnection) -> Generator[list[tuple[str, tuple[object, ...]]]]:
    """The statements, with their parameters, that a connection of a `Database` sends meanwhile."""
    seen: list[tuple[str, tuple[object, ...]]] = []
    direct = cast(Direct, connection)
    fetch = direct.fetch

    def note(_: object, __: object, statement: str, parameters: tuple[object, ...], *___: object):
        seen.append((statement, parameters))

    async def noting_fetch(statement: str, *values: object) -> list[object]:
        seen.append((statement, values))
        return await fetch(statement, *values)

    direct.fetch = noting_fetch
    event.listen(connection.sync_connection, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        del direct.fetch
