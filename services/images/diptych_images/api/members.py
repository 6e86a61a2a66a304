"""/v2/images/{id}/members: who a shared image is offered to, and what they say."""

from diptych_common.errors import Conflict, Forbidden, NotFound, TooLarge
from diptych_common.identity import Identity
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images import policies, readers
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    is_admin,
    json_body,
    locked_image,
    not_found,
    refuse_anonymous,
    require,
    require_change,
)
from diptych_images.db import members
from diptych_images.db.images import ImageRow
from diptych_images.db.members import MemberRow
from diptych_images.notifications import emit_member
from diptych_images.wire import member as wire

router = APIRouter(prefix="/v2/images/{image_id}/members", responses=ANY_ERROR)


@router.get("", dependencies=[NO_BODY])
async def list_(image_id: str, res: Res, who: Who) -> Response:
    """All members for the owner, its own entry for a member."""
    row, entries = await _visible(image_id, res, who)
    require(res, "get_members", who, row)
    _require_shared(row)
    return json_response(wire.collection(entries))


@router.post("", openapi_extra=wire.CREATE_OPENAPI)
async def add(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Offer the image to a project; the offer stays pending until that project answers."""
    refuse_anonymous(who)
    member = wire.parse_create(await json_body(request))
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require_change(res, "add_member", who, row)
        _require_shared(row)
        quota = res.settings.default.image_member_quota
        match await members.add(connection, image_id, member, quota=quota):
            case members.Refused.DUPLICATE:
                raise Conflict(f"Image {image_id} is already offered to {member}.")
            case members.Refused.QUOTA:
                raise TooLarge(f"An image can have {quota} members.")
            case added:
                await emit_member(connection, "image.member.create", added)
                await readers.changed(connection, res.stores, row)
    return json_response(wire.document(added))


@router.get("/{member}", dependencies=[NO_BODY])
async def show(image_id: str, member: str, res: Res, who: Who) -> Response:
    """One entry; 404 where the caller may not see it, the list answers 403 there."""
    row, entries = await _visible(image_id, res, who, member=member)
    may_get = res.policy.allows("get_member", who, _target(row, member))
    if not entries or not may_get or row["visibility"] != "shared":
        raise _no_member(image_id, member)
    return json_response(wire.document(entries[0]))


@router.put("/{member}", openapi_extra=wire.UPDATE_OPENAPI)
async def update(image_id: str, member: str, request: Request, res: Res, who: Who) -> Response:
    """The member's own answer to the offer; the owner cannot give it (OSSN-0005)."""
    refuse_anonymous(who)
    status = wire.parse_update(await json_body(request))
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        require(res, "get_image", who, row)
        _require_shared(row)
        is_owner = is_admin(res, who) or row["owner"] == who.project_id
        if not is_owner and member != who.project_id:
            raise _no_member(image_id, member)
        res.policy.require("modify_member", who, _target(row, member))
        policies.require_owner(res.policy, who, member)
        entry = await members.set_status(connection, image_id, member, status)
        if entry is None:
            raise _no_member(image_id, member)
        await emit_member(connection, "image.member.update", entry)
    return json_response(wire.document(entry))


@router.delete("/{member}", status_code=204, dependencies=[NO_BODY])
async def remove(image_id: str, member: str, res: Res, who: Who) -> Response:
    """Withdraw the offer; members themselves can only reject it."""
    refuse_anonymous(who)
    async with res.db.write() as connection:
        row = await locked_image(connection, image_id, res, who)
        # A member sees no entry but its own.
        is_owner = is_admin(res, who) or row["owner"] == who.project_id
        if row["visibility"] == "shared" and not is_owner and member != who.project_id:
            require(res, "get_image", who, row)
            raise _no_member(image_id, member)
        require_change(res, "delete_member", who, row)
        _require_shared(row)
        entry = await members.remove(connection, image_id, member)
        if entry is None:
            raise _no_member(image_id, member)
        await emit_member(connection, "image.member.delete", entry)
        await readers.changed(connection, res.stores, row)
    return Response(status_code=204)


async def _visible(
    image_id: str, res: Resources, who: Identity, *, member: str | None = None
) -> tuple[ImageRow, list[MemberRow]]:
    async with res.db.read() as connection:
        found = await members.of_image(
            connection,
            image_id,
            project_id=who.project_id,
            is_admin=is_admin(res, who),
            member=member,
        )
    if found is None:
        raise not_found(image_id)
    return found


def _require_shared(row: ImageRow) -> None:
    if row["visibility"] != "shared":
        raise Forbidden("Only shared images have members.")


def _target(row: ImageRow, member: str) -> dict[str, object]:
    return {
        "project_id": row["owner"],
        "owner": row["owner"],
        "visibility": row["visibility"],
        "image_id": row["id"],
        "member_id": member,
    }


def _no_member(image_id: str, member: str) -> NotFound:
    return NotFound(f"Image {image_id} is not offered to {member}.")
