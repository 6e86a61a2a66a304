"""How images are deleted: at once, after a while, or because nobody gave them data.

Of all of them the bytes go by the job of `removal.py`.
"""

import logging
from datetime import timedelta

from diptych_common import jobs
from diptych_common.database import Connection, Database

from diptych_images import removal
from diptych_images.db import deletion, images
from diptych_images.db.images import ImageRow
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.notifications import emit
from diptych_images.settings import ImagesSettings

log = logging.getLogger(__name__)

JOB = "scrub_image"

_AT_A_TIME = 100


async def delete(connection: Connection, row: ImageRow, settings: ImagesSettings) -> bool:
    """Delete the image, in a transaction that holds it; False if somebody else has.

    With `delayed_delete` one that has bytes is `pending_delete` for `scrub_time` seconds.
    """
    if settings.default.delayed_delete:
        delayed = await deletion.delay(connection, row)
        if delayed is not None:
            pending, has_bytes_to_remove = delayed
            await emit(connection, "image.delete", pending)
            if has_bytes_to_remove:
                await removal.later(connection, row["id"])
            await jobs.enqueue(
                connection,
                jobs_table,
                JOB,
                {"image_id": row["id"]},
                dedup_key=row["id"],
                run_after=_scrub_time(settings),
            )
            return True
    deleted = await images.mark_deleted(connection, row["id"])
    if deleted is None:
        return False
    await emit(connection, "image.delete", deleted)
    if deleted["locations"]:
        await removal.later(connection, row["id"])
    return True


async def restore(db: Database, image_id: str) -> ImageRow | None:
    """Bring back an image that is to be deleted, as it was; None if it is not `pending_delete`."""
    async with db.write() as connection:
        restored = await deletion.restore(connection, image_id)
        if restored is not None:
            await emit(connection, "image.update", restored)
            await jobs.cancel(connection, jobs_table, kind=JOB, dedup_key=restored["id"])
    return restored


async def scrub(db: Database, image_id: str, settings: ImagesSettings) -> bool:
    """Delete an image whose `scrub_time` is over for good; False if there is no such image.

    No event: consumers were told when it was deleted.
    """
    async with db.write() as connection:
        locations = await deletion.finish(connection, image_id, after=_scrub_time(settings))
        if locations:
            await removal.later(connection, image_id)
    return locations is not None


async def scrub_all(db: Database, settings: ImagesSettings) -> int:
    """`scrub` whatever is due, those too that no job is for; how many there were."""
    scrubbed = 0
    while True:
        async with db.read() as connection:
            due = await deletion.due(connection, after=_scrub_time(settings), at_most=_AT_A_TIME)
        if not due:
            return scrubbed
        for image_id in due:
            scrubbed += await scrub(db, image_id, settings)


async def expire(db: Database, settings: ImagesSettings) -> None:
    """Delete images that have been without data for `queued_time_to_live` hours."""
    hours = settings.default.queued_time_to_live
    if not hours:
        return
    expired = _AT_A_TIME
    while expired == _AT_A_TIME:
        async with db.write() as connection:
            left = await deletion.left_queued(
                connection, after=timedelta(hours=hours), at_most=_AT_A_TIME
            )
            for image_id in left:
                deleted = await images.mark_deleted(connection, image_id)
                if deleted is not None:
                    await emit(connection, "image.delete", deleted)
                    if deleted["locations"]:
                        await removal.later(connection, image_id)
        expired = len(left)
        if expired:
            log.info("%d images were left queued for %d hours and are deleted", expired, hours)


def _scrub_time(settings: ImagesSettings) -> timedelta:
    return timedelta(seconds=settings.default.scrub_time)
