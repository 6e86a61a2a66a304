"""Artifacts as clients send them to create one, and as they are shown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import orjson
from diptych_common.errors import BadRequest, Forbidden, TooLarge

from diptych_artifacts.db.artifacts import ArtifactRow, BlobRow, Content
from diptych_artifacts.types import semver
from diptych_artifacts.types.base import DEFAULT_VERSION, FIELDS
from diptych_artifacts.types.fields import Invalid, coerce, linked_artifact
from diptych_artifacts.types.registry import ArtifactType, Types
from diptych_artifacts.wire.schema import schema

# What Glare decides when an artifact is created.
_NOT_AT_CREATION: Final = ("visibility", "status", "display_type_name")

_TIMES: Final = ("created_at", "updated_at", "activated_at")
# Those of the fields that all artifacts have.
_COLUMNS_SHOWN: Final = (
    "id",
    "name",
    "owner",
    "status",
    *_TIMES,
    "description",
    "tags",
    "visibility",
    "version",
    "display_type_name",
)
_COLUMNS: Final = frozenset({*_COLUMNS_SHOWN, "type_name"})

# Types alone: the pattern of versions, as it is served under /schemas, fits none.
_SHOWN: Final = {
    name: {"type": told["type"]} for name, told in schema(Types.all)["properties"].items()
}
# Of any type: with what all have, and with fields of its own.
OPENAPI_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": [*FIELDS],
    "properties": _SHOWN,
}
SHOW_OPENAPI: Final[dict[str, Any]] = {
    "responses": {
        "200": {
            "description": "The artifact.",
            "content": {"application/json": {"schema": OPENAPI_SCHEMA}},
        }
    }
}
CREATE_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        name: _SHOWN[name]
                        for name, field in FIELDS.items()
                        if not field.system and name not in _NOT_AT_CREATION
                    },
                }
            }
        },
    },
    "responses": {
        "201": {
            "description": "The new artifact.",
            "content": {"application/json": {"schema": OPENAPI_SCHEMA}},
        }
    },
}


def require_plausible(body: object) -> dict[str, Any]:
    """The body of a creation, before anything is asked about its type. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be an object.")
    values = cast("dict[str, Any]", body)
    if not values.get("name"):
        raise BadRequest("An artifact needs a name.")
    for name in _NOT_AT_CREATION:
        if name in values:
            raise BadRequest(f"{name} cannot be chosen when an artifact is created.")
    return values


def parse_create(values: Mapping[str, Any], known: ArtifactType) -> dict[str, Any]:
    """What a client says of a new artifact of this type, coerced, by field.

    Raises BadRequest, and Forbidden for what only the service sets. What is null is left out: then
    the field has its default.
    """
    given = {
        name: checked(known, name, value)
        for name, value in values.items()
        if name in known.fields and not known.fields[name].holds_blobs
    }
    for name in values:
        field = known.fields.get(name)
        if field is None:
            raise BadRequest(f"The type {known.name} has no field {name[:255]!r}.")
        if field.holds_blobs:
            raise BadRequest(f"{name} is given by an upload.")
        if field.system:
            raise Forbidden(f"{name} is set by the service.")
    for name in known.required_at_creation:
        if name not in given:
            raise BadRequest(f"{name} is required.")
    return {name: value for name, value in given.items() if values[name] is not None}


def checked(known: ArtifactType, name: str, value: object) -> Any:
    """The value that a field of the type gets for what was sent. Raises BadRequest."""
    try:
        return coerce(known.fields[name], value)
    except Invalid as error:
        raise BadRequest(f"{known.name}, {name}: {error}") from error


def of_hook(changes: Mapping[str, Any], known: ArtifactType) -> dict[str, Any]:
    """What the type itself sets of a new artifact, coerced, by field. Raises BadRequest."""
    return {name: checked(known, name, value) for name, value in changes.items()}


def planned(given: Mapping[str, Any], known: ArtifactType) -> dict[str, Any]:
    """What a new artifact will have in each of the fields that it can be created with."""
    return {
        name: given.get(name, field.default)
        for name, field in known.fields.items()
        if not field.holds_blobs
    }


