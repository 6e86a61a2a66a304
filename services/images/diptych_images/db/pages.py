"""A page of a list that is sorted in one direction and may begin after a marker.

For lists that are read as they are; images have a statement of their own (image_list.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

Direction = Literal["asc", "desc"]


async def fetch(
    connection: AsyncConnection,
    listed: sa.Select[Any],
    values: Mapping[str, object],
    *,
    keys: Sequence[sa.ColumnElement[Any]],
    direction: Direction,
    limit: int | None,
    marker: sa.ColumnElement[bool] | None,
) -> tuple[list[dict[str, Any]], bool]:
    """The rows, at most `limit`, and whether the marker is there. One statement.

    `keys` are never NULL and end with one that tells rows apart. The page begins after the row that
    `marker` is true of; None: with the first. The rows have an `id`.
    """
    order = [key.asc() if direction == "asc" else key.desc() for key in keys]
    listed = listed.order_by(*order).limit(limit)
    if marker is None:
        found = await connection.execute(listed, values)
        return [dict(row) for row in found.mappings()], True
    marked = (
        sa.select(*(key.label(f"key_{at}") for at, key in enumerate(keys)))
        .where(marker)
        .cte("marker")
    )
    here = sa.tuple_(*keys)
    there = sa.tuple_(*(sa.select(mark).scalar_subquery() for mark in marked.c))
    # A row of its own, so that an empty page too tells whether there is such a marker.
    known = sa.select(sa.exists(sa.select(marked.c.key_0)).label("marker_found")).subquery("known")
    numbered = (
        listed.where(here > there if direction == "asc" else here < there)
        .add_columns(sa.func.row_number().over(order_by=order).label("place"))
        .subquery("page")
    )
    found = await connection.execute(
        sa.select(known.c.marker_found, numbered)
        .select_from(known.outerjoin(numbered, sa.true()))
        .order_by(numbered.c.place),
        values,
    )
    rows: list[dict[str, Any]] = []
    marker_found = False
    for each in found.mappings():
        row = dict(each)
        marker_found = row.pop("marker_found")
        del row["place"]
        if row["id"] is not None:
            rows.append(row)
    return rows, marker_found
