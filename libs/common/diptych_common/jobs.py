"""Jobs in PostgreSQL: rows that are enqueued with a change, claimed under a lease, and fenced.

    waiting ──claim──▶ running ──finish──▶ succeeded      (recurring, or wanted again: waiting)
       ▲                 │  ╰──fail, attempts left──▶ waiting, after a pause
       ╰──give_back──────┤  ╰──fail, none left──────▶ failed
                         ╰──lease over──claim──▶ running, by another worker

A claim counts `fence` up; every later statement about a job names the fence of its claim, so that
a worker that slept through its lease can change nothing. All times are the database's. Functions
here are one statement each; the loop that calls them is in `diptych_common.worker`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    CursorResult,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    MetaData,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

# statement_timestamp() and not now(): in a long transaction now() is the past, and a lease given
# by it would be short. Stable, so that an index serves a comparison with it.
NOW: Final = func.statement_timestamp()

UNFINISHED: Final = text("state IN ('waiting', 'running')")

RECURRING: Final = "recurring"
"""The `dedup_key` of a recurring job: enqueue its kind with it to have it run at once."""

ERROR_LENGTH: Final = 2000


class JobLost(Exception):
    """The job is another worker's by now, or nobody's: whatever is going on must stop."""


class GiveUp(Exception):
    """Raised by a handler whose job would fail again: it is not tried again.

    The message is in plain words and may be shown to users.
    """


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was claimed; `attempts` counts this claim too, `fence` is its proof.

    `attempts` beyond `max_attempts` means that its last worker died of it, or with it.
    """

    id: int
    kind: str
    payload: Mapping[str, Any]
    fence: int
    attempts: int
    max_attempts: int | None


def jobs_table(metadata: MetaData) -> Table:
    """The table of jobs; its name is also the channel that workers listen on.

    `run_after` is when a waiting job is due, `lease_until` when a running one may be taken over.
    `period` is set for recurring jobs, `again` when an equal job was enqueued while it ran.
    `max_attempts` None means for ever. Each service migrates its own.
    """
    return Table(
        "jobs",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("kind", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("dedup_key", Text),
        Column("state", Text, nullable=False, server_default="waiting"),
        Column("run_after", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("period", Interval),
        Column("again", Boolean, nullable=False, server_default=text("false")),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("max_attempts", Integer),
        Column("fence", BigInteger, nullable=False, server_default=text("0")),
        Column("worker", Text),
        Column("lease_until", DateTime(timezone=True)),
        Column("progress", JSONB),
        Column("error", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("finished_at", DateTime(timezone=True)),
        CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed')", name="known_state"
        ),
        CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name="running_has_a_lease"
        ),
        # What a claim asks for, a waiting job and a stalled one alike.
        Index(
            "ix_jobs_due",
            text("coalesce(lease_until, run_after)"),
            postgresql_where=UNFINISHED,
        ),
        Index("uq_jobs_dedup_key", "kind", "dedup_key", unique=True, postgresql_where=UNFINISHED),
        Index(
            "ix_jobs_finished_at",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )


async def enqueue(
    connection: AsyncConnection,
    jobs: Table,
    kind: str,
    payload: Mapping[str, Any],
    *,
    dedup_key: str | None = None,
    run_after: timedelta | None = None,
    max_attempts: int | None = None,
) -> int:
    """Add a job to the caller's transaction and wake the workers when it commits; the job's id.

    `run_after` counts from now. `dedup_key` makes jobs of a kind equal: with an equal one waiting,
    that one gets this payload and the earlier of both times; with one running, it runs once more
    after its end, so that a change made meanwhile is never missed. One statement.
    """
    due = NOW + (run_after or timedelta())
    new = insert(jobs).values(
        kind=kind,
        payload=payload,
        dedup_key=dedup_key,
        run_after=due,
        max_attempts=max_attempts,
    )
    wanted = or_(jobs.c.state == "waiting", jobs.c.again)
    statement = new.on_conflict_do_update(
        index_elements=["kind", "dedup_key"],
        index_where=UNFINISHED,
        set_={
            "payload": new.excluded.payload,
            "max_attempts": new.excluded.max_attempts,
            "again": jobs.c.state == "running",
            "run_after": case(
                (wanted, func.least(jobs.c.run_after, new.excluded.run_after)),
                else_=new.excluded.run_after,
            ),
        },
    ).returning(jobs.c.id, func.pg_notify(jobs.name, kind))
    return (await connection.execute(statement)).scalar_one()


async def schedule(connection: AsyncConnection, jobs: Table, kind: str, period: timedelta) -> None:
    """Make sure that `kind` recurs every `period`, first at once; one row for all workers.

    A run that is late does not make the next one late, and runs that were missed are not made up
    for. With another period than before the next run is at most one new period away.
    """
    new = insert(jobs).values(
        kind=kind, payload={}, dedup_key=RECURRING, run_after=NOW, period=period
    )
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=["kind", "dedup_key"],
            index_where=UNFINISHED,
            set_={
                "period": period,
                "run_after": func.least(jobs.c.run_after, NOW + period),
            },
            where=jobs.c.period.is_distinct_from(period),
        )
    )


