"""Locations that clients name: adding, describing and releasing them, and hashing what is there.

A location whose digest is still to be held against its client's word is held by a task
(`images.import_task`), as an import holds its image; `start` and `finish` are the two ends of that.
Calls that come from a job go into transactions that also say whose turn it is (`jobs.fenced`).
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db import images
from diptych_images.db.images import ImageRow, LocationRow, word
from diptych_images.db.imports import MESSAGE
from diptych_images.db.tables import image_locations
from diptych_images.db.tables import images as images_table

_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_TASK: Final = sa.bindparam("the_task", type_=sa.Uuid(as_uuid=False))
_LOCATION: Final = sa.bindparam("the_location", type_=sa.BigInteger)
_LOCATIONS: Final = sa.bindparam("the_locations", type_=ARRAY(sa.BigInteger))
_NOW: Final = sa.func.statement_timestamp()

_rows: Final = image_locations.c
_FIELDS: Final = (_rows.id, _rows.store, _rows.url, _rows.metadata, _rows.status)

_ADD: Final = sa.insert(image_locations).returning(*_FIELDS)


async def add(
    connection: AsyncConnection,
    image_id: str,
    *,
    store: str,
    url: str,
    metadata: Mapping[str, object],
    task_id: str | None = None,
    becomes: Mapping[str, object] | None = None,
    reserved: int | None = None,
) -> LocationRow:
    """Add a location, for a transaction that holds the image.

    `becomes` are the columns that the image gets when the task has found it good; None: at once.
    `reserved` bytes count for quotas until the image has a size.
    """
    added = await connection.execute(
        _ADD.values(
            image_id=image_id,
            store=store,
            url=url,
            metadata=dict(metadata),
            status="active",
            import_task=task_id,
            staged=sa.null() if becomes is None else dict(becomes),
            reserved=reserved,
        )
    )
    return cast(LocationRow, dict(added.mappings().one()))


_DESCRIBE: Final = (
    sa.update(image_locations)
    .where(_rows.id == _LOCATION)
    .values(metadata=sa.bindparam("new_metadata", type_=JSONB))
)


async def describe(
    connection: AsyncConnection, location_id: int, metadata: Mapping[str, object]
) -> None:
    """Change what clients see beside the URL, for a transaction that holds the image."""
    await connection.execute(
        _DESCRIBE, {"the_location": location_id, "new_metadata": dict(metadata)}
    )


_RELEASE: Final = (
    sa.update(image_locations)
    .where(_rows.id == sa.any_(_LOCATIONS), _rows.status == word("active"))
    .values(status="deleted", attempt=None)
)
_FORGET: Final = sa.delete(image_locations).where(
    _rows.id == sa.any_(_LOCATIONS), _rows.status == word("active")
)


async def release(connection: AsyncConnection, location_ids: Collection[int]) -> None:
    """Take locations from the image that the transaction holds; their bytes are to be removed."""
    await connection.execute(_RELEASE, {"the_locations": [*location_ids]})


async def forget(connection: AsyncConnection, location_ids: Collection[int]) -> None:
    """As `release`, but the bytes stay: another location of the image has the same."""
    await connection.execute(_FORGET, {"the_locations": [*location_ids]})


_START: Final = (
    sa.update(images_table)
    .where(
        images_table.c.id == _ID,
        images_table.c.deleted_at.is_(None),
        images_table.c.status == word("queued"),
        images_table.c.import_task.is_(None),
        images_table.c.disk_format.is_not(None),
        images_table.c.container_format.is_not(None),
    )
    .returning(*images_table.c, sa.null().label("member_status"))
)


async def start(
    connection: AsyncConnection, image_id: str, columns: Mapping[str, object]
) -> ImageRow | None:
    """Change a queued image that is to get its first location, which `add` adds then.

    None if it is not queued any more, has no formats or an import holds it: nothing is changed.
    """
    changed = await connection.execute(
        _START.values({"updated_at": _NOW, **columns}), {"the_image": image_id}
    )
    row = changed.mappings().one_or_none()
    return None if row is None else cast(ImageRow, {**row, "locations": []})


_OF_LIVING: Final = sa.select(*_FIELDS).where(
    _rows.id == _LOCATION,
    _rows.image_id == _ID,
    _rows.status == word("active"),
    sa.exists().where(images_table.c.id == _rows.image_id, images_table.c.deleted_at.is_(None)),
)


async def find(connection: AsyncConnection, image_id: str, location_id: int) -> LocationRow | None:
    """The location; None if the image is deleted or does not have it any more."""
    found = await connection.execute(
        _OF_LIVING, {"the_image": image_id, "the_location": location_id}
    )
    row = found.mappings().one_or_none()
    return None if row is None else cast(LocationRow, dict(row))


def _change(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    return (
        sa.update(images_table)
        .where(images_table.c.id == _ID, images_table.c.deleted_at.is_(None), *conditions)
        .returning(
            *images_table.c,
            images.active_locations(images_table).label("locations"),
            sa.null().label("member_status"),
        )
    )


_HASHED: Final = _change(
    images_table.c.os_hash_value.is_(None),
    sa.exists().where(
        _rows.id == _LOCATION, _rows.image_id == images_table.c.id, _rows.status == word("active")
    ),
)


async def hashed(
    connection: AsyncConnection,
    image_id: str,
    *,
    location_id: int,
    checksum: str,
    os_hash_value: str,
) -> ImageRow | None:
    """Give an active image the digests of what is at its location.

    None if it is deleted, does not have the location any more or has a digest by now.
    """
    changed = await connection.execute(
        _HASHED.values(checksum=checksum, os_hash_value=os_hash_value, updated_at=_NOW),
        {"the_image": image_id, "the_location": location_id},
    )
    return _row(changed)


_HELD: Final = _change(images_table.c.import_task == _TASK)
_KEEP: Final = (
    sa.update(image_locations)
    .where(_rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active"))
    .values(import_task=None, staged=sa.null())
)
_BECOMES: Final = sa.select(_rows.staged).where(
    _rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active")
)


async def finish(
    connection: AsyncConnection, image_id: str, *, task_id: str, digests: Mapping[str, object]
) -> ImageRow | None:
    """Make an image active whose location was found good; None if the task does not hold it."""
    keys = {"the_image": image_id, "the_task": task_id}
    becomes = (await connection.execute(_BECOMES, keys)).scalars().first()
    if becomes is None:
        return None
    row = _row(
        await connection.execute(
            _HELD.values(
                {
                    **becomes,
                    **digests,
                    "status": "active",
                    "import_task": None,
                    "updated_at": _NOW,
                }
            ),
            keys,
        )
    )
    if row is not None:
        await connection.execute(_KEEP, keys)
    return row


_DROP: Final = sa.delete(image_locations).where(
    _rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active")
)


async def give_up(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    message: str,
    os_hash_algo: str | None,
) -> ImageRow | None:
    """Queue an image again whose location was not found good; None if the task does not hold it.

    `os_hash_algo` is what was chosen at its creation.
    The location is forgotten. What is there stays: this service has not written it, and it may be
    something else than the client meant.
    """
    row = _row(
        await connection.execute(
            _HELD.values(
                status="queued",
                import_task=None,
                os_hash_algo=os_hash_algo,
                properties=images_table.c.properties.concat(
                    sa.func.jsonb_build_object(MESSAGE, sa.bindparam("new_message", type_=sa.Text))
                ),
                updated_at=_NOW,
            ),
            {"the_image": image_id, "the_task": task_id, "new_message": message},
        )
    )
    if row is not None:
        await connection.execute(_DROP, {"the_image": image_id, "the_task": task_id})
    return row


def _row(result: sa.CursorResult[Any]) -> ImageRow | None:
    row = result.mappings().one_or_none()
    return None if row is None else cast(ImageRow, dict(row))
