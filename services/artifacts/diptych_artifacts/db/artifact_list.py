"""The list of artifacts: one statement for a page, the blobs on it, and how many there are in all.

What a caller may list is a union of branches, each of one visibility: everybody's public artifacts
and the caller's private ones. An index leads to each, and what else is asked of artifacts is asked
of those that were reached by it, so that artifacts which the caller does not see cost nothing. All
that it sees is counted, so that much a page costs: the API tells the number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
from diptych_common.prepared import Prepared
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_artifacts.db.artifacts import (
    ArtifactRow,
    columns_of,
    is_uuid,
    may_see,
    row_of,
    word,
)
from diptych_artifacts.db.tables import artifacts

Column = Literal[
    "id",
    "type_name",
    "name",
    "version",
    "version_sort",
    "version_build",
    "owner",
    "status",
    "visibility",
    "display_type_name",
    "created_at",
    "updated_at",
    "activated_at",
]
Operator = Literal["eq", "neq", "in", "gt", "gte", "lt", "lte", "like"]
Direction = Literal["asc", "desc"]
Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class OfColumn:
    """A condition on a column; one without a value meets none.

    `in` takes a tuple. Times are aware and in whole seconds, as the API shows them: only what is
    of another second is before or after them.
    """

    column: Column
    op: Operator
    value: str | datetime | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfField:
    """A condition on one of `artifacts.fields`, or on `default` (None for none) where it is absent.

    `part` says on what of it: its `value`, any `element` of a list, the `entry` of a dict under
    `key`, or whether a dict `has` a key, which is then the value. What is not there meets none.
    `in` takes a tuple. Numbers, texts and booleans are compared as such.
    """

    name: str
    part: Literal["value", "element", "entry", "has"]
    op: Operator
    value: Scalar | tuple[Scalar, ...]
    key: str = ""
    default: object = None


@dataclass(frozen=True, slots=True)
class OfTags:
    """Whether an artifact has all of these tags, or any of them."""

    tags: tuple[str, ...]
    any_of: bool


Condition: TypeAlias = OfColumn | OfField | OfTags


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A field to sort by, or `default` (None for none) where it is absent."""

    name: str
    is_text: bool
    default: Scalar | None = None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list.

    `type_name` None is for all types. All of `conditions` hold, and if there is an `any_of`, all
    of one of its members. With `latest`, of what is left only those of the highest version by
    name, several if they differ in nothing that makes a version newer. `sort` has at most one
    OwnKey and ends with the id; what has no value comes last either way. The page starts after
    the artifact `marker`, and has at most `limit`.
    """

    type_name: str | None
    limit: int
    conditions: tuple[Condition, ...] = ()
    any_of: tuple[tuple[Condition, ...], ...] = ()
    latest: bool = False
    sort: tuple[tuple[Column | OwnKey, Direction], ...] = (("created_at", "desc"), ("id", "asc"))
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and how many artifacts all pages have; neither if the marker is not there."""

    rows: list[ArtifactRow]
    total: int
    marker_found: bool


async def page(
    connection: AsyncConnection, query: ListQuery, *, project_id: str | None, sees_all: bool
) -> Page:
    """The page of what this project lists: its own artifacts and public ones, or all of them.

    Without a project, public ones. The marker is any artifact that the project may read.
    """
    if query.marker is not None and not is_uuid(query.marker):
        return Page([], total=0, marker_found=False)
    asked = [*query.conditions, *(each for member in query.any_of for each in member)]
    numbers = iter(range(len(asked)))
    own = next((key for key, _ in query.sort if isinstance(key, OwnKey)), None)
    shape = _Shape(
        sees="all" if sees_all else "public" if project_id is None else "own",
        of_type=query.type_name is not None,
        conditions=tuple(_part(each, next(numbers)) for each in query.conditions),
        any_of=tuple(
            tuple(_part(each, next(numbers)) for each in member) for member in query.any_of
        ),
        latest=query.latest,
        sort=tuple((_sort_part(key), direction) for key, direction in query.sort),
        has_marker=query.marker is not None,
    )
    values: dict[str, object] = {
        "project_id": project_id,
        "the_type": query.type_name,
        "marker": query.marker,
        "limit": query.limit,
    }
    if own is not None:
        values |= {"sort_field": own.name, "sort_default": own.default}
    for at, condition in enumerate(asked):
        values |= _bound(condition, f"filter_{at}")
    found = await _statement(shape).rows(connection, values)
    rows: list[ArtifactRow] = []
    total, marker_found = 0, True
    for row in found:
        total, marker_found = row.pop("total"), row.pop("marker_found")
        if row["id"] is not None:
            rows.append(row_of(row))
    return Page(rows, total=total, marker_found=marker_found)


