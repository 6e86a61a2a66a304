"""The job that takes the digests of what is at a location, beside the image's life.

An image whose client told the digest waits for it in `importing`, held by the task; any other is
active meanwhile and gets its digests when they are known. Any worker may run the job again.
"""

import logging
from datetime import timedelta
from functools import partial
from typing import Final

from diptych_common.database import Connection
from diptych_common.jobs import End, GiveUp, Job, TryAgain
from diptych_common.logs import request_id
from diptych_common.worker import JobContext
from diptych_store.digests import Digests, Hash
from diptych_store.errors import NotFound, StoreError, Unreachable
from diptych_store.protocol import Block

from diptych_images import readers
from diptych_images.db import locations, tasks
from diptych_images.db.images import LocationRow
from diptych_images.imports.equipment import Equipment
from diptych_images.notifications import emit, emit_task
from diptych_images.settings import ImagesSettings
from diptych_images.wire.locations import LocationJob

log = logging.getLogger(__name__)

JOB: Final = "location_import"

_GONE: Final = "The image was deleted, or does not have the location any more."
_FAILED: Final = "The service failed; try again."


async def run(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Read what is at the location, compare, and write down what it is."""
    order = LocationJob.read(job.payload)
    request_id.set(order.request_id)
    async with context.write() as connection:
        location = await locations.find(connection, order.image_id, order.location_id)
        if location is None:
            raise GiveUp(_GONE)
        task = await tasks.change(connection, order.task_id, status="processing")
        if task is not None and job.attempts == 1:
            await emit_task(connection, "task.processing", task)
    try:
        checksum, value = await _digests(location, order, equipment)
    except Unreachable as failure:
        if job.max_attempts is not None and job.attempts >= job.max_attempts:
            raise GiveUp("The location did not answer.") from failure
        raise TryAgain("The location did not answer.") from failure
    except NotFound as failure:
        raise GiveUp("There is nothing at the location.") from failure
    except StoreError as failure:
        raise GiveUp("The location cannot be read.") from failure
    if order.expected is not None and order.expected != value:
        raise GiveUp(f"What is at the location does not have the {order.algorithm} digest told.")
    async with context.write() as connection:
        await _finish(connection, order, checksum, value, equipment)


async def _digests(
    location: LocationRow, order: LocationJob, equipment: Equipment
) -> tuple[str, str]:
    """The MD5 and the digest of the location's bytes, in threads beside the reading."""
    hashes = Digests(("md5", order.algorithm)).begin()
    store = equipment.stores.by_location(location["url"], {"store": location["store"]})
    async with store.open(location["url"]) as reading:
        if reading.size != order.size:
            raise GiveUp("What is at the location has changed since it was registered.")
        async for block in reading.blocks:
            await equipment.blocks.threads.run(partial(_update, hashes), block)
    return hashes["md5"].hexdigest(), hashes[order.algorithm].hexdigest()


def _update(hashes: dict[str, Hash], block: Block) -> None:
    for one in hashes.values():
        one.update(block)


async def _finish(
    connection: Connection, order: LocationJob, checksum: str, value: str, equipment: Equipment
) -> None:
    if order.expected is None:
        row = await locations.hashed(
            connection,
            order.image_id,
            location_id=order.location_id,
            checksum=checksum,
            os_hash_value=value,
        )
    else:
        row = await locations.finish(
            connection,
            order.image_id,
            task_id=order.task_id,
            digests={"checksum": checksum, "os_hash_value": value},
        )
    if row is None:
        raise GiveUp(_GONE)
    await emit(connection, "image.update", row)
    if order.expected is not None:
        await emit(connection, "image.activate", row)
        await readers.changed(connection, equipment.stores, row)
    task = await tasks.change(
        connection,
        order.task_id,
        status="success",
        message="",
        result={"image_id": order.image_id},
        kept_for=kept_for(equipment.settings),
    )
    if task is not None:
        await emit_task(connection, "task.success", task)


async def gave_up(job: Job, context: JobContext, end: End, equipment: Equipment) -> None:
    """Queue the image again if it waited for the digest, and tell why.

    One that is active stays so, and without a digest.
    """
    order = LocationJob.read(job.payload)
    request_id.set(order.request_id)
    reason = _reason(end)
    async with context.write() as connection:
        if order.expected is not None:
            row = await locations.give_up(
                connection,
                order.image_id,
                task_id=order.task_id,
                message=reason,
                os_hash_algo=order.os_hash_algo,
            )
            if row is not None:
                await emit(connection, "image.update", row)
        task = await tasks.change(
            connection,
            order.task_id,
            status="failure",
            message=reason,
            kept_for=kept_for(equipment.settings),
        )
        if task is not None:
            await emit_task(connection, "task.failure", task)


def _reason(end: End) -> str:
    match end.why:
        case "refused":
            return end.error
        case "cancelled":
            return "It was cancelled."
        case "died" | "failed":
            return _FAILED


def kept_for(settings: ImagesSettings) -> timedelta:
    """How long a task is shown after its end."""
    return timedelta(hours=settings.task.task_time_to_live)
