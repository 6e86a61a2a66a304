"""DELETE /v2/stores/{store}/{image_id}: take an image out of one of its stores."""

from diptych_common.errors import Conflict, Forbidden, NotFound
from fastapi import APIRouter, Response

from diptych_images import removal
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    refuse_anonymous,
    require,
    require_change,
    visible_image,
)
from diptych_images.db import images
from diptych_images.db.images import LocationRow
from diptych_images.notifications import emit

router = APIRouter(prefix="/v2/stores", responses=ANY_ERROR)


@router.delete("/{store}/{image_id}", status_code=204, dependencies=[NO_BODY])
async def delete(store: str, image_id: str, res: Res, who: Who) -> Response:
    """Remove the copy of an image in one store; its bytes go after the commit, by a job.

    Source of the answers and their order: Glance 33.0, api/v2/images.py `delete_from_store`.
    """
    refuse_anonymous(who)
    if not res.stores.is_multiple:
        raise NotFound("Several stores are not configured here.")
    if store not in res.stores.names:
        raise Conflict(f"There is no store {store[:100]}.")
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require(res, "get_image_location", who, row)
    require_change(res, "delete_image_location", who, row)
    if row["status"] != "active":
        raise Conflict(f"Image {image_id} is {row['status']}; only active ones leave a store.")
    there = [one for one in row["locations"] if _is_in(one, store, res)]
    if not there:
        raise NotFound(f"Image {image_id} is not in store {store}.")
    if len(there) == len(row["locations"]):
        raise Forbidden(f"Image {image_id} is in no other store than {store}: delete the image.")
    about = res.stores.info[store]
    if about.read_only and not about.never_writes:
        raise Conflict(f"Store {store} is read-only.")

    async with res.db.write() as connection:
        left = await images.release_copies(connection, row["id"], [one["id"] for one in there])
        if left is None:
            raise Conflict(
                f"Image {image_id} cannot leave store {store} now: its other copies are being made"
                " or removed."
            )
        await emit(connection, "image.update", left)
        await removal.later(connection, row["id"])
    return Response(status_code=204)


def _is_in(location: LocationRow, store: str, res: Resources) -> bool:
    """Whether it is that store's: one that was renamed since has its locations all the same."""
    if location["store"] in res.stores.names:
        return location["store"] == store
    return res.stores[store].recognises(location["url"])
