"""Bytes on their way into the stores that an import is for.

A store has an attempt of its own, written down before its bytes, and lands by itself: from then on
it has the bytes whatever becomes of the others. What is said here about a store that failed is for
users; what the store itself said is in the log.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import uuid4

from diptych_common.database import Database
from diptych_common.errors import TooLarge
from diptych_common.jobs import GiveUp
from diptych_store.digests import Digests
from diptych_store.errors import (
    AlreadyThere,
    BadLocation,
    Full,
    NotFound,
    ReadDenied,
    SizeLimitExceeded,
    SizeMismatch,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.ingest import Observer, Target, ingest_into_all
from diptych_store.protocol import Attempt, Block, Copies, Store
from diptych_store.registry import Stores
from diptych_store.tasks import gathered

from diptych_images import readers
from diptych_images.attempts import HeldTogether, in_account, remove, told_beside
from diptych_images.db import imports
from diptych_images.db.imports import Bytes, Disagrees, Left
from diptych_images.imports.equipment import ImageGone, Import
from diptych_images.imports.sources import Source, SourceFailed
from diptych_images.notifications import emit, emit_failure
from diptych_images.quotas import Quota, Room

log = logging.getLogger(__name__)

# Copies and landings at a time; each is mostly waiting for its store.
_AT_A_TIME: Final = 4
# Between two looks at whether somebody else's attempt is gone.
_LOOK_AGAIN_S: Final = 0.3

Failures = dict[str, StoreError]
"""By the names of stores, why they do not have the bytes."""


class OriginGone(SourceFailed):
    """An object that the bytes were to come from is not there, or is not what it was."""


@dataclass(frozen=True, slots=True)
class Origin:
    """An object that the bytes are in; `temporary` if nobody will read it after this import.

    `place` is what users know it by.
    """

    store: Store
    url: str
    place: str
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """Bytes that may become the image's.

    `becomes` are columns that the image gets when it is active, of `properties` those that change.
    """

    bytes: Bytes
    becomes: Mapping[str, object] = field(default_factory=dict[str, object])


Accept = Callable[[int, Mapping[str, str]], Accepted]
"""Judges what passed by its size and its digests; raises GiveUp and SourceFailed."""


def lasts(failure: StoreError) -> bool:
    """Whether trying again soon would not help."""
    return isinstance(failure, (Full, WriteDenied, BadLocation, AlreadyThere))


def in_words(failure: StoreError) -> str:
    """What users are told of a failure; a store's own words may tell of what is behind it."""
    match failure:
        case Full():
            return "no space left"
        case WriteDenied():
            return "it cannot be written to"
        case AlreadyThere():
            return "something else is in the image's place"
        case Unreachable():
            return "it did not answer"
        case _:
            return "it failed"


def too_large(limit: int | None) -> str:
    """What users are told of data beyond the limit."""
    return f"The data has more than {limit} bytes, the most that an image can have."


