"""One attempt at giving an image its bytes, from the pending row to the last trace of a failure.

The row of an attempt is written before its bytes (`db.images.start_upload`) and holds a lease by
the database's clock. While this process lives it renews the lease; when the process dies, the
reaper (`worker.py`) finds the lease expired, removes the bytes and queues the image again. Both
sides go through the store's fence: an attempt that was discarded can no longer be published.
"""

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from diptych_common.database import Database
from diptych_common.errors import Gone, ServiceUnavailable
from diptych_store.errors import AlreadyThere, StoreError
from diptych_store.protocol import ActsForUsers, Attempt, Store

from diptych_images.db import images

log = logging.getLogger(__name__)
T = TypeVar("T")


def in_account(store: Store, project_id: str | None, *, token: str | None = None) -> Store:
    """The store acting in this project's account; the store itself where all objects are in one.

    Without a token of a user it acts there with the service's own credentials.
    """
    if isinstance(store, ActsForUsers) and project_id is not None:
        return store.acting_for(project_id, token=token)
    return store


async def undo(
    db: Database, store: Store, attempt: Attempt, *, published: bool, lease_s: float
) -> None:
    """Remove an attempt's bytes, then its row, and queue its image again.

    With `published`, the object that it may have published goes too. Does nothing to the row and
    the object if somebody else took the attempt over; they finish it. Raises StoreError and
    ServiceUnavailable; the reaper then tries again when the lease is over. The image does not wait
    for a store that is away, unless it may hold the attempt's object.
    """
    async with db.write() as connection:
        lease_until = await images.take_attempt(connection, attempt.token, lease_s=lease_s)
    if lease_until is None:
        await store.discard(attempt)
        return
    try:
        await remove(db, store, attempt, published=published)
    except StoreError:
        if not published:
            async with db.write() as connection:
                await images.release_attempt(connection, attempt.token, lease_until=lease_until)
        raise


async def remove(db: Database, store: Store, attempt: Attempt, *, published: bool) -> None:
    """As `undo`, for an attempt whose row the caller has taken already."""
    await store.discard(attempt, published=published)
    async with db.write() as connection:
        await images.drop_attempt(connection, attempt.token)


class Held:
    """An attempt while this process works on it; leaving the context with an error undoes it.

    The image is in `saving` and the attempt's row is pending when the context is entered. On a
    clean exit nothing is done: the caller has finished the upload by then. On any error,
    cancellation included, the bytes are removed and the image is queued again, unless it was
    deleted or somebody else took the attempt over.
    """

    def __init__(self, db: Database, store: Store, attempt: Attempt, *, lease_s: float) -> None:
        self._db = db
        self._store = store
        self._attempt = attempt
        self._lease_s = lease_s
        self._published = False

    async def __aenter__(self) -> Self:
        return self

    async def while_held(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, renewing the lease; Gone, and the work cancelled, once it is lost."""
        working = asyncio.create_task(work)
        renewing = asyncio.create_task(self._renew_until_lost())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise self._lost()
            return working.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def publish(self) -> str:
        """Make the bytes the object of the image, if the attempt is still ours; its location."""
        if not await self._renew():
            raise self._lost()
        self._published = True
        try:
            return await self.while_held(self._store.publish(self._attempt))
        except AlreadyThere:
            self._published = False  # somebody else's object: not ours to remove
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        # A client that is gone or a server that stops cancels this request; what was begun is
        # undone all the same.
        undoing = asyncio.create_task(self._undo())
        try:
            await asyncio.shield(undoing)
        except asyncio.CancelledError:
            await undoing
            raise

    async def _undo(self) -> None:
        try:
            await undo(
                self._db,
                self._store,
                self._attempt,
                published=self._published,
                lease_s=self._lease_s,
            )
        except (StoreError, ServiceUnavailable) as failure:
            # The row keeps its lease and the reaper does the rest when the lease is over.
            log.warning("Attempt %s is left to the reaper: %s", self._attempt.token, failure)

    async def _renew(self) -> bool:
        async with self._db.write() as connection:
            return await images.renew(connection, self._attempt.token, lease_s=self._lease_s)

    async def _renew_until_lost(self) -> None:
        pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            try:
                # A server that falls silent must leave time for another try on another connection.
                async with asyncio.timeout(self._lease_s / 6):
                    is_held = await self._renew()
            except (ServiceUnavailable, TimeoutError) as failure:
                # Whether the attempt survives this is decided by the next renewal that answers.
                log.warning("Lease of attempt %s not renewed: %r", self._attempt.token, failure)
                pause_s = self._lease_s / 20
            else:
                if not is_held:
                    return
                pause_s = self._lease_s / 3

    def _lost(self) -> Gone:
        return Gone(f"Image {self._attempt.key} was deleted or taken over while data was written.")
