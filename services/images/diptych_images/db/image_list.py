"""The list of images: one statement, whose cost is that of the page and not of the catalogue.

What a caller may list is a union of disjoint branches, each of one visibility: everybody's
images, the caller's own, those offered to the caller. An OR over these would defeat every index;
each branch alone is a walk along one index of tables.py, in the order asked for, which begins
after the marker and ends when the page is full. Images that the caller does not see are in no
branch, so their number does not matter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final, Literal, NamedTuple, cast

import sqlalchemy as sa
from diptych_common.prepared import Prepared
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import (
    ImageRow,
    MemberStatus,
    Visibility,
    active_locations,
    is_uuid,
    may_see,
    membership,
    word,
)
from diptych_images.db.pages import Direction
from diptych_images.db.tables import image_members, images

Field = Literal[
    "id",
    "name",
    "status",
    "container_format",
    "disk_format",
    "owner",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "min_disk",
    "min_ram",
    "size",
    "virtual_size",
    "protected",
    "created_at",
    "updated_at",
]
Operator = Literal["eq", "neq", "in", "gt", "gte", "lt", "lte"]
SortKey = Literal[
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
]


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a column.

    Texts take `eq` and `in` (a tuple of texts), numbers and times all but `in`, `protected` `eq`.
    Times are aware and meant to the second, as the API shows them: an image made within the
    second of `value` is equal to it. A column without a value meets no condition.
    """

    field: Field
    op: Operator
    value: str | int | bool | datetime | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list: all conditions hold at once.

    `visibility` None is Glance's default list: everything but the community images of others.
    `member_status` picks among the images that others share with the caller. `sort` must tell
    any two images apart, so it ends with `id`; columns without a value sort as '' or 0. The page
    starts after the image `marker`, None at the beginning, and has at most `limit` images.
    """

    limit: int
    filters: tuple[Filter, ...] = ()
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    visibility: Visibility | Literal["all"] | None = None
    member_status: MemberStatus | Literal["all"] = "accepted"
    os_hidden: bool = False
    sort: tuple[tuple[SortKey, Direction], ...] = (("created_at", "desc"), ("id", "desc"))
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list; without rows and not `marker_found` if there is no such marker."""

    rows: list[ImageRow]
    marker_found: bool


async def page(
    connection: AsyncConnection, query: ListQuery, *, project_id: str | None, is_admin: bool
) -> Page:
    """The page of what this project lists; an administrator lists every project's images.

    A caller without a project sees public images, and community ones on demand. The marker is any
    image that the caller may see, in the list or not; so is one that was deleted, so that
    deleting while paging works, where Glance fails. One statement, none for a marker that is no
    UUID.
    """
    if query.marker is not None and not is_uuid(query.marker):
        return Page([], marker_found=False)
    filters = tuple(part for whole in query.filters for part in _in_whole_seconds(whole))
    shape = _Shape(
        branches=_branches(query.visibility, is_admin=is_admin),
        filters=tuple((part.field, part.op) for part in filters),
        has_tags=bool(query.tags),
        has_properties=bool(query.properties),
        any_member_status=query.member_status == "all",
        sort=_distinct(query.sort),
        is_admin=is_admin,
        has_marker=query.marker is not None,
    )
    values: dict[str, object] = {
        "project_id": project_id,
        "hidden": query.os_hidden,
        "answer": query.member_status,
        "tags": list(query.tags),
        "properties": dict(query.properties),
        "marker": query.marker,
        "limit": query.limit,
    }
    values |= {f"filter_{at}": _bound(part) for at, part in enumerate(filters)}
    found = await _statement(shape).rows(connection, values)
    marker_found = True
    for row in found:
        marker_found = row.pop("marker_found", True)
    # A page after a marker, and without an image, is a row of its own.
    rows = [cast(ImageRow, row) for row in found if row["id"] is not None]
    return Page(rows, marker_found=marker_found)


# Who the images of a branch belong to.
_Whose = Literal["everybody's", "own", "offered"]
_Branch = tuple[Visibility, _Whose]


class _Shape(NamedTuple):
    """What of a query decides the text of its statement; the rest are parameters."""

    branches: tuple[_Branch, ...]
    filters: tuple[tuple[Field, Operator], ...]
    has_tags: bool
    has_properties: bool
    any_member_status: bool
    sort: tuple[tuple[SortKey, Direction], ...]
    is_admin: bool
    has_marker: bool


