"""Staged data and imports: what holds an image meanwhile, and what becomes of it in the end.

An import holds its image by its task, in `images.import_task`: every function here that is given a
`task_id` changes nothing once another task, or none, holds the image, or it is deleted. Calls go
into transactions that also say whose turn it is (`jobs.fenced`), and rows are locked in the order
of `db/images.py`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db import images
from diptych_images.db.images import (
    ATTEMPT_KEY,
    ImageRow,
    Status,
    active_locations,
    is_uuid,
    word,
)
from diptych_images.db.tables import image_locations
from diptych_images.db.tables import images as images_table

# What clients poll. Lists of stores are in alphabetical order, separated by commas, and stay as
# empty strings. Source: Glance 33.0, async_/flows/api_image_import.py `merge_store_list`.
IMPORTING: Final = "os_glance_importing_to_stores"
FAILED: Final = "os_glance_failed_import"
MESSAGE: Final = "os_glance_import_message"


class Disagrees(Exception):
    """Bytes that differ from those that the image has in another store."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that wait to be imported. `about` is what was found out about them on their way in."""

    store: str
    url: str
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Begun:
    """An image that an import holds: what it has so far.

    `landed` are the stores into which this import has put the bytes, in an earlier run perhaps.
    """

    image: ImageRow
    staged: Staged | None
    landed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Left:
    """An attempt that an import leaves behind; in `store`, for a user of the project."""

    store: str
    attempt: str
    key: str
    project_id: str | None


@dataclass(frozen=True, slots=True)
class Bytes:
    """What the bytes of an image are: their number, digests as columns have them, None unknown."""

    size: int
    virtual_size: int | None
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The image of an import that is over; whether it became active by that.

    `has_bytes_to_remove` if some are the job's that removes bytes.
    """

    image: ImageRow
    is_activated: bool
    has_bytes_to_remove: bool


def names_of(row: ImageRow, key: str) -> set[str]:
    """The stores in one of the lists that clients poll."""
    return {name for name in (row["properties"].get(key) or "").split(",") if name}


def staged_key(image_id: str, token: str) -> str:
    """What the staged object of an attempt is named: never as another try's, nor as the image."""
    return f"{image_id}-{token}"


_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_TASK: Final = sa.bindparam("the_task", type_=sa.Uuid(as_uuid=False))
_NOW: Final = sa.func.statement_timestamp()
_SECOND: Final = sa.literal_column("interval '1 second'", sa.Interval)
_LEASE_END: Final = _NOW + sa.bindparam("lease_s", type_=sa.Double) * _SECOND

_rows: Final = image_locations.c
_WHOLE: Final = (
    images_table,
    active_locations(images_table).label("locations"),
    sa.null().label("member_status"),
)
_LOCKED: Final = (
    sa.select(*_WHOLE)
    .where(images_table.c.id == _ID, images_table.c.deleted_at.is_(None))
    .with_for_update(of=images_table)
)
_LOCKED_BY_TASK: Final = _LOCKED.where(images_table.c.import_task == _TASK)


async def _locked(connection: AsyncConnection, image_id: str) -> ImageRow | None:
    if not is_uuid(image_id):
        return None
    found = (await connection.execute(_LOCKED, {"the_image": image_id})).mappings().one_or_none()
    return None if found is None else cast(ImageRow, dict(found))


async def _held(connection: AsyncConnection, image_id: str, task_id: str) -> ImageRow | None:
    """The image if this task holds it, locked until the end of the transaction."""
    found = await connection.execute(_LOCKED_BY_TASK, {"the_image": image_id, "the_task": task_id})
    row = found.mappings().one_or_none()
    return None if row is None else cast(ImageRow, dict(row))


# Staging.

_BEGIN: Final = sa.insert(image_locations).values(
    image_id=sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False)),
    status="pending",
    lease_until=_LEASE_END,
)


async def start_stage(
    connection: AsyncConnection,
    image_id: str,
    *,
    store: str,
    attempt: str,
    lease_s: float,
    project_id: str | None,
    reserved: int = 0,
) -> ImageRow | None:
    """Move a queued image to `uploading` for this attempt; None if it was not queued any more.

    The attempt's key is `staged_key`. As `images.start_upload` in all else.
    """
    row = await _locked(connection, image_id)
    if row is None or row["status"] != "queued":
        return None
    await connection.execute(
        _BEGIN.values(
            store=store,
            attempt=attempt,
            key=staged_key(row["id"], attempt),
            project_id=project_id,
            reserved=reserved,
        ),
        {"the_image": row["id"], "lease_s": lease_s},
    )
    return await images.update(connection, row["id"], {"status": "uploading"})


