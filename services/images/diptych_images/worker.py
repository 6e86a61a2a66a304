"""The jobs of the images service: what they are called and what they do.

They run inside the API processes (`[jobs] with_worker`) or in `diptych-images worker`, in any
number of either: a job's lease decides who runs it. Every job may be run again from its start.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from diptych_common import events, jobs, sealing
from diptych_common.database import Database
from diptych_common.jobs import Job
from diptych_common.metrics import Metrics
from diptych_common.worker import JobContext, Kind, Worker
from diptych_store.errors import NotFound, StoreError
from diptych_store.protocol import Attempt, Store, Sweeps
from diptych_store.registry import Stores

from diptych_images import readers
from diptych_images.attempts import in_account, remove
from diptych_images.db import images
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.db.tables import outbox
from diptych_images.settings import ImagesSettings

log = logging.getLogger(__name__)

# An attempt without a row can only come from a database that was restored to an earlier time, so
# there is no hurry, and a transfer of a day is possible.
_FORGOTTEN_AFTER = timedelta(days=2)
_SWEEP_EVERY = timedelta(hours=6)
_KEPT = timedelta(days=7)


def make_worker(settings: ImagesSettings, db: Database, stores: Stores, metrics: Metrics) -> Worker:
    """The worker that knows all jobs of this service; `run` it."""

    async def reap(job: Job, context: JobContext) -> None:
        """Undo the uploads whose process has died: their bytes go and their images are queued."""
        # One at a time: what is taken has its whole lease to be removed in.
        while True:
            async with db.write() as connection:
                expired = await images.take_expired(
                    connection, lease_s=settings.jobs.lease, limit=1
                )
            if not expired:
                return
            (dead,) = expired
            try:
                attempt = Attempt(key=dead.key, token=dead.attempt)
                store = in_account(stores[dead.store], dead.project_id)
                await remove(db, store, attempt, published=not dead.released)
            except (StoreError, KeyError) as failure:
                # Its lease runs out again, and the next round tries again.
                log.warning("Upload %s could not be undone: %r", dead.attempt, failure)
            else:
                log.info("Upload of image %s in store %s was undone", dead.image_id, dead.store)

    async def remove_bytes(job: Job, context: JobContext) -> None:
        """Remove the bytes of a deleted image from all stores, then forget where they were."""
        image_id = job.payload["image_id"]
        async with db.read() as connection:
            locations = await images.locations_to_remove(connection, image_id)
        failures: list[StoreError] = []
        for location in locations:
            try:
                # By the URL where the store was renamed meanwhile.
                store = stores.by_location(location["url"], {"store": location["store"]})
                # What is somewhere on the web was never put there by this service.
                if not stores.info[store.name].never_writes:
                    with suppress(NotFound):  # an earlier run of this job may have got this far
                        await store.delete(location["url"])
            except StoreError as failure:
                failures.append(failure)  # the other stores' bytes go all the same
            else:
                async with db.write() as connection:
                    await images.forget_location(connection, location["id"])
        if failures:
            raise failures[0]

    async def set_readers(job: Job, context: JobContext) -> None:
        """Tell the backends who may read an image's bytes there."""
        await readers.apply(db, stores, job.payload["image_id"])

    async def sweep(job: Job, context: JobContext) -> None:
        """Remove attempts that no row knows of."""
        failures: list[StoreError] = []
        for store in stores.every:
            if stores.info[store.name].read_only:
                continue
            try:
                await sweep_store(store)
            except StoreError as failure:
                failures.append(failure)  # the other stores are swept all the same
        if failures:
            raise failures[0]

    async def sweep_store(store: Store) -> None:
        if not isinstance(store, Sweeps):
            return
        async for attempt in store.attempts(older_than=_FORGOTTEN_AFTER):
            async with db.read() as connection:
                known = await images.knows_attempt(connection, attempt.token)
            if not known:
                await store.discard(attempt)
                log.warning("Attempt %s in store %s had no row", attempt.token, store.name)

    async def purge(job: Job, context: JobContext) -> None:
        """Forget jobs that ended a while ago, and events that nobody fetched."""
        async with db.write() as connection:
            await jobs.purge(connection, jobs_table, older_than=_KEPT)
        async with db.write() as connection:
            await events.purge(connection, outbox, older_than=_KEPT)

    kinds: Mapping[str, Kind] = {
        "reap": Kind(reap),
        "remove_bytes": Kind(remove_bytes),
        readers.JOB: Kind(set_readers),
        "sweep": Kind(sweep),
        "purge": Kind(purge),
    }
    return Worker(
        db,
        jobs_table,
        kinds,
        sealed=sealing.configured(settings.jobs),
        recurring={
            "reap": timedelta(seconds=settings.jobs.reaper_interval),
            "sweep": _SWEEP_EVERY,
            "purge": _SWEEP_EVERY,
        },
        lease=settings.jobs.lease,
        concurrency=settings.jobs.concurrency,
        poll=settings.jobs.poll_interval,
        on_start=metrics.job_started,
        on_end=metrics.job_ended,
    )
