"""All that a route may ask for: the service's open resources, the caller, and the request's body.

Also the few steps that every route shares: finding an image that the caller may see, and checking
a rule on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, cast

import orjson
from diptych_common.database import Connection, Database
from diptych_common.errors import BadRequest, Forbidden, NotFound, TooLarge
from diptych_common.handover import Handover
from diptych_common.identity import Identity
from diptych_common.metrics import Metrics
from diptych_common.policy import Policy
from diptych_common.rate_limit import RateLimit
from diptych_common.sealing import Sealed
from diptych_store.ingest import BlockPool
from diptych_store.registry import Stores
from fastapi import Depends, Request

from diptych_images import policies
from diptych_images.barbican import Barbican
from diptych_images.cache.upkeep import Upkeep
from diptych_images.db import images
from diptych_images.db.images import ImageRow
from diptych_images.property_protection import PropertyProtection
from diptych_images.quotas import Quotas
from diptych_images.settings import ImagesSettings
from diptych_images.wire import image
from diptych_images.wire.schemas import ImageSchema

# The largest JSON document a client may send, in bytes: 128 properties of 64 KiB fit.
MAX_DOCUMENT = 10 * 1024 * 1024

# How many values it may hold: to check millions of them takes a process half a minute, in which it
# answers nobody and renews no lease.
MAX_VALUES = 20_000

# What `Transfer-Encoding` says when a request has a body. Source: Glance 33.0, common/wsgi.py.
_BODY_ENCODINGS = {"chunked", "compress", "deflate", "gzip", "identity"}


@dataclass(frozen=True, slots=True)
class Resources:
    """What the lifespan opened for this process.

    `sealed` is None without a key in the settings, `caching` without a directory for the cache.
    """

    settings: ImagesSettings
    db: Database
    policy: Policy
    protection: PropertyProtection
    stores: Stores
    blocks: BlockPool
    schema: ImageSchema
    metrics: Metrics
    sealed: Sealed | None
    creations: RateLimit
    quotas: Quotas
    caching: Upkeep | None
    barbican: Barbican
    handover: Handover


# Dependencies are coroutines, for FastAPI sends plain functions through a thread.
async def _resources(request: Request) -> Resources:
    return cast(Resources, request.state.resources)


async def _who(request: Request) -> Identity:
    return cast(Identity, request.state.who)


Res = Annotated[Resources, Depends(_resources)]
Who = Annotated[Identity, Depends(_who)]


def is_admin(res: Resources, who: Identity) -> bool:
    """Whether the caller is an administrator of the service, in whatever project."""
    return res.policy.allows("context_is_admin", who, {})


async def visible_image(
    connection: Connection, image_id: str, res: Resources, who: Identity
) -> ImageRow:
    """The image, or NotFound if there is none that the caller may see."""
    row = await images.get(
        connection, image_id, project_id=who.project_id, is_admin=is_admin(res, who)
    )
    if row is None:
        raise not_found(image_id)
    return row


async def locked_image(
    connection: Connection, image_id: str, res: Resources, who: Identity
) -> ImageRow:
    """As `visible_image`, and locked until the end of the transaction."""
    row = await images.get_for_update(
        connection, image_id, project_id=who.project_id, is_admin=is_admin(res, who)
    )
    if row is None:
        raise not_found(image_id)
    return row


def not_found(image_id: str) -> NotFound:
    """The one answer for an image that does not exist or must not be known to exist."""
    return NotFound(f"There is no image {image_id}.")


def target(row: ImageRow, who: Identity) -> dict[str, object]:
    """What policy rules may ask about an image.

    `member_id` is the caller's project where the image is shared with it: that it is a member was
    established when the row was read.
    """
    return {
        **row["properties"],
        "id": row["id"],
        "image_id": row["id"],
        "name": row["name"],
        "status": row["status"],
        "visibility": row["visibility"],
        "owner": row["owner"],
        "project_id": row["owner"],
        "member_id": (
            who.project_id
            if row["visibility"] == "shared" and row["owner"] != who.project_id
            else None
        ),
        "protected": row["protected"],
        "os_hidden": row["os_hidden"],
        "disk_format": row["disk_format"],
        "container_format": row["container_format"],
        "size": row["size"],
        "virtual_size": row["virtual_size"],
        "checksum": row["checksum"],
        "min_disk": row["min_disk"],
        "min_ram": row["min_ram"],
        "tags": row["tags"],
    }


def require(res: Resources, rule: str, who: Identity, row: ImageRow) -> None:
    """Check a rule on an image: NotFound if the caller may not even get it, else Forbidden."""
    about = target(row, who)
    try:
        res.policy.require(rule, who, about)
    except Forbidden:
        # A token of the wrong scope is told so; it finds nothing out about this image by it.
        is_about_the_token = res.policy.refuses_scope(rule, who)
        if not is_about_the_token and not res.policy.allows("get_image", who, about):
            raise not_found(row["id"]) from None
        raise


def require_change(res: Resources, rule: str, who: Identity, row: ImageRow) -> None:
    """As `require`, for a rule that lets the caller change the image."""
    require(res, rule, who, row)
    policies.require_owner(res.policy, who, row["owner"])


def refuse_anonymous(who: Identity) -> None:
    """Callers without a token only read."""
    if who.is_anonymous:
        raise Forbidden("This needs a token.")


def has_body(request: Request) -> bool:
    """Whether the request announces a body."""
    if request.headers.get("transfer-encoding", "").lower() in _BODY_ENCODINGS:
        return request.method in ("POST", "PUT", "PATCH")
    length = request.headers.get("content-length", "0")
    return length.isdecimal() and int(length) > 0


async def refuse_body(request: Request) -> None:
    """Answer 400 to a body where the API has none; a route's dependency."""
    if has_body(request):
        raise BadRequest("A request of this kind has no body.")


NO_BODY = Depends(refuse_body)


async def json_body(request: Request) -> object:
    """The request's JSON document, whatever its content type says.

    Raises BadRequest if there is none or it is not JSON, TooLarge beyond MAX_DOCUMENT and
    MAX_VALUES.
    """
    if not has_body(request):
        raise BadRequest("The request must have a body, and it must be JSON.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_DOCUMENT:
            raise TooLarge(f"The document is larger than {MAX_DOCUMENT} bytes.")
    try:
        document = cast(object, orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from error
    if _has_too_many_values(document):
        raise TooLarge(f"The document holds more than {MAX_VALUES} values.")
    return document


def _has_too_many_values(document: object) -> bool:
    values = 0
    unseen = [document]
    while unseen and values <= MAX_VALUES:
        value = unseen.pop()
        if isinstance(value, dict):
            value = list(cast("dict[str, object]", value).values())
        if isinstance(value, list):
            within = cast("list[object]", value)
            values += len(within)
            unseen += within
    return values > MAX_VALUES


def document(row: ImageRow, res: Resources, who: Identity) -> dict[str, object]:
    """The image as this caller sees it."""
    (only,) = documents([row], res, who)
    return only


def documents(rows: Iterable[ImageRow], res: Resources, who: Identity) -> list[dict[str, object]]:
    """The images as this caller sees them."""
    admin = is_admin(res, who)
    settings = res.settings.default
    return [
        image.document(
            row,
            is_admin=admin,
            is_owner=who.project_id is not None and who.project_id == row["owner"],
            show_direct_url=settings.show_image_direct_url,
            show_locations=settings.show_multiple_locations,
            multi_store=res.stores.is_multiple,
            locations=res.stores.in_read_order(row["locations"]),
            nullable=res.schema.nullable,
            hidden=res.protection.unreadable(who, row["properties"]),
        )
        for row in rows
    ]