def _branches(
    visibility: Visibility | Literal["all"] | None, *, is_admin: bool
) -> tuple[_Branch, ...]:
    """The branches of a list: no image is in two of them.

    Source: images API, composition of the list by visibility.
    """
    community: _Branch = ("community", "own" if visibility is None else "everybody's")
    whole: tuple[_Branch, ...] = (
        (
            ("public", "everybody's"),
            ("shared", "everybody's"),
            ("private", "everybody's"),
            community,
        )
        if is_admin
        else (
            ("public", "everybody's"),
            ("shared", "own"),
            ("shared", "offered"),
            ("private", "own"),
            community,
        )
    )
    return tuple(branch for branch in whole if visibility in (None, "all", branch[0]))


# Making a statement costs more than running it, and few shapes are in use at a time.
@lru_cache(maxsize=256)
def _statement(shape: _Shape) -> Prepared:
    marker = _marker(shape) if shape.has_marker else None
    conditions = [
        images.c.deleted_at.is_(None),
        images.c.status != word("killed"),
        images.c.os_hidden == sa.bindparam("hidden", type_=sa.Boolean),
        *(_condition(column, op, at=at) for at, (column, op) in enumerate(shape.filters)),
    ]
    if marker is not None:
        conditions.append(_after(marker, shape.sort))

    contents = _contents(shape)
    if contents and shape.is_admin:
        is_common = _is_common(shape)
        branches = _walks([*conditions, *contents, is_common], shape)
        branches.append(_lookup([*conditions, sa.not_(is_common)], shape))
    else:
        branches = _walks([*conditions, *contents], shape)
    union = (branches[0] if len(branches) == 1 else sa.union_all(*branches)).subquery("branches")
    found = sa.select(union).order_by(*_order(union, shape.sort)).limit(_LIMIT).subquery("page")
    statement = sa.select(
        found,
        active_locations(found).label("locations"),
        membership(found).label("member_status"),
    ).order_by(*_order(found, shape.sort))
    if marker is None:
        return Prepared(statement)
    # A row of its own, so that an empty page too tells whether there is such a marker.
    known = sa.select(sa.exists(sa.select(marker.c.id)).label("marker_found")).subquery("known")
    statement = statement.add_columns(known.c.marker_found).select_from(
        known.outerjoin(found, sa.true())
    )
    return Prepared(statement)


_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)


def _walks(conditions: list[sa.ColumnElement[bool]], shape: _Shape) -> list[sa.Select[Any]]:
    """The first images of each branch."""
    return [_branch(kind, whose, conditions, shape) for kind, whose in shape.branches]


# Tags and properties. A walk along the list finds its page soon if many images have them, and
# passes every image that the caller sees if few have. For a project that is what it sees; for an
# administrator it is the whole catalogue, unless the few are looked up in the GIN indexes. The
# planner cannot tell which is better: it takes a tag that it has no figures of for one image in
# 200, and a plan that it keeps, after five executions, takes every tag for that. So the statement
# holds both ways and counts first; the way that is not taken costs nothing.

# How many images an administrator's tags and properties may match and still be looked up.
_RARE: Final = 2000


def _contents(shape: _Shape, *, unknown: bool = False) -> list[sa.ColumnElement[bool]]:
    """The conditions on tags and properties; with `unknown`, the planner is not told the values.

    Then it takes any value for a rare one, and looks it up.
    """
    contents: list[sa.ColumnElement[bool]] = []
    for column, is_asked in (
        (images.c.tags, shape.has_tags),
        (images.c.properties, shape.has_properties),
    ):
        if is_asked:
            values: sa.ColumnElement[Any] = sa.bindparam(column.name, type_=column.type)
            if unknown:
                values = sa.select(values).scalar_subquery()
            contents.append(column.contains(values))
    return contents


