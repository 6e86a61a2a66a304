"""/v2/images: list, create, show, delete."""

from diptych_common import jobs
from diptych_common.errors import Forbidden
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images import deletion
from diptych_images.api import creation
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Who,
    document,
    documents,
    is_admin,
    json_body,
    locked_image,
    not_found,
    refuse_anonymous,
    require,
    require_change,
    target,
    visible_image,
)
from diptych_images.db import image_list
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.imports import location
from diptych_images.imports.run import JOB
from diptych_images.wire import image as wire
from diptych_images.wire import listing, parameters

router = APIRouter(prefix="/v2/images", responses=ANY_ERROR)


@router.get("", openapi_extra=parameters.IMAGES)
async def list_(request: Request, res: Res, who: Who) -> Response:
    """A page of the images that the caller sees."""
    res.policy.require("get_images", who, {"project_id": who.project_id})
    items = listing.items(request.scope["query_string"])
    query = listing.parse(
        items,
        default_limit=res.settings.default.limit_param_default,
        max_limit=res.settings.default.api_limit_max,
    )
    query = listing.without_properties(query, res.protection.unreadable(who, query.properties))
    async with res.db.read() as connection:
        page = await image_list.page(
            connection, query, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if not page.rows and not page.marker_found:
        raise listing.unknown_marker(query.marker)
    may_get = res.policy.asked("get_image", who)
    shown = documents((row for row in page.rows if may_get(target(row, who))), res, who)
    page_is_full = len(page.rows) == query.limit
    return json_response(listing.document(shown, items, page_is_full=page_is_full))


@router.post("", status_code=201, openapi_extra=wire.CREATE_OPENAPI)
async def create(request: Request, res: Res, who: Who) -> Response:
    """A new image without data, `queued`."""
    refuse_anonymous(who)
    new = creation.checked(await json_body(request), res, who)
    quota = await res.quotas.of(new.owner)
    async with res.db.write() as connection:
        row = await creation.insert(connection, new, quota)

    headers = {"Location": str(request.url_for("show", image_id=row["id"]))}
    if methods := res.settings.import_methods:
        headers["OpenStack-image-import-methods"] = ",".join(methods)
    if res.stores.is_multiple:
        headers["OpenStack-image-store-ids"] = ",".join(res.stores.names)
    return json_response(document(row, res, who), status=201, headers=headers)


@router.get("/{image_id}", dependencies=[NO_BODY])
async def show(image_id: str, res: Res, who: Who) -> Response:
    """One image."""
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require(res, "get_image", who, row)
    return json_response(document(row, res, who))


@router.delete("/{image_id}", status_code=204, dependencies=[NO_BODY])
async def delete(image_id: str, res: Res, who: Who) -> Response:
    """Delete an image; its bytes go after the commit, by a job, and its import stops."""
    refuse_anonymous(who)
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "delete_image", who, row)
        if row["protected"]:
            raise Forbidden(f"Image {image_id} is protected.")
        if not await deletion.delete(connection, row, res.settings):
            raise not_found(image_id)
        if row["os_hash_algo"] is not None and row["os_hash_value"] is None:
            await jobs.cancel(connection, jobs_table, kind=location.JOB, dedup_key=row["id"])
        if row["import_task"] is not None:
            await jobs.cancel(connection, jobs_table, kind=JOB, dedup_key=row["import_task"])
    if res.caching is not None:
        await res.caching.forget(row["id"])
    return Response(status_code=204)
