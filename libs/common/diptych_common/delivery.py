"""Delivery of the outbox: each event at least once, in order, by one process of all at a time.

Who delivers holds a job that does not end, so that its lease says who does: when it dies, another
process takes the job and goes on with what is left. An event is removed after the broker has it; of
a process that dies in between, some are sent twice, with the same `message_id`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Table

from diptych_common import events
from diptych_common.database import TROUBLE, Database
from diptych_common.events import Event, Refused, Unsent
from diptych_common.jobs import Job, TryAgain
from diptych_common.metrics import Metrics
from diptych_common.settings import Jobs, MessagingNotifications, MessagingRabbit
from diptych_common.worker import JobContext, Kind, Worker, running

log = logging.getLogger(__name__)

JOB: Final = "deliver"

EVERY: Final = timedelta(seconds=15)
"""The period of the job, which is the longest pause after a broker took nothing."""

_LOOK_S: Final = 1.0
_MEASURE_S: Final = 15.0
_AT_A_TIME: Final = 100

Publish = Callable[[Sequence[Event]], Awaitable[int]]
"""Hands over events, in order; how many of them, from the first on, are safe. At least one.

Raises Unsent if none is, and Refused for a single event that would never be.
"""

Delivery = Callable[[], AbstractAsyncContextManager[Publish]]
"""Opens what hands events over."""


def configured(
    notifications: MessagingNotifications,
    rabbit: MessagingRabbit,
    *,
    transport_url: str,
    exchange: str,
    publisher_id: str,
) -> Delivery | None:
    """What the settings say; None: there are no events to deliver.

    Raises ValueError for a URL that cannot be read, without the URL in the message.
    """
    if notifications.driver == "noop":
        return None
    if notifications.driver == "log":
        return lambda: _to_log(publisher_id)
    # Only those who notify pay for aio-pika: a twelfth of the time that a service takes to start.
    from diptych_common import amqp

    transport = amqp.parse(notifications.transport_url or transport_url)
    has_envelope = notifications.driver == "messagingv2"

    # One for all runs of the job: it knows which server is asked next.
    broker = amqp.Broker(transport, rabbit, exchange=exchange, topics=notifications.topics)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Publish]:
        async with broker:

            async def publish(waiting: Sequence[Event]) -> int:
                contents = [amqp.message(event, publisher_id=publisher_id) for event in waiting]
                return await broker.publish(
                    [
                        (event.priority, amqp.enveloped(content) if has_envelope else content)
                        for event, content in zip(waiting, contents, strict=True)
                    ]
                )

            yield publish

    return opened


@asynccontextmanager
async def _to_log(publisher_id: str) -> AsyncGenerator[Publish]:
    from diptych_common import amqp

    async def publish(waiting: Sequence[Event]) -> int:
        for event in waiting:
            # The logger that operators' files and parsers know from oslo.messaging.
            named = logging.getLogger(f"oslo.messaging.notification.{event.event_type}")
            named.setLevel(logging.INFO)
            level = logging.ERROR if event.priority == "ERROR" else logging.INFO
            content = amqp.message(event, publisher_id=publisher_id)
            named.log(level, "%s", orjson.dumps(content).decode())
        return len(waiting)

    yield publish


async def deliver(job: Job, context: JobContext, *, outbox: Table, delivery: Delivery) -> None:
    """Deliver what is in the outbox and what comes into it, until cancelled.

    Raises TryAgain when the broker takes nothing: events wait meanwhile, and another process may
    reach it.
    """
    db = context.db
    # One by itself at first, so that one which is refused is not taken for those beside it.
    at_a_time = 1
    async with delivery() as publish:
        while True:
            async with db.read() as connection:
                waiting = await events.oldest(connection, outbox, limit=at_a_time)
            if not waiting:
                # Looked for and not listened for: a NOTIFY with each event would have PostgreSQL
                # commit all that make one in turn.
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                delivered = await publish(waiting)
            except Refused as refusal:
                # It would keep all others from being delivered.
                log.error("Event %s, %s, is dropped: %s", *_names(waiting[0]), refusal)
                delivered = 1
            except Unsent as failure:
                raise TryAgain(str(failure)) from None
            async with db.write() as connection:
                await events.remove(connection, outbox, [one.id for one in waiting[:delivered]])
            at_a_time = _AT_A_TIME if delivered == len(waiting) else 1


@asynccontextmanager
async def delivering(
    db: Database,
    settings: Jobs,
    metrics: Metrics,
    delivery: Delivery | None,
    *,
    jobs: Table,
    outbox: Table,
) -> AsyncGenerator[None]:
    """Deliver the events of all processes, and measure how many wait, meanwhile.

    By a worker for this one job that does not end, so that it takes the place of no other. Nothing
    is done where there is no delivery.
    """
    if delivery is None:
        yield
        return
    worker = Worker(
        db,
        jobs,
        {JOB: Kind(partial(deliver, outbox=outbox, delivery=delivery))},
        recurring={JOB: EVERY},
        lease=settings.lease,
        concurrency=1,
        listens=False,
        poll=settings.poll_interval,
        on_start=metrics.job_started,
        on_end=metrics.job_ended,
    )
    measuring = asyncio.create_task(measure(db, outbox, metrics.events_wait), name="measure events")
    try:
        async with running(worker):
            yield
    finally:
        measuring.cancel()


def _names(event: Event) -> tuple[str, str]:
    return event.message_id, event.event_type


async def measure(db: Database, outbox: Table, on_waiting: Callable[[int, float], None]) -> None:
    """Tell `on_waiting` how many events wait, and for how many seconds the oldest has; for ever.

    Every process does: who knows only what it delivered by itself would go on telling of what
    others have delivered since.
    """
    while True:
        try:
            async with db.read() as connection:
                on_waiting(*await events.waiting(connection, outbox))
        except TROUBLE as trouble:
            log.warning("Nobody knows how many events wait: %s", trouble)
        await asyncio.sleep(_MEASURE_S)
