"""The documents of members."""

from datetime import UTC, datetime

import pytest
from diptych_common.errors import BadRequest
from diptych_images.db.members import MemberRow
from diptych_images.wire import member
from diptych_images.wire.schemas import ImageSchema, documents
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

ROW: MemberRow = {
    "image_id": "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d",
    "member": "tenant",
    "status": "pending",
    "created_at": datetime(2026, 3, 4, 5, 6, 7, 1, tzinfo=UTC),
    "updated_at": datetime(2026, 3, 4, 5, 6, 7, 1, tzinfo=UTC),
}


def test_a_member_is_shown_with_whole_seconds_and_its_schema() -> None:
    shown = member.document(ROW)

    assert shown == {
        "member_id": "tenant",
        "image_id": "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d",
        "status": "pending",
        "created_at": "2026-03-04T05:06:07Z",
        "updated_at": "2026-03-04T05:06:07Z",
        "schema": "/v2/schemas/member",
    }


def test_members_satisfy_the_served_schemas() -> None:
    schemas = documents(ImageSchema())
    collection = member.collection([ROW])

    assert collection == {"members": [member.document(ROW)], "schema": "/v2/schemas/members"}
    Draft202012Validator(schemas["member"]).validate(member.document(ROW))
    Draft202012Validator(schemas["members"]).validate(collection)


def test_a_member_is_named_by_its_project() -> None:
    assert member.parse_create({"member": "x" * 255}) == "x" * 255


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "tenant",
        {},
        {"member": ""},
        {"member": None},
        {"member": 1},
        {"member": ["a"]},
        {"member": "x" * 256},
        {"member": "a\x00"},
        {"member_id": "tenant"},
    ],
)
def test_a_document_without_a_member_is_refused(body: object) -> None:
    with pytest.raises(BadRequest):
        member.parse_create(body)


@pytest.mark.parametrize("status", ["pending", "accepted", "rejected"])
def test_a_member_can_answer_with_any_status(status: str) -> None:
    assert member.parse_update({"status": status}) == status


@settings(deadline=None)
@given(st.none() | st.text() | st.integers() | st.dictionaries(st.just("status"), st.text()))
def test_any_other_answer_is_refused(body: object) -> None:
    with pytest.raises(BadRequest):
        member.parse_update(body)
