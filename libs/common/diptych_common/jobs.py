"""Jobs in PostgreSQL: rows that are enqueued with a change, claimed under a lease, and fenced.

    waiting ──claim──▶ running ──finish──▶ succeeded      (recurring, or wanted again: waiting)
       ▲                 │  ├──fail────────▶ waiting, after a pause
       ╰──give_back──────┤  ╰──end, close──▶ failed or cancelled, when its changes are undone
                         ╰──lease over──claim──▶ running, by another worker

A claim counts `fence` up; every later statement about a job names the fence of its claim, so that
a worker that slept through its lease can change nothing. All times are the database's. Functions
here are one statement each; the loop that calls them is in `diptych_common.worker`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Literal, cast

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
    LargeBinary,
    MetaData,
    Select,
    SmallInteger,
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

CANCELLED: Final = "cancelled:"
"""What a notification begins with that tells of a cancelled job; others are the kind of a new one.
"""


class State(StrEnum):
    """The states of a job; the first two are those of one that has not ended."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


Why = Literal["refused", "failed", "died", "cancelled"]


class JobLost(Exception):
    """The job is another worker's by now, or nobody's: whatever is going on must stop."""


class GiveUp(Exception):
    """Raised by a handler whose job would fail again: it is not tried again.

    The message is in plain words and may be shown to users.
    """


class TryAgain(Exception):
    """Raised by a handler for a reason that may pass, and that is no fault of the service.

    The job is tried again as after any other exception, and the log has no traceback.
    """


@dataclass(frozen=True, slots=True)
class End:
    """Why a job will not succeed: refused (it gave up), failed, or its workers died, each time it
    was tried, or cancelled. `error` is for operators; that of a refusal may be shown to users.
    """

    why: Why
    error: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was claimed; `attempts` counts this claim too, `fence` is its proof.

    `attempts` beyond `max_attempts` means that its last worker died of it, or with it. `end` is set
    when an earlier claim found that it will not succeed, `cancelled` when somebody wants it to
    stop. `secret` is sealed.
    """

    id: int
    kind: str
    payload: Mapping[str, Any]
    fence: int
    attempts: int
    max_attempts: int | None
    cancelled: bool = False
    secret: bytes | None = field(default=None, repr=False)
    end: End | None = None


def jobs_table(metadata: MetaData) -> Table:
    """The table of jobs; its name is also the channel that workers listen on.

    `run_after` is when a waiting job is due, `lease_until` when a running one may be taken over.
    `period` is set for recurring jobs, `again` when an equal job was enqueued while it ran.
    `max_attempts` None means for ever. Of a higher `priority` goes first. `cancelled` says that it
    is to stop, `ending` (an End) that its changes are being undone. `secret` is sealed, and erased
    when the job ends. Each service migrates its own.
    """
    return Table(
        "jobs",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("kind", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("secret", LargeBinary),
        Column("dedup_key", Text),
        Column("priority", SmallInteger, nullable=False, server_default=text("0")),
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
        Column("cancelled", Boolean, nullable=False, server_default=text("false")),
        Column("ending", JSONB),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("finished_at", DateTime(timezone=True)),
        CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled')",
            name="known_state",
        ),
        CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name="running_has_a_lease"
        ),
        # What a claim asks for, a waiting job and a stalled one alike.
        Index(
            "ix_jobs_due",
            text("priority DESC"),
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
    priority: int = 0,
    secret: bytes | None = None,
) -> int:
    """Add a job to the caller's transaction and wake the workers when it commits; the job's id.

    `run_after` counts from now. `dedup_key` makes jobs of a kind equal: with an equal one waiting,
    that one gets this payload, secret and priority and the earlier of both times; with one running
    or about to be cancelled, it runs once more after its end, so that a change made meanwhile is
    never missed. `secret` is what `diptych_common.sealing` made. One statement.
    """
    due = NOW + (run_after or timedelta())
    new = insert(jobs).values(
        kind=kind,
        payload=payload,
        secret=secret,
        dedup_key=dedup_key,
        priority=priority,
        run_after=due,
        max_attempts=max_attempts,
    )
    # A cancelled one is due at once only to be closed: that is no wish to run early.
    wanted = or_(and_(jobs.c.state == "waiting", ~_is_ending(jobs)), jobs.c.again)
    statement = new.on_conflict_do_update(
        index_elements=["kind", "dedup_key"],
        index_where=UNFINISHED,
        set_={
            "payload": new.excluded.payload,
            "secret": new.excluded.secret,
            "priority": new.excluded.priority,
            "max_attempts": new.excluded.max_attempts,
            "again": or_(jobs.c.state == "running", _is_ending(jobs)),
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


async def cancel(connection: AsyncConnection, jobs: Table, *, kind: str, dedup_key: str) -> bool:
    """Have the unfinished job stopped and what it did undone; False if there is none.

    Takes effect with the caller's transaction: a running job's worker is told at once, a waiting
    job is due at once. What was enqueued while it ran is cancelled too. One statement; lock the
    thing that the job is about first, see `fenced`.
    """
    return await _cancel(connection, jobs, jobs.c.kind == kind, jobs.c.dedup_key == dedup_key)


async def cancel_one(connection: AsyncConnection, jobs: Table, job_id: int) -> bool:
    """As `cancel`, by the job's id."""
    return await _cancel(connection, jobs, jobs.c.id == job_id)