def _is_common(shape: _Shape) -> sa.ColumnElement[bool]:
    """Whether more than _RARE images have these tags and properties; counted once."""
    some = (
        sa.select(images.c.id)
        .where(images.c.deleted_at.is_(None), *_contents(shape, unknown=True))
        .limit(sa.literal_column(str(_RARE + 1), sa.Integer))
        .subquery("some")
    )
    is_common = sa.func.count() > sa.literal_column(str(_RARE), sa.Integer)
    rarity = sa.select(is_common.label("is_common")).select_from(some).cte("rarity")
    return sa.select(rarity.c.is_common).scalar_subquery()


def _lookup(conditions: list[sa.ColumnElement[bool]], shape: _Shape) -> sa.Select[Any]:
    """The first images of all branches together, for an administrator, in one lookup."""
    project = sa.bindparam("project_id", type_=sa.String)
    listed = sa.or_(
        *(
            sa.and_(
                images.c.visibility == word(kind),
                images.c.owner == project if whose == "own" else sa.true(),
            )
            for kind, whose in shape.branches
        )
    )
    # OFFSET 0 hides the limit, so that the planner does not think of walking.
    rows = (
        sa.select(images)
        .where(listed, *conditions, *_contents(shape, unknown=True))
        .offset(sa.literal_column("0", sa.Integer))
        .subquery("rare")
    )
    return sa.select(rows).order_by(*_order(rows, shape.sort)).limit(_LIMIT)


def _branch(
    kind: Visibility, whose: _Whose, conditions: list[sa.ColumnElement[bool]], shape: _Shape
) -> sa.Select[Any]:
    """The first images of one branch."""
    project = sa.bindparam("project_id", type_=sa.String)
    listed = sa.select(images).where(images.c.visibility == word(kind), *conditions)
    rows: sa.FromClause = images
    match whose:
        case "everybody's":
            pass
        case "own":
            listed = listed.where(images.c.owner == project)
        case "offered":
            offers = sa.select(image_members.c.image_id).where(image_members.c.member == project)
            if not shape.any_member_status:
                answer = sa.bindparam("answer", type_=sa.String)
                offers = offers.where(image_members.c.status == answer)
            offer = offers.subquery("offer")
            # OFFSET 0 keeps the planner from turning the join round: it would walk the shared
            # images of everybody in search of the few that are offered to this project.
            rows = (
                listed.where(
                    images.c.id == offer.c.image_id, images.c.owner.is_distinct_from(project)
                )
                .offset(sa.literal_column("0", sa.Integer))
                .lateral("offered")
            )
            listed = sa.select(rows).join_from(offer, rows, sa.true())
    return listed.order_by(*_order(rows, shape.sort)).limit(_LIMIT)


# Order, and what comes after a marker.

_Sort = tuple[tuple[SortKey, Direction], ...]


def _distinct(sort: _Sort) -> _Sort:
    """The part of a sort that decides anything: each key once, and nothing after the id."""
    keys = dict[SortKey, Direction]()
    for key, direction in sort:
        keys.setdefault(key, direction)
        if key == "id":
            break
    return tuple(keys.items())


def _key(rows: sa.FromClause, key: SortKey) -> sa.ColumnElement[Any]:
    """What images are sorted by; never NULL, or there would be no saying what comes after it."""
    column = rows.c[key]
    if not column.nullable:
        return column
    nothing = "0" if key == "size" else "''"
    return sa.func.coalesce(column, sa.literal_column(nothing), type_=column.type)


def _order(rows: sa.FromClause, sort: _Sort) -> list[sa.ColumnElement[Any]]:
    return [
        _key(rows, key).asc() if direction == "asc" else _key(rows, key).desc()
        for key, direction in sort
    ]


def _marker(shape: _Shape) -> sa.CTE:
    """The sort keys of the image that the page starts after; no row if there is no such image."""
    keys = dict(shape.sort)
    keys.setdefault("id", "desc")
    marker = sa.select(*(_key(images, key).label(key) for key in keys)).where(
        images.c.id == sa.bindparam("marker", type_=sa.Uuid(as_uuid=False)),
        may_see(is_admin=shape.is_admin),
    )
    if "status" in keys:
        # A deleted image is no longer where it stood.
        marker = marker.where(images.c.deleted_at.is_(None))
    return marker.cte("marker")


