"""The kinds of resources that definitions are for: known since a namespace first named them."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.tables import metadef_associations, metadef_resource_types


class ResourceTypeRow(TypedDict):
    """A resource type; times are aware, in UTC."""

    name: str
    created_at: datetime
    updated_at: datetime


async def everything(connection: AsyncConnection) -> list[ResourceTypeRow]:
    """Every resource type, by name."""
    found = await connection.execute(
        sa.select(metadef_resource_types).order_by(metadef_resource_types.c.name)
    )
    return [cast(ResourceTypeRow, dict(row)) for row in found.mappings()]


async def ensure(connection: AsyncConnection, names: Iterable[str]) -> None:
    """Make known those of the resource types that are not yet. One statement."""
    # In order, so that two transactions never wait for each other.
    rows = [{"name": name} for name in sorted(set(names))]
    await connection.execute(
        insert_into(metadef_resource_types).values(rows).on_conflict_do_nothing()
    )


async def forget_unused(connection: AsyncConnection) -> None:
    """Remove the resource types that no namespace is associated with."""
    used = sa.exists().where(metadef_associations.c.name == metadef_resource_types.c.name)
    await connection.execute(sa.delete(metadef_resource_types).where(~used))
