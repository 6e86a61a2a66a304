"""Namespaces of metadata definitions, alone or with what is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, TypedDict, cast

import sqlalchemy as sa
from diptych_common.errors import Conflict
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db import pages
from diptych_images.db.images import word
from diptych_images.db.pages import Direction
from diptych_images.db.tables import (
    metadef_associations,
    metadef_namespaces,
    metadef_objects,
    metadef_properties,
    metadef_tags,
)

Kind = Literal["resource_type_associations", "properties", "objects", "tags"]
Visibility = Literal["public", "private"]
SortKey = Literal[
    "namespace", "display_name", "visibility", "protected", "owner", "created_at", "updated_at"
]
Entry = dict[str, Any]
"""A row of what a namespace holds; times are aware, in UTC."""

TABLES: Final[Mapping[Kind, sa.Table]] = {
    "resource_type_associations": metadef_associations,
    "properties": metadef_properties,
    "objects": metadef_objects,
    "tags": metadef_tags,
}
ALL: Final[tuple[Kind, ...]] = tuple(TABLES)


class NamespaceRow(TypedDict):
    """A namespace; what it holds is there as far as it was asked for, oldest first, else empty."""

    id: int
    namespace: str
    display_name: str | None
    description: str | None
    visibility: Visibility
    protected: bool
    owner: str | None
    created_at: datetime
    updated_at: datetime
    resource_type_associations: list[Entry]
    properties: list[Entry]
    objects: list[Entry]
    tags: list[Entry]


class NamespaceValues(TypedDict):
    """What a client gives of a namespace itself."""

    namespace: str
    display_name: str | None
    description: str | None
    visibility: Visibility
    protected: bool
    owner: str | None


@dataclass(frozen=True, slots=True)
class NamespaceQuery:
    """What to list: at most `limit` namespaces that begin after the one named `marker`.

    `resource_types` are alternatives. Equal ones come in the order of their creation, in the same
    direction; a namespace without the sort key's value comes as an empty one.
    """

    limit: int
    visibility: Visibility | None = None
    resource_types: tuple[str, ...] = ()
    sort_key: SortKey = "created_at"
    sort_dir: Direction = "desc"
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list; without rows and not `marker_found` if there is no such marker."""

    rows: list[NamespaceRow]
    marker_found: bool


_NAME: Final = sa.bindparam("the_namespace", type_=sa.String)
_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_NOTHING: Final = sa.literal_column("'[]'::jsonb", JSONB)


def _may_see(*, is_admin: bool) -> sa.ColumnElement[bool]:
    if is_admin:
        return sa.true()
    return sa.or_(
        metadef_namespaces.c.visibility == word("public"), metadef_namespaces.c.owner == _PROJECT
    )


def _held(kind: Kind) -> sa.ColumnElement[Any]:
    table = TABLES[kind]
    entry = sa.func.jsonb_build_object(
        *(part for column in table.c for part in (word(column.name), column))
    )
    entries = sa.func.coalesce(
        sa.func.jsonb_agg(aggregate_order_by(entry, table.c.id)), _NOTHING, type_=JSONB
    )
    return (
        sa.select(entries)
        .where(table.c.namespace_id == metadef_namespaces.c.id)
        .correlate(metadef_namespaces)
        .scalar_subquery()
    )


def _with(kinds: Sequence[Kind]) -> sa.Select[Any]:
    held = [(_held(kind) if kind in kinds else _NOTHING).label(kind) for kind in ALL]
    return sa.select(metadef_namespaces, *held)


def _row(found: Mapping[Any, Any]) -> NamespaceRow:
    row = dict(found)
    for kind in ALL:
        for entry in row[kind]:
            # They went through JSON, where a time is a text with the session's offset.
            for name in ("created_at", "updated_at"):
                entry[name] = datetime.fromisoformat(entry[name]).astimezone(UTC)
    return cast(NamespaceRow, row)


def _without_anything(found: Mapping[Any, Any]) -> NamespaceRow:
    return cast(NamespaceRow, {**found, **{kind: [] for kind in ALL}})


@cache
def _one(kinds: tuple[Kind, ...], *, is_admin: bool) -> sa.Select[Any]:
    seen = _may_see(is_admin=is_admin)
    return _with(kinds).where(metadef_namespaces.c.namespace == _NAME, seen)


