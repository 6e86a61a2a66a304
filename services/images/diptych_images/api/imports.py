"""POST /v2/images/{id}/import: have data fetched into an image.

The checks are made in Glance's order, so that a request with several faults gets Glance's answer.
Source: Glance 33.0, api/v2/images.py.
"""

from collections.abc import Collection, Mapping
from typing import Final

from diptych_common.database import Connection
from diptych_common.errors import BadRequest, Conflict, TooLarge
from diptych_common.identity import Identity
from fastapi import APIRouter, Request, Response

from diptych_images import signatures
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.importing import (
    FOUND_BY_THE_JOB,
    begin,
    sealed_token,
    signature_for,
)
from diptych_images.api.incoming import named_store
from diptych_images.api.resources import (
    Res,
    Resources,
    Who,
    json_body,
    locked_image,
    refuse_anonymous,
    require,
    require_change,
    visible_image,
)
from diptych_images.db import images
from diptych_images.db.images import ImageRow, Status
from diptych_images.db.imports import IMPORTING, names_of
from diptych_images.imports.web import check_uri
from diptych_images.signatures import Signature
from diptych_images.wire import imports as wire
from diptych_images.wire import parameters
from diptych_images.wire.image import check_quotas, reserved
from diptych_images.wire.imports import ImportRequest

router = APIRouter(prefix="/v2/images/{image_id}/import", responses=ANY_ERROR)

# The status that an image must have for its data to come by a method.
_FROM: Final[Mapping[str, Status]] = {
    "glance-direct": "uploading",
    "web-download": "queued",
    "glance-download": "queued",
    "swift-local": "queued",
    "copy-image": "active",
}


