"""Behind a pooler that gives each transaction another server connection."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest
from dev import ports
from diptych_common import jobs as queue
from diptych_common import migrations
from diptych_common.database import Database
from diptych_common.jobs import Job
from diptych_common.settings import Database as DatabaseSettings
from diptych_common.worker import JobContext, Kind, Worker
from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tests import servers
from tests.common.job_tables import jobs, noted, notes, opened
from tests.waiting import until

SETTINGS = """
[databases]
{name} = host={server.hostname} port={server.port} dbname={name}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
"""


@pytest.fixture
async def bouncer(
    empty_database: str, debian: Callable[[str, str], str]
) -> AsyncIterator[DatabaseSettings]:
    """A database with the tables of jobs, through pgbouncer, which has two connections to it."""
    program = debian("pgbouncer", "pgbouncer")
    server = urlsplit(empty_database)
    name = server.path[1:]
    port = ports.any_free()
    # It refuses to be root, and another user has to be able to read its files.
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    folder = servers.folder() / f"pgbouncer-{port}"
    folder.mkdir()
    users = folder / "users.txt"
    users.write_text(f'"{server.username}" "{server.password or ""}"\n')
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(name=name, server=server, port=port, users=users))
    async with opened(empty_database):
        pass
    process = await asyncio.create_subprocess_exec(
        program, *account, settings, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: _listens(port))
        yield DatabaseSettings(
            connection=f"postgresql://{server.username}@127.0.0.1:{port}/{name}",
            statement_cache_size=0,
        )
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_statements_do_not_miss_each_other(bouncer: DatabaseSettings) -> None:
    statement = text("SELECT :document AS document, :tags AS tags, pg_sleep(0.001)").bindparams(
        bindparam("document", type_=JSONB), bindparam("tags", type_=ARRAY(Text))
    )
    typed = statement.columns(document=JSONB, tags=ARRAY(Text))

    async def request(db: Database, n: int) -> None:
        for m in range(10):
            async with db.read() as connection:
                row = (
                    await connection.execute(typed, {"document": {"n": n}, "tags": [str(m)]})
                ).one()
            assert (row.document, row.tags) == ({"n": n}, [str(m)])
            async with db.write() as connection:
                await connection.execute(notes.insert().values(note=f"{n} {m}"))

    async with Database(bouncer) as db:
        await asyncio.gather(*(request(db, n) for n in range(12)))
        assert len(await noted(db)) == 120


async def test_a_worker_takes_jobs_without_listening(bouncer: DatabaseSettings) -> None:
    done = asyncio.Event()

    async def handler(job: Job, context: JobContext) -> None:
        async with context.write() as connection:
            await connection.execute(notes.insert().values(note="done"))
        done.set()

    stop = asyncio.Event()
    async with Database(bouncer) as db:
        running = asyncio.create_task(Worker(db, jobs, {"k": Kind(handler)}, poll=0.1).run(stop))
        await asyncio.sleep(0.3)
        async with db.write() as connection:
            await queue.enqueue(connection, jobs, "k", {})
        await asyncio.wait_for(done.wait(), 20)
        stop.set()
        await running
        assert await noted(db) == ["done"]


async def test_migrations_run_through_it(bouncer: DatabaseSettings) -> None:
    async with Database(bouncer) as db:
        async with db.write() as connection:
            await connection.execute(text("DROP TABLE jobs, outbox"))
        outcomes = await asyncio.gather(
            *(migrations.upgrade(bouncer.connection, "diptych_images.migrations") for _ in range(2))
        )
        assert () in outcomes
        assert await migrations.check(bouncer.connection, "diptych_images.migrations") == 0