# The statement.


class _ColumnPart(NamedTuple):
    """What of a condition decides the text of the statement; `at` numbers its parameters."""

    column: Column
    op: Operator
    at: int


class _FieldPart(NamedTuple):
    part: Literal["value", "element", "entry", "has"]
    op: Operator
    is_text: bool
    has_default: bool
    at: int


class _TagsPart(NamedTuple):
    any_of: bool
    at: int


class _OwnSortPart(NamedTuple):
    is_text: bool
    has_default: bool


_Part: TypeAlias = _ColumnPart | _FieldPart | _TagsPart
_SortPart: TypeAlias = Column | _OwnSortPart


class _Shape(NamedTuple):
    """What of a query decides the text of its statement; the rest are parameters."""

    sees: Literal["all", "own", "public"]
    of_type: bool
    conditions: tuple[_Part, ...]
    any_of: tuple[tuple[_Part, ...], ...]
    latest: bool
    sort: tuple[tuple[_SortPart, Direction], ...]
    has_marker: bool


def _part(condition: Condition, at: int) -> _Part:
    match condition:
        case OfColumn():
            return _ColumnPart(condition.column, condition.op, at)
        case OfField():
            is_text = isinstance(condition.value, str)
            has_default = condition.default is not None
            return _FieldPart(condition.part, condition.op, is_text, has_default, at)
        case OfTags():
            return _TagsPart(condition.any_of, at)


def _sort_part(key: Column | OwnKey) -> _SortPart:
    if isinstance(key, OwnKey):
        return _OwnSortPart(key.is_text, key.default is not None)
    return key


# Making a statement costs more than running it, and few shapes are in use at a time.
@lru_cache(maxsize=256)
def _statement(shape: _Shape) -> Prepared:
    marker = _marker(shape) if shape.has_marker else None
    if shape.latest:
        winners = _winners(shape)
        total = sa.select(sa.func.count()).select_from(winners).scalar_subquery()
        listed = sa.select(artifacts).join(winners, artifacts.c.id == winners.c.id)
        if marker is not None:
            listed = listed.where(_after(artifacts, marker, shape.sort))
        union = listed.subquery("listed")
    else:
        total = _sum(
            sa.select(sa.func.count()).select_from(_branch(shape, branch).subquery())
            for branch in _BRANCHES[shape.sees]
        )
        branches = [_first(shape, branch, marker) for branch in _BRANCHES[shape.sees]]
        union = (branches[0] if len(branches) == 1 else sa.union_all(*branches)).subquery("listed")
    found = sa.select(union).order_by(*_order(union, shape.sort)).limit(_LIMIT).subquery("page")
    # A row of its own, so that an empty page too tells these.
    marker_found = sa.true() if marker is None else sa.exists(sa.select(marker.c.key_0))
    known = sa.select(total.label("total"), marker_found.label("marker_found")).subquery("known")
    return Prepared(
        sa.select(known, *columns_of(found))
        .select_from(known.outerjoin(found, sa.true()))
        .order_by(*_order(found, shape.sort))
    )


_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)
_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_TYPE: Final = sa.bindparam("the_type", type_=sa.String)
_NO_OFFSET: Final = sa.literal_column("0", sa.Integer)

