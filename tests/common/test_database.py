"""Connections, and what a client is told when there is none, on a real PostgreSQL."""

import asyncio
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from dev.postgres import Server
from diptych_common.database import (
    ConnectionLost,
    Database,
    TransactionConflict,
    connect,
    dsn,
)
from diptych_common.errors import BadRequest, ServiceUnavailable
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from tests import databases
from tests.waiting import until

TERMINATE_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
async def db(empty_database: str) -> AsyncIterator[Database]:
    async with Database(DatabaseSettings(connection=empty_database)) as db:
        async with db.write() as connection:
            await connection.execute(text("CREATE TABLE things (id int PRIMARY KEY, name text)"))
        yield db


async def names(db: Database) -> list[str]:
    async with db.read() as connection:
        return list(await connection.scalars(text("SELECT name FROM things ORDER BY id")))


async def test_a_read_is_exactly_one_statement(empty_database: str, db: Database) -> None:
    await names(db)
    async with databases.statements(empty_database) as seen:
        await names(db)
    assert seen.texts == ["SELECT name FROM things ORDER BY id"]


async def test_a_write_is_its_statements_in_one_transaction(
    empty_database: str, db: Database
) -> None:
    async with databases.statements(empty_database) as seen, db.write() as connection:
        await connection.execute(text("DELETE FROM things"))
    assert len(seen.texts) == 3
    assert {seen.split()[0] for seen in seen.texts} == {"BEGIN", "DELETE", "COMMIT"}


async def test_a_write_that_raises_changes_nothing(db: Database) -> None:
    async def change() -> None:
        async with db.write() as connection:
            await connection.execute(text("INSERT INTO things VALUES (1, 'a')"))
            raise LookupError

    with pytest.raises(LookupError):
        await change()
    assert await names(db) == []


async def test_a_violated_constraint_is_left_to_the_caller(db: Database) -> None:
    with pytest.raises(IntegrityError):
        async with db.write() as connection:
            await connection.execute(text("INSERT INTO things VALUES (1, 'a'), (1, 'b')"))


async def test_json_survives_both_ways(db: Database) -> None:
    document = {"ключ": ["🙂", None, True, 1.5, {"deep": "\\ \" '"}], "big": 2**53}
    statement = text("SELECT :document").bindparams(bindparam("document", type_=JSONB))
    async with db.read() as connection:
        found = await connection.scalar(statement.columns(document=JSONB), {"document": document})
    assert found == document


@pytest.mark.parametrize("kind", ["text", "jsonb"])
async def test_a_null_character_is_the_clients_fault(db: Database, kind: str) -> None:
    value = "a\0b" if kind == "text" else '{"a": "\\u0000"}'
    with pytest.raises(BadRequest):
        async with db.read() as connection:
            await connection.execute(
                text(f"SELECT CAST(CAST(:value AS text) AS {kind})"), {"value": value}
            )


async def test_a_text_beyond_an_index_is_the_clients_fault(db: Database) -> None:
    async with db.write() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE indexed (one text PRIMARY KEY)"))
        # All different, or compression would make it fit.
        words = "".join(chr(0x4E00 + number) for number in range(1000))
        with pytest.raises(BadRequest):
            await connection.execute(text("INSERT INTO indexed VALUES (:one)"), {"one": words})


async def test_without_a_server_the_answer_is_503(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"postgresql://someone:hunter2@127.0.0.1:{port}/x"
        async with Database(DatabaseSettings(connection=url)) as db:
            for use in (db.read, db.write):
                with pytest.raises(ServiceUnavailable) as refused:
                    async with use():
                        pytest.fail("there is no server")
                assert refused.value.headers["Retry-After"]
                assert str(port) not in refused.value.message
    assert "out of reach" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_server_that_keeps_silent_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        settings = DatabaseSettings(connection=url, connect_timeout=0.2)
        async with Database(settings) as db:
            with pytest.raises(ServiceUnavailable):
                await asyncio.wait_for(db.ping(), 5)


async def test_a_wrong_password_is_503_and_logged(
    empty_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    at = empty_database.rpartition("@")[2]
    async with Database(DatabaseSettings(connection=f"postgresql://postgres:no@{at}")) as db:
        with pytest.raises(ServiceUnavailable) as refused:
            await db.ping()
    assert "password" not in refused.value.message
    assert "password authentication failed" in caplog.text


async def test_when_all_connections_are_taken_the_answer_is_503(empty_database: str) -> None:
    settings = DatabaseSettings(
        connection=empty_database, max_pool_size=1, max_overflow=0, pool_timeout=0.1
    )
    async with Database(settings) as db:
        async with db.read():
            with pytest.raises(ServiceUnavailable):
                async with db.read():
                    pytest.fail("there was a second connection")
        await db.ping()


async def test_a_statement_beyond_its_time_is_ended_on_the_server_too(
    empty_database: str,
) -> None:
    settings = DatabaseSettings(connection=empty_database, statement_timeout=0.2)
    async with Database(settings) as db:
        with pytest.raises(ServiceUnavailable):
            async with db.write() as connection:
                await connection.execute(text("SELECT pg_sleep(30)"))
        async with databases.connection(empty_database) as server:

            async def ended() -> bool:
                return not await server.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)'"
                    " AND state = 'active' AND datname = current_database()"
                )

            await until(ended, within_s=5)
        await db.ping()


