"""Members of an image: what a client sends, and what it sees of them."""

from collections.abc import Sequence
from typing import Any, cast

from diptych_common.errors import BadRequest

from diptych_images.db.images import MemberStatus
from diptych_images.db.members import MemberRow
from diptych_images.wire.image import timestamp
from diptych_images.wire.schemas import MAX_NAME, MEMBER, MEMBER_STATUSES


def parse_create(body: object) -> str:
    """The project to offer the image to; nobody asks Keystone whether it exists.

    Raises BadRequest unless it is a string of 1 to 255 characters.
    """
    member = _field(body, "member")
    if not member or len(member) > MAX_NAME or "\x00" in member:
        raise BadRequest(f"member must be a project's id of 1 to {MAX_NAME} characters.")
    return member


def parse_update(body: object) -> MemberStatus:
    """The member's answer: one of `MEMBER_STATUSES`, else BadRequest."""
    status = _field(body, "status")
    if status not in MEMBER_STATUSES:
        raise BadRequest(f"status must be one of {', '.join(MEMBER_STATUSES)}.")
    return status


def document(row: MemberRow) -> dict[str, object]:
    """One member as clients see it."""
    return {
        "member_id": row["member"],
        "image_id": row["image_id"],
        "status": row["status"],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "schema": "/v2/schemas/member",
    }


def collection(rows: Sequence[MemberRow]) -> dict[str, object]:
    """The members of an image as clients see them."""
    return {"members": [document(row) for row in rows], "schema": "/v2/schemas/members"}


def _field(body: object, name: str) -> str:
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    value = cast("dict[str, object]", body).get(name)
    if not isinstance(value, str):
        raise BadRequest(f"The body must have {name}, a string.")
    return value


def _openapi(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": [field],
                        "properties": {field: schema},
                    }
                }
            },
        },
        "responses": {
            "200": {
                "description": "The member.",
                "content": {"application/json": {"schema": MEMBER}},
            }
        },
    }


CREATE_OPENAPI = _openapi("member", {"type": "string", "minLength": 1, "maxLength": MAX_NAME})
UPDATE_OPENAPI = _openapi("status", {"type": "string", "enum": list(MEMBER_STATUSES)})