# A visibility, and whether it is of the caller's artifacts only. No artifact is in two branches.
_Branch: TypeAlias = tuple[Literal["private", "public"], bool]
_BRANCHES: Final[Mapping[str, Sequence[_Branch]]] = {
    "all": (("private", False), ("public", False)),
    "own": (("private", True), ("public", False)),
    "public": (("public", False),),
}


def _sum(counts: Iterable[sa.Select[int]]) -> sa.ColumnElement[int]:
    first, *others = (count.scalar_subquery() for count in counts)
    total: sa.ColumnElement[int] = first
    for other in others:
        total = total + other
    return total


def _winners(shape: _Shape) -> sa.CTE:
    """The ids of what `latest` leaves."""
    branches = [_branch(shape, branch) for branch in _BRANCHES[shape.sees]]
    union = (branches[0] if len(branches) == 1 else sa.union_all(*branches)).subquery("matching")
    place = sa.func.rank().over(partition_by=union.c.name, order_by=union.c.version_sort.desc())
    ranked = sa.select(union.c.id, place.label("place")).subquery("ranked")
    first = sa.literal_column("1", sa.Integer)
    return sa.select(ranked.c.id).where(ranked.c.place == first).cte("winners")


def _first(shape: _Shape, branch: _Branch, marker: sa.CTE | None) -> sa.Select[Any]:
    """The first artifacts of a branch that come after the marker."""
    listed = _branch(shape, branch, marker)
    (rows,) = listed.get_final_froms()
    return listed.order_by(*_order(rows, shape.sort)).limit(_LIMIT)


def _branch(shape: _Shape, branch: _Branch, marker: sa.CTE | None = None) -> sa.Select[Any]:
    """The artifacts of one branch that meet the conditions, and come after the marker."""
    visibility, is_own = branch
    reached = sa.select(artifacts).where(
        artifacts.c.visibility == word(visibility), artifacts.c.status != word("deleted")
    )
    if is_own:
        reached = reached.where(artifacts.c.owner == _PROJECT)
    if shape.of_type:
        reached = reached.where(artifacts.c.type_name == _TYPE)
    led = [part for part in shape.conditions if _is_led(part)]
    reached = reached.where(*(_condition(artifacts, part) for part in led))
    is_whole = len(led) == len(shape.conditions) and not shape.any_of
    if is_whole and (_has_index(shape) or shape.sees == "all"):
        # A walk along an index, if there is one, that ends when the page is full.
        return reached if marker is None else reached.where(_after(artifacts, marker, shape.sort))
    # OFFSET 0 keeps the planner from thinking of a walk, which passes all that there is where few
    # meet the conditions, and from coming by an index that has the artifacts of others, too: of
    # tags, of fields, of ids. An administrator sees them all and may come by these.
    rows: sa.FromClause = artifacts
    if shape.sees != "all":
        rows = reached.offset(_NO_OFFSET).subquery("reached")
        reached = sa.select(rows)
    reached = reached.where(*_conditions(rows, shape))
    if marker is not None:
        reached = reached.where(_after(rows, marker, shape.sort))
    if shape.sees == "all":
        reached = sa.select(reached.offset(_NO_OFFSET).subquery("reached"))
    return reached


def _conditions(rows: sa.FromClause, shape: _Shape) -> list[sa.ColumnElement[bool]]:
    """All conditions but those that lead to a branch."""
    conditions = [_condition(rows, part) for part in shape.conditions if not _is_led(part)]
    if shape.any_of:
        members = [sa.and_(*(_condition(rows, part) for part in member)) for member in shape.any_of]
        conditions.append(sa.or_(*members))
    return conditions


def _has_index(shape: _Shape) -> bool:
    """Whether an index has the artifacts of a branch in the order of the sort, or nearly."""
    return shape.of_type and shape.sort[0][0] in ("created_at", "name")


