"""Statements that run beneath SQLAlchemy do what they do through it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from diptych_common.database import ConnectionLost, Database, TransactionConflict
from diptych_common.errors import BadRequest, ServiceUnavailable
from diptych_common.prepared import Prepared
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tests import databases
from tests.waiting import until

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", String(20)),
    Column("number", Integer),
    Column("size", BigInteger),
    Column("is_big", Boolean),
    Column("words", ARRAY(Text)),
    Column("document", JSONB),
    Column("made_at", DateTime(timezone=True)),
)

NAMES = [column.name for column in things.c]
ADD = Prepared(
    insert(things)
    .values({name: bindparam(name, type_=things.c[name].type) for name in NAMES})
    .returning(things)
)
ALL = select(things).order_by(things.c.number)
RENAME = Prepared(
    update(things)
    .where(things.c.id == bindparam("the_id", type_=Uuid(as_uuid=False)))
    .values(name="renamed", size=None)
    .returning(things.c.id, things.c.name, things.c.size)
)
SLEEP = Prepared(select(func.pg_sleep(bindparam("seconds"))))
KILL = Prepared(select(func.pg_terminate_backend(func.pg_backend_pid()).label("killed")))


def thing(number: int = 1, **values: object) -> dict[str, Any]:
    """What all columns of a row hold."""
    return {
        "id": str(uuid4()),
        "name": "näme",
        "number": number,
        "size": 2**40,
        "is_big": True,
        "words": ["a", 'b"', "ü,"],
        "document": {"a": [1, None, {"ü": '\\ "'}]},
        "made_at": datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
        **values,
    }


@pytest.fixture
async def db(empty_database: str) -> AsyncGenerator[Database]:
    async with Database(DatabaseSettings(connection=empty_database)) as db:
        async with db.write() as connection:
            await connection.run_sync(metadata.create_all)
        yield db


async def everything(db: Database) -> list[dict[str, Any]]:
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(ALL)).mappings()]


async def test_rows_are_those_that_sqlalchemy_gives(db: Database) -> None:
    full = thing()
    empty = {**dict.fromkeys(NAMES), "id": str(uuid4()), "number": 2, "document": {}}
    async with db.write() as connection:
        assert await ADD.rows(connection, full) == [full]
        assert await ADD.row(connection, empty) == empty
    async with db.read() as connection:
        assert await Prepared(ALL).rows(connection, {}) == [full, empty]
    assert await everything(db) == [full, empty]


async def test_what_a_statement_holds_itself_is_not_asked_for(db: Database) -> None:
    row = thing()
    async with db.write() as connection:
        await ADD.rows(connection, row)
        renamed = await RENAME.row(connection, {"the_id": row["id"]})
        assert renamed == {"id": row["id"], "name": "renamed", "size": None}
        assert await RENAME.row(connection, {"the_id": str(uuid4())}) is None


async def test_an_array_takes_the_place_of_a_list(db: Database) -> None:
    numbers = bindparam("numbers", type_=ARRAY(Integer))
    some = Prepared(select(things.c.number).where(things.c.number == any_(numbers)))
    async with db.write() as connection:
        for number in range(4):
            await ADD.rows(connection, thing(number))
        found = await some.rows(connection, {"numbers": [1, 3, 5]})
    assert {row["number"] for row in found} == {1, 3}


async def test_a_read_is_one_statement_and_a_write_one_transaction(
    db: Database, empty_database: str
) -> None:
    selection = Prepared(ALL)
    async with db.read() as connection:
        await selection.rows(connection, {})
    async with databases.statements(empty_database) as seen, db.read() as connection:
        await selection.rows(connection, {})
    assert len(seen.texts) == 1
    async with databases.statements(empty_database) as seen, db.write() as connection:
        await ADD.rows(connection, thing())
        await connection.execute(delete(things))
    assert sorted(text.split()[0] for text in seen.texts) == ["BEGIN", "COMMIT", "DELETE", "INSERT"]


async def test_a_transaction_without_a_statement_sends_nothing(
    db: Database, empty_database: str
) -> None:
    async with databases.statements(empty_database) as seen, db.write():
        pass
    assert seen.texts == []


async def test_what_raises_changes_nothing(db: Database) -> None:
    async def change() -> None:
        async with db.write() as connection:
            await ADD.rows(connection, thing())
            raise LookupError

    with pytest.raises(LookupError):
        await change()
    assert await everything(db) == []


async def test_a_violated_constraint_is_left_to_the_caller(db: Database) -> None:
    async def add(*rows: dict[str, Any]) -> None:
        async with db.write() as connection:
            for row in rows:
                await ADD.rows(connection, row)

    row = thing()
    with pytest.raises(asyncpg.UniqueViolationError):
        await add(row, row)
    assert await everything(db) == []


async def test_a_null_character_is_the_clients_fault(db: Database) -> None:
    with pytest.raises(BadRequest):
        async with db.write() as connection:
            await ADD.rows(connection, thing(name="a\0b"))


async def test_the_loser_of_a_deadlock_may_try_again(db: Database) -> None:
    rows = [thing(1), thing(2)]
    async with db.write() as connection:
        for row in rows:
            await ADD.rows(connection, row)
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with db.write() as connection:
            await RENAME.rows(connection, {"the_id": first})
            await both_hold_one.wait()
            await RENAME.rows(connection, {"the_id": second})

    one, other = (row["id"] for row in rows)
    outcomes = await asyncio.gather(lock(one, other), lock(other, one), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [TransactionConflict]


async def test_a_read_on_a_connection_that_dies_runs_again_once(db: Database) -> None:
    async with db.read() as connection:
        with pytest.raises(ConnectionLost):
            await KILL.rows(connection, {})
    assert await everything(db) == []


async def test_a_read_on_a_connection_that_has_died_runs_again(
    db: Database, empty_database: str
) -> None:
    async with db.read() as connection:
        pid = await Prepared(select(func.pg_backend_pid().label("pid"))).row(connection, {})
        assert pid is not None
        async with databases.connection(empty_database) as server:
            await server.execute("SELECT pg_terminate_backend($1)", pid["pid"])
        row = await Prepared(select(func.pg_backend_pid().label("pid"))).row(connection, {})
    assert row != pid


async def test_nothing_follows_in_a_transaction_that_was_lost(db: Database) -> None:
    async def carry_on() -> None:
        async with db.write() as connection:
            for statement in (ADD, KILL, ADD):
                with contextlib.suppress(ConnectionLost):
                    await statement.rows(connection, thing())
            with pytest.raises(ConnectionLost):
                await connection.execute(ALL)

    # Nor is it taken for committed.
    with pytest.raises(ConnectionLost):
        await carry_on()
    assert await everything(db) == []


async def test_a_statement_beyond_its_time_is_503(empty_database: str) -> None:
    settings = DatabaseSettings(connection=empty_database, statement_timeout=0.2)
    async with Database(settings) as db:
        with pytest.raises(ServiceUnavailable):
            async with db.write() as connection:
                await SLEEP.rows(connection, {"seconds": 30})
        await db.ping()


async def test_a_cancelled_statement_leaves_no_connection_behind(
    db: Database, empty_database: str
) -> None:
    async def sleep() -> None:
        async with db.write() as connection:
            await ADD.rows(connection, thing())
            await SLEEP.rows(connection, {"seconds": 30})

    async def sleeping() -> int:
        async with databases.connection(empty_database) as server:
            return await server.fetchval(  # pyright: ignore[reportReturnType] - it is a count
                "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle'"
                " AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
            )

    async def sleeps() -> bool:
        return await sleeping() == 1

    async def sleeps_no_more() -> bool:
        return await sleeping() == 0

    task = asyncio.create_task(sleep())
    await until(sleeps)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(sleeps_no_more)
    assert await everything(db) == []


async def test_rows_outlive_a_migration_of_their_columns(db: Database, empty_database: str) -> None:
    selection = Prepared(select(things.c.name))
    async with db.write() as connection:
        await ADD.rows(connection, thing())
    async with db.read() as connection:
        await selection.rows(connection, {})
    async with databases.connection(empty_database) as server:
        await server.execute("ALTER TABLE things ALTER COLUMN name TYPE varchar(30)")
    async with db.read() as connection:
        assert await selection.rows(connection, {}) == [{"name": "näme"}]
