"""PATCH /v2/images/{id}, in both of its dialects."""

from collections.abc import Sequence
from functools import partial

from diptych_common.database import Connection
from diptych_common.errors import Conflict
from diptych_common.identity import Identity
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images import readers, removal
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.incoming import hash_algorithm
from diptych_images.api.locating import (
    check_beside,
    check_formats,
    check_named,
    check_some_store,
    find,
    is_service,
)
from diptych_images.api.resources import (
    Res,
    Resources,
    Who,
    document,
    is_admin,
    json_body,
    locked_image,
    refuse_anonymous,
    require,
    require_change,
    visible_image,
)
from diptych_images.db import images
from diptych_images.db import locations as rows
from diptych_images.notifications import emit
from diptych_images.quotas import UNLIMITED, Quota
from diptych_images.wire import locations, patch
from diptych_images.wire.locations import Found, LocationChanges
from diptych_images.wire.patch import Operation

router = APIRouter(prefix="/v2/images", responses=ANY_ERROR)

_VISIBILITY_RULES = {"public": "publicize_image", "community": "communitize_image"}
_LOCATION_RULES = {
    "add": "set_image_location",
    "replace": "set_image_location",
    "remove": "delete_image_location",
}


@router.patch("/{image_id}", openapi_extra=patch.UPDATE_OPENAPI)
async def update(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Apply all operations, or none; what is at new locations is looked at before."""
    refuse_anonymous(who)
    dialect = patch.dialect(request.headers.get("content-type"))
    operations = patch.parse(await json_body(request), dialect, res.schema)
    of_locations: list[Operation] = []
    if res.settings.default.show_multiple_locations:
        of_locations = [one for one in operations if one.name == "locations"]
    found, quota = {}, UNLIMITED
    if of_locations:
        found, quota = await _found(image_id, of_locations, res, who)
    async with res.db.write() as connection:
        if found:
            await quota.require(connection, size=sum(one.size for one in found.values()))
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "modify_image", who, row)
        changes = patch.apply(
            row,
            tuple(one for one in operations if not of_locations or one.name != "locations"),
            is_admin=is_admin(res, who),
            property_quota=res.settings.default.image_property_quota,
            tag_quota=res.settings.default.image_tag_quota,
            required=res.schema.required,
            may=partial(res.protection.allows, who),
        )
        for visibility in changes.visibilities:
            if visibility in _VISIBILITY_RULES:
                require(res, _VISIBILITY_RULES[visibility], who, row)
        values = dict(changes.values)
        moved = LocationChanges()
        if of_locations:
            # Once more: the row was read before the lock was had, perhaps, its locations too.
            row = await visible_image(connection, image_id, res, who)
            if row["import_task"] is not None and any(one.op == "remove" for one in of_locations):
                # What a copy has put elsewhere so far it may take back: then nothing would be left.
                raise Conflict(f"Image {image_id} is being copied: its locations stay until then.")
            if found:
                check_beside(row["locations"], anywhere=_is_trusted(who, res))
            moved = locations.apply(
                row,
                of_locations,
                locations=res.stores.in_read_order(row["locations"]),
                found=found,
                algorithm=hash_algorithm(row, res),
                quota=res.settings.default.image_location_quota,
            )
            values |= moved.values
            await _move(connection, row["id"], moved)
        is_activated = values.get("status") == "active"
        if is_activated:
            check_formats({**row, **values})
        if values or moved != LocationChanges():
            row = await images.update(connection, row["id"], values)
            await emit(connection, "image.update", row)
            if is_activated:
                await emit(connection, "image.activate", row)
            if moved.added or not values.keys().isdisjoint(("owner", "visibility")):
                await readers.changed(connection, res.stores, row)
    return json_response(document(row, res, who))


def _is_trusted(who: Identity, res: Resources) -> bool:
    return is_service(who) or is_admin(res, who)


async def _found(
    image_id: str, operations: Sequence[Operation], res: Resources, who: Identity
) -> tuple[dict[str, Found], Quota]:
    """What is at the URLs that the operations add, if the caller may do all of them.

    With it comes what limits the image's project.
    """
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require_change(res, "modify_image", who, row)
    for rule in dict.fromkeys(_LOCATION_RULES[one.op] for one in operations):
        require_change(res, rule, who, row)
    urls = locations.new_urls(operations, has_locations=bool(row["locations"]))
    # The rest would be refused in the end, after many had been asked.
    quota = res.settings.default.image_location_quota
    if 0 <= quota < len(urls):
        raise locations.too_many_locations(quota)
    for url in urls:
        # Of what is in a PATCH Glance tells this first, whoever sends it.
        check_some_store(url, res)
        check_named(url, res, anywhere=_is_trusted(who, res))
    found = {url: await find(url, res) for url in urls}
    return found, await res.quotas.of(row["owner"])


async def _move(connection: Connection, image_id: str, moved: LocationChanges) -> None:
    for entry in moved.added:
        await rows.add(
            connection, image_id, store=entry.store, url=entry.url, metadata=entry.metadata
        )
    for location_id, metadata in moved.described.items():
        await rows.describe(connection, location_id, metadata)
    if moved.forgotten:
        await rows.forget(connection, moved.forgotten)
    if moved.released:
        await rows.release(connection, moved.released)
        await removal.later(connection, image_id)
