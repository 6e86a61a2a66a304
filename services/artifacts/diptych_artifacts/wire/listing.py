"""The query string of the lists of artifacts, and the document of a page.

A parameter that is no other is a filter: `name=[and:|or:][operator:]value`, where the name may be
followed by a dot and a key of a dict. Values are taken like those that a client sets, so one that
the field cannot have is an error and not a list without artifacts.

Source: Glare 5.0.1, api/v1/resource.py `list`, objects/base.py `_parse_filter_values` and
common/utils.py `split_filter_op`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import parse_qsl

from diptych_common import paging
from diptych_common.errors import BadRequest

from diptych_artifacts.db.artifact_list import (
    Column,
    Condition,
    Direction,
    ListQuery,
    OfColumn,
    OfField,
    OfTags,
    Operator,
    OwnKey,
    Scalar,
)
from diptych_artifacts.types import semver
from diptych_artifacts.types.artifact_type import ALL_NAME, ArtifactType
from diptych_artifacts.types.base import FIELDS
from diptych_artifacts.types.fields import Field, FilterOp, Invalid, coerce_element

Items = Sequence[tuple[str, str]]
Combiner = Literal["and", "or"]

_COLUMNS: Final[Mapping[str, Column]] = {
    "id": "id",
    "type_name": "type_name",
    "name": "name",
    "version": "version",
    "owner": "owner",
    "status": "status",
    "visibility": "visibility",
    "display_type_name": "display_type_name",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "activated_at": "activated_at",
}
_DIRECTIONS: Final[Mapping[str, Direction]] = {"asc": "asc", "desc": "desc"}
# What a sort is made total by.
_LAST: Final[tuple[tuple[Column, Direction], ...]] = (("created_at", "desc"), ("id", "asc"))
_ORDER: Final = ("gt", "gte", "lt", "lte")


def _parameter(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


OPENAPI: Final[dict[str, Any]] = {
    "parameters": [
        _parameter("limit", "Most artifacts on the page.", {"type": "integer", "minimum": 0}),
        _parameter("marker", "The id of the artifact before the page.", {"type": "string"}),
        _parameter("sort", "Fields as name:asc or name:desc, with commas.", {"type": "string"}),
        _parameter("version", "latest, or a version to compare with.", {"type": "string"}),
        _parameter("tags", "Tags, with commas, of which artifacts have all.", {"type": "string"}),
        _parameter("tags-any", "Tags of which artifacts have any.", {"type": "string"}),
        *(
            _parameter(name, "A value, or an operator, a colon and a value.", {"type": "string"})
            for name, field in FIELDS.items()
            if field.filter_ops and name != "version"
        ),
    ]
}


def items(query_string: bytes) -> list[tuple[str, str]]:
    """The parameters in order, repeated ones and empty values kept.

    Raises BadRequest unless they are UTF-8 without U+0000.
    """
    try:
        pairs = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The query string is not UTF-8.") from error
    for name, value in pairs:
        if "\x00" in name or "\x00" in value:
            raise BadRequest("The query string holds the character U+0000.")
    return pairs


def parse(items: Items, known: ArtifactType, *, default_limit: int, max_limit: int) -> ListQuery:
    """What a client asks of the list of a type; BadRequest for what cannot be asked.

    Of `limit`, `marker` and `sort` the last counts; every filter does.
    """
    filters = [item for item in items if item[0] not in _READ_APART and item != _LATEST]
    if len(filters) > _MOST_FILTERS:
        raise BadRequest(f"A list has at most {_MOST_FILTERS} filters.")
    parsed = [_filter(name, value, known) for name, value in filters]
    every = [(combiner, condition) for combiner, condition in parsed if condition is not None]
    alternatives = [condition for combiner, condition in every if combiner == "or"]
    # Those of tags are one alternative, all of which must hold, as in Glare.
    of_tags = tuple(one for one in alternatives if isinstance(one, OfTags))
    any_of: list[tuple[Condition, ...]] = [
        (one,) for one in alternatives if not isinstance(one, OfTags)
    ]
    return ListQuery(
        type_name=None if known.name == ALL_NAME else known.name,
        limit=paging.limit_of(items, default=default_limit, cap=max_limit),
        conditions=tuple(condition for combiner, condition in every if combiner == "and"),
        any_of=tuple([*any_of, of_tags] if of_tags else any_of),
        latest=_LATEST in items,
        sort=_sort(items, known),
        marker=paging.marker_of(items),
    )


_LATEST: Final = ("version", "latest")
# Each is a part of the statement, and making one of thousands takes seconds.
_MOST_FILTERS: Final = 100
_READ_APART: Final = ("limit", "marker", "sort")


def document(
    artifacts: Sequence[Mapping[str, object]],
    items: Items,
    *,
    type_name: str,
    total: int,
    limit: int,
) -> dict[str, object]:
    """A page as clients see it. A full one has a next page, even where that is empty, as in Glare.

    Of repeated parameters Glare's links have the last only, so that its second page loses filters.
    """
    is_full = bool(artifacts) and len(artifacts) == limit
    return {
        "artifacts": list(artifacts),
        "type_name": type_name,
        "schema": f"/schemas/{type_name}",
        "total_count": total,
        **paging.links(
            f"/artifacts/{type_name}",
            items,
            next_marker=cast(str, artifacts[-1]["id"]) if is_full else None,
        ),
    }


# Filters.


class Comparison(NamedTuple):
    """The value of a filter in its parts."""

    combiner: Combiner
    op: str
    operand: str


def split(value: str) -> Comparison:
    """The parts of `[and:|or:][operator:]value`.

    With two parts, `or:eq` is the value `eq`; with more, a time has colons of its own.
    """
    parts = value.split(":")
    if len(parts) == 1:
        return Comparison("and", "eq", value)
    combiner: Combiner = "or" if parts[0] == "or" else "and"
    rest = parts[1:] if parts[0] in ("and", "or") else parts
    if len(rest) == 1 or (len(parts) > 2 and _is_time(":".join(rest))):
        return Comparison(combiner, "eq", ":".join(rest))
    return Comparison(combiner, rest[0], ":".join(rest[1:]))


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _filter(name: str, value: str, known: ArtifactType) -> tuple[Combiner, Condition | None]:
    """A filter; None for one that leaves nothing out."""
    if name in ("tags", "tags-any"):
        return _of_tags(name, value)
    key: str | None = None
    if "." in name:
        name, _, key = name.rpartition(".")
    field = known.fields.get(name)
    if field is None:
        raise BadRequest(f"{known.name} have no field {name[:255]} to filter by.")
    if key is not None and field.shape != "dict":
        raise BadRequest(f"{name} has no keys to filter by.")
    if field.holds_blobs:
        raise BadRequest(f"{name} is a blob, by which nothing is filtered.")
    combiner, op, operand = split(value)
    if field.shape == "dict" and key is None:
        return combiner, _has_key(name, op, operand, field)
    if op not in field.filter_ops:
        allowed = ", ".join(field.filter_ops) or "nothing"
        raise BadRequest(
            f"{name} can be filtered by {allowed}, not {op[:99]}."
            " A value with a colon in it is written eq:value."
        )
    return combiner, _compare(name, op, operand, field, key)


def _of_tags(name: str, value: str) -> tuple[Combiner, Condition | None]:
    combiner: Combiner = "or" if value.startswith("or:") else "and"
    tags = value.removeprefix(f"{combiner}:")
    if ":" in tags:
        raise BadRequest(f"{name} takes no operator.")
    listed = tuple(dict.fromkeys(values(name, tags)))
    return combiner, OfTags(listed, any_of=name == "tags-any") if listed else None


def _has_key(name: str, op: str, operand: str, field: Field) -> Condition:
    if op not in ("eq", "in"):
        raise BadRequest(f"The keys of {name} can be filtered by eq and in, not {op[:99]}.")
    keys = values(name, operand) if op == "in" else operand
    return OfField(name, "has", cast(Operator, op), keys, default=field.default or None)


def _compare(name: str, op: FilterOp, operand: str, field: Field, key: str | None) -> Condition:
    value: Scalar | tuple[Scalar, ...]
    if op == "in":
        value = tuple(_taken(name, field, one) for one in values(name, operand))
    else:
        value = _taken(name, field, operand)
    if name in _COLUMNS:
        return _of_column(_COLUMNS[name], op, value)
    if op == "like":
        value = _pattern(cast(str, value))
    if key is not None:
        return OfField(name, "entry", op, value, key=key, default=field.default or None)
    part = "element" if field.shape == "list" else "value"
    default = field.default if field.shape == "one" else field.default or None
    return OfField(name, part, op, value, default=default)


def _of_column(column: Column, op: FilterOp, value: Scalar | tuple[Scalar, ...]) -> Condition:
    # All that columns hold is text, or a time by its canonical text.
    texts = cast("str | tuple[str, ...]", value)
    if op == "in" or isinstance(texts, tuple):
        return OfColumn(column, op, texts)
    if column in ("created_at", "updated_at", "activated_at"):
        return OfColumn(column, op, datetime.fromisoformat(texts))
    if column == "version" and op in _ORDER:
        return OfColumn("version_sort", op, semver.coerce(texts).sort_key)
    return OfColumn(column, op, _pattern(texts) if op == "like" else texts)


def _pattern(text: str) -> str:
    """The operand of LIKE: a backslash at its end stands for itself."""
    backslashes = len(text) - len(text.rstrip("\\"))
    return text + "\\" if backslashes % 2 else text


def _taken(name: str, field: Field, text: str) -> Scalar:
    try:
        return coerce_element(field, text)
    except Invalid as error:
        raise BadRequest(f"{name}: {error}") from error


# An item of a list with commas; in quotes it may hold commas, and `\"` is a quote.
_QUOTED: Final = re.compile(r'"((?:\\"|\\(?!")|[^"\\])*)"')
_BARE: Final = re.compile(r'((?:\\"|[^",])*)')


def values(name: str, text: str) -> tuple[str, ...]:
    """The items of a list with commas, empty ones too save one after the last comma.

    Raises BadRequest for a quote elsewhere than around a whole item, or without its partner.
    """
    found: list[str] = []
    at = 0
    while at < len(text):
        item = (_QUOTED if text[at] == '"' else _BARE).match(text, at)
        if item is None or (item.end() < len(text) and text[item.end()] != ","):
            raise BadRequest(f"In the list of {name} a quote is not where it can be.")
        found.append(item[1].replace('\\"', '"'))
        at = item.end() + 1
    return tuple(found)


# Order.


def _sort(items: Items, known: ArtifactType) -> tuple[tuple[Column | OwnKey, Direction], ...]:
    """The order asked for, made total by the time of creation and the id."""
    asked = [value for name, value in items if name == "sort"]
    order: dict[Column | OwnKey, Direction] = {}
    for text in asked[-1].strip().split(",") if asked else ():
        name, _, direction = text.partition(":")
        for key in _keys(name, known):
            order.setdefault(key, _direction(direction or "desc"))
    for key, direction in _LAST:
        order.setdefault(key, direction)
    if sum(isinstance(key, OwnKey) for key in order) > 1:
        raise BadRequest("Artifacts can be sorted by one field of their own type at most.")
    return tuple(order.items())


def _direction(text: str) -> Direction:
    if text not in _DIRECTIONS:
        raise BadRequest(f"A sort goes asc or desc, not {text[:99]}.")
    return _DIRECTIONS[text]


def _keys(name: str, known: ArtifactType) -> tuple[Column | OwnKey, ...]:
    field = known.fields.get(name)
    if field is None or not field.sortable:
        raise BadRequest(f"{known.name} cannot be sorted by {name[:255]}.")
    if name == "version":
        # Two that differ by the build only have an order in lists, too.
        return ("version_sort", "version_build")
    if name in _COLUMNS:
        return (_COLUMNS[name],)
    is_text = field.kind not in ("Integer", "Float", "Boolean")
    return (OwnKey(name, is_text, cast("Scalar | None", field.default)),)
