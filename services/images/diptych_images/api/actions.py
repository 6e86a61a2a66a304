"""POST /v2/images/{id}/actions/deactivate and …/reactivate."""

from diptych_common.errors import Forbidden
from diptych_common.identity import Identity
from fastapi import APIRouter, Response

from diptych_images import readers
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    locked_image,
    refuse_anonymous,
    require_change,
)
from diptych_images.db import images
from diptych_images.notifications import emit

router = APIRouter(
    prefix="/v2/images/{image_id}/actions", dependencies=[NO_BODY], responses=ANY_ERROR
)


@router.post("/deactivate", status_code=204)
async def deactivate(image_id: str, res: Res, who: Who) -> Response:
    """Keep an image from being downloaded by anyone but administrators."""
    return await _move(image_id, res, who, rule="deactivate", before="active", after="deactivated")


@router.post("/reactivate", status_code=204)
async def reactivate(image_id: str, res: Res, who: Who) -> Response:
    """Make a deactivated image available again."""
    return await _move(image_id, res, who, rule="reactivate", before="deactivated", after="active")


async def _move(
    image_id: str, res: Resources, who: Identity, *, rule: str, before: str, after: str
) -> Response:
    refuse_anonymous(who)
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, rule, who, row)
        if row["status"] not in (before, after):
            # Glance answers 403 here, not 409.
            raise Forbidden(
                f"Image {image_id} is {row['status']}; only {before} images can {rule}."
            )
        if row["status"] == before:
            row = await images.update(connection, image_id, {"status": after})
            await emit(connection, "image.update", row)
            await readers.changed(connection, res.stores, row)
    return Response(status_code=204)