async def _cancel(connection: AsyncConnection, jobs: Table, *which: ColumnElement[bool]) -> bool:
    found = await connection.execute(
        update(jobs)
        .where(UNFINISHED, jobs.c.period.is_(None), *which)
        .values(
            cancelled=True,
            again=False,
            run_after=case((jobs.c.state == "waiting", NOW), else_=jobs.c.run_after),
        )
        .returning(func.pg_notify(jobs.name, func.concat(CANCELLED, jobs.c.id)))
    )
    return found.first() is not None


async def claim(
    connection: AsyncConnection,
    jobs: Table,
    kinds: Collection[str],
    *,
    only_ending: Collection[str] = (),
    worker: str,
    lease: timedelta,
    limit: int,
) -> list[Job]:
    """Take up to `limit` jobs that are due or whose worker let its lease run out.

    Those of the highest priority first, of these the oldest. Of the kinds in `only_ending` it takes
    jobs that are cancelled, or have only to be undone.
    """
    due = (
        select(jobs.c.id)
        .where(
            UNFINISHED,
            func.coalesce(jobs.c.lease_until, jobs.c.run_after) <= NOW,
            _wanted(jobs, kinds, only_ending),
        )
        .order_by(
            jobs.c.priority.desc(), func.coalesce(jobs.c.lease_until, jobs.c.run_after), jobs.c.id
        )
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
            jobs.c.cancelled,
            jobs.c.secret,
            jobs.c.ending,
        )
    )
    taken = [
        Job(*row[:-1], end=None if row.ending is None else End(**row.ending)) for row in result
    ]
    return sorted(taken, key=lambda job: job.id)


async def next_due(
    connection: AsyncConnection,
    jobs: Table,
    kinds: Collection[str],
    *,
    only_ending: Collection[str] = (),
) -> float | None:
    """Seconds until `claim` finds a job, negative when one is overdue; None: there is none."""
    due = func.min(func.coalesce(jobs.c.lease_until, jobs.c.run_after))
    seconds = await connection.scalar(
        select(func.extract("epoch", due - NOW)).where(
            UNFINISHED, _wanted(jobs, kinds, only_ending)
        )
    )
    return None if seconds is None else float(seconds)


async def cancelled(
    connection: AsyncConnection, jobs: Table, held: Collection[Job]
) -> set[tuple[int, int]]:
    """Id and fence of those of the caller's jobs that are to stop."""
    claims = _claims(held)
    found = await connection.execute(
        select(jobs.c.id, jobs.c.fence).where(
            jobs.c.id == claims.c.id, jobs.c.fence == claims.c.fence, jobs.c.cancelled
        )
    )
    return {(row.id, row.fence) for row in found}


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
            **_ended(jobs, literal("succeeded"), for_good=once),
            run_after=case(
                (or_(once, jobs.c.again), jobs.c.run_after),
                else_=_next_slot(jobs),
            ),
            error=null(),
        )
    )
    _lost_if_none(changed, job)


