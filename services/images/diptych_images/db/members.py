"""Members: the projects that a shared image is offered to, and what they answered."""

from datetime import datetime
from enum import Enum
from typing import Any, Final, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import MemberStatus
from diptych_images.db.tables import image_members


class MemberRow(TypedDict):
    """One project's membership of one image; times are aware, in UTC."""

    image_id: str
    member: str
    status: MemberStatus
    created_at: datetime
    updated_at: datetime


class Refused(Enum):
    """Why a member was not added."""

    DUPLICATE = "it is a member already"
    QUOTA = "the image has as many members as it may have"


_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))
_MEMBER: Final = sa.bindparam("the_member", type_=sa.String)
_is_entry: Final = sa.and_(image_members.c.image_id == _ID, image_members.c.member == _MEMBER)


def _row(result: sa.CursorResult[Any]) -> MemberRow | None:
    found = result.mappings().one_or_none()
    return None if found is None else cast(MemberRow, dict(found))


def _add() -> sa.Select[Any]:
    quota = sa.bindparam("quota", type_=sa.Integer)
    count = sa.select(sa.func.count()).where(image_members.c.image_id == _ID).scalar_subquery()
    added = (
        insert_into(image_members)
        .from_select(
            ["image_id", "member"],
            sa.select(_ID, _MEMBER).where(sa.or_(quota < 0, count < quota)),
        )
        .on_conflict_do_nothing()
        .returning(image_members)
        .cte("added")
    )
    is_full = sa.and_(quota >= 0, count >= quota)
    asked = sa.select(is_full.label("is_full")).subquery("asked")
    return sa.select(asked.c.is_full, added).select_from(asked.outerjoin(added, sa.true()))


_ADD: Final = _add()


async def add(
    connection: AsyncConnection, image_id: str, member: str, *, quota: int
) -> MemberRow | Refused:
    """Offer an image to a project, `pending`; below 0, `quota` is no limit.

    One statement. In a transaction that holds the image (`images.get_for_update`) the quota is
    exact; without that, additions at the same time can each find the last place free. A full
    image refuses a member that it has already with QUOTA, as Glance does.
    """
    result = await connection.execute(
        _ADD, {"the_image": image_id, "the_member": member, "quota": quota}
    )
    row = dict(result.mappings().one())
    is_full = row.pop("is_full")
    if row["image_id"] is not None:
        return cast(MemberRow, row)
    return Refused.QUOTA if is_full else Refused.DUPLICATE


_LIST: Final = (
    sa.select(image_members)
    .where(
        image_members.c.image_id == _ID,
        sa.or_(_MEMBER.is_(None), image_members.c.member == _MEMBER),
    )
    .order_by(image_members.c.created_at, image_members.c.member)
)


async def list_(
    connection: AsyncConnection, image_id: str, *, member: str | None = None
) -> list[MemberRow]:
    """All members of an image in the order of their addition, or only the entry of `member`."""
    found = await connection.execute(_LIST, {"the_image": image_id, "the_member": member})
    return [cast(MemberRow, dict(row)) for row in found.mappings()]


_GET: Final = sa.select(image_members).where(_is_entry)


async def get(connection: AsyncConnection, image_id: str, member: str) -> MemberRow | None:
    """A project's membership of an image, None if it has none."""
    return _row(await connection.execute(_GET, {"the_image": image_id, "the_member": member}))


_SET_STATUS: Final = (
    sa.update(image_members)
    .where(_is_entry)
    .values(
        status=sa.bindparam("new_status", type_=sa.String),
        updated_at=sa.func.statement_timestamp(),
    )
    .returning(image_members)
)


async def set_status(
    connection: AsyncConnection, image_id: str, member: str, status: MemberStatus
) -> MemberRow | None:
    """Record a member's answer, any after any; None if the project is no member."""
    return _row(
        await connection.execute(
            _SET_STATUS, {"the_image": image_id, "the_member": member, "new_status": status}
        )
    )


_REMOVE: Final = sa.delete(image_members).where(_is_entry).returning(image_members)


async def remove(connection: AsyncConnection, image_id: str, member: str) -> MemberRow | None:
    """Withdraw an offer; the entry as it was, None if there was none."""
    return _row(await connection.execute(_REMOVE, {"the_image": image_id, "the_member": member}))
