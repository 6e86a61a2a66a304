"""One attempt at giving an image its bytes, from the pending row to the last trace of a failure.

The row of an attempt is written before its bytes (`db.images.start_upload`) and holds a lease by
the database's clock. While this process lives it renews the lease; when the process dies, the
reaper (`worker.py`) finds the lease expired, removes the bytes and queues the image again. Both
sides go through the store's fence: an attempt that was discarded can no longer be published.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from diptych_common.database import Connection, Database
from diptych_common.errors import Gone, ServiceUnavailable
from diptych_store.errors import AlreadyThere, StoreError
from diptych_store.ingest import Target
from diptych_store.protocol import ActsForUsers, Annotates, Attempt, Store
from diptych_store.tasks import finished, unless

from diptych_images.db import images
from diptych_images.db.images import LeftAttempt
from diptych_images.notifications import emit

log = logging.getLogger(__name__)
T = TypeVar("T")


def in_account(store: Store, project_id: str | None, *, token: str | None = None) -> Store:
    """The store acting in this project's account; the store itself where all objects are in one.

    Without a token of a user it acts there with the service's own credentials.
    """
    if isinstance(store, ActsForUsers) and project_id is not None:
        return store.acting_for(project_id, token=token)
    return store


def told_beside(location: str, store: Store, *, is_multiple: bool) -> dict[str, object]:
    """What a location's document says of it besides, as far as Glance's clients expect it.

    `is_multiple` is whether the deployment has several stores, that is, names for them.
    """
    told: dict[str, object] = {}
    if isinstance(store, Annotates):
        told.update(store.annotations(location))
    if is_multiple:
        told["store"] = store.name
    return told


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
                left = await images.release_attempt(
                    connection, attempt.token, lease_until=lease_until
                )
                await _tell(connection, left)
        raise


async def remove(db: Database, store: Store, attempt: Attempt, *, published: bool) -> None:
    """As `undo`, for an attempt whose row the caller has taken already."""
    await store.discard(attempt, published=published)
    async with db.write() as connection:
        await _tell(connection, await images.drop_attempt(connection, attempt.token))


async def _tell(connection: Connection, left: LeftAttempt | None) -> None:
    if left is not None and left.image is not None:
        await emit(connection, "image.update", left.image)


class HeldTogether:
    """Attempts while this process works on them; leaving the context with an error undoes them.

    Their rows are pending when they are added; the leases are renewed by one statement. On a clean
    exit nothing is done. On any error, cancellation included, the bytes of all that did not land
    are removed and then their rows, unless somebody else took them over.
    """

    def __init__(self, db: Database, *, lease_s: float) -> None:
        self._db = db
        self._lease_s = lease_s
        self._targets: list[Target] = []
        self._published: set[Target] = set()
        # What somebody else must not take.
        self._renewed: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    def add(self, target: Target) -> None:
        """Hold an attempt too."""
        self._targets.append(target)
        self._renewed.add(target.attempt.token)

    def landed(self, target: Target) -> None:
        """Hold the attempt no longer: what it wrote is the image's by now."""
        self._targets.remove(target)
        self._renewed.discard(target.attempt.token)

    async def undo(self, target: Target) -> None:
        """Remove what the attempt wrote, and its row; what cannot be is left to the reaper."""
        self.landed(target)
        await finished(self._undo(target))

    async def while_held(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, renewing the leases; Gone, and the work cancelled, once one is lost."""
        return await unless(work, self._renew_until_lost())

    async def publish(self, target: Target) -> str:
        """Make the bytes the object of the attempt, if it is still ours; the object's location.

        For work that runs in `while_held`. The lease is not renewed after this: most of it is left
        for what comes next, the transaction in which the attempt lands.
        """
        if not await self._renew({target.attempt.token}):
            raise _lost(target.attempt)
        self._published.add(target)
        try:
            location = await target.store.publish(target.attempt)
        except AlreadyThere:
            self._published.discard(target)  # somebody else's object: not ours to remove
            raise
        self._renewed.discard(target.attempt.token)
        return location

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
        await finished(self._undo_all())

    async def _undo_all(self) -> None:
        await asyncio.gather(*(self._undo(target) for target in self._targets))

    async def _undo(self, target: Target) -> None:
        try:
            await undo(
                self._db,
                target.store,
                target.attempt,
                published=target in self._published,
                lease_s=self._lease_s,
            )
        except (StoreError, ServiceUnavailable) as failure:
            # The row keeps its lease and the reaper does the rest when the lease is over.
            log.warning("Attempt %s is left to the reaper: %s", target.attempt.token, failure)

    async def _renew(self, tokens: Collection[str]) -> set[str]:
        async with self._db.write() as connection:
            return await images.renew(connection, tokens, lease_s=self._lease_s)

    async def _renew_until_lost(self) -> Gone:
        pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            tokens = set(self._renewed)
            if not tokens:
                continue
            try:
                # A server that falls silent must leave time for another try on another connection.
                async with asyncio.timeout(self._lease_s / 6):
                    held = await self._renew(tokens)
            except (ServiceUnavailable, TimeoutError) as failure:
                # Whether the attempts survive this is decided by the next renewal that answers.
                log.warning("Leases of attempts %s not renewed: %r", tokens, failure)
                pause_s = self._lease_s / 20
                continue
            for target in self._targets:
                # One that was published or undone meanwhile is not asked for any more.
                token = target.attempt.token
                if token in tokens - held and token in self._renewed:
                    return _lost(target.attempt)
            pause_s = self._lease_s / 3


class Held:
    """An attempt at uploading or staging while this process works on it.

    As HeldTogether, with one attempt, whose row is pending when the context is entered: on any
    error the bytes are removed and the image is queued again, unless it was deleted.
    """

    def __init__(self, db: Database, store: Store, attempt: Attempt, *, lease_s: float) -> None:
        self.target = Target(store, attempt)
        self._held = HeldTogether(db, lease_s=lease_s)
        self._held.add(self.target)

    async def __aenter__(self) -> Self:
        return self

    async def while_held(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, renewing the lease; Gone, and the work cancelled, once it is lost."""
        return await self._held.while_held(work)

    async def publish(self) -> str:
        """Make the bytes the object of the attempt, if it is still ours; its location."""
        return await self._held.while_held(self._held.publish(self.target))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._held.__aexit__(kind, error, traceback)


def _lost(attempt: Attempt) -> Gone:
    # A staged object is named by more than the image's id.
    image_id = attempt.key.removesuffix(f"-{attempt.token}")
    return Gone(f"Image {image_id} was deleted or taken over while data was written.")
