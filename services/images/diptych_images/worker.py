"""The jobs of the images service: what they are called and what they do.

They run inside the API processes (`[jobs] with_worker`) or in `diptych-images worker`, in any
number of either: a job's lease decides who runs it. Every job may be run again from its start.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from diptych_common import events, jobs, sealing
from diptych_common.database import Database
from diptych_common.jobs import Job
from diptych_common.worker import JobContext, Kind, Worker
from diptych_store.errors import StoreError
from diptych_store.protocol import Attempt, Store, Sweeps

from diptych_images import deletion, readers, removal
from diptych_images.attempts import in_account, remove
from diptych_images.db import images, tasks
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.db.tables import outbox
from diptych_images.imports import location, run
from diptych_images.imports.equipment import Equipment

log = logging.getLogger(__name__)

# An attempt without a row can only come from a database that was restored to an earlier time, so
# there is no hurry, and a transfer of a day is possible.
_FORGOTTEN_AFTER = timedelta(days=2)
_SWEEP_EVERY = timedelta(hours=6)
_EXPIRE_EVERY = timedelta(minutes=15)
_KEPT = timedelta(days=7)
_TASKS_AT_A_TIME = 1000


def make_worker(equipment: Equipment) -> Worker:
    """The worker that knows all jobs of this service; `run` it."""
    settings, metrics = equipment.settings.jobs, equipment.metrics
    kinds: Mapping[str, Kind] = {
        "reap": Kind(partial(_reap, equipment=equipment)),
        removal.JOB: Kind(partial(_remove_bytes, equipment=equipment)),
        deletion.JOB: Kind(partial(_scrub_image, equipment=equipment)),
        "scrub": Kind(partial(_scrub, equipment=equipment)),
        "expire": Kind(partial(_expire, equipment=equipment)),
        readers.JOB: Kind(partial(_set_readers, equipment=equipment)),
        "sweep": Kind(partial(_sweep, equipment=equipment)),
        "purge": Kind(partial(_purge, equipment=equipment)),
        # Never all that this process can run at a time, where that is more than one: what is small
        # does not wait for hours behind imports.
        run.JOB: Kind(
            partial(run.run, equipment=equipment),
            gave_up=partial(run.gave_up, equipment=equipment),
            at_a_time=max(1, settings.concurrency // 2),
        ),
        location.JOB: Kind(
            partial(location.run, equipment=equipment),
            gave_up=partial(location.gave_up, equipment=equipment),
            at_a_time=max(1, settings.concurrency // 4),
        ),
    }
    return Worker(
        equipment.db,
        jobs_table,
        kinds,
        sealed=sealing.configured(settings),
        recurring={
            "reap": timedelta(seconds=settings.reaper_interval),
            "scrub": _SWEEP_EVERY,
            "expire": _EXPIRE_EVERY,
            "sweep": _SWEEP_EVERY,
            "purge": _SWEEP_EVERY,
        },
        lease=settings.lease,
        concurrency=settings.concurrency,
        poll=settings.poll_interval,
        on_start=metrics.job_started,
        on_end=metrics.job_ended,
    )


async def _reap(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Undo attempts whose process has died: their bytes go.

    The image of an upload, or of what was being staged, is queued again; an import says itself
    what becomes of its image.
    """
    db, lease_s = equipment.db, equipment.settings.jobs.lease
    # One at a time: what is taken has its whole lease to be removed in.
    while True:
        async with db.write() as connection:
            expired = await images.take_expired(connection, lease_s=lease_s, limit=1)
        if not expired:
            return
        (dead,) = expired
        try:
            attempt = Attempt(key=dead.key, token=dead.attempt)
            store = in_account(equipment.stores[dead.store], dead.project_id)
            await remove(db, store, attempt, published=not dead.released)
        except (StoreError, KeyError) as failure:
            # Its lease runs out again, and the next round tries again.
            log.warning("Attempt %s could not be undone: %r", dead.attempt, failure)
        else:
            log.info("Attempt at image %s in store %s was undone", dead.image_id, dead.store)


async def _remove_bytes(job: Job, context: JobContext, equipment: Equipment) -> None:
    await removal.apply(equipment.db, equipment.stores, job.payload["image_id"])


async def _scrub_image(job: Job, context: JobContext, equipment: Equipment) -> None:
    await deletion.scrub(equipment.db, job.payload["image_id"], equipment.settings)


async def _scrub(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Scrub what has no job of its own: from a Glance's database, or because it was cancelled."""
    await deletion.scrub_all(equipment.db, equipment.settings)


async def _expire(job: Job, context: JobContext, equipment: Equipment) -> None:
    await deletion.expire(equipment.db, equipment.settings)


async def _set_readers(job: Job, context: JobContext, equipment: Equipment) -> None:
    await readers.apply(equipment.db, equipment.stores, job.payload["image_id"])


async def _sweep(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Remove attempts that no row knows of."""
    failures: list[StoreError] = []
    for store in equipment.stores.every:
        if equipment.stores.info[store.name].read_only:
            continue
        try:
            await _sweep_store(store, equipment.db)
        except StoreError as failure:
            failures.append(failure)  # the other stores are swept all the same
    if failures:
        raise failures[0]


async def _sweep_store(store: Store, db: Database) -> None:
    if not isinstance(store, Sweeps):
        return
    async for attempt in store.attempts(older_than=_FORGOTTEN_AFTER):
        async with db.read() as connection:
            known = await images.knows_attempt(connection, attempt.token)
        if not known:
            await store.discard(attempt)
            log.warning("Attempt %s in store %s had no row", attempt.token, store.name)


async def _purge(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Forget jobs that ended a while ago, tasks too, and events that nobody fetched."""
    db = equipment.db
    async with db.write() as connection:
        await jobs.purge(connection, jobs_table, older_than=_KEPT)
    async with db.write() as connection:
        await events.purge(connection, outbox, older_than=_KEPT)
    removed = _TASKS_AT_A_TIME
    while removed == _TASKS_AT_A_TIME:
        async with db.write() as connection:
            removed = await tasks.remove_expired(connection, at_most=_TASKS_AT_A_TIME)