async def claim(
    connection: AsyncConnection,
    jobs: Table,
    kinds: Collection[str],
    *,
    worker: str,
    lease: timedelta,
    limit: int,
) -> list[Job]:
    """Take up to `limit` jobs that are due or whose worker let its lease run out, oldest first."""
    due = (
        select(jobs.c.id)
        .where(
            UNFINISHED,
            func.coalesce(jobs.c.lease_until, jobs.c.run_after) <= NOW,
            jobs.c.kind.in_(kinds),
        )
        .order_by(func.coalesce(jobs.c.lease_until, jobs.c.run_after), jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    result = await connection.execute(
        update(jobs)
        .where(jobs.c.id == due.c.id)
        .values(
            state="running",
            fence=jobs.c.fence + 1,
            attempts=jobs.c.attempts + 1,
            worker=worker,
            lease_until=NOW + lease,
        )
        .returning(
            jobs.c.id,
            jobs.c.kind,
            jobs.c.payload,
            jobs.c.fence,
            jobs.c.attempts,
            jobs.c.max_attempts,
        )
    )
    return sorted((Job(*row) for row in result), key=lambda job: job.id)


async def next_due(
    connection: AsyncConnection, jobs: Table, kinds: Collection[str]
) -> float | None:
    """Seconds until the next job can be claimed, negative when one is overdue; None: no job."""
    due = func.min(func.coalesce(jobs.c.lease_until, jobs.c.run_after))
    seconds = await connection.scalar(
        select(func.extract("epoch", due - NOW)).where(UNFINISHED, jobs.c.kind.in_(kinds))
    )
    return None if seconds is None else float(seconds)


async def heartbeat(
    connection: AsyncConnection, jobs: Table, held: Collection[Job], *, lease: timedelta
) -> set[tuple[int, int]]:
    """Renew the leases of `held`; id and fence of those that are still the caller's."""
    claims = _claims(held)
    result = await connection.execute(
        update(jobs)
        .where(jobs.c.id == claims.c.id, jobs.c.fence == claims.c.fence, jobs.c.state == "running")
        .values(lease_until=NOW + lease)
        .returning(jobs.c.id, jobs.c.fence)
    )
    return {(row.id, row.fence) for row in result}


async def fenced(connection: AsyncConnection, jobs: Table, job: Job) -> None:
    """Raise JobLost unless the job is still the caller's, and keep it so until the commit.

    Call it last in a transaction: whoever changes a thing and enqueues a job about it locks the
    thing first and the job second, and so must a handler, or the two can deadlock.
    """
    found = await connection.execute(select(jobs.c.id).where(_mine(jobs, job)).with_for_update())
    _lost_if_none(found, job)


async def report(
    connection: AsyncConnection, jobs: Table, job: Job, progress: Mapping[str, Any]
) -> None:
    """Replace what the job shows of its progress; raises JobLost."""
    changed = await connection.execute(
        update(jobs).where(_mine(jobs, job)).values(progress=progress)
    )
    _lost_if_none(changed, job)


async def finish(connection: AsyncConnection, jobs: Table, job: Job) -> None:
    """Mark the job succeeded, or waiting for its next run if it recurs or is wanted again.

    Raises JobLost.
    """
    once = and_(jobs.c.period.is_(None), ~jobs.c.again)
    changed = await connection.execute(
        update(jobs)
        .where(_mine(jobs, job))
        .values(
            **_released(),
            state=case((once, "succeeded"), else_="waiting"),
            run_after=case(
                (or_(once, jobs.c.again), jobs.c.run_after),
                else_=_next_slot(jobs),
            ),
            attempts=case((once, jobs.c.attempts), else_=0),
            again=False,
            error=null(),
            finished_at=case((once, NOW), else_=null()),
        )
    )
    _lost_if_none(changed, job)


async def fail(
    connection: AsyncConnection, jobs: Table, job: Job, error: str, *, pause: timedelta
) -> None:
    """Put the job back for another attempt after `pause`, or mark it failed if that was the last.

    A recurring job never waits longer than its period, and never gives up; nor does one that was
    enqueued again while it ran. Raises JobLost.
    """
    last = and_(
        jobs.c.period.is_(None),
        ~jobs.c.again,
        func.coalesce(jobs.c.attempts >= jobs.c.max_attempts, False),
    )
    changed = await connection.execute(
        update(jobs)
        .where(_mine(jobs, job))
        .values(
            **_released(),
            state=case((last, "failed"), else_="waiting"),
            run_after=case(
                (last, jobs.c.run_after),
                (jobs.c.again, func.least(jobs.c.run_after, NOW + pause)),
                else_=NOW + func.least(literal(pause, Interval), jobs.c.period),
            ),
            attempts=case((jobs.c.again, 0), else_=jobs.c.attempts),
            again=False,
            error=error[:ERROR_LENGTH].replace("\0", ""),
            finished_at=case((last, NOW), else_=null()),
        )
    )
    _lost_if_none(changed, job)


async def give_back(connection: AsyncConnection, jobs: Table, held: Collection[Job]) -> None:
    """Put jobs back to be taken at once by another worker; the attempt does not count."""
    claims = _claims(held)
    await connection.execute(
        update(jobs)
        .where(jobs.c.id == claims.c.id, jobs.c.fence == claims.c.fence, jobs.c.state == "running")
        .values(
            **_released(),
            state="waiting",
            run_after=NOW,
            attempts=jobs.c.attempts - 1,
            again=False,
        )
        .returning(func.pg_notify(jobs.name, jobs.c.kind))
    )


async def purge(connection: AsyncConnection, jobs: Table, *, older_than: timedelta) -> int:
    """Forget jobs that ended longer ago than `older_than`; how many there were."""
    result = await connection.execute(delete(jobs).where(jobs.c.finished_at < NOW - older_than))
    return result.rowcount


def _claims(held: Collection[Job]) -> Any:
    """The ids and fences of `held` as a table, so that one statement serves any number."""
    unnested = func.unnest(
        literal([job.id for job in held], ARRAY(BigInteger)),
        literal([job.fence for job in held], ARRAY(BigInteger)),
    )
    return unnested.table_valued("id", "fence", name="claims").render_derived()


def _mine(jobs: Table, job: Job) -> ColumnElement[bool]:
    return and_(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state == "running")


def _released() -> dict[str, Any]:
    return {"worker": null(), "lease_until": null()}


def _next_slot(jobs: Table) -> ColumnElement[Any]:
    """The first moment after now that is a whole number of periods after the last due time."""
    period = func.extract("epoch", jobs.c.period)
    periods = func.floor(func.extract("epoch", NOW - jobs.c.run_after) / period) + 1
    return jobs.c.run_after + func.make_interval(0, 0, 0, 0, 0, 0, periods * period)


def _lost_if_none(result: CursorResult[Any], job: Job) -> None:
    if result.rowcount != 1:
        raise JobLost(f"Job {job.id} ({job.kind}) is not held under fence {job.fence} any more.")