async def fail(
    connection: AsyncConnection, jobs: Table, job: Job, error: str, *, pause: timedelta
) -> None:
    """Put the job back for another attempt after `pause`, or at once if it was cancelled.

    A recurring job never waits longer than its period. Raises JobLost.
    """
    is_fresh = and_(jobs.c.again, ~_is_ending(jobs))
    changed = await connection.execute(
        update(jobs)
        .where(_mine(jobs, job))
        .values(
            **_released(),
            state="waiting",
            run_after=case(
                (and_(jobs.c.cancelled, jobs.c.ending.is_(None)), NOW),
                (is_fresh, func.least(jobs.c.run_after, NOW + pause)),
                else_=NOW + func.least(literal(pause, Interval), jobs.c.period),
            ),
            attempts=case((is_fresh, 0), else_=jobs.c.attempts),
            again=and_(jobs.c.again, ~is_fresh),
            error=_storable(error),
        )
    )
    _lost_if_none(changed, job)


async def end(connection: AsyncConnection, jobs: Table, job: Job, end: End) -> bool:
    """Write down that the job will not succeed: from now on it is only to be undone and closed.

    False for one that never ends: a recurring job, or one that was enqueued again while it ran and
    is not cancelled; put it back with `fail`. Raises JobLost.
    """
    ends = and_(jobs.c.period.is_(None), or_(~jobs.c.again, jobs.c.cancelled))
    written = {**asdict(end), "error": _storable(end.error)}
    found = await connection.execute(
        update(jobs)
        .where(_mine(jobs, job))
        .values(ending=case((ends, literal(written, JSONB)), else_=null()))
        .returning(jobs.c.ending.is_not(None))
    )
    is_ending = found.scalar_one_or_none()
    _lost_if_none(found, job)
    return bool(is_ending)


async def close(connection: AsyncConnection, jobs: Table, job: Job) -> None:
    """Mark a job that was written down as ending failed or cancelled; raises JobLost.

    It waits for its next run instead if it was enqueued again meanwhile.
    """
    why = jobs.c.ending["why"].astext
    changed = await connection.execute(
        update(jobs)
        .where(_mine(jobs, job))
        .values(
            **_ended(
                jobs,
                case((why == "cancelled", "cancelled"), else_="failed"),
                for_good=~jobs.c.again,
            ),
            error=jobs.c.ending["error"].astext,
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
            again=and_(jobs.c.again, _is_ending(jobs)),
        )
        .returning(func.pg_notify(jobs.name, jobs.c.kind))
    )


async def retry(
    connection: AsyncConnection, jobs: Table, job_id: int, *, kinds: Collection[str]
) -> bool:
    """Run a failed or cancelled job of `kinds` again, or a waiting one of any kind without a pause.

    False, and nothing is changed, if it is neither. Raises IntegrityError if an equal job has been
    enqueued since it ended.
    """
    is_over = jobs.c.state != "waiting"
    can_run_again = and_(jobs.c.state.in_(("failed", "cancelled")), jobs.c.kind.in_(kinds))
    found = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, or_(jobs.c.state == "waiting", can_run_again))
        .values(
            state="waiting",
            run_after=NOW,
            attempts=case((is_over, 0), else_=jobs.c.attempts),
            cancelled=and_(jobs.c.cancelled, ~is_over),
            ending=case((is_over, null()), else_=jobs.c.ending),
            finished_at=null(),
        )
        .returning(func.pg_notify(jobs.name, jobs.c.kind))
    )
    return found.first() is not None


async def find(connection: AsyncConnection, jobs: Table, job_id: int) -> Mapping[str, Any] | None:
    """The columns of a job, with `has_secret` for `secret`; None: there is no such job."""
    found = await connection.execute(_shown(jobs).where(jobs.c.id == job_id))
    return cast("Mapping[str, Any] | None", found.mappings().first())


async def listed(
    connection: AsyncConnection,
    jobs: Table,
    *,
    states: Collection[State],
    kind: str | None,
    limit: int,
) -> Sequence[Mapping[str, Any]]:
    """As `find`, up to `limit` jobs in these states, the newest first; of all kinds if None."""
    statement = _shown(jobs).where(jobs.c.state.in_(states)).order_by(jobs.c.id.desc())
    if kind is not None:
        statement = statement.where(jobs.c.kind == kind)
    found = await connection.execute(statement.limit(limit))
    return cast("Sequence[Mapping[str, Any]]", found.mappings().all())


@dataclass(frozen=True, slots=True)
class Standing:
    """How the unfinished jobs stand: how many are `due`, how many are `running` under a lease.

    `overdue_s` are the seconds since the oldest that is due was, `recurring_overdue_s` the same of
    those that recur, of which there are `recurring`; 0: none is. A job whose lease is over is due.
    """

    recurring: int
    running: int
    due: int
    overdue_s: float
    recurring_overdue_s: float


