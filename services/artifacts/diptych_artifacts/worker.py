"""The jobs of the artifacts service: what they are called and what they do.

They run inside the API processes (`[jobs] with_worker`) or in `diptych-artifacts worker`, in any
number of either: a job's lease decides who runs it. Every job may be run again from its start.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from diptych_common import events, jobs
from diptych_common.database import Database
from diptych_common.jobs import Job
from diptych_common.metrics import Metrics
from diptych_common.worker import JobContext, Kind, Worker
from diptych_store.errors import StoreError
from diptych_store.protocol import Store, Sweeps
from diptych_store.registry import Stores

from diptych_artifacts import deletion, removal
from diptych_artifacts.attempts import in_account, remove
from diptych_artifacts.db import blobs
from diptych_artifacts.db.tables import jobs as jobs_table
from diptych_artifacts.db.tables import outbox
from diptych_artifacts.settings import ArtifactsSettings

log = logging.getLogger(__name__)

# An attempt without a row can only come from a database that was restored to an earlier time, so
# there is no hurry, and a transfer of a day is possible.
_FORGOTTEN_AFTER = timedelta(days=2)
_SWEEP_EVERY = timedelta(hours=6)
_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What jobs work with."""

    settings: ArtifactsSettings
    db: Database
    stores: Stores
    metrics: Metrics


def make_worker(equipment: Equipment) -> Worker:
    """The worker that knows all jobs of this service; `run` it."""
    settings, metrics = equipment.settings.jobs, equipment.metrics
    kinds: Mapping[str, Kind] = {
        deletion.JOB: Kind(partial(_scrub, equipment=equipment)),
        "reap": Kind(partial(_reap, equipment=equipment)),
        removal.JOB: Kind(partial(_remove_bytes, equipment=equipment)),
        "sweep": Kind(partial(_sweep, equipment=equipment)),
        "purge": Kind(partial(_purge, equipment=equipment)),
    }
    return Worker(
        equipment.db,
        jobs_table,
        kinds,
        recurring={
            deletion.JOB: timedelta(seconds=equipment.settings.scrubber.wakeup_time),
            "reap": timedelta(seconds=settings.reaper_interval),
            "sweep": _SWEEP_EVERY,
            "purge": _SWEEP_EVERY,
        },
        lease=settings.lease,
        concurrency=settings.concurrency,
        poll=settings.poll_interval,
        on_start=metrics.job_started,
        on_end=metrics.job_ended,
    )


async def _scrub(job: Job, context: JobContext, equipment: Equipment) -> None:
    await deletion.scrub_all(equipment.db, equipment.settings)


async def _reap(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Undo uploads whose process has died: the artifact is as it was before, then the bytes go."""
    db, lease_s = equipment.db, equipment.settings.jobs.lease
    # One at a time: what is taken has its whole lease to be removed in.
    while True:
        async with db.write() as connection:
            dead = await blobs.detach_expired(connection, lease_s=lease_s)
        if dead is None:
            return
        try:
            store = in_account(equipment.stores[dead.store], dead.owner)
            await remove(db, store, dead.id, published=True)
        except (StoreError, KeyError) as failure:
            # Its lease runs out again, and the next round tries again.
            log.warning("Upload %s could not be undone: %r", dead.id, failure)
        else:
            log.info("Upload %s into store %s was undone", dead.id, dead.store)


async def _remove_bytes(job: Job, context: JobContext, equipment: Equipment) -> None:
    await removal.apply(equipment.db, equipment.stores, job.payload["blobs"])


async def _sweep(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Remove attempts that no row knows of, and what jobs of removal have left."""
    failures: list[StoreError] = []
    for store in equipment.stores.every:
        if equipment.stores.info[store.name].read_only:
            continue
        try:
            await _sweep_store(store, equipment.db)
        except StoreError as failure:
            failures.append(failure)  # the other stores are swept all the same
    await removal.apply_to_all(equipment.db, equipment.stores)
    if failures:
        raise failures[0]


async def _sweep_store(store: Store, db: Database) -> None:
    if not isinstance(store, Sweeps):
        return
    async for attempt in store.attempts(older_than=_FORGOTTEN_AFTER):
        async with db.read() as connection:
            known = await blobs.knows(connection, attempt.token)
        if not known:
            await store.discard(attempt)
            log.warning("Attempt %s in store %s had no row", attempt.token, store.name)


async def _purge(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Forget jobs that ended a while ago, and events that nobody fetched."""
    async with equipment.db.write() as connection:
        await jobs.purge(connection, jobs_table, older_than=_KEPT)
    async with equipment.db.write() as connection:
        await events.purge(connection, outbox, older_than=_KEPT)