_LAND: Final = (
    sa.update(image_locations)
    .where(
        _rows.attempt == sa.bindparam("the_attempt", type_=sa.Uuid(as_uuid=False)),
        _rows.image_id == _ID,
        _rows.status == word("pending"),
    )
    .returning(_rows.id, _rows.store)
)


async def finish_stage(
    connection: AsyncConnection,
    image_id: str,
    *,
    attempt: str,
    url: str,
    size: int,
    staged: Mapping[str, object],
) -> ImageRow | None:
    """Keep what was staged at `url` until it is imported; the image stays `uploading`.

    `staged` has the digests and findings. None if the image is deleted or the attempt is
    the reaper's by now: then the caller's transaction must change nothing.
    """
    landed = await connection.execute(
        _LAND.values(
            status="staged",
            url=url,
            staged=dict(staged),
            attempt=None,
            lease_until=None,
            reserved=size,
        ),
        {"the_image": image_id, "the_attempt": attempt},
    )
    if landed.one_or_none() is None:
        return None
    row = await _locked(connection, image_id)
    if row is None or row["status"] != "uploading":
        return None
    return await images.update(connection, row["id"], {"size": size})


# Imports.

_STAGED: Final = sa.select(_rows.store, _rows.url, _rows.staged).where(
    _rows.image_id == _ID, _rows.status == word("staged")
)


async def start(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    expected: Collection[Status],
    importing: bool,
    stores: Collection[str],
) -> ImageRow | None:
    """Have the task hold the image, in `importing` if told so; None if it cannot.

    That is: the image has none of the `expected` statuses (`uploading` counts once all is staged),
    or another import holds it. `stores` are what clients are told that it is imported to, none
    where there is but one.
    """
    row = await _locked(connection, image_id)
    if row is None or row["import_task"] is not None or row["status"] not in expected:
        return None
    if row["status"] == "uploading":
        staged = await connection.execute(_STAGED, {"the_image": row["id"]})
        if staged.first() is None:
            return None
    properties = {
        **row["properties"],
        IMPORTING: _merged(row, IMPORTING, add=stores),
        FAILED: _merged(row, FAILED, remove=stores),
    }
    properties.pop(MESSAGE, None)
    changed: dict[str, object] = {"import_task": task_id, "properties": properties}
    if importing:
        changed["status"] = "importing"
    return await images.update(connection, row["id"], changed)


_LANDED: Final = sa.select(_rows.store).where(
    _rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active")
)


async def begin(connection: AsyncConnection, image_id: str, *, task_id: str) -> Begun | None:
    """What the import has to work with, locked; None if the task does not hold the image."""
    row = await _held(connection, image_id, task_id)
    if row is None:
        return None
    staged = (await connection.execute(_STAGED, {"the_image": image_id})).one_or_none()
    landed = await connection.execute(_LANDED, {"the_image": image_id, "the_task": task_id})
    return Begun(
        image=row,
        staged=None if staged is None else Staged(*staged),
        landed=frozenset(landed.scalars()),
    )


def _start_attempt() -> sa.Select[Any]:
    held = (
        sa.select(images_table.c.id)
        .where(
            images_table.c.id == _ID,
            images_table.c.deleted_at.is_(None),
            images_table.c.import_task == _TASK,
        )
        .with_for_update(read=True)
        .cte("held")
    )
    begun = (
        insert_into(image_locations)
        .from_select(
            ["image_id", "store", "status", "attempt", "lease_until", "import_task", "project_id"],
            sa.select(
                held.c.id,
                sa.bindparam("the_store", type_=sa.Text),
                word("pending"),
                sa.bindparam("the_attempt", type_=sa.Uuid(as_uuid=False)),
                _LEASE_END,
                _TASK,
                sa.bindparam("the_project", type_=sa.String),
            ).where(
                ~sa.exists().where(
                    _rows.image_id == held.c.id,
                    _rows.store == sa.bindparam("the_store", type_=sa.Text),
                    # What is to be removed from there would be found by its key: the new object.
                    sa.or_(
                        _rows.status == word("active"),
                        sa.and_(_rows.status == word("deleted"), _rows.key.is_(None)),
                    ),
                )
            ),
        )
        .on_conflict_do_nothing(
            index_elements=[_rows.image_id, _rows.store],
            index_where=sa.text(
                "status IN ('pending', 'discarding') AND NOT released AND key IS NULL"
            ),
        )
        .returning(_rows.id)
        .cte("begun")
    )
    columns: list[sa.ColumnElement[Any]] = [
        sa.exists(sa.select(held.c.id)).label("is_held"),
        sa.exists(sa.select(begun.c.id)).label("is_begun"),
    ]
    return sa.select(*columns)


_START_ATTEMPT: Final = _start_attempt()


