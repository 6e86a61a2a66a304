"""Uploads, from the row that is `saving` to the last trace of a failure.

The row is written before the bytes (`db.blobs.start`) and holds a lease by the database's clock.
While this process lives it renews the lease; when the process dies, the reaper (`worker.py`) finds
the lease expired and removes the bytes. Both go through the store's fence: an attempt that was
discarded can no longer be published. The blob's id is the object's key and the attempt's token, so
no attempt has a place in common with another one.
"""

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from diptych_common.database import Database
from diptych_common.errors import ServiceUnavailable
from diptych_store.errors import StoreError
from diptych_store.protocol import ActsForUsers, Attempt, Store
from diptych_store.tasks import finished, unless

from diptych_artifacts.db import blobs
from diptych_artifacts.db.blobs import UploadLost

log = logging.getLogger(__name__)
T = TypeVar("T")


def in_account(store: Store, project_id: str, *, token: str | None = None) -> Store:
    """The store acting in this project's account; the store itself where all objects are in one.

    Without a token of a user it acts there with the service's own credentials.
    """
    return store.acting_for(project_id, token=token) if isinstance(store, ActsForUsers) else store


def attempt_at(blob_id: str) -> Attempt:
    """The attempt at writing a blob."""
    return Attempt(key=blob_id, token=blob_id)


async def remove(db: Database, store: Store, blob_id: str, *, published: bool) -> None:
    """Remove what a detached upload has left, then its row. Raises StoreError."""
    await store.discard(attempt_at(blob_id), published=published)
    async with db.write() as connection:
        await blobs.forget(connection, blob_id)


class Held:
    """Uploads of one request while this process works on them; leaving with an error undoes them.

    Their rows are `saving` when they are added; on a clean exit nothing is done. On any error,
    cancellation included, they are detached, so that the artifact is as it was before, then their
    bytes go. What a store that is away keeps of them is left to the reaper.
    """

    def __init__(self, db: Database, *, lease_s: float) -> None:
        self._db = db
        self._lease_s = lease_s
        self._stores: dict[str, Store] = {}
        self._published: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    def add(self, store: Store, blob_id: str) -> Attempt:
        """Hold the upload of a blob too; the attempt at it."""
        self._stores[blob_id] = store
        return attempt_at(blob_id)

    async def while_held(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, renewing the leases; UploadLost, and it is cancelled, once one is lost."""
        return await unless(work, self._renew_until_lost())

    async def publish(self, blob_id: str) -> str:
        """Make the bytes the blob's object, if all uploads are still ours; its location.

        For work that runs in `while_held`.
        """
        await self._renew()
        self._published.add(blob_id)
        return await self._stores[blob_id].publish(attempt_at(blob_id))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        # A client that is gone or a server that stops cancels this; what was begun is undone all
        # the same.
        await finished(self._undo())

    async def _undo(self) -> None:
        try:
            async with self._db.write() as connection:
                ours = await blobs.detach(connection, self._stores, lease_s=self._lease_s)
        except ServiceUnavailable as failure:
            # The rows keep their leases and the reaper does the rest when these are over.
            log.warning("Uploads %s are left to the reaper: %s", [*self._stores], failure)
            return
        for blob_id, store in self._stores.items():
            try:
                if blob_id in ours:
                    published = blob_id in self._published
                    await remove(self._db, store, blob_id, published=published)
                else:
                    await store.discard(attempt_at(blob_id))
            except (StoreError, ServiceUnavailable) as failure:
                log.warning("Upload %s is left to the reaper: %s", blob_id, failure)

    async def _renew(self) -> None:
        async with self._db.write() as connection:
            await blobs.renew(connection, self._stores, lease_s=self._lease_s)

    async def _renew_until_lost(self) -> UploadLost:
        pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            try:
                # A server that falls silent must leave time for another try on another connection.
                async with asyncio.timeout(self._lease_s / 6):
                    await self._renew()
            except UploadLost as error:
                return error
            except (ServiceUnavailable, TimeoutError) as failure:
                # Whether the uploads survive this is decided by the next renewal that answers.
                log.warning("Leases of uploads %s not renewed: %r", [*self._stores], failure)
                pause_s = self._lease_s / 20
                continue
            pause_s = self._lease_s / 3
