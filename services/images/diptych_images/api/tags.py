"""PUT and DELETE /v2/images/{id}/tags/{tag}."""

from diptych_common.errors import BadRequest, NotFound
from fastapi import APIRouter, Depends, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Who,
    locked_image,
    refuse_anonymous,
    require_change,
)
from diptych_images.db import images
from diptych_images.notifications import emit
from diptych_images.wire.image import too_many
from diptych_images.wire.schemas import MAX_NAME


async def _refuse_line_feed(request: Request) -> None:
    # The router's patterns end with `$`, which matches before a final line feed: `a%0a` would
    # mean the tag `a`.
    if request.scope["path"].endswith("\n"):
        raise BadRequest("A tag does not end with a line feed.")


router = APIRouter(
    prefix="/v2/images/{image_id}/tags",
    dependencies=[NO_BODY, Depends(_refuse_line_feed)],
    responses=ANY_ERROR,
)

# `{tag:path}`: a tag may hold a slash, which arrives decoded.


@router.put("/{tag:path}", status_code=204)
async def add(image_id: str, tag: str, res: Res, who: Who) -> Response:
    """Add a tag; one that is there already changes nothing."""
    refuse_anonymous(who)
    if not 0 < len(tag) <= MAX_NAME:
        raise BadRequest(f"A tag has 1 to {MAX_NAME} characters.")
    quota = res.settings.default.image_tag_quota
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "modify_image", who, row)
        if tag not in row["tags"]:
            tags = sorted([*row["tags"], tag])
            if 0 <= quota < len(tags):
                raise too_many("tags", quota)
            row = await images.update(connection, image_id, {"tags": tags})
            await emit(connection, "image.update", row)
    return Response(status_code=204)


@router.delete("/{tag:path}", status_code=204)
async def remove(image_id: str, tag: str, res: Res, who: Who) -> Response:
    """Remove a tag."""
    refuse_anonymous(who)
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "modify_image", who, row)
        if tag not in row["tags"]:
            raise NotFound(f"Image {image_id} has no tag {tag}.")
        tags = [other for other in row["tags"] if other != tag]
        row = await images.update(connection, image_id, {"tags": tags})
        await emit(connection, "image.update", row)
    return Response(status_code=204)
