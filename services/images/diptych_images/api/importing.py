"""Beginning an import: what `POST /v2/images/{id}/import` and `POST /v2/tasks` have in common."""

from collections.abc import Mapping
from typing import Final
from uuid import uuid4

from diptych_common import jobs
from diptych_common.database import Connection
from diptych_common.errors import BadRequest, Conflict
from diptych_common.identity import Identity
from diptych_common.logs import request_id
from fastapi import Request

from diptych_images.api.incoming import user_token
from diptych_images.api.resources import Resources
from diptych_images.db import imports, tasks
from diptych_images.db.images import ImageRow, Status
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.db.tasks import TaskRow, TaskType
from diptych_images.imports.run import JOB
from diptych_images.notifications import emit, emit_task
from diptych_images.settings import ACT_FOR_USERS
from diptych_images.signatures import Signature
from diptych_images.wire.imports import ImportJob, ImportRequest

FOUND_BY_THE_JOB: Final = frozenset({"copy-image", "glance-download"})
"""Methods whose requests need not know the image's signature.

A copy has to be what the image is already; an image of another region may bring a signature along.
"""

# The pauses between them, in which the cause may pass, are two minutes in all; a user who waits for
# the reason of a failure should not wait much longer.
_ATTEMPTS = 8


def sealed_token(
    request: Request, asked: ImportRequest, res: Resources, who: Identity
) -> bytes | None:
    """The caller's token, for the job alone to read; None where its method needs none."""
    if asked.method not in ACT_FOR_USERS:
        return None
    token = user_token(request)
    if token is None or res.sealed is None:
        raise BadRequest(f"The method {asked.method} acts with your token, and there is none.")
    expires_at = "" if who.expires_at is None else who.expires_at.isoformat()
    return res.sealed.seal({"token": token, "expires_at": expires_at})


async def signature_for(
    request: Request, asked: ImportRequest, properties: Mapping[str, str | None], res: Resources
) -> Signature | None:
    """The signature that the imported bytes must bear out; None if the image is not signed.

    Asked for by the request, so that the job needs no token for it. Raises as
    `Barbican.signature`.
    """
    if asked.method in FOUND_BY_THE_JOB:
        return None
    return await res.barbican.signature(properties, token=user_token(request))


async def begin(
    connection: Connection,
    res: Resources,
    who: Identity,
    asked: ImportRequest,
    *,
    image_id: str,
    expected: Status,
    stores: tuple[str, ...],
    task_type: TaskType,
    task_input: dict[str, object],
    secret: bytes | None,
    signature: Signature | None,
    remove_image: bool = False,
) -> tuple[ImageRow, TaskRow]:
    """Have a new task hold the image, and a job that does its work, in this transaction.

    `stores` are the names of those to import into. Raises Conflict, and has changed nothing, if
    the image is not in the `expected` status any more or another import holds it.
    """
    task_id = str(uuid4())
    row = await imports.start(
        connection,
        image_id,
        task_id=task_id,
        expected=[expected],
        importing=expected != "active",
        # As in Glance, where there is but one store clients do not see its name.
        stores=stores if res.stores.is_multiple else (),
    )
    if row is None:
        raise Conflict(f"Image {image_id} was changed by another request.")
    await emit(connection, "image.update", row)
    task = await tasks.insert(
        connection,
        task_id=task_id,
        type=task_type,
        owner=who.project_id,
        image_id=row["id"],
        user_id=who.user_id,
        request_id=request_id.get(),
        input=task_input,
    )
    await emit_task(connection, "task.create", task)
    await emit_task(connection, "task.run", task)
    job = ImportJob(
        task_id=task_id,
        image_id=row["id"],
        request=asked,
        stores=stores,
        roles=tuple(sorted(who.roles)),
        project_id=who.project_id,
        request_id=request_id.get(),
        remove_image=remove_image,
        os_hash_algo=row["os_hash_algo"],
        signature=None if signature is None else signature.document(),
    )
    await jobs.enqueue(
        connection,
        jobs_table,
        JOB,
        job.payload(),
        dedup_key=task_id,
        max_attempts=_ATTEMPTS,
        secret=secret,
    )
    return row, task
