"""Deletions that take effect later, and images that have waited for their data for too long.

An image in `pending_delete` has a `deleted_at` like a deleted one, so that no other statement finds
it; its locations stay active and its members stay, for it to be restored as it was.
"""

from datetime import timedelta
from typing import Any, Final, cast

import sqlalchemy as sa
from diptych_common.purge import Removed
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db import images
from diptych_images.db.images import ImageRow, LocationRow, active_locations, is_uuid, word
from diptych_images.db.imports import IMPORTING
from diptych_images.db.tables import image_locations
from diptych_images.db.tables import images as images_table

# What a deactivated image has beside its properties while it is to be deleted: it must not come
# back as one that everybody may download. Clients cannot set names that begin like this.
STATUS_BEFORE: Final = "os_glance_status_before_deletion"

_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_NOW: Final = sa.func.statement_timestamp()
_BEFORE: Final = _NOW - sa.bindparam("the_age", type_=sa.Interval)

_rows: Final = image_locations.c
_WHOLE: Final = (
    images_table,
    active_locations(images_table).label("locations"),
    sa.null().label("member_status"),
)

_is_copy: Final = sa.and_(_rows.status == word("active"), _rows.attempt.is_(None))
_DELAY: Final = (
    sa.update(images_table)
    .where(
        images_table.c.id == _ID,
        images_table.c.deleted_at.is_(None),
        images_table.c.status.in_((word("active"), word("deactivated"))),
        sa.exists().where(_rows.image_id == images_table.c.id, _is_copy),
    )
    .values(
        status="pending_delete",
        deleted_at=_NOW,
        import_task=None,
        properties=sa.bindparam("new_properties", type_=JSONB),
    )
    .returning(*_WHOLE)
)
# What an import has put there and may take back would be nobody's, were the image restored.
_RELEASE_OTHERS: Final = (
    sa.update(image_locations)
    .where(
        _rows.image_id == _ID,
        sa.or_(
            _rows.status == word("staged"),
            sa.and_(_rows.status == word("active"), _rows.attempt.is_not(None)),
        ),
    )
    .values(status="deleted")
    .returning(_rows.id)
)


async def delay(connection: AsyncConnection, row: ImageRow) -> tuple[ImageRow, bool] | None:
    """Have an image deleted later; the row as it is then, and whether bytes are to go at once.

    For a transaction that holds the image. None, and nothing is changed, if it is no image with
    bytes of its own: that is deleted at once. As with `images.mark_deleted`, no import holds the
    image any more; what one has copied so far is to go.
    """
    properties = dict(row["properties"])
    if row["import_task"] is not None:
        properties[IMPORTING] = ""
    if row["status"] == "deactivated":
        properties[STATUS_BEFORE] = row["status"]
    delayed = await connection.execute(
        _DELAY, {"the_image": row["id"], "new_properties": properties}
    )
    found = delayed.mappings().one_or_none()
    if found is None:
        return None
    released = await connection.execute(_RELEASE_OTHERS, {"the_image": row["id"]})
    return cast(ImageRow, dict(found)), released.first() is not None


_RESTORE: Final = (
    sa.update(images_table)
    .where(images_table.c.id == _ID, images_table.c.status == word("pending_delete"))
    .values(
        status=sa.func.coalesce(
            images_table.c.properties[word(STATUS_BEFORE)].astext, word("active")
        ),
        properties=images_table.c.properties.op("-", return_type=JSONB)(word(STATUS_BEFORE)),
        deleted_at=None,
        updated_at=_NOW,
    )
    .returning(*_WHOLE)
)


async def restore(connection: AsyncConnection, image_id: str) -> ImageRow | None:
    """Undo the deletion of an image; None if none of this id is to be deleted. Any text may be
    asked for."""
    if not is_uuid(image_id):
        return None
    restored = await connection.execute(_RESTORE, {"the_image": image_id})
    found = restored.mappings().one_or_none()
    return None if found is None else cast(ImageRow, dict(found))


_is_due: Final = sa.and_(
    images_table.c.status == word("pending_delete"), images_table.c.deleted_at <= _BEFORE
)
_DUE: Final = (
    sa.select(images_table.c.id)
    .where(_is_due)
    .order_by(images_table.c.deleted_at)
    .limit(sa.bindparam("at_most", type_=sa.Integer))
)
_FINISH: Final = (
    sa.update(images_table)
    .where(images_table.c.id == _ID, _is_due)
    .values(status="deleted")
    .returning(images_table.c.id)
)


