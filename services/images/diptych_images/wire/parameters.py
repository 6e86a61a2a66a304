"""What routes take besides a body, and what they answer, as the OpenAPI document tells it."""

from collections.abc import Sequence
from typing import Any, Final, get_args

from diptych_images.db import tasks
from diptych_images.db.metadefs import namespaces
from diptych_images.wire import listing
from diptych_images.wire.schemas import MEMBER_STATUSES, VISIBILITIES

Schema = dict[str, Any]
Openapi = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_NATURAL: Final[Schema] = {"type": "integer", "minimum": 0}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_DIRECTION: Final[Schema] = {"type": "string", "enum": ["asc", "desc"]}

_COMPARED: Final = "Also eq: and a value, or in: and several with commas."
_TIME: Final = "A time in ISO 8601, after eq:, neq:, gt:, gte:, lt: or lte:."


def _one_of(values: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


def _parameter(name: str, schema: Schema, description: str = "", *, where: str) -> Schema:
    told = {"description": description} if description else {}
    return {"name": name, "in": where, "required": False, "schema": schema, **told}


def _query(name: str, schema: Schema, description: str = "") -> Schema:
    return _parameter(name, schema, description, where="query")


def _header(name: str, schema: Schema, description: str) -> Schema:
    return _parameter(name, schema, description, where="header")


def _sorted_by(keys: Sequence[str]) -> list[Schema]:
    return [
        _query("sort_key", _one_of(keys), "created_at unless given."),
        _query("sort_dir", _DIRECTION, "desc unless given."),
    ]


_LIMIT: Final = _query("limit", _NATURAL, "How many there are on a page at most.")
_MARKER: Final = _query("marker", _TEXT, "The last one of the page before.")
_STORE: Final = _header("X-Image-Meta-Store", _TEXT, "The store to write to; the default one.")
_SIZE: Final = _header("X-Openstack-Image-Size", _NATURAL, "The bytes that are to come.")

IMAGES: Final[Openapi] = {
    "parameters": [
        _LIMIT,
        _query("marker", {**_TEXT, "format": "uuid"}, "The last image of the page before."),
        _query("sort", _TEXT, "key:direction, several with commas, in place of the next two."),
        _query("sort_key", {"type": "array", "items": _one_of(list(listing.SORT_KEYS))}),
        _query(
            "sort_dir", {"type": "array", "items": _DIRECTION}, "One for all keys, or for each."
        ),
        *(
            _query(name, _TEXT, _COMPARED)
            for name in ("id", "name", "status", "container_format", "disk_format")
        ),
        *(_query(name, _TEXT) for name in ("owner", "checksum", "os_hash_algo", "os_hash_value")),
        *(_query(name, _TEXT, _TIME) for name in ("created_at", "updated_at")),
        *(
            _query(f"{name}{suffix}", _NATURAL)
            for name in ("size", "virtual_size", "min_disk", "min_ram")
            for suffix in ("", "_min", "_max")
        ),
        _query("protected", _BOOLEAN),
        _query("os_hidden", _BOOLEAN, "Those that lists leave out otherwise."),
        _query("visibility", _one_of(["all", *VISIBILITIES])),
        _query(
            "member_status",
            _one_of(["all", *MEMBER_STATUSES]),
            "Of images shared with the caller; accepted unless given.",
        ),
        _query("tag", _TEXTS, "The image has all of them. Any other name is a custom property's."),
    ]
}

TASKS: Final[Openapi] = {
    "parameters": [
        _LIMIT,
        _MARKER,
        *_sorted_by(get_args(tasks.SortKey)),
        *(_query(name, _TEXT) for name in get_args(tasks.FilterKey)),
    ]
}

NAMESPACES: Final[Openapi] = {
    "parameters": [
        _LIMIT,
        _MARKER,
        *_sorted_by(get_args(namespaces.SortKey)),
        _query("visibility", _one_of(["public", "private"])),
        _query("resource_types", _TEXT, "Names with commas: the namespace is for one of them."),
    ]
}

# What a namespace holds.
ENTRIES: Final[Openapi] = {
    "parameters": [_LIMIT, _MARKER, *_sorted_by(["name", "created_at", "updated_at"])]
}

RESOURCE_TYPE: Final[Openapi] = {
    "parameters": [
        _query("resource_type", _TEXT, "Names of properties are with the prefix of this type.")
    ]
}

APPEND: Final[Openapi] = {
    "parameters": [_header("X-Openstack-Append", _BOOLEAN, "Keep the tags that there are.")]
}

_OCTETS: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

DOWNLOAD: Final[Openapi] = {
    "parameters": [
        _query("prefer", _TEXT, "Stores with commas: read from the first that has the image."),
        _header("Range", _TEXT, "bytes=first-last, one range."),
        _header("If-None-Match", _TEXT, "The ETag of bytes that the client has: then 304."),
    ],
    "responses": {
        "200": {"description": "All bytes.", "content": _OCTETS},
        "204": {"description": "The image has no bytes."},
        "206": {"description": "The range.", "content": _OCTETS},
        "304": {"description": "The client has the bytes already."},
    },
}

IMPORT: Final[Openapi] = {"parameters": [_STORE]}
STAGE: Final[Openapi] = {"parameters": [_SIZE]}
UPLOAD: Final[Openapi] = {"parameters": [_STORE, _SIZE]}

CLEAR_CACHE: Final[Openapi] = {
    "parameters": [
        _header(
            "X-Image-Cache-Clear-Target",
            _one_of(("cache", "queue", "both")),
            "What to drop; both unless told.",
        )
    ]
}
