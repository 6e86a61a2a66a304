"""Images one at a time: reading them, and every change of their state.

A change of state is one conditional statement: its WHERE says what must be true, and None or
False says that it was not. Lists are in `image_list.py`, members in `members.py`.

Rows are locked in one order, so that no two of these functions can wait for each other: an attempt
(a location that is pending or being discarded), then its image, then locations that have landed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict, cast

import sqlalchemy as sa
from diptych_common.prepared import Prepared
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.tables import image_locations, image_members, images

Status = Literal[
    "queued",
    "saving",
    "uploading",
    "importing",
    "active",
    "deactivated",
    "killed",
    "pending_delete",
    "deleted",
]
Visibility = Literal["public", "community", "shared", "private"]
MemberStatus = Literal["pending", "accepted", "rejected"]


class LocationRow(TypedDict):
    """Where the bytes of an image are: a URI, with credentials where its store needs them.

    `metadata` is what clients see beside the URL.
    """

    id: int
    store: str
    url: str
    metadata: dict[str, object]
    status: Literal["active", "deleted"]


class ImageRow(TypedDict):
    """An image: its columns, the locations of its bytes, and the caller's membership.

    Sizes are bytes, `min_disk` GiB, `min_ram` MiB; times are aware, in UTC, to the microsecond.
    A property may be None. `locations` holds the active ones in the order in which they were
    added. `member_status` is that of the project that the row was read for, None if it is no
    member, and None after a change. `import_task` is the task of the import that holds the image.
    """

    id: str
    name: str | None
    status: Status
    visibility: Visibility
    owner: str | None
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    size: int | None
    virtual_size: int | None
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None
    protected: bool
    os_hidden: bool
    tags: list[str]
    properties: dict[str, str | None]
    import_task: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    locations: list[LocationRow]
    member_status: MemberStatus | None


@dataclass(frozen=True, slots=True)
class LeftAttempt:
    """An attempt that came to nothing; `image` is its image if that was queued again by it."""

    image: ImageRow | None


@dataclass(frozen=True, slots=True)
class ExpiredAttempt:
    """An attempt whose process is gone; what it left in `store` is under the token `attempt`.

    `key` names its object. It was one of a user of the project, None if that is not known.
    `released` if nothing of it was published and its image was queued again: the key may be
    another attempt's by now.
    """

    image_id: str
    store: str
    attempt: str
    key: str
    project_id: str | None
    released: bool


_CANONICAL_UUID: Final = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)


def is_uuid(text: str) -> bool:
    """Whether the text can be the id of an image: 8-4-4-4-12 hexadecimal digits."""
    return _CANONICAL_UUID.fullmatch(text) is not None


# Parts of statements. No parameter is named like a column: an UPDATE would set that column.

_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_ATTEMPT: Final = sa.bindparam("the_attempt", type_=sa.Uuid(as_uuid=False))
_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_NOW: Final = sa.func.statement_timestamp()
_LEASE_END: Final = _NOW + sa.bindparam("lease_s", type_=sa.Double) * sa.literal_column(
    "interval '1 second'", sa.Interval
)

_is_living: Final = images.c.deleted_at.is_(None)

# What the object of an attempt is named in its store.
ATTEMPT_KEY: Final = sa.func.coalesce(
    image_locations.c.key, sa.cast(image_locations.c.image_id, sa.Text)
).label("key")


def word(value: str) -> sa.ColumnElement[str]:
    """A fixed word as part of the statement, so that the planner sees it in every plan.

    A parameter is unknown to the plan that PostgreSQL keeps for a prepared statement: it could
    not tell public images from private ones there.
    """
    return sa.literal_column(f"'{value}'", sa.String)


def active_locations(of: sa.FromClause) -> sa.ColumnElement[Any]:
    """The `locations` of an ImageRow, for the image that `of` is at."""
    listed = sa.func.jsonb_agg(
        aggregate_order_by(_location(image_locations), image_locations.c.id), type_=JSONB
    )
    return (
        sa.select(sa.func.coalesce(listed, _NO_LOCATIONS, type_=JSONB))
        .where(image_locations.c.image_id == of.c.id, image_locations.c.status == word("active"))
        .correlate(of)
        .scalar_subquery()
    )


def membership(of: sa.FromClause) -> sa.ColumnElement[Any]:
    """The `member_status` of an ImageRow, for the project in the parameter `project_id`."""
    return (
        sa.select(image_members.c.status)
        .where(image_members.c.image_id == of.c.id, image_members.c.member == _PROJECT)
        .correlate(of)
        .scalar_subquery()
    )


def may_see(*, is_admin: bool) -> sa.ColumnElement[bool]:
    """Whether the project in the parameter `project_id` may read an image by its id.

    Administrators see everything. Membership counts whatever its status: only lists ask for that.
    Source: images API, visibility of an image by id.
    """
    if is_admin:
        return sa.true()
    is_member = (
        sa.exists()
        .where(image_members.c.image_id == images.c.id, image_members.c.member == _PROJECT)
        .correlate(images)
    )
    return sa.or_(
        images.c.owner.is_(None),
        images.c.visibility == word("public"),
        images.c.visibility == word("community"),
        images.c.owner == _PROJECT,
        sa.and_(images.c.visibility == word("shared"), is_member),
    )


_LOCATION_FIELDS: Final = ("id", "store", "url", "metadata", "status")
_NO_LOCATIONS: Final = sa.literal_column("'[]'::jsonb", JSONB)


def _location(rows: sa.FromClause) -> sa.ColumnElement[Any]:
    """A LocationRow as jsonb."""
    pairs = [part for field in _LOCATION_FIELDS for part in (word(field), rows.c[field])]
    return sa.func.jsonb_build_object(*pairs, type_=JSONB)


def _after_a_change(of: sa.FromClause) -> tuple[sa.ColumnElement[Any], ...]:
    """The columns of an ImageRow that a changed row gives back."""
    return (
        *of.c,
        active_locations(of).label("locations"),
        sa.null().label("member_status"),
    )


def _row(result: sa.CursorResult[Any]) -> ImageRow | None:
    found = result.mappings().one_or_none()
    return None if found is None else cast(ImageRow, dict(found))


def with_entries(
    result: sa.CursorResult[Any], *, times: Sequence[str]
) -> tuple[ImageRow, list[dict[str, Any]]] | None:
    """The image of the one row that was found, and the rows about it in its column `entries`.

    Those went through JSON, where a time is a text with the session's offset: the columns in
    `times` are aware times again, in UTC, or None.
    """
    found = result.mappings().one_or_none()
    if found is None:
        return None
    image = dict(found)
    entries = cast("list[dict[str, Any]]", image.pop("entries"))
    for entry in entries:
        for name in times:
            if entry[name] is not None:
                entry[name] = datetime.fromisoformat(entry[name]).astimezone(UTC)
    return cast(ImageRow, image), entries


# Statements are made once; a call only fills in their parameters.


def _one(*, is_admin: bool) -> sa.Select[Any]:
    return sa.select(
        images,
        active_locations(images).label("locations"),
        membership(images).label("member_status"),
    ).where(images.c.id == _ID, _is_living, may_see(is_admin=is_admin))


_GET: Final = {is_admin: Prepared(_one(is_admin=is_admin)) for is_admin in (False, True)}
_GET_FOR_UPDATE: Final = {
    is_admin: Prepared(_one(is_admin=is_admin).with_for_update(of=images))
    for is_admin in (False, True)
}


async def get(
    connection: AsyncConnection, image_id: str, *, project_id: str | None, is_admin: bool
) -> ImageRow | None:
    """The image, or None if there is none that this project may see.

    Any text may be asked for; one that is no UUID costs no statement. Hidden images are found,
    deleted ones never.
    """
    return await _find(connection, _GET[is_admin], image_id, project_id)


async def get_for_update(
    connection: AsyncConnection, image_id: str, *, project_id: str | None, is_admin: bool
) -> ImageRow | None:
    """As `get`, and nobody else changes the image until the transaction ends.

    Waits for whoever is changing it and gives what they made of it, save for `locations` and
    `member_status`, which may be those of before the wait.
    """
    return await _find(connection, _GET_FOR_UPDATE[is_admin], image_id, project_id)


async def _find(
    connection: AsyncConnection, statement: Prepared, image_id: str, project_id: str | None
) -> ImageRow | None:
    if not is_uuid(image_id):
        return None
    found = await statement.row(connection, {"the_image": image_id, "project_id": project_id})
    return cast(ImageRow | None, found)


async def insert(connection: AsyncConnection, values: Mapping[str, object]) -> ImageRow | None:
    """Add an image with these columns; None if the id is in use or ever was.

    Without `id` the database chooses one; other columns that are not given take their defaults.
    """
    inserted = await _insertion(tuple(values)).row(connection, values)
    return cast(ImageRow | None, inserted)


# Whoever makes images gives the same columns each time.
@lru_cache(maxsize=64)
def _insertion(columns: tuple[str, ...]) -> Prepared:
    return Prepared(
        insert_into(images)
        .values({name: sa.bindparam(name, type_=images.c[name].type) for name in columns})
        .on_conflict_do_nothing(index_elements=[images.c.id])
        # It has none yet. A subquery of an INSERT is not correlated: it would find everybody's.
        .returning(images, _NO_LOCATIONS.label("locations"), sa.null().label("member_status"))
    )


async def update(
    connection: AsyncConnection, image_id: str, values: Mapping[str, object]
) -> ImageRow:
    """Set these columns, and `updated_at` to now.

    For a transaction that holds the image by `get_for_update`: a deleted one raises NoResultFound.
    """
    statement = (
        sa.update(images)
        .where(images.c.id == _ID, _is_living)
        .values({"updated_at": _NOW, **values})
        .returning(*_after_a_change(images))
    )
    changed = await connection.execute(statement, {"the_image": image_id})
    return cast(ImageRow, dict(changed.mappings().one()))


_MARK_DELETED: Final = Prepared(
    sa.update(images)
    .where(images.c.id == _ID, _is_living)
    # Not `updated_at`: the row goes on to serve as a marker of lists, where it stood.
    .values(status="deleted", deleted_at=_NOW, import_task=None)
    .returning(images, sa.null().label("member_status"))
)
_LOCATION_ROW: Final = tuple(image_locations.c[field] for field in _LOCATION_FIELDS)
_RELEASE: Final = Prepared(
    sa.update(image_locations)
    .where(
        image_locations.c.image_id == _ID,
        image_locations.c.status.in_((word("active"), word("staged"))),
    )
    .values(status="deleted")
    .returning(*_LOCATION_ROW)
    .add_cte(sa.delete(image_members).where(image_members.c.image_id == _ID).cte("withdrawn"))
)


async def mark_deleted(connection: AsyncConnection, image_id: str) -> ImageRow | None:
    """Delete an image, its members too; the row as it is then, None if it was deleted before.

    Its `locations` are those whose bytes are to go, see `release`. Whether the image is protected
    is for the caller to look at. An upload or an import that is under way finds out when it goes
    on, and is then discarded; no import holds the image any more.

    Two statements: the second must see the location that an upload committed while the first
    waited for the image.
    """
    row = await _MARK_DELETED.row(connection, {"the_image": image_id})
    if row is None:
        return None
    return cast(ImageRow, {**row, "locations": await release(connection, image_id)})


async def release(connection: AsyncConnection, image_id: str) -> list[LocationRow]:
    """Let go of the bytes and the members of an image that the transaction has just deleted.

    The locations whose bytes are to go after the commit, staged ones too; `locations_to_remove`
    lists them again at any time.
    """
    released = await _RELEASE.rows(connection, {"the_image": image_id})
    return [cast(LocationRow, row) for row in released]


_TOUCH_ACTIVE: Final = (
    sa.update(images)
    .where(images.c.id == _ID, _is_living, images.c.status == word("active"))
    .values(updated_at=_NOW)
    .returning(*_after_a_change(images))
)
_COPY: Final = image_locations.alias("copy")
_LOCATION_IDS: Final = sa.bindparam("the_locations", type_=ARRAY(sa.BigInteger))
_RELEASE_COPIES: Final = (
    sa.update(image_locations)
    .where(
        image_locations.c.image_id == _ID,
        image_locations.c.id == sa.any_(_LOCATION_IDS),
        image_locations.c.status == word("active"),
        sa.exists().where(
            _COPY.c.image_id == _ID,
            _COPY.c.status == word("active"),
            # Not one that an import may still take back.
            _COPY.c.attempt.is_(None),
            _COPY.c.id != sa.all_(_LOCATION_IDS),
        ),
    )
    .values(status="deleted")
    .returning(image_locations.c.id)
)


async def release_copies(
    connection: AsyncConnection, image_id: str, location_ids: Collection[int]
) -> ImageRow | None:
    """Let go of some of an active image's locations, whose bytes are to go after the commit.

    None, and the caller's transaction must change nothing, if the image is not active any more, or
    none of these is its any more, or no other would be left that no import can take back. The
    `locations` of the row are those of before. Two statements: the second must see what was
    committed while the first waited for the image.
    """
    touched = _row(await connection.execute(_TOUCH_ACTIVE, {"the_image": image_id}))
    if touched is None:
        return None
    released = await connection.execute(
        _RELEASE_COPIES, {"the_image": image_id, "the_locations": [*location_ids]}
    )
    return None if released.first() is None else touched


_TO_REMOVE: Final = (
    sa.select(*_LOCATION_ROW)
    .where(image_locations.c.image_id == _ID, image_locations.c.status == word("deleted"))
    .order_by(image_locations.c.id)
)


async def locations_to_remove(connection: AsyncConnection, image_id: str) -> list[LocationRow]:
    """The locations that were let go and whose bytes are still there, as far as is known."""
    return _locations(await connection.execute(_TO_REMOVE, {"the_image": image_id}))


def _locations(result: sa.CursorResult[*tuple[Any, ...]]) -> list[LocationRow]:
    return [cast(LocationRow, dict(row)) for row in result.mappings()]


_FORGET: Final = sa.delete(image_locations).where(
    image_locations.c.id == sa.bindparam("location_id", type_=sa.BigInteger),
    image_locations.c.status == word("deleted"),
)


async def forget_location(connection: AsyncConnection, location_id: int) -> None:
    """Forget a location whose bytes are removed; nothing happens if that was done before."""
    await connection.execute(_FORGET, {"location_id": location_id})


# Uploads. The row of an attempt is written before its bytes, and the image gets them in the
# statement that turns that row into a location: whatever dies, there is a row for every byte.


def _start_upload() -> sa.Select[Any]:
    started = (
        sa.update(images)
        .where(
            images.c.id == _ID,
            _is_living,
            images.c.status == word("queued"),
            # What an import has left in the store, and is being removed, has the same key.
            ~sa.exists().where(
                image_locations.c.image_id == images.c.id,
                image_locations.c.store == sa.bindparam("the_store", type_=sa.Text),
                image_locations.c.status.in_((word("pending"), word("discarding"))),
                image_locations.c.key.is_(None),
                sa.not_(image_locations.c.released),
            ),
        )
        .values(status="saving", updated_at=_NOW)
        .returning(images)
        .cte("started")
    )
    attempted = (
        sa.insert(image_locations)
        .from_select(
            ["image_id", "store", "status", "attempt", "lease_until", "project_id", "reserved"],
            sa.select(
                started.c.id,
                sa.bindparam("the_store", type_=sa.Text),
                word("pending"),
                _ATTEMPT,
                _LEASE_END,
                sa.bindparam("the_project", type_=sa.String),
                sa.bindparam("to_reserve", type_=sa.BigInteger),
            ),
        )
        .cte("attempted")
    )
    return sa.select(*_after_a_change(started)).add_cte(attempted)


_START_UPLOAD: Final = _start_upload()


async def start_upload(
    connection: AsyncConnection,
    image_id: str,
    *,
    store: str,
    attempt: str,
    lease_s: float,
    project_id: str | None = None,
    reserved: int = 0,
) -> ImageRow | None:
    """Move a queued image to `saving` for this attempt; None if it was not queued any more.

    None also while what a failed import has left in this store is being removed. `attempt` is a
    UUID that no other try uses, `lease_s` the seconds for which the attempt is safe from the
    reaper, `project_id` whose user uploads, `reserved` the bytes that it has room for so far. Of
    two uploads at a time one sees None.
    """
    return _row(
        await connection.execute(
            _START_UPLOAD,
            {
                "the_image": image_id,
                "the_store": store,
                "the_attempt": attempt,
                "lease_s": lease_s,
                "the_project": project_id,
                "to_reserve": reserved,
            },
        )
    )


# As text, for asyncpg asks the server twice what an array of UUIDs is.
_ATTEMPTS: Final = sa.bindparam("the_attempts", type_=ARRAY(sa.Text))
_RENEW: Final = (
    sa.update(image_locations)
    .where(
        image_locations.c.attempt == sa.any_(sa.cast(_ATTEMPTS, ARRAY(sa.Uuid(as_uuid=False)))),
        image_locations.c.status == word("pending"),
        sa.exists().where(images.c.id == image_locations.c.image_id, _is_living),
    )
    .values(lease_until=_LEASE_END)
    .returning(image_locations.c.attempt)
)


async def renew(
    connection: AsyncConnection, attempts: Collection[str], *, lease_s: float
) -> set[str]:
    """Hold attempts for that many seconds from now; those that are held.

    The others are lost: taken over by somebody else, or their image is deleted. An attempt whose
    lease is over but that nobody took is still held.
    """
    held = await connection.execute(_RENEW, {"the_attempts": [*attempts], "lease_s": lease_s})
    return {*held.scalars()}


def _finish_upload() -> sa.Select[Any]:
    # Locked before anything is changed: an attempt that the reaper takes in the meantime must
    # not leave an active image without a location.
    held = (
        sa.select(image_locations.c.id)
        .where(
            image_locations.c.attempt == _ATTEMPT,
            image_locations.c.image_id == _ID,
            image_locations.c.status == word("pending"),
        )
        .with_for_update()
        .cte("held")
    )
    finished = (
        sa.update(images)
        .where(
            images.c.id == _ID,
            _is_living,
            images.c.status == word("saving"),
            sa.exists(sa.select(held.c.id)),
        )
        .values(
            status="active",
            size=sa.bindparam("new_size", type_=sa.BigInteger),
            virtual_size=sa.bindparam("new_virtual_size", type_=sa.BigInteger),
            checksum=sa.bindparam("new_checksum", type_=sa.String),
            os_hash_algo=sa.bindparam("new_os_hash_algo", type_=sa.String),
            os_hash_value=sa.bindparam("new_os_hash_value", type_=sa.String),
            updated_at=_NOW,
        )
        .returning(images)
        .cte("finished")
    )
    landed = (
        sa.update(image_locations)
        .where(image_locations.c.id == held.c.id, finished.c.id == image_locations.c.image_id)
        .values(
            status="active",
            url=sa.bindparam("new_url", type_=sa.Text),
            metadata=sa.bindparam("new_metadata", type_=JSONB),
            attempt=None,
            lease_until=None,
        )
        .returning(image_locations)
        .cte("landed")
    )
    # A statement does not see its own changes: the new location is added to those it sees.
    locations = active_locations(finished).op("||", return_type=JSONB)(_location(landed))
    return sa.select(
        *finished.c, locations.label("locations"), sa.null().label("member_status")
    ).join_from(finished, landed, landed.c.image_id == finished.c.id)


_FINISH_UPLOAD: Final = _finish_upload()


async def finish_upload(
    connection: AsyncConnection,
    image_id: str,
    *,
    attempt: str,
    url: str,
    metadata: Mapping[str, object],
    size: int,
    virtual_size: int | None,
    checksum: str | None,
    os_hash_algo: str | None,
    os_hash_value: str | None,
) -> ImageRow | None:
    """Make an image `active` with the bytes at `url`, which this attempt published.

    None if the image is deleted or the attempt is the reaper's by now: nothing is changed then,
    and the attempt remains to be discarded.
    """
    return _row(
        await connection.execute(
            _FINISH_UPLOAD,
            {
                "the_image": image_id,
                "the_attempt": attempt,
                "new_url": url,
                "new_metadata": dict(metadata),
                "new_size": size,
                "new_virtual_size": virtual_size,
                "new_checksum": checksum,
                "new_os_hash_algo": os_hash_algo,
                "new_os_hash_value": os_hash_value,
            },
        )
    )


_TAKE: Final = (
    sa.update(image_locations)
    .where(
        image_locations.c.attempt == _ATTEMPT,
        image_locations.c.status == word("pending"),
    )
    .values(status="discarding", lease_until=_LEASE_END)
    .returning(image_locations.c.lease_until)
)


async def take_attempt(
    connection: AsyncConnection, attempt: str, *, lease_s: float
) -> datetime | None:
    """Begin to discard one's own attempt; None if it is finished or somebody else's by now.

    From here on it cannot finish. Remove its bytes and call `drop_attempt`; if that does not
    happen until the end of the lease, which is returned, the reaper does it.
    """
    taken = await connection.execute(_TAKE, {"the_attempt": attempt, "lease_s": lease_s})
    return taken.scalar_one_or_none()


def _release_attempt() -> sa.Select[Any]:
    released = (
        sa.update(image_locations)
        .where(
            image_locations.c.attempt == _ATTEMPT,
            image_locations.c.status == word("discarding"),
            # Each who takes an attempt gives it another lease: with this one it is the caller's.
            image_locations.c.lease_until
            == sa.bindparam("the_lease", type_=sa.DateTime(timezone=True)),
        )
        .values(released=True)
        .returning(image_locations.c.image_id)
        .cte("released")
    )
    return _queued_again(released)


def _queued_again(of: sa.CTE, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Queue the image of an attempt at uploading or staging its bytes; a row for each attempt."""
    queued = (
        sa.update(images)
        .where(
            images.c.id == of.c.image_id,
            _is_living,
            images.c.status.in_((word("saving"), word("uploading"))),
            *conditions,
        )
        .values(status="queued", size=None, virtual_size=None, updated_at=_NOW)
        .returning(*_after_a_change(images))
        .cte("queued")
    )
    return sa.select(queued).select_from(of.outerjoin(queued, queued.c.id == of.c.image_id))