async def start_attempt(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    store: str,
    attempt: str,
    lease_s: float,
    project_id: str | None,
) -> bool | None:
    """Begin an attempt of this import at a store; its key is the image's id.

    False while the object is there, or it or another attempt at it is being removed. None if the
    task does not hold the image.
    """
    found = await connection.execute(
        _START_ATTEMPT,
        {
            "the_image": image_id,
            "the_task": task_id,
            "the_store": store,
            "the_attempt": attempt,
            "lease_s": lease_s,
            "the_project": project_id,
        },
    )
    row = found.one()
    return bool(row.is_begun) if row.is_held else None


async def land(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    attempt: str,
    url: str,
    metadata: Mapping[str, object],
    found: Bytes,
    becomes: Mapping[str, object],
    activate: bool,
) -> tuple[ImageRow, bool] | None:
    """Make what the attempt has published a location of the image.

    The first one gives the image its size and digests; raises Disagrees if it has others. The
    columns `becomes`, of whose `properties` each replaces the image's of that name, are for when
    it is active: with `activate` now, else in `finish`. None if the attempt is somebody else's by
    now or the task does not hold the image: then the caller's transaction must change nothing.
    """
    landed = await connection.execute(
        _LAND.where(_rows.import_task == _TASK).values(
            status="active",
            url=url,
            metadata=dict(metadata),
            lease_until=None,
            staged=dict(becomes),
        ),
        {"the_image": image_id, "the_attempt": attempt, "the_task": task_id},
    )
    location = landed.one_or_none()
    row = await _held(connection, image_id, task_id)
    if location is None or row is None:
        return None
    is_first = all(other["id"] == location.id for other in row["locations"])
    changed: dict[str, object] = {
        **(dataclasses.asdict(found) if is_first else _completed(row, found)),
        "properties": {
            **row["properties"],
            IMPORTING: _merged(row, IMPORTING, remove=[location.store]),
            # In an earlier run, perhaps.
            FAILED: _merged(row, FAILED, remove=[location.store]),
        },
    }
    is_activated = activate and row["status"] == "importing"
    if is_activated:
        changed |= _activated(changed, becomes)
    return await images.update(connection, image_id, changed), is_activated


async def store_failed(
    connection: AsyncConnection, image_id: str, *, task_id: str, store: str
) -> ImageRow | None:
    """Note that the import failed in this store and goes on in others; None as for `land`."""
    row = await _held(connection, image_id, task_id)
    if row is None:
        return None
    properties = {
        **row["properties"],
        IMPORTING: _merged(row, IMPORTING, remove=[store]),
        FAILED: _merged(row, FAILED, add=[store]),
    }
    return await images.update(connection, image_id, {"properties": properties})


_RELEASE_STAGED: Final = (
    sa.update(image_locations)
    .where(_rows.image_id == _ID, _rows.status == word("staged"))
    .values(status="deleted")
    .returning(_rows.id)
)
_BECOMES: Final = sa.select(_rows.staged).where(
    _rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active")
)
_KEEP: Final = (
    sa.update(image_locations)
    .where(_rows.image_id == _ID, _rows.import_task == _TASK, _rows.status == word("active"))
    .values(attempt=None, staged=sa.null())
)


async def finish(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    stores: Collection[str],
    message: str | None = None,
) -> Ended | None:
    """End an import that has put the bytes into all stores that it could; None as for `land`.

    The image is active, with the columns that it was to have then, and nothing holds it. Of the
    `stores` that it was imported to clients see none as outstanding. `message` is for the image's
    owner. Staged bytes are to be removed.
    """
    row = await _held(connection, image_id, task_id)
    if row is None:
        return None
    properties = {**row["properties"], IMPORTING: _merged(row, IMPORTING, remove=stores)}
    if message is not None:
        properties[MESSAGE] = message
    changed: dict[str, object] = {"import_task": None, "properties": properties}
    keys = {"the_image": image_id, "the_task": task_id}
    is_activated = row["status"] == "importing"
    if is_activated:
        becomes = (await connection.execute(_BECOMES, keys)).scalars().first()
        if becomes is None:
            return None
        changed |= _activated(changed, becomes)
    await connection.execute(_KEEP, keys)
    released = await connection.execute(_RELEASE_STAGED, {"the_image": image_id})
    return Ended(
        await images.update(connection, image_id, changed),
        is_activated=is_activated,
        has_bytes_to_remove=released.first() is not None,
    )


# What an import leaves behind.


