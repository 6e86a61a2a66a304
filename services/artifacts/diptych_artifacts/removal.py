"""Bytes that nobody needs any more: of blobs that were replaced, and of artifacts that are gone.

They go by a job, never with the change that lets go of them: the store may be away.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from diptych_common import jobs
from diptych_common.database import Connection, Database
from diptych_store.errors import NotFound, StoreError
from diptych_store.registry import Stores

from diptych_artifacts.db import blobs
from diptych_artifacts.db.blobs import Removable
from diptych_artifacts.db.tables import jobs as jobs_table

log = logging.getLogger(__name__)

JOB: Final = "remove_bytes"


async def later(connection: Connection, blob_ids: Sequence[str]) -> None:
    """Have the bytes of blobs that are marked deleted removed, after the commit."""
    if blob_ids:
        await jobs.enqueue(connection, jobs_table, JOB, {"blobs": list(blob_ids)})


async def apply(db: Database, stores: Stores, blob_ids: Collection[str]) -> None:
    """Remove the bytes of those of the blobs that are marked deleted, then forget the blobs.

    Those in a read-only store stay, and are remembered. One store that fails does not keep the
    others' from being removed. Raises the first StoreError.
    """
    async with db.read() as connection:
        found = await blobs.removable(connection, blob_ids)
    _raise_first(await _remove(db, stores, found))


async def apply_to_all(db: Database, stores: Stores) -> None:
    """As `apply`, to all: those of jobs that were given up or cancelled."""
    failures: list[StoreError] = []
    after = None
    while True:
        async with db.read() as connection:
            found = await blobs.removable(connection, after=after)
        if not found:
            break
        failures += await _remove(db, stores, found)
        after = found[-1]["id"]
    _raise_first(failures)


async def _remove(db: Database, stores: Stores, found: Sequence[Removable]) -> list[StoreError]:
    failures: list[StoreError] = []
    for blob in found:
        try:
            is_gone = await _remove_bytes(stores, blob)
        except StoreError as failure:
            failures.append(failure)
        else:
            if is_gone:
                async with db.write() as connection:
                    await blobs.forget(connection, blob["id"])
    return failures


async def _remove_bytes(stores: Stores, blob: Removable) -> bool:
    """Whether nothing is left that this service has put anywhere."""
    if blob["store"] is None:
        return True
    # By the URL where the store was renamed meanwhile.
    store = stores.by_location(blob["url"], {"store": blob["store"]})
    info = stores.info[store.name]
    if info.never_writes:
        return True
    if info.read_only:
        log.warning(
            "Blob %s: its bytes stay in store %s, which is read-only", blob["id"], info.name
        )
        return False
    with suppress(NotFound):  # an earlier run of this job may have got this far
        await store.delete(blob["url"])
    return True


def _raise_first(failures: Sequence[StoreError]) -> None:
    if failures:
        raise failures[0]
