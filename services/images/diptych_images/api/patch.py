"""PATCH /v2/images/{id}, in both of its dialects."""

from functools import partial

from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images import readers
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    Res,
    Who,
    document,
    is_admin,
    json_body,
    locked_image,
    refuse_anonymous,
    require,
    require_change,
)
from diptych_images.db import images
from diptych_images.notifications import emit
from diptych_images.wire import patch

router = APIRouter(prefix="/v2/images", responses=ANY_ERROR)

_VISIBILITY_RULES = {"public": "publicize_image", "community": "communitize_image"}


@router.patch("/{image_id}", openapi_extra=patch.UPDATE_OPENAPI)
async def update(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Apply all operations, or none."""
    refuse_anonymous(who)
    dialect = patch.dialect(request.headers.get("content-type"))
    operations = patch.parse(await json_body(request), dialect, res.schema)
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "modify_image", who, row)
        changes = patch.apply(
            row,
            operations,
            is_admin=is_admin(res, who),
            property_quota=res.settings.default.image_property_quota,
            tag_quota=res.settings.default.image_tag_quota,
            required=res.schema.required,
            may=partial(res.protection.allows, who),
        )
        for visibility in changes.visibilities:
            if visibility in _VISIBILITY_RULES:
                require(res, _VISIBILITY_RULES[visibility], who, row)
        if changes.values:
            row = await images.update(connection, row["id"], changes.values)
            await emit(connection, "image.update", row)
            if not changes.values.keys().isdisjoint(("owner", "visibility")):
                await readers.changed(connection, res.stores, row)
    return json_response(document(row, res, who))
