"""PUT /v2/images/{id}/stage: bytes that wait to be imported."""

from uuid import uuid4

from diptych_common.errors import Conflict, Gone, NotFound
from diptych_store.digests import Digests
from diptych_store.protocol import Attempt
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.incoming import (
    announced_size,
    hash_algorithm,
    octets_openapi,
    received,
    require_octet_stream,
    require_room,
    user_token,
)
from diptych_images.api.resources import (
    Res,
    Who,
    refuse_anonymous,
    require_change,
    visible_image,
)
from diptych_images.attempts import Held, in_account
from diptych_images.db import imports
from diptych_images.notifications import emit
from diptych_images.quotas import Room
from diptych_images.wire import parameters

router = APIRouter(prefix="/v2/images/{image_id}/stage", responses=ANY_ERROR)

_STAGE_OPENAPI = {
    **octets_openapi("The data is there and can be imported."),
    **parameters.STAGE,
}


@router.put("", status_code=204, openapi_extra=_STAGE_OPENAPI)
async def stage(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Keep bytes for an image that is queued; on any failure it is queued again.

    What they are is found on their way in, and judged when they are imported; the image need not
    have formats yet.
    """
    refuse_anonymous(who)
    if "glance-direct" not in res.settings.import_methods:
        raise NotFound("The method glance-direct is not enabled here.")
    require_octet_stream(request)
    size = announced_size(request)
    store = in_account(res.stores.staging, who.project_id, token=user_token(request))
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require_change(res, "modify_image", who, row)
    require_room(row, size, res)

    token = str(uuid4())
    attempt = Attempt(key=imports.staged_key(row["id"], token), token=token)
    lease_s = res.settings.jobs.lease
    quota = await res.quotas.of(row["owner"])
    async with res.db.write() as connection:
        await quota.require(connection, staged=size or 0, uploading=1)
        uploading = await imports.start_stage(
            connection,
            row["id"],
            store=store.name,
            attempt=token,
            lease_s=lease_s,
            project_id=who.project_id,
            reserved=size or 0,
        )
        if uploading is None:
            raise Conflict(f"Image {image_id} was deleted or takes data of another request.")
        await emit(connection, "image.update", uploading)

    room = Room(res.db, quota, "staged", [token], taken=size or 0)
    async with Held(res.db, store, attempt, lease_s=lease_s) as held:
        digests = Digests(("md5", hash_algorithm(uploading, res)))
        stored, findings = await received(request, res, held, room, size=size, digests=digests)
        location = await held.publish()
        async with res.db.write() as connection:
            staged = await imports.finish_stage(
                connection,
                row["id"],
                attempt=token,
                url=location,
                size=stored.size,
                staged={
                    "digests": dict(stored.digests),
                    "findings": findings.document(),
                },
            )
            if staged is None:
                raise Gone(f"Image {image_id} was deleted while its data was staged.")
            await emit(connection, "image.update", staged)
    return Response(status_code=204)
