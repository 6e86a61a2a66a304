"""Bytes that nobody needs any more: a deleted image's, those of a copy that was taken out of its
store, and staged ones whose import is over.

They go by a job, never with the change that lets go of them: the store may be away.
"""

import logging
from contextlib import suppress

from diptych_common import jobs
from diptych_common.database import Connection, Database
from diptych_store.errors import NotFound, StoreError
from diptych_store.registry import Stores

from diptych_images.db import images
from diptych_images.db.tables import jobs as jobs_table

log = logging.getLogger(__name__)

JOB = "remove_bytes"


async def later(connection: Connection, image_id: str) -> None:
    """Have the bytes of the image's locations that are marked deleted removed, after the commit."""
    await jobs.enqueue(connection, jobs_table, JOB, {"image_id": image_id}, dedup_key=image_id)


async def apply(db: Database, stores: Stores, image_id: str) -> None:
    """Remove the bytes, then forget where they were; those in a read-only store stay.

    One store that fails does not keep the others' from being removed. Raises the first StoreError.
    """
    async with db.read() as connection:
        locations = await images.locations_to_remove(connection, image_id)
    failures: list[StoreError] = []
    for location in locations:
        try:
            # By the URL where the store was renamed meanwhile.
            store = stores.by_location(location["url"], {"store": location["store"]})
            info = stores.info[store.name]
            # What is somewhere on the web was never put there by this service.
            if info.read_only and not info.never_writes:
                log.warning(
                    "Image %s: its bytes stay in store %s, which is read-only", image_id, store.name
                )
                continue
            if not info.never_writes:
                with suppress(NotFound):  # an earlier run of this job may have got this far
                    await store.delete(location["url"])
        except StoreError as failure:
            failures.append(failure)
        else:
            async with db.write() as connection:
                await images.forget_location(connection, location["id"])
    if failures:
        raise failures[0]