async def clear(run: Import, names: Collection[str]) -> Failures:
    """Remove what earlier runs of this import, or imports before it, left in these stores.

    What somebody else is removing already is waited for, as long as a lease lasts.
    """
    db, lease_s = run.equipment.db, run.equipment.settings.jobs.lease
    deadline = time.monotonic() + lease_s
    failures: Failures = {}
    while True:
        async with run.context.write() as connection:
            left = await imports.leave_attempts(
                connection, run.order.image_id, task_id=run.order.task_id, lease_s=lease_s
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(lease_s):
                failures |= await discard(db, run.equipment.stores, left)
        async with db.read() as connection:
            busy = await imports.busy_stores(connection, run.order.image_id) & {*names}
        if busy <= failures.keys():
            break
        if time.monotonic() > deadline:
            failures |= {name: Unreachable(f"Store {name} is being cleared.") for name in busy}
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    return {name: failure for name, failure in failures.items() if name in busy}


async def discard(db: Database, stores: Stores, left: Sequence[Left]) -> Failures:
    """Remove attempts that were taken, published or not; the reaper removes what fails."""

    async def one(left: Left) -> None:
        attempt = Attempt(key=left.key, token=left.attempt)
        try:
            store = in_account(stores[left.store], left.project_id)
            await remove(db, store, attempt, published=True)
        except KeyError:
            failures[left.store] = _unknown(left.store)
        except StoreError as failure:
            failures[left.store] = failure
            log.warning("Attempt %s is left to the reaper: %s", left.attempt, failure)

    failures: Failures = {}
    await gathered(_AT_A_TIME, [partial(one, attempt) for attempt in left])
    return failures


async def from_object(
    run: Import,
    names: Collection[str],
    origin: Origin,
    *,
    known: Accepted | None,
    accept: Accept,
    digests: Digests,
) -> Failures:
    """Put an object into stores: by their backends where these can, and from one read.

    If it is not `known` what the bytes are, they are read, and `accept` judges. Raises GiveUp,
    SourceFailed and ImageGone; what has landed stays.
    """
    quota = await run.equipment.quotas.of(run.image["owner"])
    async with _held(run) as held:

        async def one(target: Target, known: Accepted) -> bool:
            """Have the backend copy; whether the bytes have to be read for it."""
            try:
                size = await _copied(target, origin)
                if size is None:
                    return True
                if size != known.bytes.size:
                    raise OriginGone("The data has another size than it had.")
                await _land(run, held, target, known)
            except StoreError as failure:
                await _fail(run, held, target, failure, failures)
            return False

        async def work() -> None:
            targets = await _begun(run, held, names, failures)
            room = _room(run, quota, targets)
            if targets and known is not None:
                await _cover(room, known.bytes.size)
                calls = [partial(one, target, known) for target in targets]
                has_to_read = await gathered(_AT_A_TIME, calls)
                targets = [
                    target for target, has_to in zip(targets, has_to_read, strict=True) if has_to
                ]
            if targets:
                async with opened(origin) as source:
                    await _from_stream(
                        run,
                        held,
                        targets,
                        source,
                        failures,
                        room=room,
                        accept=accept,
                        digests=digests,
                    )

        failures: Failures = {}
        await held.while_held(work())
    return failures


async def from_stream(
    run: Import,
    names: Collection[str],
    source: Source,
    *,
    accept: Accept,
    digests: Digests,
    observers: Sequence[Observer],
    limit: int,
) -> Failures:
    """Put what a source gives into stores, read once; raises as `from_object`."""
    quota = await run.equipment.quotas.of(run.image["owner"])
    async with _held(run) as held:

        async def work() -> None:
            targets = await _begun(run, held, names, failures)
            if targets:
                await _from_stream(
                    run,
                    held,
                    targets,
                    source,
                    failures,
                    room=_room(run, quota, targets),
                    accept=accept,
                    digests=digests,
                    observers=observers,
                    limit=limit,
                )

        failures: Failures = {}
        await held.while_held(work())
    return failures


@asynccontextmanager
async def opened(origin: Origin) -> AsyncGenerator[Source]:
    """Read the object; its errors are those of a source."""
    async with AsyncExitStack() as stack:
        try:
            reading = await stack.enter_async_context(origin.store.open(origin.url))
        except (NotFound, BadLocation, ReadDenied) as failure:
            raise _gone(origin, failure) from failure
        except Unreachable as failure:
            log.warning("%s", failure)
            raise SourceFailed(f"{origin.place} did not answer.") from failure
        blocks = await stack.enter_async_context(aclosing(_blocks(reading.blocks)))
        yield Source(reading.size, blocks)


async def _blocks(blocks: AsyncIterator[Block]) -> AsyncGenerator[bytes]:
    try:
        async for block in blocks:
            yield block if isinstance(block, bytes) else bytes(block)
    except StoreError as failure:
        log.warning("%s", failure)
        raise SourceFailed("The data could not be read to its end.") from failure


def _held(run: Import) -> HeldTogether:
    return HeldTogether(run.equipment.db, lease_s=run.equipment.settings.jobs.lease)


async def _begun(
    run: Import, held: HeldTogether, names: Collection[str], failures: Failures
) -> list[Target]:
    """Attempts at the stores, held; a store where none can be begun is among the failures."""
    targets: list[Target] = []
    for name in names:
        if name not in run.equipment.stores:
            failures[name] = _unknown(name)
            continue
        store = in_account(run.equipment.stores[name], run.order.project_id)
        target = Target(store, Attempt(key=run.order.image_id, token=str(uuid4())))
        async with run.context.write() as connection:
            has_begun = await imports.start_attempt(
                connection,
                run.order.image_id,
                task_id=run.order.task_id,
                store=name,
                attempt=target.attempt.token,
                lease_s=run.equipment.settings.jobs.lease,
                project_id=run.order.project_id,
            )
            if has_begun is None:
                raise ImageGone
            if has_begun:
                await emit(connection, "image.prepare", run.image, store=name)
        if has_begun:
            held.add(target)
            targets.append(target)
        else:
            failures[name] = Unreachable(f"Store {name} is being cleared.")
    return targets


def _room(run: Import, quota: Quota, targets: Sequence[Target]) -> Room:
    return Room(run.equipment.db, quota, "size", [target.attempt.token for target in targets])


async def _cover(room: Room, size: int) -> None:
    try:
        await room.cover(size)
    except TooLarge as error:
        raise GiveUp(error.message) from error


async def _copied(target: Target, origin: Origin) -> int | None:
    """The number of bytes that the target's backend copied by itself; None if it cannot."""
    if not isinstance(target.store, Copies):
        return None
    try:
        return await target.store.copy(
            target.attempt, origin.store, origin.url, temporary=origin.temporary
        )
    except (NotFound, ReadDenied) as failure:
        raise _gone(origin, failure) from failure


async def _from_stream(
    run: Import,
    held: HeldTogether,
    targets: Sequence[Target],
    source: Source,
    failures: Failures,
    *,
    room: Room,
    accept: Accept,
    digests: Digests,
    observers: Sequence[Observer] = (),
    limit: int | None = None,
) -> None:
    if limit is not None and source.size is not None and source.size > limit:
        raise GiveUp(too_large(limit))
    await _cover(room, source.size or 0)
    run.progress.done, run.progress.total = 0, source.size
    metrics = run.equipment.metrics
    try:
        with metrics.transferring("in"):
            async with (
                aclosing(run.progress.counted(source.blocks)) as counted,
                aclosing(room.before(counted)) as blocks,
            ):
                passed = await ingest_into_all(
                    blocks,
                    targets,
                    size=source.size,
                    limit=limit,
                    digests=digests,
                    observers=observers,
                    pool=run.equipment.blocks,
                )
    except SizeLimitExceeded as error:
        raise GiveUp(too_large(limit)) from error
    except TooLarge as error:
        raise GiveUp(error.message) from error
    except SizeMismatch as error:
        raise SourceFailed("The data ended before its announced end, or after it.") from error
    except StoreError as failure:
        # Of all the targets the first that failed; the source's errors are no StoreErrors.
        for target in targets:
            await _fail(run, held, target, failure, failures)
        return
    accepted = accept(passed.size, passed.digests)

    async def one(target: Target) -> None:
        failure = passed.failed.get(target)
        if failure is None:
            metrics.store_bytes.labels(target.store.name, "in").inc(passed.size)
            try:
                await _land(run, held, target, accepted)
            except StoreError as error:
                failure = error
        if failure is not None:
            await _fail(run, held, target, failure, failures)

    await gathered(_AT_A_TIME, [partial(one, target) for target in targets])


async def _land(run: Import, held: HeldTogether, target: Target, accepted: Accepted) -> None:
    """Publish what the attempt has, and make it a location of the image."""
    store, order = target.store, run.order
    location = await held.publish(target)
    async with run.context.write() as connection:
        try:
            landed = await imports.land(
                connection,
                order.image_id,
                task_id=order.task_id,
                attempt=target.attempt.token,
                url=location,
                metadata=told_beside(location, store, is_multiple=run.equipment.stores.is_multiple),
                found=accepted.bytes,
                becomes=accepted.becomes,
                activate=not order.request.all_stores_must_succeed,
            )
        except Disagrees as error:
            log.warning("Image %s: %s", order.image_id, error)
            raise GiveUp(
                "The data is not what it was when other stores of this import got it."
            ) from error
        if landed is None:
            raise ImageGone
        row, is_activated = landed
        await emit(connection, "image.upload", row, store=store.name)
        if is_activated:
            await emit(connection, "image.activate", row)
        await readers.changed(connection, run.equipment.stores, row)
    held.landed(target)
    run.landed.add(store.name)


async def _fail(
    run: Import, held: HeldTogether, target: Target, failure: StoreError, failures: Failures
) -> None:
    image_id, store = run.order.image_id, target.store.name
    log.warning("Image %s in store %s: %s", image_id, store, failure)
    failures[store] = failure
    await held.undo(target)
    words = f"The data of image {image_id} could not be stored in {store}: {failure}"
    await emit_failure(run.equipment.db, words)


def _gone(origin: Origin, failure: StoreError) -> OriginGone:
    log.error("%s", failure)
    return OriginGone(f"The data is not there any more: {origin.place} does not have it.")


def _unknown(name: str) -> StoreError:
    return WriteDenied(f"Store {name} is not configured any more.")