async def test_a_connection_closed_in_the_pool_is_replaced(
    empty_database: str, db: Database
) -> None:
    for use in (db.read, db.write):
        async with databases.connection(empty_database) as server:
            await server.execute(TERMINATE_OTHERS)
        await asyncio.sleep(0.05)
        async with use() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


def terminate_unseen(url: str) -> None:
    """End the pool's connections while the event loop of the test cannot notice."""

    async def terminate() -> None:
        async with databases.connection(url) as server:
            await server.execute(TERMINATE_OTHERS)

    thread = threading.Thread(target=lambda: asyncio.run(terminate()))
    thread.start()
    thread.join()


async def test_a_read_on_a_connection_that_has_just_died_runs_again(
    empty_database: str, db: Database
) -> None:
    await names(db)
    terminate_unseen(empty_database)
    assert await names(db) == []


async def test_a_write_on_a_connection_that_has_just_died_is_503(
    empty_database: str, db: Database
) -> None:
    terminate_unseen(empty_database)
    with pytest.raises(ConnectionLost):
        async with db.write() as connection:
            await connection.execute(text("INSERT INTO things VALUES (1, 'a')"))
    assert await names(db) == []


async def test_a_read_that_kills_its_connection_runs_only_once_more(
    empty_database: str, db: Database
) -> None:
    with pytest.raises(ConnectionLost):
        async with db.read() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    await db.ping()


async def test_a_read_outlives_a_migration_of_its_columns(
    empty_database: str, db: Database
) -> None:
    async with db.write() as connection:
        await connection.execute(text("INSERT INTO things VALUES (1, 'a')"))
    assert await names(db) == ["a"]
    async with databases.connection(empty_database) as server:
        await server.execute("ALTER TABLE things ALTER COLUMN name TYPE varchar(10)")
    assert await names(db) == ["a"]


async def test_the_loser_of_a_deadlock_may_try_again(db: Database) -> None:
    async with db.write() as connection:
        await connection.execute(text("INSERT INTO things VALUES (1, 'a'), (2, 'b')"))
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with db.write() as connection:
            await connection.execute(
                text("UPDATE things SET name = 'x' WHERE id = :id"), {"id": first}
            )
            await both_hold_one.wait()
            await connection.execute(
                text("UPDATE things SET name = 'y' WHERE id = :id"), {"id": second}
            )

    outcomes = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [TransactionConflict]
    assert len(set(await names(db))) == 2


async def test_a_transaction_that_stands_still_is_given_up_by_the_server(db: Database) -> None:
    """A frozen process must not keep the rows that it has locked."""
    async with db.read() as connection:
        idle = text("SHOW idle_in_transaction_session_timeout")
        assert await connection.scalar(idle) == "5s"

    async def stand_still() -> None:
        async with db.write() as connection:
            await connection.execute(text("INSERT INTO things VALUES (1, 'held')"))
            await connection.execute(text("SET idle_in_transaction_session_timeout = '50ms'"))
            await until(is_free)
            await connection.execute(text("SELECT 1"))

    async def is_free() -> bool:
        try:
            async with db.write() as other:
                await other.execute(text("SET LOCAL lock_timeout = '10ms'"))
                await other.execute(text("INSERT INTO things VALUES (1, 'free')"))
        except ServiceUnavailable:
            return False
        return True

    with pytest.raises(ConnectionLost):
        await stand_still()
    assert await names(db) == ["free"]