def _after(marker: sa.CTE, sort: _Sort) -> sa.ColumnElement[bool]:
    """Whether an image comes after the marker."""
    keys = [_key(images, key) for key, _ in sort]
    marks = [sa.select(marker.c[key]).scalar_subquery() for key, _ in sort]
    directions = {direction for _, direction in sort}
    if len(directions) == 1:
        # One comparison of rows is a place in an index of these columns, where the walk begins.
        here, there = sa.tuple_(*keys), sa.tuple_(*marks)
        return here > there if directions == {"asc"} else here < there
    # The first key alone says where the walk can begin at the earliest.
    begins = keys[0] >= marks[0] if sort[0][1] == "asc" else keys[0] <= marks[0]
    after: sa.ColumnElement[bool] = sa.false()
    for key, mark, (_, direction) in reversed(list(zip(keys, marks, sort, strict=True))):
        beyond = key > mark if direction == "asc" else key < mark
        after = sa.or_(beyond, sa.and_(key == mark, after))
    return sa.and_(begins, after)


# Filters.

_INTEGERS: Final = ("min_disk", "min_ram", "size", "virtual_size")
_TIMES: Final = ("created_at", "updated_at")
_SECOND: Final = sa.literal_column("interval '1 second'", sa.Interval)


def _in_whole_seconds(condition: Filter) -> Iterator[Filter]:
    """The condition with a time in whole seconds; other conditions as they are.

    No image is ever equal to a time with a fraction: `eq` becomes a contradiction, `neq` nothing.
    """
    moment = condition.value
    if not isinstance(moment, datetime) or moment.microsecond == 0:
        yield condition
        return
    operators: dict[Operator, tuple[Operator, ...]] = {
        "gte": ("gt",),
        "lt": ("lte",),
        "eq": ("lt", "gt"),
        "neq": (),
    }
    for op in operators.get(condition.op, (condition.op,)):
        yield Filter(condition.field, op, moment.replace(microsecond=0))


_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    "eq": eq,
    "neq": ne,
    "gt": gt,
    "gte": ge,
    "lt": lt,
    "lte": le,
    "in": lambda column, values: column == sa.any_(values),
}


# Arrays are passed as text[] only: to learn of any other array type, asyncpg asks the server, on
# each connection, before the statement.
def _condition(column: Field, op: Operator, *, at: int) -> sa.ColumnElement[bool]:
    """A filter on the parameter `filter_<at>`, which holds what `_bound` makes of its value."""
    name = f"filter_{at}"
    subject = images.c[column]
    if column in _TIMES:
        second = sa.bindparam(name, type_=sa.DateTime(timezone=True))
        return _within(subject, op, second, second + _SECOND)
    if column in _INTEGERS:
        # As `numeric`, so that a number of any length can be compared.
        return _COMPARE[op](subject, sa.bindparam(name, type_=sa.Numeric))
    if column == "protected":
        return subject == sa.bindparam(name, type_=sa.Boolean)
    if column == "id":
        ids = sa.bindparam(name, type_=ARRAY(sa.Text))
        return subject == sa.any_(sa.cast(ids, ARRAY(sa.Uuid(as_uuid=False))))
    text = sa.bindparam(name, type_=ARRAY(sa.Text) if op == "in" else sa.String)
    if column == "name":
        # In the words of the index; an image without a name has not the empty one.
        return sa.and_(_COMPARE[op](_key(images, "name"), text), subject.is_not(None))
    return _COMPARE[op](subject, text)


def _within(
    moment: sa.ColumnElement[Any],
    op: Operator,
    begin: sa.ColumnElement[Any],
    end: sa.ColumnElement[Any],
) -> sa.ColumnElement[bool]:
    """How a moment lies to the second from `begin` to before `end`."""
    match op:
        case "gt":
            return moment >= end
        case "gte":
            return moment >= begin
        case "lt":
            return moment < begin
        case "lte":
            return moment < end
        case "neq":
            return sa.or_(moment < begin, moment >= end)
        case _:
            return sa.and_(moment >= begin, moment < end)


def _bound(condition: Filter) -> object:
    """The value of a filter as its parameter."""
    value = condition.value
    if condition.field == "id":
        # A text that is no UUID is the id of no image.
        values = value if isinstance(value, tuple) else (str(value),)
        return [text for text in values if is_uuid(text)]
    return list(value) if isinstance(value, tuple) else value
