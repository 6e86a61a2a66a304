"""PATCH of an image: the two dialects of its documents, and what their operations come to.

`parse` looks at the request alone, `apply` at the image as well; nothing is changed before all
operations have passed both. Operations on locations are parsed here and applied by `locations.py`.
Owner and stores are guarded more closely than in Glance, where a non-administrator could give an
image away by `add`.

Source: Glance 33.0, api/v2/images.py `RequestDeserializer`; Images API reference, "Update image".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from diptych_common.errors import BadRequest, Conflict, Forbidden, UnsupportedMediaType

from diptych_images.db.images import ImageRow
from diptych_images.wire.image import (
    BASE_PROPERTIES,
    READ_ONLY,
    counted_properties,
    is_reserved,
    read_only,
    reserved,
    too_many,
    unique,
)
from diptych_images.wire.schemas import ImageSchema

Dialect = Literal["2.0", "2.1"]
MEDIA_TYPES: Mapping[str, Dialect] = {
    "application/openstack-images-v2.0-json-patch": "2.0",
    "application/openstack-images-v2.1-json-patch": "2.1",
}

# What one can do with a property of an image, and whether a caller may do so.
Access = Literal["create", "read", "update", "delete"]
May = Callable[[Access, str], bool]

Op = Literal["add", "replace", "remove"]
_OPS: Mapping[str, Op] = {"add": "add", "replace": "replace", "remove": "remove"}

# Create may name these, an update never.
_READ_ONLY = READ_ONLY | {"id", "os_hash_algo", "os_hash_value"}
# Formats are fixed by the time there may be data.
_FORMATS_MAY_CHANGE_IN = ("queued", "importing")

_DOUBLE_SLASH = re.compile(r"/\s*/")
_LONE_TILDE = re.compile(r"~(?![01])")


@dataclass(frozen=True, slots=True)
class Operation:
    """One change that a client asks for.

    `path` has one token, the property's name, or for a single location two. `value` is None for
    a removal. `may_overwrite` is false for an `add` that must not find the property there.
    """

    op: Op
    path: tuple[str, ...]
    value: Any = None
    may_overwrite: bool = True

    @property
    def name(self) -> str:
        """The property that the operation is about."""
        return self.path[0]


@dataclass(frozen=True, slots=True)
class Changes:
    """What the operations come to.

    `values` are the columns to write, `tags` and `properties` whole, empty if there was no
    operation. `visibilities` are all that were asked for on the way, each of them a question to
    policy (`publicize_image`, `communitize_image`).
    """

    values: Mapping[str, object]
    visibilities: frozenset[str]


def dialect(content_type: str | None) -> Dialect:
    """The dialect of a request by its Content-Type; UnsupportedMediaType names those there are."""
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"An image is patched with {' or '.join(MEDIA_TYPES)}.",
            headers={"Accept-Patch": ", ".join(MEDIA_TYPES)},
        )
    return MEDIA_TYPES[media_type]


def parse(body: object, dialect: Dialect, schema: ImageSchema) -> tuple[Operation, ...]:
    """Check a patch document by itself.

    Raises BadRequest for a malformed document, path or value, Forbidden for a property that no
    client can change.
    """
    if not isinstance(body, list):
        raise BadRequest("The body must be a JSON array of operations.")
    read = _read_v20 if dialect == "2.0" else _read_v21
    operations: list[Operation] = []
    for item in cast("list[object]", body):
        if not isinstance(item, dict):
            raise BadRequest("Every operation must be a JSON object.")
        operation = read(cast("dict[str, Any]", item))
        _check(operation, schema)
        operations.append(operation)
    return tuple(operations)


def apply(
    row: ImageRow,
    operations: tuple[Operation, ...],
    *,
    is_admin: bool,
    property_quota: int,
    tag_quota: int,
    required: tuple[str, ...] = (),
    may: May = lambda access, name: True,
) -> Changes:
    """Work out, in order, what the operations do to the image; the row itself stays as it is.

    `required` are the custom properties that the site's schema does not let go, `may` says which
    ones the caller may read and change; what it may not read is not there for it. Raises Conflict
    for a property that is there or not there against the operation's word, Forbidden for one that
    cannot be changed now or by this caller, TooLarge beyond a quota; an image that is over a quota
    already can change as long as it does not grow.
    """
    values: dict[str, object] = {}
    properties = dict(row["properties"])
    visibilities: set[str] = set()
    for operation in operations:
        name = operation.name
        if name == "locations":
            raise Forbidden("The locations of an image cannot be changed while they are not shown.")
        if name not in BASE_PROPERTIES:
            _change_property(properties, operation, required, may)
            values["properties"] = properties
            continue
        if operation.op == "remove":
            raise Forbidden(f"Property {name} cannot be removed.")
        if not operation.may_overwrite:
            raise _there_already(name)
        if name == "owner" and not is_admin:
            raise Forbidden("Only an administrator can give an image to another project.")
        if name in ("disk_format", "container_format") and (
            row["status"] not in _FORMATS_MAY_CHANGE_IN
        ):
            raise Forbidden(f"Property {name} cannot be changed while the image has data.")
        if name == "visibility":
            visibilities.add(operation.value)
        values[name] = list(unique(operation.value)) if name == "tags" else operation.value

    _check_growth(
        "properties",
        counted_properties(row["properties"]),
        counted_properties(properties),
        property_quota,
    )
    if "tags" in values:
        _check_growth("tags", len(row["tags"]), len(cast("list[str]", values["tags"])), tag_quota)
    return Changes(values=values, visibilities=frozenset(visibilities))


def _read_v21(item: dict[str, Any]) -> Operation:
    op = item.get("op")
    if not isinstance(op, str) or op not in _OPS:
        raise BadRequest("The op of an operation must be add, replace or remove.")
    if "path" not in item:
        raise BadRequest("An operation must have a path.")
    return Operation(op=_OPS[op], path=_path(item["path"]), value=_value(item, op))


def _read_v20(item: dict[str, Any]) -> Operation:
    ops = [op for op in _OPS if op in item]
    if len(ops) != 1:
        raise BadRequest("An operation must have exactly one of add, replace and remove.")
    op = ops[0]
    return Operation(
        op=_OPS[op], path=_path(item[op]), value=_value(item, op), may_overwrite=op != "add"
    )


def _value(item: dict[str, Any], op: str) -> Any:
    if op == "remove":
        return None
    if "value" not in item:
        raise BadRequest(f"An operation that does {op} must have a value.")
    return item["value"]


def _path(pointer: object) -> tuple[str, ...]:
    """The tokens of a JSON pointer, each unescaped and without spaces around it."""
    if not isinstance(pointer, str):
        raise BadRequest("The path of an operation must be a string.")
    if not pointer.startswith("/"):
        raise BadRequest("The path of an operation must begin with a slash.")
    if _DOUBLE_SLASH.search(pointer):
        raise BadRequest("The path of an operation must not have empty parts.")
    if pointer.rstrip().endswith("/"):
        raise BadRequest("The path of an operation must not end with a slash.")
    if _LONE_TILDE.search(pointer):
        raise BadRequest("In the path of an operation ~ is written ~0, and / within a name ~1.")
    return tuple(
        token.replace("~1", "/").replace("~0", "~").strip() for token in pointer[1:].split("/")
    )


def _check(operation: Operation, schema: ImageSchema) -> None:
    name = operation.name
    if name in _READ_ONLY:
        raise read_only(name)
    if is_reserved(name):
        raise reserved(name)
    of_one_location = name == "locations" and operation.op != "replace"
    if len(operation.path) != (2 if of_one_location else 1):
        raise BadRequest(f"{operation.op} cannot be done on a path of {len(operation.path)} parts.")
    if operation.op == "remove":
        return
    if of_one_location:
        schema.check_location(operation.value)
    else:
        schema.check(name, operation.value)


def _change_property(
    properties: dict[str, str | None],
    operation: Operation,
    required: tuple[str, ...],
    may: May,
) -> None:
    name = operation.name
    is_there = name in properties and may("read", name)
    if operation.op == "add":
        if is_there and not operation.may_overwrite:
            raise _there_already(name)
    elif not is_there:
        raise _not_there(name)
    if operation.op == "remove":
        if name in required:
            raise Forbidden(f"Property {name} cannot be removed.")
        if not may("delete", name):
            raise reserved(name)
        del properties[name]
        return
    # Glance asks for `create` alone where the caller cannot read what is there, and so lets it
    # replace what it may not update.
    if not is_there and not may("create", name):
        raise reserved(name)
    if name in properties and not may("update", name):
        raise reserved(name)
    properties[name] = operation.value


def _check_growth(what: str, before: int, after: int, quota: int) -> None:
    if after > before and 0 <= quota < after:
        raise too_many(what, quota)


def _there_already(name: str) -> Conflict:
    return Conflict(f"Property {name} is there already.")


def _not_there(name: str) -> Conflict:
    return Conflict(f"There is no property {name}.")


UPDATE_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/openstack-images-v2.1-json-patch": {
                "schema": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["op", "path"],
                        "properties": {
                            "op": {"type": "string", "enum": list(_OPS)},
                            "path": {"type": "string"},
                            "value": {},
                        },
                    },
                }
            },
            "application/openstack-images-v2.0-json-patch": {
                "schema": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "add": {"type": "string"},
                            "replace": {"type": "string"},
                            "remove": {"type": "string"},
                            "value": {},
                        },
                    },
                }
            },
        },
    },
    "responses": {
        "200": {
            "description": "The image as it is now.",
            "content": {"application/json": {"schema": ImageSchema().document}},
        }
    },
}