async def get(
    connection: AsyncConnection,
    name: str,
    *kinds: Kind,
    project_id: str | None,
    is_admin: bool,
) -> NamespaceRow | None:
    """The namespace with these kinds of what it holds; None if this project sees none.

    One statement.
    """
    parameters = {"the_namespace": name, "project_id": project_id}
    found = await connection.execute(_one(kinds, is_admin=is_admin), parameters)
    row = found.mappings().one_or_none()
    return None if row is None else _row(row)


async def get_for_update(
    connection: AsyncConnection, name: str, *, project_id: str | None, is_admin: bool
) -> NamespaceRow | None:
    """The namespace alone, locked until the end of the transaction; None as for `get`."""
    parameters = {"the_namespace": name, "project_id": project_id}
    statement = _one((), is_admin=is_admin).with_for_update(of=metadef_namespaces)
    row = (await connection.execute(statement, parameters)).mappings().one_or_none()
    return None if row is None else _row(row)


async def insert(connection: AsyncConnection, values: NamespaceValues) -> NamespaceRow:
    """A new namespace, empty. Raises Conflict if there is one of this name, visible or not."""
    statement = (
        insert_into(metadef_namespaces)
        .values(**values)
        .on_conflict_do_nothing()
        .returning(metadef_namespaces)
    )
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise _taken(values["namespace"])
    return _without_anything(row)


async def update(
    connection: AsyncConnection, namespace_id: int, values: NamespaceValues
) -> NamespaceRow:
    """Replace all of the namespace itself. Raises Conflict if the new name is another's."""
    statement = (
        sa.update(metadef_namespaces)
        .where(metadef_namespaces.c.id == namespace_id)
        .values(**values, updated_at=sa.func.statement_timestamp())
        .returning(metadef_namespaces)
    )
    try:
        row = (await connection.execute(statement)).mappings().one()
    except IntegrityError as error:
        raise _taken(values["namespace"]) from error
    return _without_anything(row)


async def remove(connection: AsyncConnection, namespace_id: int) -> None:
    """Remove the namespace and all that it holds."""
    await connection.execute(
        sa.delete(metadef_namespaces).where(metadef_namespaces.c.id == namespace_id)
    )


# Never NULL, or there would be no saying what comes after it.
_SORTED_BY: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    "namespace": metadef_namespaces.c.namespace,
    "display_name": sa.func.coalesce(metadef_namespaces.c.display_name, word("")),
    "visibility": metadef_namespaces.c.visibility,
    "protected": metadef_namespaces.c.protected,
    "owner": sa.func.coalesce(metadef_namespaces.c.owner, word("")),
    "created_at": metadef_namespaces.c.created_at,
    "updated_at": metadef_namespaces.c.updated_at,
    "id": metadef_namespaces.c.id,
}


async def page(
    connection: AsyncConnection,
    query: NamespaceQuery,
    *,
    project_id: str | None,
    is_admin: bool,
) -> Page:
    """The page of the namespaces that this project sees, with their resource types. One statement.

    An administrator sees every project's.
    """
    keys = [_SORTED_BY[key] for key in dict.fromkeys((query.sort_key, "created_at", "id"))]
    seen = _may_see(is_admin=is_admin)
    conditions = [seen]
    values: dict[str, object] = {"project_id": project_id}
    if query.visibility is not None:
        conditions.append(metadef_namespaces.c.visibility == word(query.visibility))
    if query.resource_types:
        conditions.append(
            sa.exists().where(
                metadef_associations.c.namespace_id == metadef_namespaces.c.id,
                metadef_associations.c.name.in_(query.resource_types),
            )
        )
    marker = None
    if query.marker is not None:
        values["the_namespace"] = query.marker
        marker = sa.and_(metadef_namespaces.c.namespace == _NAME, seen)
    rows, marker_found = await pages.fetch(
        connection,
        _with(("resource_type_associations",)).where(*conditions),
        values,
        keys=keys,
        direction=query.sort_dir,
        limit=query.limit,
        marker=marker,
    )
    return Page([_row(row) for row in rows], marker_found=marker_found)


async def everything(connection: AsyncConnection) -> list[NamespaceRow]:
    """Every namespace with all that it holds, by name. One statement."""
    found = await connection.execute(_with(ALL).order_by(metadef_namespaces.c.namespace))
    return [_row(row) for row in found.mappings()]


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a namespace {name} already.")
