"""The job of an import: from the source, through the plug-ins, into the stores, to the end.

Any worker may run it again after any of its steps. What a former run has put into a store stays;
whatever else it left is removed first. A reason that may pass is raised, and the job tried again;
GiveUp, and the last attempt, end in `gave_up`, which leaves the image as it was before.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

from diptych_common.database import TROUBLE, Connection
from diptych_common.jobs import End, GiveUp, Job, JobLost, TryAgain
from diptych_common.logs import request_id
from diptych_common.worker import JobContext

from diptych_images import readers, removal
from diptych_images.db import images, imports, tasks
from diptych_images.db.imports import Begun
from diptych_images.imports import methods
from diptych_images.imports.equipment import Equipment, ImageGone, Import
from diptych_images.imports.sources import SourceFailed
from diptych_images.imports.targets import Failures, clear, discard, in_words, lasts
from diptych_images.notifications import emit, emit_task
from diptych_images.wire.imports import ImportJob

log = logging.getLogger(__name__)

JOB: Final = "import"

_PROGRESS_EVERY_S: Final = 2.0
# How long the end of an import that failed waits for stores to remove what it left there; the
# reaper does the rest.
_CLEARED_WITHIN_S: Final = 10.0
_MIB: Final = 1024 * 1024

_FAILED: Final = "The service failed; try again."
_GONE: Final = "The image was deleted."


class StoresFailed(TryAgain):
    """Some stores do not have the bytes, for reasons that may pass; the message is for users."""


async def run(job: Job, context: JobContext, equipment: Equipment) -> None:
    """Import, or go on with an import that was begun."""
    order = ImportJob.read(job.payload)
    request_id.set(order.request_id)
    is_last = job.max_attempts is not None and job.attempts >= job.max_attempts
    try:
        one, begun = await _begin(order, context, equipment)
        await _import(one, begun, is_last=is_last)
    except ImageGone:
        raise GiveUp(_GONE) from None
    except (SourceFailed, StoresFailed) as trouble:
        if is_last:
            raise GiveUp(str(trouble)) from trouble
        async with context.write() as connection:
            await tasks.change(
                connection,
                order.task_id,
                status="processing",
                message=f"{trouble} It is tried again.",
            )
        raise


async def _begin(
    order: ImportJob, context: JobContext, equipment: Equipment
) -> tuple[Import, Begun]:
    async with context.write() as connection:
        begun = await imports.begin(connection, order.image_id, task_id=order.task_id)
        if begun is None:
            raise ImageGone
        task = await tasks.change(connection, order.task_id, status="processing")
        if task is not None and context.job.attempts == 1:
            await emit_task(connection, "task.processing", task)
    return Import(order, context, equipment, begun.image), begun


async def _import(one: Import, begun: Begun, *, is_last: bool) -> None:
    one.landed.update(location["store"] for location in begun.image["locations"])
    wanted = [name for name in one.order.stores if name not in one.landed]
    unknown = [name for name in wanted if name not in one.equipment.stores]
    if unknown and one.order.request.all_stores_must_succeed:
        # Before any byte goes where it would have to be removed again.
        raise GiveUp(f"There is no store {', '.join(unknown)} any more.")
    failures = await clear(one, wanted)
    ready = [name for name in wanted if name not in failures]
    if ready:
        async with _progress_told(one):
            match one.order.request.method:
                case "glance-direct":
                    failures |= await methods.from_staging(one, begun.staged, ready)
                case "copy-image":
                    failures |= await methods.from_other_stores(one, ready)
                case "web-download":
                    failures |= await methods.from_web(one, ready)
                case "glance-download":
                    failures |= await methods.from_region(one, ready)
                case "swift-local":
                    failures |= await methods.from_swift(one, ready)
                case other:
                    raise GiveUp(f"There is no import method {other} any more.")
    await _settle(one, failures, is_last=is_last)


async def _settle(one: Import, failures: Failures, *, is_last: bool) -> None:
    """Finish, or raise what keeps the import from it."""
    order = one.order
    reason = _outcomes(order.stores, failures)
    may_pass = not is_last and not all(map(lasts, failures.values()))
    if failures and order.request.all_stores_must_succeed:
        if may_pass and not any(map(lasts, failures.values())):
            raise StoresFailed(reason)
        raise GiveUp(_outcomes(order.stores, failures, landed="stored, and removed again"))
    if may_pass:
        raise StoresFailed(reason)
    if one.landed.isdisjoint(order.stores):
        raise GiveUp(reason)
    await _finish(one, failures, message=reason if failures else None)


async def _finish(one: Import, failed: Collection[str], *, message: str | None) -> None:
    order, equipment = one.order, one.equipment
    async with one.context.write() as connection:
        for name in failed:
            await imports.store_failed(
                connection, order.image_id, task_id=order.task_id, store=name
            )
        ended = await imports.finish(
            connection,
            order.image_id,
            task_id=order.task_id,
            stores=order.stores,
            message=message,
        )
        if ended is None:
            raise ImageGone
        await emit(connection, "image.update", ended.image)
        if ended.is_activated:
            await emit(connection, "image.activate", ended.image)
        task = await tasks.change(
            connection,
            order.task_id,
            status="success",
            message=message or "",
            result={"image_id": order.image_id},
            kept_for=_kept_for(equipment),
        )
        if task is not None:
            await emit_task(connection, "task.success", task)
        await readers.changed(connection, equipment.stores, ended.image)
        if ended.has_bytes_to_remove:
            await removal.later(connection, order.image_id)


# --- What users are told ----------------------------------------------------------------------


def _outcomes(stores: Collection[str], failures: Failures, *, landed: str = "stored") -> str:
    """Each store and how it ended, as a sentence."""
    told = (
        f"{name}: {in_words(failures[name]) if name in failures else landed}" for name in stores
    )
    return "; ".join(told) + "."


@asynccontextmanager
async def _progress_told(one: Import) -> AsyncGenerator[None]:
    telling = asyncio.create_task(_tell_progress(one))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _tell_progress(one: Import) -> None:
    told = 0
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        done, total = one.progress.done, one.progress.total
        if done == told:
            continue
        message = f"Copied {done // _MIB} MiB"
        if total is not None:
            message += f" of {total // _MIB} MiB"
        try:
            async with one.context.write() as connection:
                await tasks.change(
                    connection, one.order.task_id, status="processing", message=message
                )
                await one.context.report(connection, {"done": done, "total": total})
        except JobLost:
            return  # the worker stops the run
        except TROUBLE as error:
            log.warning("Progress of task %s is not told: %s", one.order.task_id, error)
        else:
            told = done


def _kept_for(equipment: Equipment) -> timedelta:
    return timedelta(hours=equipment.settings.task.task_time_to_live)


# --- The end of an import that failed ---------------------------------------------------------

# By method, what is left for a user who wants the image all the same.
_NEXT: Final = {
    "glance-direct": "The staged data was removed: stage it again, then import it.",
    "copy-image": "The image is as it was before.",
}
_QUEUED: Final = "The image is queued again and can be imported anew."


async def gave_up(job: Job, context: JobContext, end: End, equipment: Equipment) -> None:
    """Leave the image as it was before the import, and tell why.

    An import that need not succeed in all stores keeps those in which it did.
    """
    order = ImportJob.read(job.payload)
    request_id.set(order.request_id)
    lease_s = equipment.settings.jobs.lease
    async with context.write() as connection:
        left = await imports.leave_attempts(
            connection, order.image_id, task_id=order.task_id, lease_s=lease_s
        )
        begun = await imports.begin(connection, order.image_id, task_id=order.task_id)
        is_kept = (
            begun is not None and bool(begun.landed) and not order.request.all_stores_must_succeed
        )
        if not is_kept:
            left += await imports.leave_landed(
                connection, order.image_id, task_id=order.task_id, lease_s=lease_s
            )
    # While the import still holds the image, so that nobody meets with what is being removed.
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLEARED_WITHIN_S):
            await discard(equipment.db, equipment.stores, left)
    reason = _reason(end)
    if begun is None:
        async with context.write() as connection:
            await _fail(connection, order, _GONE, equipment)
    elif is_kept:
        one = Import(order, context, equipment, begun.image)
        missing = [name for name in order.stores if name not in begun.landed]
        message = f"{', '.join(missing)}: not stored. {reason}" if missing else None
        try:
            await _finish(one, missing, message=message)
        except ImageGone:
            async with context.write() as connection:
                await _fail(connection, order, _GONE, equipment)
    else:
        await _revert(context, order, reason, equipment)


def _reason(end: End) -> str:
    match end.why:
        case "refused":
            return end.error
        case "cancelled":
            return "The import was cancelled."
        case "died" | "failed":
            return _FAILED


async def _revert(context: JobContext, order: ImportJob, reason: str, equipment: Equipment) -> None:
    message = reason
    if not order.remove_image:
        message = f"{reason} {_NEXT.get(order.request.method, _QUEUED)}"
    async with context.write() as connection:
        ended = await imports.give_up(
            connection,
            order.image_id,
            task_id=order.task_id,
            message=message,
            os_hash_algo=order.os_hash_algo,
        )
        await _fail(connection, order, message if ended is not None else _GONE, equipment)
        if ended is None:
            return
        has_bytes_to_remove = ended.has_bytes_to_remove
        event_type, row = "image.update", ended.image
        if order.remove_image:
            deleted = await images.mark_deleted(connection, order.image_id)
            if deleted is not None:
                event_type, row = "image.delete", deleted
                has_bytes_to_remove = has_bytes_to_remove or bool(deleted["locations"])
        await emit(connection, event_type, row)
        if has_bytes_to_remove:
            await removal.later(connection, order.image_id)


async def _fail(
    connection: Connection, order: ImportJob, message: str, equipment: Equipment
) -> None:
    task = await tasks.change(
        connection,
        order.task_id,
        status="failure",
        message=message,
        kept_for=_kept_for(equipment),
    )
    if task is not None:
        await emit_task(connection, "task.failure", task)
