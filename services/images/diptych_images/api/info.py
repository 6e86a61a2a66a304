"""GET /v2/info/import, /v2/info/stores, /v2/info/stores/detail and /v2/info/usage."""

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import NO_BODY, Res, Resources, Who
from diptych_images.wire import info

router = APIRouter(prefix="/v2/info", dependencies=[NO_BODY], responses=ANY_ERROR)


@router.get("/import")
async def import_methods(res: Res, who: Who) -> Response:
    """How data can get into an image besides a plain upload."""
    return json_response(info.import_methods(res.settings.import_methods))


@router.get("/stores")
async def stores(res: Res, who: Who) -> Response:
    """The stores that a user may name; 404 where there is but one without a name."""
    _need_several_stores(res)
    return json_response(info.stores(res.stores))


@router.get("/stores/detail")
async def stores_detail(res: Res, who: Who) -> Response:
    """The stores with type, weight and the driver's properties, for operators and services."""
    _need_several_stores(res)
    res.policy.require("stores_info_detail", who, {})
    return json_response(info.stores_detail(res.stores))


@router.get("/usage")
async def usage(res: Res, who: Who) -> Response:
    """What the caller's project has, and may have, by Keystone's limits; nothing without these."""
    return json_response(info.usage(await res.quotas.used(res.db, who.project_id)))


def _need_several_stores(res: Resources) -> None:
    if not res.stores.is_multiple:
        raise NotFound("Several stores are not configured here.")