async def standing(connection: AsyncConnection, jobs: Table) -> Standing:
    """How the unfinished jobs stand at this moment."""
    due_at = func.coalesce(jobs.c.lease_until, jobs.c.run_after)
    recurs = jobs.c.period.is_not(None)
    late = func.greatest(func.coalesce(func.extract("epoch", NOW - func.min(due_at)), 0), 0)
    late_recurring = func.greatest(
        func.coalesce(func.extract("epoch", NOW - func.min(due_at).filter(recurs)), 0), 0
    )
    found = await connection.execute(
        select(
            func.count().filter(recurs),
            func.count().filter(jobs.c.lease_until > NOW),
            func.count().filter(due_at <= NOW),
            late,
            late_recurring,
        ).where(UNFINISHED)
    )
    recurring, running, due, overdue_s, recurring_overdue_s = found.one()
    return Standing(recurring, running, due, float(overdue_s), float(recurring_overdue_s))


async def purge(
    connection: AsyncConnection, jobs: Table, *, older_than: timedelta, at_most: int | None = None
) -> int:
    """Forget jobs that ended longer ago than `older_than`; how many there were."""
    ended = select(jobs.c.id).where(jobs.c.finished_at < NOW - older_than)
    oldest = ended.order_by(jobs.c.finished_at).limit(at_most).with_for_update(skip_locked=True)
    result = await connection.execute(delete(jobs).where(jobs.c.id.in_(oldest)))
    return result.rowcount


async def count_ended(connection: AsyncConnection, jobs: Table, *, older_than: timedelta) -> int:
    """How many jobs `purge` would forget."""
    ended = select(func.count()).where(jobs.c.finished_at < NOW - older_than)
    return (await connection.execute(ended)).scalar_one()


def _claims(held: Collection[Job]) -> Any:
    """The ids and fences of `held` as a table, so that one statement serves any number."""
    unnested = func.unnest(
        literal([job.id for job in held], ARRAY(BigInteger)),
        literal([job.fence for job in held], ARRAY(BigInteger)),
    )
    return unnested.table_valued("id", "fence", name="claims").render_derived()


def _mine(jobs: Table, job: Job) -> ColumnElement[bool]:
    return and_(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state == "running")


def _wanted(
    jobs: Table, kinds: Collection[str], only_ending: Collection[str]
) -> ColumnElement[bool]:
    return or_(jobs.c.kind.in_(kinds), and_(jobs.c.kind.in_(only_ending), _is_ending(jobs)))


def _is_ending(jobs: Table) -> ColumnElement[bool]:
    return or_(jobs.c.cancelled, jobs.c.ending.is_not(None))


def _shown(jobs: Table) -> Select[Any]:
    return select(
        *(column for column in jobs.c if column is not jobs.c.secret),
        jobs.c.secret.is_not(None).label("has_secret"),
    )


def _released() -> dict[str, Any]:
    return {"worker": null(), "lease_until": null()}


def _ended(
    jobs: Table, state: ColumnElement[str], *, for_good: ColumnElement[bool]
) -> dict[str, Any]:
    """What a job is after its end: over, or waiting as if it had just been enqueued."""
    return {
        **_released(),
        "state": case((for_good, state), else_="waiting"),
        "attempts": case((for_good, jobs.c.attempts), else_=0),
        "again": False,
        "cancelled": and_(jobs.c.cancelled, for_good),
        "ending": case((for_good, jobs.c.ending), else_=null()),
        # What was enqueued again brought its own.
        "secret": case((for_good, null()), else_=jobs.c.secret),
        "finished_at": case((for_good, NOW), else_=null()),
    }


def _storable(error: str) -> str:
    return error[:ERROR_LENGTH].replace("\0", "")


def _next_slot(jobs: Table) -> ColumnElement[Any]:
    """The first moment after now that is a whole number of periods after the last due time."""
    period = func.extract("epoch", jobs.c.period)
    periods = func.floor(func.extract("epoch", NOW - jobs.c.run_after) / period) + 1
    return jobs.c.run_after + func.make_interval(0, 0, 0, 0, 0, 0, periods * period)


def _lost_if_none(result: CursorResult[Any], job: Job) -> None:
    if result.rowcount != 1:
        raise JobLost(f"Job {job.id} ({job.kind}) is not held under fence {job.fence} any more.")