def _is_led(part: _Part) -> bool:
    """Whether the indexes of branches lead to what meets the condition."""
    return isinstance(part, _ColumnPart) and part.column == "name" and part.op in ("eq", "in")


# Order, and what comes after a marker.

_NULLABLE: Final = ("display_type_name", "activated_at")
# Compared by code points by themselves, or no texts.
_AS_THEY_ARE: Final = (
    "id",
    "name",
    "version_sort",
    "version_build",
    "created_at",
    "updated_at",
    "activated_at",
)
_Sort: TypeAlias = tuple[tuple[_SortPart, Direction], ...]


def _key(rows: sa.FromClause, key: _SortPart) -> sa.ColumnElement[Any]:
    """What artifacts are sorted by."""
    if not isinstance(key, _OwnSortPart):
        column = rows.c[key]
        return column if key in _AS_THEY_ARE else sa.collate(column, "C")
    value = _field(rows, "sort_field", "sort_default" if key.has_default else None)
    return sa.collate(_text(value), "C") if key.is_text else value


def _is_nullable(key: _SortPart) -> bool:
    return isinstance(key, _OwnSortPart) or key in _NULLABLE


def _order(rows: sa.FromClause, sort: _Sort) -> list[sa.ColumnElement[Any]]:
    order: list[sa.ColumnElement[Any]] = []
    for key, direction in sort:
        value = _key(rows, key)
        value = value.asc() if direction == "asc" else value.desc()
        order.append(value.nulls_last() if _is_nullable(key) else value)
    return order


def _marker(shape: _Shape) -> sa.CTE:
    """The sort keys of the artifact that the page starts after; no row if there is no such."""
    keys = [_key(artifacts, key).label(f"key_{at}") for at, (key, _) in enumerate(shape.sort)]
    return (
        sa.select(*keys)
        .where(
            artifacts.c.id == sa.bindparam("marker", type_=sa.Uuid(as_uuid=False)),
            may_see(sees_all=shape.sees == "all"),
        )
        .cte("marker")
    )


def _after(rows: sa.FromClause, marker: sa.CTE, sort: _Sort) -> sa.ColumnElement[bool]:
    """Whether an artifact comes after the marker."""
    keys = [_key(rows, key) for key, _ in sort]
    marks = [sa.select(mark).scalar_subquery() for mark in marker.c]
    after: sa.ColumnElement[bool] = sa.false()
    for here, there, (key, direction) in reversed(list(zip(keys, marks, sort, strict=True))):
        beyond: sa.ColumnElement[bool] = here.op(">" if direction == "asc" else "<", 0, True)(there)
        same = here == there
        if _is_nullable(key):
            beyond = sa.or_(beyond, sa.and_(here.is_(None), there.is_not(None)))
            same = here.is_not_distinct_from(there)
        after = sa.or_(beyond, sa.and_(same, after))
    first, direction = sort[0]
    if _is_nullable(first):
        return after
    # The first key alone says where a walk can begin at the earliest.
    return sa.and_(after, keys[0] >= marks[0] if direction == "asc" else keys[0] <= marks[0])


# Conditions.

# Arrays are passed as text[] only: to learn of any other array type, asyncpg asks the server, on
# each connection, before the statement.
_TEXTS: Final = ARRAY(sa.Text)
_SECOND: Final = sa.literal_column("interval '1 second'", sa.Interval)
_TIMES: Final = ("created_at", "updated_at", "activated_at")
_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    "eq": eq,
    "neq": ne,
    "gt": gt,
    "gte": ge,
    "lt": lt,
    "lte": le,
    "in": lambda column, values: column == sa.any_(values),
    "like": lambda column, pattern: column.like(pattern),
}


def _condition(rows: sa.FromClause, part: _Part) -> sa.ColumnElement[bool]:
    name = f"filter_{part.at}"
    match part:
        case _ColumnPart():
            return _of_column(rows, part, name)
        case _FieldPart():
            return _of_field(rows, part, name)
        case _TagsPart():
            tags = sa.bindparam(name, type_=_TEXTS)
            return rows.c.tags.overlap(tags) if part.any_of else rows.c.tags.contains(tags)