def _leave(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    return (
        sa.update(image_locations)
        .where(_rows.image_id == _ID, *conditions)
        .values(status="discarding", lease_until=_LEASE_END)
        .returning(_rows.store, _rows.attempt, ATTEMPT_KEY, _rows.project_id)
    )


_LEAVE_ATTEMPTS: Final = _leave(
    _rows.import_task.is_not(None),
    sa.or_(
        sa.and_(_rows.status == word("pending"), _rows.import_task == _TASK),
        sa.and_(_rows.status == word("discarding"), _rows.lease_until < _NOW),
    ),
)
_LEAVE_LANDED: Final = _leave(
    _rows.import_task == _TASK, _rows.status == word("active"), _rows.attempt.is_not(None)
)
_BUSY: Final = sa.select(_rows.store).where(
    _rows.image_id == _ID,
    _rows.status.in_((word("pending"), word("discarding"))),
    _rows.key.is_(None),
    sa.not_(_rows.released),
)


async def leave_attempts(
    connection: AsyncConnection, image_id: str, *, task_id: str, lease_s: float
) -> list[Left]:
    """Take the attempts of earlier runs of this import, to discard them within `lease_s` seconds.

    Also those of imports before it that nobody has got to the end of discarding; not those that
    another process is at. For each, remove the bytes, published or not, and call
    `images.drop_attempt`; the reaper does it if nobody has until the end of the lease.
    """
    left = await connection.execute(
        _LEAVE_ATTEMPTS, {"the_image": image_id, "the_task": task_id, "lease_s": lease_s}
    )
    return [Left(*row) for row in left]


async def busy_stores(connection: AsyncConnection, image_id: str) -> set[str]:
    """The stores where an attempt at the image's object is under way, or still being removed."""
    return {*(await connection.execute(_BUSY, {"the_image": image_id})).scalars()}


async def leave_landed(
    connection: AsyncConnection, image_id: str, *, task_id: str, lease_s: float
) -> list[Left]:
    """Take back what this import has put into stores, to remove it as in `leave_attempts`.

    Nothing if the task does not hold the image; the bytes of a deleted one are removed by the job
    for that.
    """
    if await _held(connection, image_id, task_id) is None:
        return []
    left = await connection.execute(
        _LEAVE_LANDED, {"the_image": image_id, "the_task": task_id, "lease_s": lease_s}
    )
    return [Left(*row) for row in left]


async def give_up(
    connection: AsyncConnection,
    image_id: str,
    *,
    task_id: str,
    message: str,
    os_hash_algo: str | None = None,
) -> Ended | None:
    """End an import that failed; None if the task does not hold the image.

    After `leave_landed`. The image is queued again, or active as it was before a copy; clients see
    the stores that were not reached as failed, and its owner `message`. `os_hash_algo` is what a
    queued image has again. Staged bytes are to be removed.
    """
    row = await _held(connection, image_id, task_id)
    if row is None:
        return None
    unreached = names_of(row, IMPORTING)
    changed: dict[str, object] = {
        "import_task": None,
        "properties": {
            **row["properties"],
            IMPORTING: "",
            FAILED: _merged(row, FAILED, add=unreached),
            MESSAGE: message,
        },
    }
    has_bytes_to_remove = False
    if row["status"] == "importing":
        changed |= {
            "status": "queued",
            "size": None,
            "virtual_size": None,
            "checksum": None,
            "os_hash_algo": os_hash_algo,
            "os_hash_value": None,
        }
        released = await connection.execute(_RELEASE_STAGED, {"the_image": image_id})
        has_bytes_to_remove = released.first() is not None
    return Ended(
        await images.update(connection, image_id, changed),
        is_activated=False,
        has_bytes_to_remove=has_bytes_to_remove,
    )


def _completed(row: ImageRow, found: Bytes) -> dict[str, object]:
    """The columns that it has not had so far; raises Disagrees where others have other values."""
    changed: dict[str, object] = {}
    columns: tuple[tuple[str, object, object], ...] = (
        ("size", row["size"], found.size),
        ("checksum", row["checksum"], found.checksum),
    )
    if row["os_hash_algo"] in (None, found.os_hash_algo):
        columns += (
            ("os_hash_algo", row["os_hash_algo"], found.os_hash_algo),
            ("os_hash_value", row["os_hash_value"], found.os_hash_value),
        )
    for column, has, is_found in columns:
        if has is None:
            changed[column] = is_found
        elif is_found is not None and has != is_found:
            raise Disagrees(f"the image has {column} {has}, these bytes {is_found}")
    if row["virtual_size"] is None:
        changed["virtual_size"] = found.virtual_size
    return changed


def _activated(changed: Mapping[str, object], activate: Mapping[str, object]) -> dict[str, object]:
    properties = {
        **cast("dict[str, object]", changed["properties"]),
        **cast("dict[str, object]", activate.get("properties", {})),
    }
    return {**activate, "status": "active", "properties": properties}


def _merged(
    row: ImageRow, key: str, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> str:
    return ",".join(sorted((names_of(row, key) | {*add}) - {*remove}))
