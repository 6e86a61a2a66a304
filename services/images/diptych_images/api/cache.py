"""/v2/cache: what this node has cached and is to fetch; and the same by the requests before 2.14.

Those, /v2/cached_images and /v2/queued_images, Glance has in the flavor cachemanagement only.
"""

from collections.abc import Callable
from typing import TypeVar

from diptych_common.errors import BadRequest, NotFound, ServiceUnavailable
from diptych_common.identity import Identity
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    is_admin,
    not_found,
    refuse_anonymous,
    require,
)
from diptych_images.cache.directory import Directory
from diptych_images.cache.upkeep import Upkeep
from diptych_images.db import cache, images
from diptych_images.db.images import is_uuid
from diptych_images.wire import parameters

T = TypeVar("T")

router = APIRouter(prefix="/v2", responses=ANY_ERROR)

# How many times a node may miss to tell what it has before it counts as gone.
_MISSED = 5


@router.get("/cache", dependencies=[NO_BODY])
async def show(res: Res, who: Who) -> Response:
    """The images that this node has cached, whole, and those that it is to fetch."""
    caching = _allowed(res, "cache_list", who)
    document = {
        "cached_images": await _cached(caching),
        "queued_images": await _on_disk(caching, Directory.queued),
    }
    return json_response(document)


@router.delete(
    "/cache", status_code=204, dependencies=[NO_BODY], openapi_extra=parameters.CLEAR_CACHE
)
async def clear(request: Request, res: Res, who: Who) -> Response:
    """Drop all that is cached, all that is queued, or both."""
    refuse_anonymous(who)
    caching = _allowed(res, "cache_delete", who)
    target = request.headers.get("x-image-cache-clear-target", "").lower()
    # Glance refuses "both", which its documents name and its clients translate.
    if target not in ("", "both", "cache", "queue"):
        raise BadRequest("x-image-cache-clear-target has to be cache, queue, both or empty.")
    if target != "queue":
        await _on_disk(caching, Directory.drop_all)
    if target != "cache":
        await _on_disk(caching, Directory.unqueue_all)
    return Response(status_code=204)