def _left(result: sa.CursorResult[Any]) -> LeftAttempt | None:
    row = _row(result)
    return None if row is None else LeftAttempt(row if row["id"] else None)


_RELEASE_ATTEMPT: Final = _release_attempt()


async def release_attempt(
    connection: AsyncConnection, attempt: str, *, lease_until: datetime
) -> LeftAttempt | None:
    """Queue the image of an attempt that was taken though its bytes cannot be removed now.

    Only for an attempt that was never published. The reaper removes the bytes when the lease is
    over. `lease_until` is what `take_attempt` returned; None if somebody else took it since.
    """
    return _left(
        await connection.execute(
            _RELEASE_ATTEMPT, {"the_attempt": attempt, "the_lease": lease_until}
        )
    )


def _take_expired() -> sa.Update:
    due = (
        sa.select(image_locations.c.id)
        .where(image_locations.c.lease_until < _NOW)
        .order_by(image_locations.c.lease_until)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    return (
        sa.update(image_locations)
        .where(image_locations.c.id == due.c.id)
        .values(status="discarding", lease_until=_LEASE_END)
        .returning(
            image_locations.c.image_id,
            image_locations.c.store,
            image_locations.c.attempt,
            ATTEMPT_KEY,
            image_locations.c.project_id,
            image_locations.c.released,
        )
    )


_TAKE_EXPIRED: Final = _take_expired()


async def take_expired(
    connection: AsyncConnection, *, lease_s: float, limit: int
) -> list[ExpiredAttempt]:
    """Take attempts whose lease is over, oldest first, to discard them within `lease_s` seconds.

    Those that another process is at are passed over. What is not dropped by the end of the new
    lease is given to the next one who asks.
    """
    taken = await connection.execute(_TAKE_EXPIRED, {"lease_s": lease_s, "limit": limit})
    return [ExpiredAttempt(*row) for row in taken]


def _drop_attempt() -> sa.Select[Any]:
    dropped = (
        sa.delete(image_locations)
        .where(
            image_locations.c.attempt == _ATTEMPT,
            image_locations.c.status == word("discarding"),
        )
        .returning(
            image_locations.c.image_id, image_locations.c.released, image_locations.c.import_task
        )
        .cte("dropped")
    )
    # A released attempt's image was queued then, and may be saving another's bytes now; so may
    # that of an import, which says itself what becomes of its image.
    return _queued_again(dropped, sa.not_(dropped.c.released), dropped.c.import_task.is_(None))


_DROP_ATTEMPT: Final = _drop_attempt()


async def drop_attempt(connection: AsyncConnection, attempt: str) -> LeftAttempt | None:
    """Forget an attempt that was taken and whose bytes are removed; its image is queued again.

    A deleted image stays deleted, and an import's is left as it is. None if the attempt was
    dropped before.
    """
    return _left(await connection.execute(_DROP_ATTEMPT, {"the_attempt": attempt}))


_KNOWS: Final = sa.select(image_locations.c.id).where(image_locations.c.attempt == _ATTEMPT)


async def knows_attempt(connection: AsyncConnection, attempt: str) -> bool:
    """Whether a row holds this attempt, whoever works on it. Any text may be asked for."""
    if not is_uuid(attempt):
        return False
    found = await connection.execute(_KNOWS, {"the_attempt": attempt})
    return found.one_or_none() is not None
