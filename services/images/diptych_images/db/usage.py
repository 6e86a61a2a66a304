"""How much projects have, computed from the rows of their images and of what is under way.

Nothing is counted up or down anywhere, so nothing can drift: what an attempt has reserved is in its
own row, and is given back when that row goes. Whoever adds to what projects have takes their lock
first, looks, and adds in the same transaction; what takes away from it needs no lock, nor does an
attempt that lands, which turns what it has reserved into the same number of bytes or fewer.

The lock comes before all rows, in transactions that hold no job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import word
from diptych_images.db.tables import image_locations, images

# The first half of the key of the advisory locks: other uses of them have other numbers.
_LOCKS: Final = 0x51_07_A5


@dataclass(frozen=True, slots=True)
class Usage:
    """What projects have: bytes in stores and in staging, images, images that data goes into.

    What is under way counts with all that it has reserved, also for a deleted image while its
    upload has not ended.
    """

    size: int
    staged: int
    images: int
    uploading: int


_LOCK: Final = sa.select(
    sa.func.pg_advisory_xact_lock(
        sa.literal_column(str(_LOCKS), sa.Integer),
        sa.func.hashtext(sa.bindparam("of_whom", type_=sa.Text)),
    )
)


async def lock(connection: AsyncConnection, of_whom: str) -> None:
    """Let nobody else add to what `of_whom` has until the transaction ends."""
    await connection.execute(_LOCK, {"of_whom": of_whom})


def _of() -> sa.Select[Any]:
    rows = image_locations.c
    projects = sa.bindparam("the_projects", type_=ARRAY(sa.Text))
    is_theirs = images.c.owner == sa.any_(projects)
    is_living = sa.and_(is_theirs, images.c.deleted_at.is_(None))
    busy = [word(status) for status in ("saving", "uploading", "importing")]
    living = (
        sa.select(
            sa.func.count().label("images"),
            sa.func.count()
            .filter(sa.or_(images.c.status.in_(busy), images.c.import_task.is_not(None)))
            .label("uploading"),
        )
        .where(is_living)
        .subquery("living")
    )
    landed = (
        sa.select(
            # An image has no size while the digest of its first location is still compared.
            sa.func.sum(sa.func.coalesce(images.c.size, rows.reserved))
            .filter(rows.status == word("active"))
            .label("size"),
            # What the image is now may be another size: that of the converted bytes.
            sa.func.sum(sa.func.coalesce(rows.reserved, images.c.size))
            .filter(rows.status == word("staged"))
            .label("staged"),
        )
        .join_from(image_locations, images, rows.image_id == images.c.id)
        .where(is_living, rows.status.in_((word("active"), word("staged"))))
        .subquery("landed")
    )
    under_way = (
        sa.select(
            sa.func.sum(rows.reserved).filter(rows.key.is_(None)).label("size"),
            sa.func.sum(rows.reserved).filter(rows.key.is_not(None)).label("staged"),
            sa.func.count(rows.image_id.distinct())
            .filter(images.c.deleted_at.is_not(None))
            .label("uploading"),
        )
        .join_from(image_locations, images, rows.image_id == images.c.id)
        .where(is_theirs, rows.lease_until.is_not(None), sa.not_(rows.released))
        .subquery("under_way")
    )
    none = sa.literal_column("0", sa.BigInteger)
    columns: list[sa.ColumnElement[Any]] = [
        sa.func.coalesce(landed.c.size, none) + sa.func.coalesce(under_way.c.size, none),
        sa.func.coalesce(landed.c.staged, none) + sa.func.coalesce(under_way.c.staged, none),
        living.c.images,
        living.c.uploading + under_way.c.uploading,
    ]
    return sa.select(*columns).select_from(
        living.join(landed, sa.true()).join(under_way, sa.true())
    )


_OF: Final = _of()


async def of(connection: AsyncConnection, projects: Sequence[str]) -> Usage:
    """What these projects have together."""
    found = (await connection.execute(_OF, {"the_projects": [*projects]})).one()
    return Usage(*(int(value) for value in found))


_RESERVE: Final = (
    sa.update(image_locations)
    .where(
        image_locations.c.attempt == sa.bindparam("the_attempt", type_=sa.Uuid(as_uuid=False)),
        image_locations.c.status == word("pending"),
        sa.exists().where(images.c.id == image_locations.c.image_id, images.c.deleted_at.is_(None)),
    )
    .values(
        reserved=sa.func.coalesce(image_locations.c.reserved, 0)
        + sa.bindparam("more", type_=sa.BigInteger)
    )
    .returning(image_locations.c.id)
)


async def reserve(connection: AsyncConnection, attempt: str, more: int) -> bool:
    """Reserve as many bytes more for an attempt; False if it is over, or its image is deleted.

    One attempt in a transaction: renewing leases locks those of a process in an order of its own.
    """
    reserved = await connection.execute(_RESERVE, {"the_attempt": attempt, "more": more})
    return reserved.one_or_none() is not None