async def test_a_transaction_that_stops_within_a_statement_is_given_up_by_the_server(
    empty_database: str,
) -> None:
    """The server takes it for busy: it has the first half of a statement, and waits for more."""
    settings = DatabaseSettings(connection=empty_database, statement_timeout=0.2)
    async with Database(settings) as db, db.read() as connection:
        assert await connection.scalar(text("SHOW transaction_timeout")) == "5200ms"
    frozen = await connect(dsn(empty_database), application_name="frozen")
    try:
        await frozen.execute("SET transaction_timeout = '200ms'")
        await frozen.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
        # Parse and Flush, without what has to follow.
        frozen._transport.write(b"P\0\0\0\x10\0SELECT 1\0\0\0" + b"H\0\0\0\4")

        async with Database(settings) as db:

            async def is_free() -> bool:
                async with db.write() as other:
                    free = text("SELECT pg_try_advisory_xact_lock(1)")
                    return bool(await other.scalar(free))

            await until(is_free)
    finally:
        frozen.terminate()


async def test_cancelled_requests_leave_no_connection_behind(empty_database: str) -> None:
    in_use: list[int] = []
    settings = DatabaseSettings(connection=empty_database, max_pool_size=2, max_overflow=2)
    generator = random.Random(7)  # the same moments in every run
    async with Database(settings, on_in_use=in_use.append) as db:

        async def request() -> None:
            async with db.write() as connection:
                await connection.execute(text("SELECT pg_sleep(0.003)"))
            async with db.read() as connection:
                await connection.execute(text("SELECT pg_sleep(0.003)"))

        # On a busy machine nobody else may come further than to connect.
        await asyncio.gather(*(request() for _ in range(8)))
        for _ in range(15):
            tasks = [asyncio.create_task(request()) for _ in range(6)]
            await asyncio.sleep(generator.uniform(0, 0.03))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert in_use[-1] == 0
        assert 1 < max(in_use) <= 4
        await asyncio.gather(*(request() for _ in range(8)))
    async with databases.connection(empty_database) as server:
        held = await server.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'diptych' AND state LIKE 'idle in transaction%'"
        )
    assert held == 0


async def test_it_recovers_when_postgresql_is_killed_under_load(private_postgres: Server) -> None:
    url = await databases.create(private_postgres.url())
    async with databases.connection(url) as server:
        # Servers for tests answer before a commit is safe.
        name = url.rpartition("/")[2]
        await server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    settings = DatabaseSettings(connection=url, connect_timeout=2)
    committed: set[int] = set()
    unknown: set[int] = set()
    errors: list[Exception] = []
    done = asyncio.Event()
    numbers = iter(range(10**9))

    async with Database(settings) as db:
        async with db.write() as connection:
            await connection.execute(text("CREATE TABLE numbers (n int PRIMARY KEY)"))

        async def request() -> None:
            while not done.is_set():
                n = next(numbers)
                try:
                    async with db.write() as connection:
                        await connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})
                    committed.add(n)
                    async with db.read() as connection:
                        assert await connection.scalar(
                            text("SELECT n FROM numbers WHERE n = :n"), {"n": n}
                        )
                except ServiceUnavailable:
                    unknown.add(n)
                    await asyncio.sleep(0.02)
                except Exception as error:
                    errors.append(error)

        next(numbers)  # 0 is not true
        tasks = [asyncio.create_task(request()) for _ in range(8)]
        for _ in range(2):
            await asyncio.sleep(0.3)
            os.kill(private_postgres.pid, signal.SIGKILL)
            await asyncio.to_thread(private_postgres.start)
            enough = len(committed) + 50
            await until(lambda enough=enough: len(committed) >= enough)
        done.set()
        await asyncio.gather(*tasks)
        assert errors == []
        assert unknown
        async with db.read() as connection:
            kept = set(await connection.scalars(text("SELECT n FROM numbers")))
    assert committed <= kept <= committed | unknown


def test_addresses_are_taken_in_every_common_form() -> None:
    for scheme in ("postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg"):
        assert dsn(f"{scheme}://u:p%40@h:5/d?host=/run/pg") == (
            "postgresql://u:p%40@h:5/d?host=/run/pg"
        )
    for rest in ("/d", "h", "u@[::1]:5/d", "u:p@h:1,i,[::1]:2/d", "u:p@%2Frun%2Fpg/d"):
        assert dsn(f"postgresql://{rest}") == f"postgresql://{rest}"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mysql+pymysql://u:secret@h/d",
        "postgresql:u:secret@h",
        "postgresql://u:secret/secret@h/d",
        "postgresql://u:secret#1@h/d",
        "postgresql://u:p@h:secret/d",
    ],
)
def test_an_unusable_address_is_refused_without_showing_the_password(address: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as refused:
        dsn(address)
    assert "secret" not in str(refused.value)


async def test_what_goes_wrong_is_logged_for_operators(
    empty_database: str, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(ServiceUnavailable):
        async with db.read() as connection:
            await connection.execute(
                text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")
            )
    assert "canceling statement" in caplog.text
