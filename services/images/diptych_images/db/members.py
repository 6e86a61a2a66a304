"""Members: the projects that a shared image is offered to, and what they answered."""

from datetime import datetime
from enum import Enum
from typing import Any, Final, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import (
    ImageRow,
    MemberStatus,
    active_locations,
    is_uuid,
    may_see,
    membership,
    with_entries,
    word,
)
from diptych_images.db.tables import image_members, images


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


def _of_image(*, is_admin: bool) -> sa.Select[Any]:
    project = sa.bindparam("project_id", type_=sa.String)
    named = sa.bindparam("the_member", type_=sa.String)
    shown = (
        sa.true()
        if is_admin
        else sa.or_(images.c.owner == project, image_members.c.member == project)
    )
    entry = sa.func.jsonb_build_object(
        *(part for column in image_members.c for part in (word(column.name), column))
    )
    order = (image_members.c.created_at, image_members.c.member)
    entries = (
        sa.select(
            sa.func.coalesce(
                sa.func.jsonb_agg(aggregate_order_by(entry, *order)),
                sa.literal_column("'[]'::jsonb", JSONB),
                type_=JSONB,
            )
        )
        .where(
            image_members.c.image_id == images.c.id,
            sa.or_(named.is_(None), image_members.c.member == named),
            shown,
        )
        .correlate(images)
        .scalar_subquery()
    )
    return sa.select(
        images,
        active_locations(images).label("locations"),
        membership(images).label("member_status"),
        entries.label("entries"),
    ).where(images.c.id == _ID, images.c.deleted_at.is_(None), may_see(is_admin=is_admin))


_OF_IMAGE: Final = {is_admin: _of_image(is_admin=is_admin) for is_admin in (False, True)}


async def of_image(
    connection: AsyncConnection,
    image_id: str,
    *,
    project_id: str | None,
    is_admin: bool,
    member: str | None = None,
) -> tuple[ImageRow, list[MemberRow]] | None:
    """An image with those of its members that the project may see; None as for `images.get`.

    The owner and administrators see all of them, in the order of their addition, anyone else its
    own entry alone. With `member`, only that one's entry, if it is among them. One statement.
    """
    if not is_uuid(image_id):
        return None
    parameters = {"the_image": image_id, "project_id": project_id, "the_member": member}
    found = await connection.execute(_OF_IMAGE[is_admin], parameters)
    return cast(
        "tuple[ImageRow, list[MemberRow]] | None",
        with_entries(found, times=("created_at", "updated_at")),
    )


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
