"""The outbox: an event is a row in the transaction of its change, delivered by others later.

Who delivers is in `diptych_common.delivery`. An event exists exactly when its change was committed;
nothing is told of a change that was rolled back, and no change is lost to a message broker that is
down.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_common.database import WANTS_EVENT
from diptych_common.prepared import Prepared

COUNTED: Final = 100_000
"""Beyond so many, events that wait are not counted: that would take longer and longer."""

# PostgreSQL takes 32,767 parameters.
_AT_ONCE: Final = 5_000

Priority = Literal["AUDIT", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]


@dataclass(frozen=True, slots=True)
class Event:
    """An event that waits; `created_at` is when the transaction of its change began."""

    id: int
    message_id: str
    event_type: str
    priority: Priority
    payload: Mapping[str, Any] | str
    request_id: str | None
    created_at: datetime


class Unsent(Exception):
    """Events were not taken by a broker, or nobody knows whether they were; no secret is in it."""


class Refused(Unsent):
    """The event is of a kind that no broker takes, such as one that is too large."""


def outbox_table(metadata: MetaData) -> Table:
    """The table of events that wait for delivery, oldest first by `id`.

    `message_id` is made here once, so that a consumer can drop an event delivered twice.
    `created_at` is when the transaction of the change began. Each service migrates its own.
    """
    return Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column(
            "message_id", Uuid(as_uuid=False), nullable=False, server_default=func.gen_random_uuid()
        ),
        Column("event_type", Text, nullable=False),
        Column("priority", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("request_id", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


async def emit(
    connection: AsyncConnection,
    outbox: Table,
    event_type: str,
    payload: Mapping[str, Any] | str,
    *,
    priority: Priority = "INFO",
    request_id: str | None = None,
) -> None:
    """Add an event to the caller's transaction.

    One statement; none where nobody wants events of this type (`Database(wants_event=…)`).
    """
    wanted: Callable[[str], bool] = connection.sync_engine.get_execution_options()[WANTS_EVENT]
    if not wanted(event_type):
        return
    values = {
        "event_type": event_type,
        "priority": priority,
        "payload": payload,
        "request_id": request_id,
    }
    await _insertion(outbox).rows(connection, values)


@cache
def _insertion(outbox: Table) -> Prepared:
    columns = ("event_type", "priority", "payload", "request_id")
    return Prepared(
        insert(outbox).values(
            {name: bindparam(name, type_=outbox.c[name].type) for name in columns}
        )
    )


async def emit_all(
    connection: AsyncConnection,
    outbox: Table,
    event_type: str,
    payloads: Sequence[Mapping[str, Any]],
    *,
    request_id: str | None = None,
) -> None:
    """As `emit`, an event for each payload, in order. A statement per 5,000."""
    wanted: Callable[[str], bool] = connection.sync_engine.get_execution_options()[WANTS_EVENT]
    if not wanted(event_type):
        return
    for start in range(0, len(payloads), _AT_ONCE):
        rows = [
            {
                "event_type": event_type,
                "priority": "INFO",
                "payload": payload,
                "request_id": request_id,
            }
            for payload in payloads[start : start + _AT_ONCE]
        ]
        await connection.execute(insert(outbox).values(rows))


async def oldest(connection: AsyncConnection, outbox: Table, *, limit: int) -> list[Event]:
    """The next events to deliver, in order; one whose transaction took long may come after."""
    found = await connection.execute(select(outbox).order_by(outbox.c.id).limit(limit))
    return [Event(**row) for row in found.mappings()]


async def remove(connection: AsyncConnection, outbox: Table, ids: Collection[int]) -> None:
    """Drop events that were delivered."""
    await connection.execute(delete(outbox).where(outbox.c.id == func.any(list(ids))))


async def waiting(connection: AsyncConnection, outbox: Table) -> tuple[int, float]:
    """How many events wait, at most COUNTED, and for how many seconds the oldest has."""
    some = select(outbox.c.created_at).order_by(outbox.c.id).limit(COUNTED).subquery()
    age = func.extract("epoch", func.now() - func.min(some.c.created_at))
    found = await connection.execute(select(func.count(), func.coalesce(age, 0)).select_from(some))
    number, seconds = found.one()
    return number, max(float(seconds), 0.0)


async def purge(connection: AsyncConnection, outbox: Table, *, older_than: timedelta) -> int:
    """Drop events that nobody fetched within `older_than`; how many there were."""
    result = await connection.execute(
        delete(outbox).where(outbox.c.created_at < func.now() - older_than)
    )
    return result.rowcount
