"""What is overdue, as a real PostgreSQL counts it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from diptych_common import backlog, delivery
from diptych_common import jobs as queue
from diptych_common.backlog import Backlog
from diptych_common.database import Database
from diptych_common.metrics import Metrics
from diptych_common.settings import Metrics as MetricsSettings
from sqlalchemy import Column, DateTime, Table, text

from tests.common.job_tables import jobs, metadata, opened
from tests.waiting import until

attempts = Table("attempts", metadata, Column("lease_until", DateTime(timezone=True)))


@pytest.fixture
async def db(empty_database: str) -> AsyncIterator[Database]:
    async with opened(empty_database) as db:
        yield db


async def enqueue(db: Database, kind: str, **options: Any) -> None:
    async with db.write() as connection:
        await queue.enqueue(connection, jobs, kind, {}, **options)


async def execute(db: Database, statement: str) -> None:
    async with db.write() as connection:
        await connection.execute(text(statement))


async def found(db: Database) -> Backlog:
    async with db.read() as connection:
        return await backlog.overdue(connection, jobs=jobs, attempts=attempts)


async def test_nothing_is_overdue_in_an_empty_database(db: Database) -> None:
    assert await found(db) == Backlog()


async def test_jobs_that_nobody_takes_are_overdue(db: Database) -> None:
    await enqueue(db, "late")
    await enqueue(db, "silent")
    await enqueue(db, "later", run_after=timedelta(hours=1))
    await enqueue(db, "taken")
    await enqueue(db, "done")
    async with db.write() as connection:
        for kind in ("silent", "taken", "done"):
            (job,) = await queue.claim(
                connection, jobs, [kind], worker="w", lease=timedelta(hours=1), limit=1
            )
        await queue.finish(connection, jobs, job)
    await execute(
        db,
        "UPDATE jobs SET lease_until = now() - interval '20 min' WHERE kind = 'silent'",
    )
    await execute(db, "UPDATE jobs SET run_after = now() - interval '10 min' WHERE kind = 'late'")
    late = await found(db)
    assert late.jobs == 2
    assert 1200 <= late.oldest_job_s < 1800


async def test_the_job_that_delivers_events_is_not(db: Database) -> None:
    """It waits for ever where no broker is configured any more."""
    await enqueue(db, delivery.JOB)
    assert await found(db) == Backlog()


async def test_attempts_are_overdue_when_their_lease_is_over(db: Database) -> None:
    await execute(
        db,
        "INSERT INTO attempts VALUES (NULL), (now() + interval '1 min'),"
        " (now() - interval '1 h'), (now() - interval '1 min')",
    )
    late = await found(db)
    assert late.attempts == 2
    assert 3600 <= late.oldest_attempt_s < 5400


async def test_metrics_are_told_again_and_again(db: Database) -> None:
    metrics = Metrics()

    def value(name: str) -> float:
        return metrics.registry.get_sample_value(f"diptych_{name}") or 0

    await execute(db, "INSERT INTO attempts VALUES (now() - interval '1 h')")
    async with backlog.measured(
        db, MetricsSettings(), metrics, jobs=jobs, attempts=attempts, interval=0.01
    ):
        await until(lambda: value("attempts_overdue") == 1)
        assert value("oldest_overdue_attempt_seconds") >= 3600
        await execute(db, "ALTER TABLE attempts RENAME TO gone")
        await execute(db, "ALTER TABLE gone RENAME TO attempts")
        await execute(db, "DELETE FROM attempts")
        await enqueue(db, "late")
        await until(lambda: value("jobs_overdue") == 1)
        await until(lambda: value("attempts_overdue") == 0)


async def test_nothing_is_asked_where_metrics_are_off(db: Database) -> None:
    metrics = Metrics()
    await enqueue(db, "late")
    async with backlog.measured(
        db, MetricsSettings(enabled=False), metrics, jobs=jobs, attempts=attempts, interval=0
    ):
        await found(db)
    assert metrics.registry.get_sample_value("diptych_jobs_overdue") == 0