def _of_column(rows: sa.FromClause, part: _ColumnPart, name: str) -> sa.ColumnElement[bool]:
    column = rows.c[part.column]
    if part.column in _TIMES:
        second = sa.bindparam(name, type_=sa.DateTime(timezone=True))
        return column >= second + _SECOND if part.op == "gt" else column < second
    if part.op == "in":
        values: sa.ColumnElement[Any] = sa.bindparam(name, type_=_TEXTS)
        if part.column == "id":
            values = sa.cast(values, ARRAY(sa.Uuid(as_uuid=False)))
        return _COMPARE["in"](column, values)
    kind = sa.Uuid(as_uuid=False) if part.column == "id" else sa.String()
    return _COMPARE[part.op](column, sa.bindparam(name, type_=kind))


def _of_field(rows: sa.FromClause, part: _FieldPart, name: str) -> sa.ColumnElement[bool]:
    if part.op == "eq" and part.part != "has" and not part.has_default:
        # In the words of the index.
        return rows.c.fields.contains(sa.bindparam(name, type_=JSONB))
    value = _field(rows, f"{name}_field", f"{name}_default" if part.has_default else None)
    match part.part:
        case "value":
            return _compared(value, part, name)
        case "entry":
            return _compared(_get(value, f"{name}_key"), part, name)
        case "has":
            keys = sa.bindparam(name, type_=_TEXTS)
            return value.has_any(keys)
        case "element":
            is_list = sa.func.jsonb_typeof(value) == word("array")
            items = sa.case((is_list, value), else_=sa.literal_column("'[]'::jsonb", JSONB))
            item = sa.func.jsonb_array_elements(items, type_=JSONB).column_valued("item")
            return sa.exists().where(_compared(item, part, name)).correlate(rows)


def _field(rows: sa.FromClause, name: str, default: str | None) -> sa.ColumnElement[Any]:
    """A field as JSON; `name` and `default` are parameters."""
    value = _get(rows.c.fields, name)
    if default is None:
        return value
    return sa.func.coalesce(value, sa.bindparam(default, type_=JSONB), type_=JSONB)


def _get(document: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[Any]:
    return document.op("->", return_type=JSONB())(sa.bindparam(key, type_=sa.Text))


def _text(value: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """A JSON scalar as text; of a text without its quotes."""
    return value.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'", _TEXTS))


def _compared(value: sa.ColumnElement[Any], part: _FieldPart, name: str) -> sa.ColumnElement[bool]:
    operand = sa.bindparam(name, type_=JSONB)
    match part.op:
        case "eq" | "neq":
            return _COMPARE[part.op](value, operand)
        case "in":
            return operand.contains(value)
        case "like":
            return _text(value).like(sa.bindparam(name, type_=sa.Text))
        case _ if part.is_text:
            text = sa.bindparam(name, type_=sa.Text)
            return _COMPARE[part.op](sa.collate(_text(value), "C"), text)
        case _:
            return _COMPARE[part.op](value, operand)


def _bound(condition: Condition, name: str) -> dict[str, object]:
    """The parameters of a condition."""
    match condition:
        case OfTags():
            return {name: list(condition.tags)}
        case OfColumn():
            value = condition.value
            return {name: list(value) if isinstance(value, tuple) else value}
        case OfField():
            pass
    value = list(condition.value) if isinstance(condition.value, tuple) else condition.value
    if condition.part == "has" and not isinstance(value, list):
        value = [value]
    elif condition.op == "eq" and condition.part != "has" and condition.default is None:
        within = {"value": value, "element": [value], "entry": {condition.key: value}}
        return {name: {condition.name: within[condition.part]}}
    return {
        name: value,
        f"{name}_field": condition.name,
        f"{name}_key": condition.key,
        f"{name}_default": condition.default,
    }
