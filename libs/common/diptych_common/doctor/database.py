"""Whether PostgreSQL does what the service needs, and whether workers do."""

import time
from typing import Final

from sqlalchemy import Table, text

from diptych_common import events, jobs
from diptych_common.database import Connection, Database, MigrationRefused
from diptych_common.doctor.findings import Examination, Notes
from diptych_common.errors import ServiceUnavailable
from diptych_common.settings import Database as DatabaseSettings

# It makes UUIDs itself, as the tables have it, from this release on.
_OLDEST: Final = 130000

MOST_SKEW_S: Final = 2.0
"""Seconds that two clocks may differ by before it is told; NTP keeps them far closer."""

_MUCH_SKEW_S: Final = 60.0

# Recurring jobs come every minute; a worker that was held up by others takes them soon after.
_LATE_S: Final = 120.0
_LONG_S: Final = 600.0

_SERVER: Final = text(
    "SELECT current_setting('server_version') AS version,"
    " current_setting('server_version_num')::int AS number,"
    " current_setting('server_encoding') AS encoding,"
    " current_setting('transaction_read_only') = 'on' AS read_only,"
    " extract(epoch FROM clock_timestamp())::float8 AS clock"
)

_REACH: Final = "Is the server up, and are host, user and password of [database] connection right?"


def examination(
    settings: DatabaseSettings,
    *,
    name: str,
    revisions: str | None,
    jobs_table: Table | None,
    outbox: Table | None,
) -> Examination:
    """Of the server, its schema, what workers do there, and the events that wait, in this order.

    `name` is what the server is told of who asks. None: the service has none of it.
    """

    async def examine(notes: Notes) -> None:
        async with Database(settings, application_name=name) as db:
            asking = notes.asking("database", _REACH, troubles=(ServiceUnavailable,))
            async with asking, db.read() as connection:
                await _server(notes, connection)
            if revisions is not None:
                await _schema(notes, settings.connection, revisions)
            if jobs_table is not None:
                await _work(notes, db, jobs_table)
            if outbox is not None:
                await _events(notes, db, outbox)

    return examine


async def _server(notes: Notes, connection: Connection) -> None:
    await connection.execute(_SERVER)  # what opens the connection is not counted in
    before, began = time.time(), time.perf_counter()
    found = (await connection.execute(_SERVER)).one()
    took = time.perf_counter() - began
    told = f"PostgreSQL {found.version}, {found.encoding}, answers in {took * 1000:.1f} ms."
    if found.number < _OLDEST:
        notes.fail("database", told, f"This release needs PostgreSQL {_OLDEST // 10000}.")
    elif found.encoding != "UTF8":
        notes.fail("database", told, "Make it anew with ENCODING 'UTF8': names can be any text.")
    elif found.read_only:
        notes.fail("database", f"{told} It is read-only.", "Name the primary server.")
    else:
        notes.ok("database", told)
    compare_clocks(notes, "clock of the database", found.clock - before, uncertain_s=took)


def compare_clocks(notes: Notes, about: str, ahead_s: float, *, uncertain_s: float) -> None:
    """Note how far another clock is ahead of this host's (negative: behind)."""
    beyond = abs(ahead_s) - uncertain_s
    words = f"It is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this host's."
    advice = "Have both hosts' clocks kept by NTP: expiry of tokens and times of changes count."
    if beyond > _MUCH_SKEW_S:
        notes.fail(about, words, advice)
    elif beyond > MOST_SKEW_S:
        notes.warn(about, words, advice)
    else:
        notes.ok(about, "It agrees with this host's.")


async def _schema(notes: Notes, url: str, revisions: str) -> None:
    from diptych_common import migrations

    about = "schema"
    async with notes.asking(about, "", troubles=(MigrationRefused, OSError)):
        needed = await migrations.check(url, revisions)
    match needed:
        case migrations.UP_TO_DATE:
            notes.ok(about, "It is up to date.")
        case migrations.CONTRACT_NEEDED:
            notes.warn(
                about,
                "What older releases needed is still there.",
                "When all nodes run this release, run: db contract",
            )
        case migrations.EXPANDED_FURTHER:
            notes.warn(
                about,
                "A newer release has expanded it; this one goes on with it.",
                "Have all nodes run the newer release, or this one: not both for ever.",
            )
        case _:
            notes.fail(about, "It is not that of this release.", "Run: db expand, or db upgrade")


async def _work(notes: Notes, db: Database, table: Table) -> None:
    about = "workers"
    async with notes.asking(about, "Run: db upgrade"), db.read() as connection:
        found = await jobs.standing(connection, table)
    start = "Start the service with [jobs] with_worker, or the command worker."
    if found.recurring == 0:
        notes.warn(about, "None has ever run.", start)
    elif found.recurring_overdue_s > _LATE_S:
        told = f"None has taken a recurring job for {found.recurring_overdue_s:.0f} s."
        notes.fail(about, told, start)
    else:
        notes.ok(about, f"{found.running} jobs run, {found.due} wait for their turn.")
    if found.overdue_s > _LONG_S:
        notes.warn(
            "jobs",
            f"The oldest of those that are due has waited for {found.overdue_s:.0f} s.",
            "See jobs list; more workers, or [jobs] concurrency.",
        )


async def _events(notes: Notes, db: Database, outbox: Table) -> None:
    about = "events"
    async with notes.asking(about, "Run: db upgrade"), db.read() as connection:
        number, seconds = await events.waiting(connection, outbox)
    if seconds > _LONG_S:
        told = f"{number} wait to be delivered, the oldest for {seconds:.0f} s."
        notes.warn(about, told, "Is a worker running, and does RabbitMQ answer?")
    else:
        notes.ok(about, f"{number} wait to be delivered.")
