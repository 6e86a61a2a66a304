"""What the caches of the nodes have: told by each node of itself."""

from collections.abc import Collection
from typing import Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import is_uuid, may_see
from diptych_images.db.tables import cached_images, images

_NODE: Final = sa.bindparam("the_node", type_=sa.Text)
_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_IDS: Final = sa.bindparam("the_images", type_=ARRAY(sa.Uuid(as_uuid=False)))
_WITHIN_S: Final = sa.bindparam("within_s", type_=sa.Double)
_NOW: Final = sa.func.statement_timestamp()

_LIVING: Final = sa.select(images.c.id).where(
    images.c.id == sa.func.any(_IDS), images.c.deleted_at.is_(None)
)

_FORGOTTEN: Final = (
    sa.delete(cached_images)
    .where(cached_images.c.node == _NODE, cached_images.c.image_id != sa.func.all(_IDS))
    .cte("forgotten")
)
_REPORT: Final = (
    insert_into(cached_images)
    .from_select(
        ["image_id", "node", "reported_at"],
        sa.select(images.c.id, _NODE, _NOW).where(images.c.id == sa.func.any(_IDS)),
    )
    .on_conflict_do_update(
        index_elements=[cached_images.c.image_id, cached_images.c.node], set_={"reported_at": _NOW}
    )
    .add_cte(_FORGOTTEN)
)


def _nodes(*, is_admin: bool) -> sa.Select[tuple[list[str]]]:
    fresh = (
        sa.select(sa.func.array_agg(cached_images.c.node, type_=ARRAY(sa.Text)))
        .where(
            cached_images.c.image_id == images.c.id,
            cached_images.c.reported_at
            > _NOW - _WITHIN_S * sa.literal_column("interval '1 second'", sa.Interval),
        )
        .scalar_subquery()
    )
    return sa.select(fresh).where(
        images.c.id == _ID, images.c.deleted_at.is_(None), may_see(is_admin=is_admin)
    )


_NODES: Final = {is_admin: _nodes(is_admin=is_admin) for is_admin in (False, True)}


async def living(connection: AsyncConnection, image_ids: Collection[str]) -> frozenset[str]:
    """Those of the images that are not deleted."""
    found = await connection.execute(_LIVING, {"the_images": list(image_ids)})
    return frozenset(found.scalars())


async def report(connection: AsyncConnection, node: str, image_ids: Collection[str]) -> None:
    """Note that the node's cache has these images now, and no others. One statement."""
    await connection.execute(_REPORT, {"the_node": node, "the_images": sorted(image_ids)})


async def nodes(
    connection: AsyncConnection,
    image_id: str,
    *,
    within_s: float,
    project_id: str | None,
    is_admin: bool,
) -> list[str] | None:
    """The nodes that said within so many seconds that they have the image, in order.

    None if there is no image that this project may see.
    """
    if not is_uuid(image_id):
        return None
    found = await connection.execute(
        _NODES[is_admin],
        {"the_image": image_id, "project_id": project_id, "within_s": within_s},
    )
    row = found.one_or_none()
    return None if row is None else sorted(cast("list[str] | None", row[0]) or [])
