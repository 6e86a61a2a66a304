"""What should be done by now and that nobody does: jobs that are due, and uploads that have died.

Measured by every process, those without a worker too: when no worker is left, somebody has to tell.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_common import delivery
from diptych_common.database import TROUBLE, Database
from diptych_common.jobs import NOW, UNFINISHED
from diptych_common.metrics import Metrics
from diptych_common.settings import Metrics as MetricsSettings

log = logging.getLogger(__name__)

INTERVAL_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many jobs and attempts are overdue, and for how many seconds the first of each is."""

    jobs: int = 0
    oldest_job_s: float = 0
    attempts: int = 0
    oldest_attempt_s: float = 0


async def overdue(connection: AsyncConnection, *, jobs: Table, attempts: Table) -> Backlog:
    """Jobs that are due or whose worker is silent, and rows of `attempts` whose lease is over.

    `attempts` is a table with a `lease_until`. One statement, which reads what is overdue by
    indexes and nothing else.
    """
    due = func.coalesce(jobs.c.lease_until, jobs.c.run_after)
    # The job that delivers never ends, and waits for ever once no broker is configured any more;
    # what it is late with is told by the metrics of events.
    late = due < NOW, UNFINISHED, jobs.c.kind != delivery.JOB
    of_jobs = select(func.count().label("number"), func.min(due).label("first")).where(*late)
    lease = attempts.c.lease_until
    dead = select(func.count().label("number"), func.min(lease).label("first")).where(lease < NOW)
    one, other = of_jobs.subquery(), dead.subquery()

    def seconds(first: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(func.extract("epoch", NOW - first), 0)

    found = await connection.execute(
        select(
            one.c.number, seconds(one.c.first), other.c.number, seconds(other.c.first)
        ).select_from(one.join(other, true()))
    )
    number, oldest, died, longest = found.one()
    return Backlog(number, float(oldest), died, float(longest))


@asynccontextmanager
async def measured(
    db: Database,
    settings: MetricsSettings,
    metrics: Metrics,
    *,
    jobs: Table,
    attempts: Table,
    interval: float = INTERVAL_S,
) -> AsyncGenerator[None]:
    """Tell `metrics` every `interval` seconds what is overdue, for as long as the context is open.

    While the database does not answer, what was known last stays. Nothing is done where metrics
    are off.
    """
    if not settings.enabled:
        yield
        return

    async def measure() -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                async with db.read() as connection:
                    found = await overdue(connection, jobs=jobs, attempts=attempts)
            except TROUBLE as trouble:
                log.warning("Nobody knows what is overdue: %s", trouble)
                continue
            metrics.is_overdue(
                found.jobs, found.oldest_job_s, found.attempts, found.oldest_attempt_s
            )

    measuring = asyncio.create_task(measure(), name="measure what is overdue")
    try:
        yield
    finally:
        measuring.cancel()
        with suppress(asyncio.CancelledError):
            await measuring
