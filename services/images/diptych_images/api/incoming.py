"""What requests that bring bytes have in common: how they announce them, and how they are taken."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import unquote

from diptych_common.database import Database
from diptych_common.errors import ApiError, BadRequest, Conflict, TooLarge, UnsupportedMediaType
from diptych_store.digests import Digests
from diptych_store.errors import StoreError
from diptych_store.ingest import Ingested, ingest
from fastapi import Request
from starlette.requests import ClientDisconnect

from diptych_images.api.errors import from_store
from diptych_images.api.resources import Resources
from diptych_images.attempts import Held
from diptych_images.db.images import ImageRow
from diptych_images.formats import Findings, Inspection
from diptych_images.notifications import emit_failure
from diptych_images.quotas import Room

_MANY_DIGITS = 30


def octets_openapi(answer: str) -> dict[str, Any]:
    """What the OpenAPI document says of a route that takes bytes; `answer` describes its 204."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {"204": {"description": answer}},
    }


def user_token(request: Request) -> str | None:
    """The caller's token as it came, for servers that act for users; never to be logged."""
    return request.headers.get("x-auth-token") or request.headers.get("x-storage-token")


def named_store(request: Request) -> str:
    """The store that `X-Image-Meta-Store` names, whether there is such a one or not; or ''."""
    # glanceclient quotes the values of its headers.
    return unquote(request.headers.get("x-image-meta-store", ""))


def require_octet_stream(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body is told to be bytes."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/octet-stream":
        raise UnsupportedMediaType(
            f"Data is sent as application/octet-stream, not as {content_type or 'nothing'}."
        )


def announced_size(request: Request) -> int | None:
    """The number of bytes that the client announces, None if it does not; or BadRequest.

    `Content-Length: 0` announces nothing: Glance's clients send it for an empty image and for
    one of unknown size alike.
    """
    length = int(request.headers.get("content-length", "0")) or None
    announced = request.headers.get("x-openstack-image-size")
    if announced is None:
        return length
    # int() refuses thousands of digits with an error of its own; no size has as many as this.
    if not (announced.isascii() and announced.isdecimal() and len(announced) <= _MANY_DIGITS):
        raise BadRequest("x-openstack-image-size must be a number of bytes.")
    if length is not None and int(announced) != length:
        raise BadRequest(
            f"x-openstack-image-size announces {announced} bytes, Content-Length {length}."
        )
    return int(announced)


def require_room(row: ImageRow, size: int | None, res: Resources) -> None:
    """Raise Conflict unless the image takes data, TooLarge for more than an image can have."""
    if row["status"] != "queued":
        raise Conflict(f"Image {row['id']} is {row['status']}; only queued images take data.")
    limit = res.settings.default.image_size_cap
    if size is not None and size > limit:
        raise TooLarge(f"An image can have {limit} bytes.")


def hash_algorithm(row: ImageRow, res: Resources) -> str:
    """What the bytes are hashed with besides MD5: as was chosen at creation, or the setting."""
    return row["os_hash_algo"] or res.settings.default.hashing_algorithm


async def received(
    request: Request,
    res: Resources,
    held: Held,
    room: Room,
    *,
    size: int | None,
    digests: Digests,
) -> tuple[Ingested, Findings]:
    """Write the body into the attempt's place, where it waits to be published.

    `size` is what was announced. Raises as `ingest`, Gone if the attempt is lost, and TooLarge
    where there is no room for more.
    """
    store = held.target.store
    inspection = Inspection()
    with res.metrics.transferring("in"):
        async with aclosing(room.before(request.stream())) as stream:
            stored = await held.while_held(
                ingest(
                    stream,
                    store,
                    held.target.attempt,
                    size=size,
                    limit=res.settings.default.image_size_cap,
                    digests=digests,
                    observers=[inspection],
                    pool=res.blocks,
                )
            )
    res.metrics.store_bytes.labels(store.name, "in").inc(stored.size)
    return stored, inspection.findings()


@asynccontextmanager
async def failure_told(db: Database, image_id: str) -> AsyncGenerator[None]:
    """Record an event of a failure to take an image's bytes; the error goes on to the client."""
    try:
        yield
    except Exception as error:
        match error:
            case ApiError():
                reason = error.message
            case StoreError():
                reason = from_store(error).message
            case ClientDisconnect():
                reason = "The client went away."
            case _:
                reason = "Internal error."
        await emit_failure(db, f"The data of image {image_id} could not be stored: {reason}")
        raise