def content(values: Mapping[str, Any], fields: Mapping[str, Any]) -> Content:
    """The columns for coerced values by field, and for those of `fields`, that are to be stored.

    Base fields that `values` lacks get their defaults.
    """
    version = semver.coerce(values.get("version") or DEFAULT_VERSION)
    return Content(
        name=values["name"],
        version=version.text,
        version_sort=version.sort_key,
        version_build=version.build,
        description=values.get("description", FIELDS["description"].default),
        tags=tuple(values.get("tags") or ()),
        fields=fields,
    )


def require_size(new: Content, *, most: int, before: Content | None = None) -> None:
    """Raise TooLarge for more JSON than `most` bytes, unless there were as many `before`.

    With 0 any number will do.
    """
    if not most or (size := _size(new)) <= most:
        return
    # What was larger when the limit came can still change its state, or become smaller.
    if before is None or size > _size(before):
        raise TooLarge(f"The artifact's JSON has {size} bytes; it may have {most}.")


def _size(content: Content) -> int:
    told = (content.name, content.description, content.tags, {**content.fields})
    return len(orjson.dumps(told))


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of coerced values by field that are kept in `fields`.

    As in Glare, nothing and empty are the same there: what the field has by default.
    """
    return {
        name: value
        for name, value in values.items()
        if name not in _COLUMNS and not is_nothing(value)
    }


def is_nothing(value: object) -> bool:
    """Whether storing a value is no different from having none."""
    return value is None or value == [] or value == {}


def linked_artifacts(values: Mapping[str, Any], known: ArtifactType) -> frozenset[str]:
    """The ids of the artifacts that links among coerced values by field name."""
    found: set[str | None] = set()
    for name, value in values.items():
        field = known.fields[name]
        if field.kind != "Link" or value is None:
            continue
        if field.shape == "one":
            found.add(linked_artifact(value))
        else:
            links = value.values() if field.shape == "dict" else value
            found.update(linked_artifact(link) for link in links)
    return frozenset(one.lower() for one in found if one is not None)


def values_of(row: ArtifactRow, known: ArtifactType) -> dict[str, Any]:
    """Every field of the type with its value or its default; those of blobs with their blobs."""
    # A page of a thousand is mostly this: what all artifacts of a type share is looked up once.
    values = {**known.blank}
    for name in known.copied:
        values[name] = values[name].copy()
    columns = cast("Mapping[str, Any]", row)
    for name in _COLUMNS_SHOWN:
        values[name] = columns[name]
    for name in _TIMES:
        if values[name] is not None:
            values[name] = timestamp(values[name])
    if "type_name" in values:
        values["type_name"] = row["type_name"]
    for name, value in row["fields"].items():
        if name in values and not known.fields[name].holds_blobs:
            values[name] = value
    for one in row["blobs"]:
        field = known.fields.get(one["field"])
        if field is None:
            continue
        if field.is_folder:
            values[one["field"]][one["key"]] = blob(row, one)
        else:
            values[one["field"]] = blob(row, one)
    return values


def document(row: ArtifactRow, types: Types, *, via_all: bool) -> dict[str, Any]:
    """The artifact as clients see it; `via_all`: as the type `all` shows it.

    One whose type is not enabled any more is shown with the fields that all have.
    """
    own = types.get(row["type_name"], types.all)
    shown = values_of(row, types.all if via_all else own)
    shown.update(own.extras(shown))
    return shown


def blob(row: ArtifactRow, one: BlobRow) -> dict[str, object]:
    """A blob as clients see it: where its data is in a store, they never learn."""
    if one["external"]:
        url = one["url"]
    else:
        url = "/".join(
            [
                "/artifacts",
                row["type_name"],
                row["id"],
                one["field"],
                *([one["key"]] if one["key"] else []),
            ]
        )
    return {
        "url": url,
        "status": one["status"],
        "size": one["size"],
        "md5": one["md5"],
        "sha1": one["sha1"],
        "sha256": one["sha256"],
        "external": one["external"],
        "content_type": one["content_type"],
    }


def timestamp(at: datetime) -> str:
    """A time as the API has it: UTC, whole seconds."""
    # In two fifths of the time that `strftime` takes.
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"