@router.put("/cache/{image_id}", status_code=202, dependencies=[NO_BODY])
async def queue(image_id: str, res: Res, who: Who) -> Response:
    """Have this node fetch an image; it begins at once."""
    refuse_anonymous(who)
    async with res.db.read() as connection:
        row = await images.get(
            connection, image_id, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if row is None:
        raise not_found(image_id)
    require(res, "cache_image", who, row)
    caching = _enabled(res)
    if row["status"] != "active":
        raise BadRequest(f"Image {image_id} is {row['status']}; only active ones are cached.")
    await _on_disk(caching, Directory.enqueue, row["id"])
    caching.wanted.set()
    return Response(status_code=202)


@router.delete("/cache/{image_id}", status_code=204, dependencies=[NO_BODY])
async def drop(image_id: str, res: Res, who: Who) -> Response:
    """Drop an image from the cache and from what is queued; one that was deleted, too."""
    refuse_anonymous(who)
    async with res.db.read() as connection:
        row = await images.get(
            connection, image_id, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if row is not None:
        require(res, "cache_delete", who, row)
        caching = _enabled(res)
    elif is_uuid(image_id) and res.policy.allows("cache_delete", who, {}):
        caching = _enabled(res)
    else:
        raise not_found(image_id)
    name = image_id.lower()
    was_cached = await _on_disk(caching, Directory.drop, name)
    was_queued = await _on_disk(caching, Directory.unqueue, name)
    if row is None and not was_cached and not was_queued:
        raise not_found(image_id)
    return Response(status_code=204)


@router.get("/cache/nodes/{image_id}", dependencies=[NO_BODY])
async def nodes(image_id: str, res: Res, who: Who) -> Response:
    """The URLs of the nodes that have an image whole."""
    caching = _allowed(res, "list_cached_nodes", who)
    async with res.db.read() as connection:
        found = await cache.nodes(
            connection,
            image_id,
            within_s=_MISSED * caching.tidy_every_s,
            project_id=who.project_id,
            is_admin=is_admin(res, who),
        )
    if found is None:
        raise not_found(image_id)
    return json_response(found)


@router.post("/cache/clean", dependencies=[NO_BODY])
async def clean(res: Res, who: Who) -> Response:
    """Remove what stalled and what died, as the service does by itself from time to time."""
    refuse_anonymous(who)
    caching = _allowed(res, "cache_clean", who)
    await _on_disk(caching, Directory.clean, caching.stalled_s)
    return Response()


@router.post("/cache/prune", dependencies=[NO_BODY])
async def prune(res: Res, who: Who) -> Response:
    """Shrink the cache to its limit, within which it is always, unless it was just lowered."""
    refuse_anonymous(who)
    caching = _allowed(res, "cache_prune", who)
    number, size = await _on_disk(caching, Directory.prune)
    return json_response({"total_files_pruned": number, "total_bytes_pruned": size})


@router.get("/cached_images", dependencies=[NO_BODY])
async def cached_images(res: Res, who: Who) -> Response:
    """The images that this node has cached, whole."""
    caching = _managed(res, who)
    return json_response({"cached_images": await _cached(caching)})


@router.delete("/cached_images", dependencies=[NO_BODY])
async def drop_cached_images(res: Res, who: Who) -> Response:
    """Drop all that is cached."""
    refuse_anonymous(who)
    caching = _managed(res, who)
    return json_response({"num_deleted": await _on_disk(caching, Directory.drop_all)})


@router.delete("/cached_images/{image_id}", dependencies=[NO_BODY])
async def drop_cached_image(image_id: str, res: Res, who: Who) -> Response:
    """Drop an image from the cache; nothing there is a success."""
    refuse_anonymous(who)
    caching = _managed(res, who)
    await _on_disk(caching, Directory.drop, _name(image_id))
    return json_response(None)


@router.get("/queued_images", dependencies=[NO_BODY])
async def queued_images(res: Res, who: Who) -> Response:
    """The images that this node is to fetch."""
    caching = _managed(res, who)
    return json_response({"queued_images": await _on_disk(caching, Directory.queued)})


@router.delete("/queued_images", dependencies=[NO_BODY])
async def drop_queued_images(res: Res, who: Who) -> Response:
    """Forget all that is queued."""
    refuse_anonymous(who)
    caching = _managed(res, who)
    return json_response({"num_deleted": await _on_disk(caching, Directory.unqueue_all)})


@router.put("/queued_images/{image_id}", dependencies=[NO_BODY])
async def queue_image(image_id: str, res: Res, who: Who) -> Response:
    """Have this node fetch an image; one that it cannot have is found out later."""
    refuse_anonymous(who)
    caching = _managed(res, who)
    await _on_disk(caching, Directory.enqueue, _name(image_id))
    caching.wanted.set()
    return json_response(None)


@router.delete("/queued_images/{image_id}", dependencies=[NO_BODY])
async def drop_queued_image(image_id: str, res: Res, who: Who) -> Response:
    """Take an image out of what is queued; nothing there is a success."""
    refuse_anonymous(who)
    caching = _managed(res, who)
    await _on_disk(caching, Directory.unqueue, _name(image_id))
    return json_response(None)


def _allowed(res: Resources, rule: str, who: Identity) -> Upkeep:
    res.policy.require(rule, who, {})
    return _enabled(res)


def _managed(res: Resources, who: Identity) -> Upkeep:
    """For the old requests: without a cache there are none of them, for nobody."""
    caching = _enabled(res)
    res.policy.require("manage_image_cache", who, {})
    return caching


def _enabled(res: Resources) -> Upkeep:
    if res.caching is None:
        raise NotFound("This node has no image cache.")
    return res.caching


def _name(image_id: str) -> str:
    """The image's name in the cache; NotFound for what can be none, for it would name any file."""
    if not is_uuid(image_id):
        raise not_found(image_id)
    return image_id.lower()


async def _cached(caching: Upkeep) -> list[dict[str, object]]:
    return [
        {
            "image_id": one.image.id,
            "hits": one.hits,
            "last_accessed": one.last_accessed,
            "last_modified": one.last_modified,
            "size": one.image.size,
        }
        for one in await _on_disk(caching, Directory.cached)
        if one.is_verified
    ]


async def _on_disk(caching: Upkeep, function: Callable[..., T], /, *args: object) -> T:
    try:
        return await caching.cache.run(function, caching.cache.directory, *args)
    except OSError as error:
        raise ServiceUnavailable(
            f"The image cache cannot be used: {error.strerror}.", headers={"Retry-After": "60"}
        ) from error
