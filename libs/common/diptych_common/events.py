"""The outbox: an event is a row in the transaction of its change, delivered by others later.

An event exists exactly when its change was committed; nothing is told of a change that was rolled
back, and no change is lost to a message broker that is down.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    Uuid,
    delete,
    func,
    insert,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

Priority = Literal["AUDIT", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]


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
    payload: Mapping[str, Any],
    *,
    priority: Priority = "INFO",
    request_id: str | None = None,
) -> None:
    """Add an event to the caller's transaction. One statement."""
    await connection.execute(
        insert(outbox).values(
            event_type=event_type,
            priority=priority,
            payload=payload,
            request_id=request_id,
        )
    )


async def purge(connection: AsyncConnection, outbox: Table, *, older_than: timedelta) -> int:
    """Drop events that nobody fetched within `older_than`; how many there were."""
    result = await connection.execute(
        delete(outbox).where(outbox.c.created_at < func.now() - older_than)
    )
    return result.rowcount
