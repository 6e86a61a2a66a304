"""/v2/images/{id}/locations: where an image's bytes are, as other services and owners tell."""

from uuid import uuid4

from diptych_common import jobs
from diptych_common.database import Connection
from diptych_common.errors import BadRequest, Conflict
from diptych_common.identity import Identity
from diptych_common.logs import request_id
from diptych_common.responses import json_response
from diptych_store.locations import without_credentials
from fastapi import APIRouter, Request, Response

from diptych_images import readers
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.incoming import hash_algorithm
from diptych_images.api.locating import check_formats, check_named, find, is_service
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    json_body,
    refuse_anonymous,
    require,
    visible_image,
)
from diptych_images.db import locations, tasks
from diptych_images.db.images import ImageRow
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.imports.location import JOB, kept_for
from diptych_images.notifications import emit, emit_task
from diptych_images.wire import locations as wire
from diptych_images.wire.locations import Found, LocationJob, NewLocation

router = APIRouter(prefix="/v2/images/{image_id}/locations", responses=ANY_ERROR)


@router.get("", dependencies=[NO_BODY], openapi_extra=wire.LIST_OPENAPI)
async def list_(image_id: str, res: Res, who: Who) -> Response:
    """Where the bytes are, whatever the settings say of showing it to users."""
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require(res, "fetch_image_location", who, row)
    return json_response(wire.document(res.stores.in_read_order(row["locations"])))


@router.post("", status_code=202, openapi_extra=wire.ADD_OPENAPI)
async def add(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Give a queued image its first location; a worker takes the digests of what is there.

    Source: Glance 33.0, api/v2/images.py `add_location`, whose checks come in this order.
    """
    refuse_anonymous(who)
    asked = wire.parse(await json_body(request))
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    # Not in Glance: to whom the image must not be known, none of what follows is told.
    if not res.policy.allows("service_api", who, {}):
        require(res, "get_image", who, row)
    _check_queued(row)
    require(res, "add_image_location", who, row)
    check_named(asked.url, res, anywhere=is_service(who))
    if asked.store is not None and not is_service(who):
        raise BadRequest("validation_data has os_hash_algo and os_hash_value.")
    if row["import_task"] is not None:
        raise _held(row)
    check_formats(row)
    found = await find(asked.url, res, store=asked.store)

    quota = await res.quotas.of(row["owner"])
    async with res.db.write() as connection:
        await quota.require(connection, size=found.size)
        await _begin(connection, row, asked, found, res, who)
    return Response(status_code=202)


async def _begin(
    connection: Connection,
    image: ImageRow,
    asked: NewLocation,
    found: Found,
    res: Resources,
    who: Identity,
) -> None:
    """Add the location, and what is to be done about its digests, in this transaction."""
    task_id = str(uuid4())
    is_hashed = res.settings.default.do_secure_hash
    algorithm, expected = asked.expected or (hash_algorithm(image, res), None)
    is_held = is_hashed and expected is not None
    columns: dict[str, object] = {"import_task": task_id, "status": "importing"}
    if not is_held:
        columns = {"size": found.size, "status": "active"}
    if is_hashed or expected is not None:
        columns["os_hash_algo"] = algorithm
    if not is_hashed:
        columns["os_hash_value"] = expected
    row = await locations.start(connection, image["id"], columns)
    if row is None:
        raise Conflict(f"Image {image['id']} was changed by another request.")
    # With the formats as they are now: a PATCH may change them while the digest is compared.
    formats = {"disk_format": row["disk_format"], "container_format": row["container_format"]}
    location = await locations.add(
        connection,
        row["id"],
        store=found.store,
        url=found.url,
        metadata=found.told,
        task_id=task_id if is_held else None,
        becomes={"size": found.size, **formats} if is_held else None,
        reserved=found.size,
    )
    await emit(connection, "image.update", row)
    if not is_held:
        await emit(connection, "image.activate", row)
        await readers.changed(connection, res.stores, row)

    task = await tasks.insert(
        connection,
        task_id=task_id,
        type="location_import",
        owner=who.project_id,
        image_id=row["id"],
        user_id=who.user_id,
        request_id=request_id.get(),
        input={
            "image_id": row["id"],
            "loc_url": without_credentials(found.url),
            "validation_data": (
                {} if expected is None else {"os_hash_algo": algorithm, "os_hash_value": expected}
            ),
        },
    )
    await emit_task(connection, "task.create", task)
    await emit_task(connection, "task.run", task)
    if not is_hashed:
        ended = await tasks.change(
            connection,
            task_id,
            status="success",
            result={"image_id": row["id"]},
            kept_for=kept_for(res.settings),
        )
        if ended is not None:
            await emit_task(connection, "task.success", ended)
        return
    job = LocationJob(
        task_id=task_id,
        image_id=row["id"],
        location_id=location["id"],
        algorithm=algorithm,
        expected=expected,
        size=found.size,
        request_id=request_id.get(),
        os_hash_algo=image["os_hash_algo"],
    )
    await jobs.enqueue(
        connection,
        jobs_table,
        JOB,
        job.payload(),
        dedup_key=row["id"],
        max_attempts=1 + res.settings.default.http_retries,
    )


def _check_queued(row: ImageRow) -> None:
    if row["status"] != "queued":
        raise Conflict(f"A location can be added to an image that is queued, not {row['status']}.")


def _held(row: ImageRow) -> Conflict:
    return Conflict(f"Image {row['id']} is held by task {row['import_task']}.")