async def due(connection: AsyncConnection, *, after: timedelta, at_most: int) -> list[str]:
    """The images whose deletion was asked for that long ago or longer, in its order.

    Reads the whole table: no index is for this.
    """
    found = await connection.execute(_DUE, {"the_age": after, "at_most": at_most})
    return [*found.scalars()]


async def finish(
    connection: AsyncConnection, image_id: str, *, after: timedelta
) -> list[LocationRow] | None:
    """Delete an image whose deletion was asked for that long ago or longer; its locations.

    See `images.release`. None if it was restored or deleted meanwhile, or is not that old.
    """
    finished = await connection.execute(_FINISH, {"the_image": image_id, "the_age": after})
    if finished.first() is None:
        return None
    return await images.release(connection, image_id)


# Without what it was: the row itself stays, so that no image ever gets the id of another one. One
# whose bytes are not gone yet is still needed as it is.
_FORGOTTEN: Final = (
    *("name", "owner", "disk_format", "container_format", "size", "virtual_size"),
    *("checksum", "os_hash_algo", "os_hash_value"),
)
_is_purgeable: Final = sa.and_(
    images_table.c.status == word("deleted"),
    images_table.c.deleted_at < _BEFORE,
    sa.or_(
        sa.func.num_nonnulls(*(images_table.c[name] for name in _FORGOTTEN)) > 0,
        images_table.c.tags != sa.literal_column("'{}'::text[]"),
        images_table.c.properties != sa.literal_column("'{}'::jsonb"),
    ),
    ~sa.exists().where(_rows.image_id == images_table.c.id),
)


def _purge(*, is_first: bool) -> sa.Update:
    after = sa.bindparam("the_last", type_=sa.Uuid(as_uuid=False))
    purgeable = (
        sa.select(images_table.c.id)
        .where(_is_purgeable, sa.true() if is_first else images_table.c.id > after)
        .order_by(images_table.c.id)
        .limit(sa.bindparam("at_most", type_=sa.Integer))
        .with_for_update(skip_locked=True)
    )
    return (
        sa.update(images_table)
        .where(images_table.c.id.in_(purgeable))
        .values(tags=[], properties={}, **dict.fromkeys(_FORGOTTEN))
        .returning(images_table.c.id)
    )


_PURGE: Final = {is_first: _purge(is_first=is_first) for is_first in (True, False)}
_COUNT_PURGEABLE: Final = sa.select(sa.func.count()).select_from(images_table).where(_is_purgeable)


async def purge(
    connection: AsyncConnection, older_than: timedelta, at_most: int, after: str | None
) -> Removed:
    """Forget what images were that were deleted longer ago, so many at most, in order of ids.

    Their ids are kept for ever. Reads the table from the id `after` on: no index is for this.

    Source: OSSN-0075, of ids that others could use again.
    """
    parameters = {"the_age": older_than, "at_most": at_most, "the_last": after}
    done = await connection.execute(_PURGE[after is None], parameters)
    ids: list[str] = [*done.scalars()]
    return Removed(len(ids), max(ids, default=None))


async def count_purgeable(connection: AsyncConnection, older_than: timedelta) -> int:
    """How many images `purge` would forget."""
    return (await connection.execute(_COUNT_PURGEABLE, {"the_age": older_than})).scalar_one()


_LEFT_QUEUED: Final[sa.Select[Any]] = (
    sa.select(images_table.c.id)
    .where(
        images_table.c.deleted_at.is_(None),
        images_table.c.status == word("queued"),
        images_table.c.import_task.is_(None),
        images_table.c.updated_at <= _BEFORE,
    )
    .limit(sa.bindparam("at_most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)


async def left_queued(connection: AsyncConnection, *, after: timedelta, at_most: int) -> list[str]:
    """Images without data that nobody has changed for that long, locked; not those being changed.

    Reads the whole table: no index is for this.
    """
    found = await connection.execute(_LEFT_QUEUED, {"the_age": after, "at_most": at_most})
    return [*found.scalars()]
