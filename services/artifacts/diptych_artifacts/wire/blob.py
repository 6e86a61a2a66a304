"""Blobs as clients name them and give their locations; checksums in headers."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from diptych_common.errors import BadRequest, Forbidden, RequestTimeout

from diptych_artifacts.db.artifacts import ArtifactRow, BlobRow
from diptych_artifacts.types.fields import (
    NOT_IN_URLS,
    Field,
    Invalid,
    coerce_key,
    is_web_address,
)
from diptych_artifacts.types.registry import ArtifactType
from diptych_artifacts.wire import artifact

LOCATION: Final = "application/vnd+openstack.glare-custom-location+json"
"""The content type of a request that brings a location and no data."""

_LONGEST_URL: Final = 2048
_DIGESTS: Final = ("md5", "sha1", "sha256")
# They go into headers of answers as they are.
_DIGEST: Final = re.compile(r"[\x21-\x7e]{0,255}")

# Schemes of locations that even an administrator must not give: files of this host, credentials of
# the service, rows of its database. Source: Glare 5.0.1, engine.py.
_FORBIDDEN: Final = frozenset({"file", "filesystem", "swift+config", "sql"})

PUT_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            LOCATION: {
                "schema": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {
                        "url": {"type": "string", "maxLength": _LONGEST_URL},
                        "location_type": {"type": "string", "enum": ["external", "internal"]},
                        **{name: {"type": ["string", "null"]} for name in _DIGESTS},
                    },
                }
            },
            # Data of whatever type.
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": {
        "200": {
            "description": "The artifact as it is now.",
            "content": {"application/json": {"schema": artifact.OPENAPI_SCHEMA}},
        }
    },
}

_BYTES: Final = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
DOWNLOAD_OPENAPI: Final[dict[str, Any]] = {
    "responses": {
        "200": {"description": "All bytes.", "content": _BYTES},
        "206": {"description": "The range.", "content": _BYTES},
        "301": {"description": "The bytes are elsewhere: see Location."},
        "304": {"description": "The client has the bytes already."},
    },
}


@dataclass(frozen=True, slots=True)
class Place:
    """A blob's field, and its key in a folder; "" for a blob of its own."""

    name: str
    key: str
    field: Field

    def __str__(self) -> str:
        return f"{self.name}/{self.key}" if self.key else self.name


@dataclass(frozen=True, slots=True)
class Location:
    """Where the data of a blob are already; `digests` as the client says, without proof."""

    url: str
    is_external: bool
    digests: dict[str, str | None]


def parse_place(path: str, known: ArtifactType) -> Place:
    """What the path after an artifact's id names. Raises BadRequest for what is no blob.

    All after the first slash is the key of a folder, further slashes too.
    """
    name, _, key = path.partition("/")
    field = known.fields.get(name)
    if field is None or not field.holds_blobs:
        raise BadRequest(f"{known.name} have no blob {name[:255]!r}.")
    if field.is_folder and not key:
        raise BadRequest(f"{name} is a folder: a blob in it is {name}/KEY.")
    if field.is_blob and key:
        raise BadRequest(f"{name} is no folder.")
    return Place(name, key, field)


def require_key(place: Place) -> None:
    """Raise BadRequest for a key that the folder does not take."""
    if place.key:
        try:
            coerce_key(place.field, place.key)
        except Invalid as error:
            raise BadRequest(f"{place.name}: {error}") from error


def find(row: ArtifactRow, place: Place) -> BlobRow | None:
    """The artifact's blob there, None if it has none."""
    for one in row["blobs"]:
        if (one["field"], one["key"]) == (place.name, place.key):
            return one
    return None


def announced_size(content_length: str | None) -> int | None:
    """The number of bytes that a request announces, None if it does not. Raises BadRequest."""
    if content_length is None:
        return None
    # int() refuses thousands of digits with an error of its own; no size has as many as this.
    if not (content_length.isascii() and content_length.isdecimal() and len(content_length) <= 30):
        raise BadRequest("Content-Length must be a number of bytes.")
    return int(content_length)


async def whole(
    stream: AsyncIterator[bytes], size: int | None, *, idle_s: float
) -> AsyncGenerator[bytes]:
    """The same bytes.

    Raises BadRequest if they are not as many as were announced, RequestTimeout if none come for
    `idle_s` seconds.
    """
    received = 0
    while (piece := await _next(stream, idle_s)) is not None:
        received += len(piece)
        if size is not None and received > size:
            break
        yield piece
    if size is not None and received != size:
        raise BadRequest(f"{received} bytes were sent or more, {size} were announced.")


async def _next(stream: AsyncIterator[bytes], idle_s: float) -> bytes | None:
    try:
        # Around the wait for the client alone: a store may take longer with what came before.
        async with asyncio.timeout(idle_s):
            return await anext(stream, None)
    except TimeoutError:
        raise RequestTimeout(f"Nothing was sent for {idle_s:g} seconds.") from None


def parse_location(body: object) -> Location:
    """The body of a request that brings a location. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be an object.")
    values = cast("dict[str, object]", body)
    kind = values.get("location_type", "external")
    if kind not in ("external", "internal"):
        raise BadRequest("location_type must be external or internal.")
    url = values.get("url")
    if not isinstance(url, str):
        raise BadRequest("url must be a string.")
    if len(url) > _LONGEST_URL:
        raise BadRequest(f"A url has at most {_LONGEST_URL} characters.")
    if NOT_IN_URLS.search(url) or not _is_encodable(url):
        raise BadRequest("A url must not hold blanks or control characters.")
    if kind == "external":
        if not is_web_address(url):
            raise BadRequest("The url of an external location must begin with http:// or https://.")
        if "md5" not in values:
            raise BadRequest("md5 must be given; it may be null.")
    digests: dict[str, str | None] = {}
    for name in _DIGESTS:
        digest = values.get(name)
        if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise BadRequest(f"{name} must be a digest, or null.")
        digests[name] = digest
    return Location(url, kind == "external", digests)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_forbidden_scheme(location: Location) -> None:
    """Raise Forbidden for an internal location that nobody may give."""
    scheme = location.url.partition(":")[0].lower()
    if not location.is_external and scheme in _FORBIDDEN:
        raise Forbidden(f"A location of the scheme {scheme} cannot be given.")


Checksum = Literal["md5", "sha1", "sha256"]
# By the header that tells it. MD5 is hexadecimal, as Glare's client compares it.
_HEADERS: Final[dict[str, Checksum]] = {
    "Content-MD5": "md5",
    "X-Openstack-Glare-Content-SHA1": "sha1",
    "X-Openstack-Glare-Content-SHA256": "sha256",
}


def checksum_headers(one: BlobRow) -> dict[str, str]:
    """The headers with what is known of a blob's digests."""
    return {header: value for header, name in _HEADERS.items() if (value := one[name]) is not None}


def location_header(url: str) -> str:
    """An external blob's address as it can stand in a header: what is not ASCII is encoded."""
    return quote(url, safe="!#$%&'()*+,/:;=?@[]~")