@router.post("", status_code=202, openapi_extra={**wire.IMPORT_OPENAPI, **parameters.IMPORT})
async def import_(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Begin an import; a worker goes on with it, and its task tells how far it is."""
    refuse_anonymous(who)
    asked = wire.parse(await json_body(request), enabled=res.settings.import_methods)
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    # Not in Glance: to whom the image must not be known, none of what follows is told.
    require(res, "get_image", who, row)
    _check_status(row, asked)
    columns = _declared_by_source(asked, row, res)
    _check_formats({**row, **columns})
    asked.check_source()
    if asked.method == "copy-image":
        require(res, "copy_image", who, row)
    else:
        require_change(res, "modify_image", who, row)
    header = named_store(request)
    if row["import_task"] is not None:
        raise _cannot_begin(row, asked, header, res)
    stores = _stores(asked, header, row, res)
    if not stores:
        # A copy to all stores, of an image that is in all of them.
        return Response(status_code=202)
    if not asked.all_stores_must_succeed and not res.stores.is_multiple:
        raise BadRequest("all_stores_must_succeed is for services with several stores.")
    if asked.method == "web-download":
        check_uri(asked.uri or "", res.settings)
    secret = sealed_token(request, asked, res, who)
    if asked.method == "copy-image":
        _check_locations(row, stores, res)
    signature = await signature_for(request, asked, row["properties"], res)

    quota = await res.quotas.of(row["owner"])
    async with res.db.write() as connection:
        await quota.require(
            connection,
            # Each store takes room for itself when its turn comes; this is so that an import that
            # cannot succeed is refused at once.
            size=(row["size"] or 0) * len(stores),
            # What was staged is counted already.
            uploading=0 if asked.method == "glance-direct" else 1,
        )
        if asked.method == "swift-local" and (columns or asked.os_type is not None):
            await _declare(connection, image_id, asked, res, who)
        try:
            begun, _ = await begin(
                connection,
                res,
                who,
                asked,
                image_id=row["id"],
                expected=_FROM[asked.method],
                stores=stores,
                task_type="api_image_import",
                task_input={
                    "image_id": row["id"],
                    "import_req": asked.given,
                    # Where there is but one store clients do not see its name, as in Glance.
                    "backend": list(stores) if res.stores.is_multiple else [None],
                },
                secret=secret,
                signature=signature,
            )
        except Conflict:
            now = await visible_image(connection, image_id, res, who)
            _check_status(now, asked)
            raise _cannot_begin(now, asked, header, res) from None
        # A PATCH may have taken them away since.
        _check_formats(begun)
        if asked.method not in FOUND_BY_THE_JOB:
            _check_claim(begun, signature)
    return Response(status_code=202)


def _check_status(row: ImageRow, asked: ImportRequest) -> None:
    status, expected = row["status"], _FROM[asked.method]
    if status != expected:
        raise Conflict(
            f"Image {row['id']} is {status}; the method {asked.method} is for images that are"
            f" {expected}."
        )


def _check_formats(row: Mapping[str, object]) -> None:
    for name in ("container_format", "disk_format"):
        if row[name] is None:
            raise Conflict(f"{name} must be set before an import.")


def _check_claim(row: ImageRow, signature: Signature | None) -> None:
    if signatures.claimed(row["properties"]) != (signature and signature.claim):
        raise Conflict(f"The signature of image {row['id']} was changed by another request.")


def _check_locations(row: ImageRow, stores: Collection[str], res: Resources) -> None:
    quota = res.settings.default.image_location_quota
    attempted = len(row["locations"]) + len(stores)
    if 0 <= quota < attempted:
        raise TooLarge(
            f"The limit has been exceeded on the number of allowed image locations. Attempted:"
            f" {attempted}, Maximum: {quota}"
        )


def _declared_by_source(asked: ImportRequest, row: ImageRow, res: Resources) -> dict[str, str]:
    """The formats that the image does not have and that swift-local's source is told to have."""
    columns: dict[str, str] = {}
    if asked.method != "swift-local":
        return columns
    for name, value, has in (
        ("disk_format", asked.source_disk_format, row["disk_format"]),
        ("container_format", asked.source_container_format, row["container_format"]),
    ):
        if value is None:
            continue
        res.schema.check(name, value)
        if has is None:
            columns[name] = value
        elif has != value:
            raise BadRequest(f"The image has the {name} {has}, its source cannot have {value}.")
    return columns


async def _declare(
    connection: Connection, image_id: str, asked: ImportRequest, res: Resources, who: Identity
) -> None:
    """Give the image what swift-local's source is told to have."""
    row = await locked_image(connection, image_id, res, who)
    values: dict[str, object] = dict(_declared_by_source(asked, row, res))
    if asked.os_type is not None:
        res.schema.check("os_type", asked.os_type)
        access = "update" if "os_type" in row["properties"] else "create"
        if not res.protection.allows(who, access, "os_type"):
            raise reserved("os_type")
        properties = {**row["properties"], "os_type": asked.os_type}
        check_quotas(
            properties, (), property_quota=res.settings.default.image_property_quota, tag_quota=-1
        )
        values["properties"] = properties
    if values:
        await images.update(connection, row["id"], values)


def _cannot_begin(
    row: ImageRow, asked: ImportRequest, header: str, res: Resources
) -> Conflict | BadRequest:
    """The answer where another import was faster.

    400 for a copy to where it is being copied already: Nova then waits for that copy to end.
    """
    busy = names_of(row, IMPORTING)
    if asked.method == "copy-image" and not asked.all_stores:
        for name in asked.stores or (header or res.stores.default.name,):
            if name in busy:
                return BadRequest(f"Image {row['id']} is being copied to store {name} already.")
    if row["import_task"] is None:
        return Conflict(f"Image {row['id']} is still being staged.")
    return Conflict(f"Image {row['id']} is being imported by task {row['import_task']}.")


def _stores(asked: ImportRequest, header: str, row: ImageRow, res: Resources) -> tuple[str, ...]:
    """The names of the stores to import into; none if a copy to all has nothing to do."""
    names = _named_stores(asked, header, res)
    if asked.method != "copy-image":
        return names
    present = {location["store"] for location in row["locations"]}
    if asked.all_stores:
        return tuple(name for name in names if name not in present)
    for name in names:
        if name in present:
            raise BadRequest(f"Image {row['id']} is in store {name} already.")
    return names


def _named_stores(asked: ImportRequest, header: str, res: Resources) -> tuple[str, ...]:
    if not res.stores.is_multiple:
        return (res.stores.default.name,)
    if asked.all_stores:
        if asked.stores is not None or header:
            raise BadRequest("all_stores cannot be given together with stores.")
        return tuple(name for name in res.stores.names if not res.stores.info[name].read_only)
    # openstacksdk names the same store in both places; Glance answers 400 to that too.
    if asked.stores is not None and header and asked.stores != (header,):
        raise BadRequest("stores cannot be given together with X-Image-Meta-Store.")
    names = asked.stores or (header or res.stores.default.name,)
    for name in names:
        if name not in res.stores.names:
            raise Conflict(f"There is no store {name[:100]}.")
        if res.stores.info[name].read_only:
            raise Conflict(f"Store {name} is read-only.")
    return names
