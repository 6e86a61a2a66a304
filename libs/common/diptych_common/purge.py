"""Removal of what a service keeps of things that are over: the command `db purge`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Table

from diptych_common import jobs
from diptych_common.database import Connection, Database

# Of each transaction. Nobody waits for the rows that it locks.
_AT_A_TIME: Final = 10_000


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows one call removed; the next may begin after the id `last`, if there is one."""

    number: int
    last: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of one kind, `name` in the plural, that are over and older than so long.

    `count` is how many there are. `remove` removes so many of them at most, and is told what it
    called the `last` before: where rows stay in the table, it would look at all of them each time.
    """

    name: str
    count: Callable[[Connection, timedelta], Awaitable[int]]
    remove: Callable[[Connection, timedelta, int, str | None], Awaitable[Removed]]


def ended_jobs(table: Table) -> Kept:
    """Jobs that have ended, however they did."""

    async def remove(
        connection: Connection, age: timedelta, at_most: int, _after: str | None
    ) -> Removed:
        return Removed(await jobs.purge(connection, table, older_than=age, at_most=at_most))

    return Kept(
        name="jobs that have ended",
        count=lambda connection, age: jobs.count_ended(connection, table, older_than=age),
        remove=remove,
    )


async def count(db: Database, kept: Sequence[Kept], *, older_than: timedelta) -> dict[str, int]:
    """How many of each kind `purge` would remove."""
    async with db.read() as connection:
        return {one.name: await one.count(connection, older_than) for one in kept}


async def purge(
    db: Database, kept: Sequence[Kept], *, older_than: timedelta, at_most: int | None
) -> dict[str, int]:
    """Remove what is older than so long, of each kind `at_most` rows; how many of each.

    In transactions of limited size: what was done stays done when it is broken off.
    """
    return {one.name: await _purge(db, one, older_than, at_most) for one in kept}


async def _purge(db: Database, one: Kept, older_than: timedelta, at_most: int | None) -> int:
    removed, last = 0, None
    while at_most is None or removed < at_most:
        limit = _AT_A_TIME if at_most is None else min(_AT_A_TIME, at_most - removed)
        async with db.write() as connection:
            found = await one.remove(connection, older_than, limit, last)
        removed, last = removed + found.number, found.last
        if found.number < limit:
            break
    return removed
