"""Rows of members, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from diptych_common.database import Database
from diptych_images.db import images, members
from diptych_images.db.members import MemberRow, Refused
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.images.rows import OWNER, make_image, open_database


@pytest.fixture
async def images_db(images_database: str) -> AsyncIterator[Database]:
    async with open_database(images_database) as db:
        yield db


async def entries(connection: AsyncConnection, image_id: str, **who: Any) -> list[MemberRow]:
    """The members of an image of OWNER's that a project sees; without a name, the owner."""
    asked: dict[str, Any] = {"project_id": OWNER, "is_admin": False, **who}
    found = await members.of_image(connection, image_id, **asked)
    assert found is not None
    return found[1]


async def test_a_new_member_is_pending(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        added = await members.add(connection, image_id, "friend", quota=1)
        assert not isinstance(added, Refused)
        assert added == {
            "image_id": image_id,
            "member": "friend",
            "status": "pending",
            "created_at": added["created_at"],
            "updated_at": added["created_at"],
        }
        assert await entries(connection, image_id, member="friend") == [added]
        assert await entries(connection, image_id, member="stranger") == []


async def test_a_member_is_added_once(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        await members.add(connection, image_id, "friend", quota=-1)
        await members.set_status(connection, image_id, "friend", "accepted")
        again = await members.add(connection, image_id, "friend", quota=-1)
        assert again is Refused.DUPLICATE
        (entry,) = await entries(connection, image_id)
        assert entry["status"] == "accepted"


@pytest.mark.parametrize("quota", [0, 1, 3])
async def test_a_full_image_takes_no_more_members(images_db: Database, quota: int):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        for number in range(quota):
            added = await members.add(connection, image_id, f"friend-{number}", quota=quota)
            assert not isinstance(added, Refused)
        assert await members.add(connection, image_id, "more", quota=quota) is Refused.QUOTA
        assert len(await entries(connection, image_id)) == quota


async def test_the_quota_holds_for_additions_at_the_same_time(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]

    async def add(member: str) -> bool:
        async with images_db.write() as connection:
            await images.get_for_update(connection, image_id, project_id=OWNER, is_admin=False)
            added = await members.add(connection, image_id, member, quota=2)
            return not isinstance(added, Refused)

    assert sum(await asyncio.gather(*(add(f"friend-{number}") for number in range(8)))) == 2
    async with images_db.read() as connection:
        assert len(await entries(connection, image_id)) == 2


async def test_members_are_listed_in_the_order_of_their_addition(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        other_id = (await make_image(connection))["id"]
        for member in ("c", "a", "b"):
            await members.add(connection, image_id, member, quota=-1)
            await members.add(connection, other_id, member, quota=-1)
        everybody = await entries(connection, image_id)
        assert [entry["member"] for entry in everybody] == ["c", "a", "b"]
        assert {entry["image_id"] for entry in everybody} == {image_id}
        assert await entries(connection, image_id, project_id=None, is_admin=True) == everybody


async def test_a_member_sees_its_own_entry_and_the_image(images_db: Database):
    async with images_db.read() as connection:
        image = await make_image(connection, visibility="shared")
        for member in ("a", "b"):
            await members.add(connection, image["id"], member, quota=-1)
        found = await members.of_image(connection, image["id"], project_id="b", is_admin=False)
        assert found is not None
        assert found[0] == {**image, "member_status": "pending"}
        assert [entry["member"] for entry in found[1]] == ["b"]
        assert await entries(connection, image["id"], project_id="b", member="a") == []


async def test_members_of_an_image_that_is_not_seen_are_not_seen(images_db: Database):
    async with images_db.read() as connection:
        shared = await make_image(connection, visibility="shared")
        private = await make_image(connection, visibility="private")
        deleted = await make_image(connection, visibility="shared")
        for image in (private, deleted):
            await members.add(connection, image["id"], "friend", quota=-1)
        await images.mark_deleted(connection, deleted["id"])
        for image in (shared, private, deleted):
            seen = await members.of_image(
                connection, image["id"], project_id="friend", is_admin=False
            )
            assert seen is None
        assert await members.of_image(connection, "no-id", project_id=None, is_admin=True) is None


async def test_a_member_changes_its_answer(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        added = await members.add(connection, image_id, "friend", quota=-1)
        assert not isinstance(added, Refused)
        entry = added
        for answer in ("accepted", "rejected", "pending"):
            before = entry
            changed = await members.set_status(connection, image_id, "friend", answer)
            assert changed is not None
            entry = changed
            assert entry["status"] == answer
            assert entry["created_at"] == added["created_at"]
            assert entry["updated_at"] > before["updated_at"]
        assert await members.set_status(connection, image_id, "stranger", "accepted") is None


async def test_a_member_that_was_removed_can_be_added_anew(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        await members.add(connection, image_id, "friend", quota=-1)
        accepted = await members.set_status(connection, image_id, "friend", "accepted")
        assert await members.remove(connection, image_id, "friend") == accepted
        assert await members.remove(connection, image_id, "friend") is None
        added = await members.add(connection, image_id, "friend", quota=1)
        assert not isinstance(added, Refused)
        assert added["status"] == "pending"


async def test_each_function_is_one_statement(images_db: Database, images_database: str):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        async with databases.statements(images_database) as seen:
            await members.add(connection, image_id, "friend", quota=3)
            await members.add(connection, image_id, "friend", quota=1)
            await entries(connection, image_id)
            await entries(connection, image_id, member="friend")
            await members.set_status(connection, image_id, "friend", "accepted")
            await members.remove(connection, image_id, "friend")
        assert len(seen.texts) == 6, seen.texts
