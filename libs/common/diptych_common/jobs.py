"""Jobs in PostgreSQL: rows that are enqueued with a change, claimed under a lease, and fenced.

    waiting ──claim──▶ running ──finish──▶ succeeded      (recurring, or wanted again: waiting)
       ▲                 │  ╰──fail, attempts left──▶ waiting, after a pause
       ╰──give_back──────┤  ╰──fail, none left──────▶ failed
                         ╰──lease over──claim──▶ running, by another worker

A claim counts `fence` up; every later statement about a job names the fence of its claim, so that
a worker that slept through its lease can change nothing. All times are the database's. Functions
here are one statement each; the loop that calls them is in `diptych_common.worker`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

# statement_timestamp() and not now(): in a long transaction now() is the past, and a lease given
# by it would be short. Stable, so that an index serves a comparison with it.
NOW: Final = func.statement_timestamp()

UNFINISHED: Final = text("state IN ('waiting', 'running')")

PAUSE_AT_MOST: Final = timedelta(minutes=10)
ERROR_LENGTH: Final = 2000


class JobLost(Exception):
    """The job is another worker's by now, or nobody's: whatever is going on must stop."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was claimed; `attempts` counts this claim too, `fence` is its proof."""

    id: int
    kind: str
    payload: Mapping[str, Any]
    fence: int
    attempts: int


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
