"""Artifacts that go: at once, or after a while in which they are shown by id only.

With an artifact its blobs go: where they are elsewhere they are forgotten, the others are left
`deleted`, without an artifact, until their bytes are removed from their stores.
"""

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_artifacts.db.artifacts import ArtifactRow, word
from diptych_artifacts.db.tables import artifacts, blobs

_ID: Final = sa.bindparam("the_artifact", type_=sa.Uuid(as_uuid=False))
_NOW: Final = sa.func.statement_timestamp()

_is_due: Final = sa.and_(
    artifacts.c.status == word("deleted"),
    artifacts.c.deleted_at <= _NOW - sa.bindparam("the_age", type_=sa.Interval),
)


def _remove(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any, int]:
    gone = (
        sa.delete(artifacts)
        .where(artifacts.c.id == _ID, *conditions)
        .returning(artifacts.c.id)
        .cte("gone")
    )
    of_it = sa.and_(blobs.c.artifact_id == gone.c.id, blobs.c.status == word("active"))
    forgotten = sa.delete(blobs).where(of_it, blobs.c.external).cte("forgotten")
    released = (
        sa.update(blobs)
        .where(of_it, sa.not_(blobs.c.external))
        .values(status=word("deleted"), artifact_id=None)
        .returning(blobs.c.id)
        .cte("released")
    )
    ids = sa.select(sa.func.array_agg(released.c.id)).scalar_subquery()
    return sa.select(gone.c.id, ids.label("released")).add_cte(forgotten)


_REMOVE: Final = _remove()
_REMOVE_DUE: Final = _remove(_is_due)
_DELAY: Final = (
    sa.update(artifacts)
    .where(artifacts.c.id == _ID)
    .values(status=word("deleted"), deleted_at=_NOW, updated_at=_NOW)
)
_DUE: Final = (
    sa.select(artifacts.c.id)
    .where(_is_due)
    .order_by(artifacts.c.deleted_at)
    .limit(sa.bindparam("at_most", type_=sa.Integer))
)


async def delay(connection: AsyncConnection, row: ArtifactRow) -> None:
    """Have an artifact deleted later: it is locked, and none of its blobs is being saved."""
    await connection.execute(_DELAY, {"the_artifact": row["id"]})


async def remove(connection: AsyncConnection, artifact_id: str) -> list[str]:
    """Remove an artifact that is locked, none of whose blobs is being saved.

    Returns the blobs whose bytes are to be removed now.
    """
    removed = await connection.execute(_REMOVE, {"the_artifact": artifact_id})
    return removed.one().released or []


async def remove_due(
    connection: AsyncConnection, artifact_id: str, *, after: timedelta
) -> list[str] | None:
    """`remove` an artifact that was deleted that long ago or longer; None if it was not."""
    removed = await connection.execute(_REMOVE_DUE, {"the_artifact": artifact_id, "the_age": after})
    found = removed.one_or_none()
    return None if found is None else found.released or []


async def due(connection: AsyncConnection, *, after: timedelta, at_most: int) -> list[str]:
    """The artifacts that were deleted that long ago or longer and are still there, in order."""
    found = await connection.execute(_DUE, {"the_age": after, "at_most": at_most})
    return [*found.scalars()]
