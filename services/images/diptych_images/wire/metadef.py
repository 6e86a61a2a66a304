"""Metadata definitions: what a client sends of them, what it asks, and what it sees.

Keys that a client did not give are left out of documents, never null.

Source: Glance 33.0, api/v2/metadef_*.py; Metadata Definitions API reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from diptych_common import paging
from diptych_common.errors import BadRequest, Forbidden, NotFound
from jsonschema import Draft4Validator
from jsonschema.exceptions import ValidationError

from diptych_images.db.metadefs.namespaces import (
    Entry,
    Kind,
    NamespaceQuery,
    NamespaceRow,
    NamespaceValues,
    SortKey,
)
from diptych_images.db.metadefs.resource_types import ResourceTypeRow
from diptych_images.db.pages import Direction
from diptych_images.wire.image import timestamp
from diptych_images.wire.schemas import (
    METADEF_NAMESPACE,
    METADEF_OBJECT,
    METADEF_PROPERTY,
    METADEF_RESOURCE_TYPE,
    METADEF_TAG,
    Schema,
)

NAMESPACES: Final = "/v2/metadefs/namespaces"

_READ_ONLY: Final = ("self", "schema", "created_at", "updated_at")
_MAX_NAME: Final = 80

# Deeper documents would exhaust Python's stack while they are checked.
_MAX_DEPTH: Final = 64

_TAGS: Final[Schema] = {
    "required": ["tags"],
    "additionalProperties": False,
    "properties": {
        "tags": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string", "maxLength": _MAX_NAME}},
            },
        }
    },
}


@dataclass(frozen=True, slots=True)
class NewNamespace:
    """A checked namespace; what it is to hold is in the columns of the tables."""

    values: NamespaceValues
    held: Mapping[Kind, Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """A page of what a namespace holds: all after `marker` if `limit` is None."""

    limit: int | None
    sort_key: Literal["name", "created_at", "updated_at"]
    sort_dir: Direction
    marker: str | None


# --- what clients send ---------------------------------------------------------------------------


def namespace(body: object, *, owner: str | None) -> NewNamespace:
    """Check a namespace, with what is nested in it; `owner` is for one that names none.

    Raises BadRequest, and Forbidden for what the service sets itself.
    """
    given = _checked(body, METADEF_NAMESPACE)
    _name(given["namespace"])
    return NewNamespace(
        values=NamespaceValues(
            namespace=given["namespace"],
            display_name=given.get("display_name"),
            description=given.get("description"),
            visibility=given.get("visibility", "private"),
            protected=given.get("protected", False),
            owner=given.get("owner") or owner,
        ),
        held={
            "resource_type_associations": [
                _association(each) for each in given.get("resource_type_associations", ())
            ],
            "properties": [
                {"name": _name(name), "schema": schema}
                for name, schema in given.get("properties", {}).items()
            ],
            "objects": [_object(each) for each in given.get("objects", ())],
            "tags": [{"name": _named(each)} for each in given.get("tags", ())],
        },
    )


def association(body: object) -> Entry:
    """Check an association with a resource type; raises as `namespace` does."""
    return _association(_checked(body, METADEF_RESOURCE_TYPE))


def object_(body: object) -> Entry:
    """Check an object; raises as `namespace` does."""
    return _object(_checked(body, METADEF_OBJECT))


def property_(body: object) -> Entry:
    """Check a property; raises as `namespace` does."""
    given = _checked(body, METADEF_PROPERTY)
    return {"name": _named(given), "schema": given}


def tag(body: object) -> Entry:
    """Check a tag; raises as `namespace` does."""
    return {"name": _named(_checked(body, METADEF_TAG))}


def tags(body: object) -> list[Entry]:
    """Check a list of tags; raises as `namespace` does."""
    return [{"name": _named(each)} for each in _checked(body, _TAGS)["tags"]]


def _association(given: Mapping[str, Any]) -> Entry:
    return {
        "name": _named(given),
        "prefix": given.get("prefix"),
        "properties_target": given.get("properties_target"),
    }


def _object(given: Mapping[str, Any]) -> Entry:
    return {
        "name": _named(given),
        "description": given.get("description"),
        "required": given.get("required"),
        "properties": given.get("properties"),
    }


def _named(given: Mapping[str, Any]) -> str:
    # The schemas of what is nested in a namespace require nothing.
    if "name" not in given:
        raise BadRequest("Everything in a namespace must have a name.")
    return _name(given["name"])


def _name(name: str) -> str:
    # Glance takes an empty name, and nothing can be done with what has it: no path leads there.
    if not 0 < len(name) <= _MAX_NAME:
        raise BadRequest(f"A name has 1 to {_MAX_NAME} characters.")
    return name


def _checked(body: object, schema: Schema) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    given = cast("dict[str, Any]", body)
    for name in _READ_ONLY:
        if name in given:
            raise Forbidden(f"Attribute {name} is read-only.")
    _refuse_unusable(given)
    errors = cast(Any, Draft4Validator({"type": "object", **schema})).iter_errors(given)
    error = cast("ValidationError | None", next(errors, None))
    if error is not None:
        where = "/".join(str(part)[:_MAX_NAME] for part in error.absolute_path) or "The body"
        raise BadRequest(f"{where} does not satisfy {error.validator} of its schema.")
    return given


def _refuse_unusable(body: dict[str, Any]) -> None:
    """Raise BadRequest for U+0000, which PostgreSQL's text cannot hold, and for great depth."""
    level: list[object] = [body]
    for _ in range(_MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                members = cast("dict[str, object]", item)
                below += [*members.keys(), *members.values()]
            elif isinstance(item, list):
                below += cast("list[object]", item)
            elif isinstance(item, str) and "\0" in item:
                raise BadRequest("A text must not hold the character U+0000.")
        if not below:
            return
        level = below
    raise BadRequest(f"The document is nested deeper than {_MAX_DEPTH} levels.")


# --- what clients ask ----------------------------------------------------------------------------


def query(
    items: Sequence[tuple[str, str]], *, default_limit: int, max_limit: int
) -> NamespaceQuery:
    """What a client asks of the namespaces; raises BadRequest. Unknown parameters are ignored."""
    last = _last(items)
    visibility = last.get("visibility") or None
    if visibility not in (None, "public", "private"):
        raise BadRequest("visibility must be public or private.")
    types = last.get("resource_types", "")
    return NamespaceQuery(
        limit=paging.limit_of(items, default=default_limit, cap=max_limit),
        visibility=visibility,
        resource_types=tuple(name.strip() for name in types.split(",") if name.strip()),
        sort_key=_one_of(last, "sort_key", get_args(SortKey)),
        sort_dir=_one_of(last, "sort_dir", get_args(Direction)),
        marker=paging.marker_of(items),
    )


def entry_query(items: Sequence[tuple[str, str]], *, least: int) -> EntryQuery:
    """What a client asks of a namespace's objects or tags; raises BadRequest.

    `least` is the smallest page there can be.
    """
    last = _last(items)
    limit = paging.limit_of(items, default=-1, cap=1_000_000)
    if 0 <= limit < least:
        raise BadRequest(f"limit must be {least} or more.")
    return EntryQuery(
        limit=None if limit < 0 else limit,
        sort_key=_one_of(last, "sort_key", ("name", "created_at", "updated_at")),
        sort_dir=_one_of(last, "sort_dir", get_args(Direction)),
        marker=paging.marker_of(items),
    )


def page_of(entries: Sequence[Entry], query: EntryQuery) -> list[Entry]:
    """The page of what a namespace holds. Raises NotFound if there is no such marker.

    A namespace is read as a whole, so this takes no statement of its own.
    """
    ordered = sorted(
        entries,
        key=lambda entry: (entry[query.sort_key], entry["id"]),
        reverse=query.sort_dir == "desc",
    )
    if query.marker is not None:
        names = [entry["name"] for entry in ordered]
        if query.marker not in names:
            raise NotFound(f"There is no {query.marker} to begin after.")
        ordered = ordered[names.index(query.marker) + 1 :]
    return ordered if query.limit is None else ordered[: query.limit]


def resource_type_of(items: Sequence[tuple[str, str]]) -> str | None:
    """The resource type whose prefix a client wants property names to have; None without one."""
    return _last(items).get("resource_type") or None


def _last(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    if any("\0" in part for item in items for part in item):
        raise BadRequest("The query string holds the character U+0000.")
    return dict(items)


_DEFAULTS: Final = {"sort_key": "created_at", "sort_dir": "desc"}


def _one_of(given: Mapping[str, str], name: str, allowed: Sequence[str]) -> Any:
    value = given.get(name, _DEFAULTS[name])
    if value not in allowed:
        raise BadRequest(f"{name} must be one of {', '.join(allowed)}.")
    return value


# --- what clients see ----------------------------------------------------------------------------


def document(row: NamespaceRow, *, resource_type: str | None = None) -> dict[str, Any]:
    """A namespace with what was read of it.

    With `resource_type`, properties are named as on resources of that type, if the namespace is
    associated with it.
    """
    prefix = prefix_of(row, resource_type) or ""
    objects = [object_document(row, entry) for entry in row["objects"]]
    for each in objects:
        each["properties"] = {prefix + key: value for key, value in each["properties"].items()}
        each["required"] = [prefix + key for key in each["required"]]
    properties = {prefix + entry["name"]: entry["schema"] for entry in row["properties"]}
    associations = [association_document(entry) for entry in row["resource_type_associations"]]
    held = {
        "resource_type_associations": associations,
        "properties": properties,
        "objects": objects,
        "tags": [tag_document(entry) for entry in row["tags"]],
    }
    return {
        **_given(row, "namespace", "display_name", "description", "visibility"),
        "protected": row["protected"],
        **_given(row, "owner"),
        **_times(row),
        "self": f"{NAMESPACES}/{row['namespace']}",
        "schema": "/v2/schemas/metadefs/namespace",
        **{kind: entries for kind, entries in held.items() if entries},
    }


def page(
    rows: Sequence[NamespaceRow], items: Sequence[tuple[str, str]], *, next_marker: str | None
) -> dict[str, Any]:
    """A page of namespaces; `next_marker` is None on the last one."""
    return {
        "namespaces": [document(row) for row in rows],
        "schema": "/v2/schemas/metadefs/namespaces",
        **paging.links(NAMESPACES, items, next_marker=next_marker),
    }


def prefix_of(row: NamespaceRow, resource_type: str | None) -> str | None:
    """What property names begin with on resources of this type; None without an association."""
    associations = row["resource_type_associations"]
    return next((each["prefix"] for each in associations if each["name"] == resource_type), None)


def object_document(row: NamespaceRow, entry: Entry) -> dict[str, Any]:
    """An object of a namespace; clients go through its properties whether it has any or not."""
    return {
        **_given(entry, "name", "description"),
        "required": entry["required"] or [],
        "properties": entry["properties"] or {},
        **_times(entry),
        "self": f"{NAMESPACES}/{row['namespace']}/objects/{entry['name']}",
        "schema": "/v2/schemas/metadefs/object",
    }


def objects_document(row: NamespaceRow, entries: Sequence[Entry]) -> dict[str, Any]:
    """A page of a namespace's objects."""
    return {
        "objects": [object_document(row, entry) for entry in entries],
        # Without the slash that every other path begins with, as in Glance.
        "schema": "v2/schemas/metadefs/objects",
    }


def property_document(entry: Entry) -> dict[str, Any]:
    """One property, with its name."""
    return {**entry["schema"], "name": entry["name"]}


def properties_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """All properties of a namespace by name."""
    return {"properties": {entry["name"]: entry["schema"] for entry in entries}}


def tag_document(entry: Entry) -> dict[str, Any]:
    """A tag in a list, which tells no times."""
    return {"name": entry["name"]}


def one_tag_document(entry: Entry) -> dict[str, Any]:
    """A tag by itself."""
    return {**tag_document(entry), **_times(entry)}


def tags_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """A page of a namespace's tags."""
    return {"tags": [tag_document(entry) for entry in entries]}


def association_document(entry: Entry) -> dict[str, Any]:
    """An association of a namespace with a resource type."""
    return {**_given(entry, "name", "prefix", "properties_target"), **_times(entry)}


def associations_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """All associations of a namespace."""
    return {"resource_type_associations": [association_document(entry) for entry in entries]}


def resource_types_document(rows: Sequence[ResourceTypeRow]) -> dict[str, Any]:
    """All resource types."""
    return {"resource_types": [{"name": row["name"], **_times(row)} for row in rows]}


def file_document(row: NamespaceRow) -> dict[str, Any]:
    """A namespace as a file holds it: what `namespace` takes, no times and no paths."""
    associations = [
        _given(entry, "name", "prefix", "properties_target")
        for entry in row["resource_type_associations"]
    ]
    objects = [
        _given(entry, "name", "description", "required", "properties") for entry in row["objects"]
    ]
    return {
        **_given(row, "namespace", "display_name", "description", "visibility"),
        "protected": row["protected"],
        **_given(row, "owner"),
        "resource_type_associations": associations,
        "properties": {entry["name"]: entry["schema"] for entry in row["properties"]},
        "objects": objects,
        "tags": [tag_document(entry) for entry in row["tags"]],
    }


def _given(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name] is not None}


def _times(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: timestamp(row[name]) for name in ("created_at", "updated_at")}


def _inlined(part: Any, definitions: Mapping[str, Schema]) -> Any:
    """A schema without references, which would point elsewhere in an OpenAPI document."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    schema = cast(Schema, part)
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _inlined(definitions[reference.rpartition("/")[2]], definitions)
    return {
        key: _inlined(value, definitions) for key, value in schema.items() if key != "definitions"
    }


def openapi(schema: Schema, *, status: int = 200) -> dict[str, Any]:
    """What a route says of a request's body and of its answer, which is alike."""
    taken = _inlined({"type": "object", **schema}, schema.get("definitions", {}))
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": taken}}},
        "responses": {
            str(status): {
                "description": "What was made of it.",
                "content": {"application/json": {"schema": taken}},
            }
        },
    }


NAMESPACE_CREATE: Final = openapi(METADEF_NAMESPACE, status=201)
NAMESPACE_UPDATE: Final = openapi(METADEF_NAMESPACE)
OBJECT_CREATE: Final = openapi(METADEF_OBJECT, status=201)
OBJECT_UPDATE: Final = openapi(METADEF_OBJECT)
PROPERTY_CREATE: Final = openapi(METADEF_PROPERTY, status=201)
PROPERTY_UPDATE: Final = openapi(METADEF_PROPERTY)
ASSOCIATION_CREATE: Final = openapi(METADEF_RESOURCE_TYPE, status=201)
TAG_UPDATE: Final = openapi(METADEF_TAG)
TAGS_CREATE: Final = openapi(_TAGS, status=201)
