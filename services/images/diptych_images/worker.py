"""The jobs of the images service: what they are called and what they do.

They run inside the API processes (`[jobs] with_worker`) or in `diptych-images worker`, in any
number of either: a job's lease decides who runs it. Every job may be run again from its start.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from diptych_common import events, jobs, sealing
from diptych_common.jobs import End, Job
from diptych_common.worker import JobContext, Kind, Worker
from diptych_store.errors import NotFound, StoreError
from diptych_store.protocol import Attempt, Store, Sweeps

from diptych_images import readers
from diptych_images.attempts import in_account, remove
from diptych_images.db import images, tasks
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.db.tables import outbox
from diptych_images.imports import run
from diptych_images.imports.equipment import Equipment

log = logging.getLogger(__name__)

# An attempt without a row can only come from a database that was restored to an earlier time, so
# there is no hurry, and a transfer of a day is possible.
_FORGOTTEN_AFTER = timedelta(days=2)
_SWEEP_EVERY = timedelta(hours=6)
_KEPT = timedelta(days=7)
_TASKS_AT_A_TIME = 1000


def make_worker(equipment: Equipment) -> Worker:
    """The worker that knows all jobs of this service; `run` it."""
    settings, db, stores = equipment.settings, equipment.db, equipment.stores
    metrics = equipment.metrics

    async def reap(job: Job, context: JobContext) -> None:
        """Undo attempts whose process has died: their bytes go.

        The image of an upload, or of what was being staged, is queued again; an import says itself
        what becomes of its image.
        """
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
                log.warning("Attempt %s could not be undone: %r", dead.attempt, failure)
            else:
                log.info("Attempt at image %s in store %s was undone", dead.image_id, dead.store)

    async def remove_bytes(job: Job, context: JobContext) -> None:
        """Remove an image's bytes where they are to go, then forget where they were.

        Those of a deleted image, and what was staged and is not needed any more.
        """
        image_id = job.payload["image_id"]
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
                        "Image %s: its bytes stay in store %s, which is read-only",
                        image_id,
                        store.name,
                    )
                    continue
                if not info.never_writes:
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
        """Forget jobs that ended a while ago, tasks too, and events that nobody fetched."""
        async with db.write() as connection:
            await jobs.purge(connection, jobs_table, older_than=_KEPT)
        async with db.write() as connection:
            await events.purge(connection, outbox, older_than=_KEPT)
        removed = _TASKS_AT_A_TIME
        while removed == _TASKS_AT_A_TIME:
            async with db.write() as connection:
                removed = await tasks.remove_expired(connection, at_most=_TASKS_AT_A_TIME)

    async def import_(job: Job, context: JobContext) -> None:
        await run.run(job, context, equipment)

    async def import_gave_up(job: Job, context: JobContext, end: End) -> None:
        await run.gave_up(job, context, end, equipment)

    kinds: Mapping[str, Kind] = {
        "reap": Kind(reap),
        "remove_bytes": Kind(remove_bytes),
        readers.JOB: Kind(set_readers),
        "sweep": Kind(sweep),
        "purge": Kind(purge),
        # Never all that this process can run at a time, where that is more than one: what is small
        # does not wait for hours behind imports.
        run.JOB: Kind(
            import_,
            gave_up=import_gave_up,
            at_a_time=max(1, settings.jobs.concurrency // 2),
        ),
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
