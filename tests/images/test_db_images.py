"""Rows of images: what is read, and every change of state, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import pytest
from diptych_common.database import Database
from diptych_images.db import images, members
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.images.rows import OWNER, finish, make_active, make_image, open_database

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def images_db(images_database: str) -> AsyncIterator[Database]:
    async with open_database(images_database) as db:
        yield db


@pytest.fixture
async def connection(images_db: Database) -> AsyncIterator[AsyncConnection]:
    async with images_db.read() as connection:
        yield connection


async def sees(connection: AsyncConnection, image_id: str, project_id: str | None) -> bool:
    row = await images.get(connection, image_id, project_id=project_id, is_admin=False)
    return row is not None


async def begin(
    connection: AsyncConnection, image_id: str, *, lease_s: float = 60, attempt: str | None = None
) -> str:
    """Start an upload; its attempt."""
    attempt = attempt or str(uuid4())
    started = await images.start_upload(
        connection, image_id, store="fast", attempt=attempt, lease_s=lease_s, project_id=OWNER
    )
    assert started is not None
    assert started["status"] == "saving"
    return attempt


async def status(connection: AsyncConnection, image_id: str) -> str | None:
    row = await images.get(connection, image_id, project_id=None, is_admin=True)
    return None if row is None else row["status"]


async def location_states(connection: AsyncConnection, image_id: str) -> list[str]:
    found = await connection.execute(
        text("SELECT status FROM image_locations WHERE image_id = CAST(:id AS uuid) ORDER BY id"),
        {"id": image_id},
    )
    return list(found.scalars())


# Reading


async def test_a_new_image_has_the_defaults_of_the_api(connection: AsyncConnection):
    before = datetime.now(UTC)
    row = await make_image(connection, name="n", properties={"a": "b", "empty": None}, tags=["t"])
    assert row == {
        "id": row["id"],
        "name": "n",
        "status": "queued",
        "visibility": "shared",
        "owner": OWNER,
        "disk_format": None,
        "container_format": None,
        "min_disk": 0,
        "min_ram": 0,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "protected": False,
        "os_hidden": False,
        "tags": ["t"],
        "properties": {"a": "b", "empty": None},
        "import_task": None,
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
        "deleted_at": None,
        "locations": [],
        "member_status": None,
    }
    assert isinstance(row["id"], str)
    assert abs((row["created_at"] - before).total_seconds()) < 60
    assert await images.get(connection, row["id"], project_id=OWNER, is_admin=False) == row


@pytest.mark.parametrize(
    ("visibility", "owner", "seen"),
    [
        ("public", OWNER, True),
        ("community", OWNER, True),
        ("shared", OWNER, False),
        ("private", OWNER, False),
        ("private", None, True),
    ],
)
async def test_a_stranger_sees_what_is_open_to_all(
    connection: AsyncConnection, visibility: str, owner: str | None, seen: bool
):
    row = await make_image(connection, visibility=visibility, owner=owner)
    assert await sees(connection, row["id"], "stranger") is seen
    assert await sees(connection, row["id"], None) is seen
    if owner is not None:
        assert await sees(connection, row["id"], owner)
    found = await images.get(connection, row["id"], project_id="stranger", is_admin=True)
    assert found == row


@pytest.mark.parametrize("answer", ["pending", "accepted", "rejected"])
async def test_a_member_sees_a_shared_image_whatever_it_answered(
    connection: AsyncConnection, answer: images.MemberStatus
):
    row = await make_image(connection)
    await members.add(connection, row["id"], "friend", quota=-1)
    await members.set_status(connection, row["id"], "friend", answer)
    found = await images.get(connection, row["id"], project_id="friend", is_admin=False)
    assert found is not None
    assert found["member_status"] == answer
    assert not await sees(connection, row["id"], "stranger")


async def test_membership_waits_while_an_image_is_private(connection: AsyncConnection):
    row = await make_image(connection)
    await members.add(connection, row["id"], "friend", quota=-1)
    await images.update(connection, row["id"], {"visibility": "private"})
    assert not await sees(connection, row["id"], "friend")
    await images.update(connection, row["id"], {"visibility": "shared"})
    assert await sees(connection, row["id"], "friend")


@pytest.mark.parametrize(
    "text", ["", "cirros", "a" * 300, UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}", UNKNOWN + "\n"]
)
async def test_a_text_that_is_no_id_finds_nothing_and_asks_nothing(
    connection: AsyncConnection, text: str
):
    with databases.noted(connection) as seen:
        assert await images.get(connection, text, project_id=None, is_admin=True) is None
        assert await images.get_for_update(connection, text, project_id=None, is_admin=True) is None
        assert not await images.knows_attempt(connection, text)
    assert seen == []


async def test_each_function_is_one_statement(images_db: Database, images_database: str):
    async with images_db.read() as connection:
        one = await make_image(connection)
        other = await make_active(connection)
        attempt, later = str(uuid4()), str(uuid4())
        image_id = one["id"]
        start = partial(images.start_upload, connection, image_id, store="fast", lease_s=60)
        calls: list[Callable[[], Awaitable[object]]] = [
            partial(images.get, connection, image_id, project_id=OWNER, is_admin=False),
            partial(images.get_for_update, connection, image_id, project_id=OWNER, is_admin=True),
            partial(images.insert, connection, {"name": "third"}),
            partial(images.update, connection, image_id, {"name": "changed", "tags": ["t"]}),
            partial(start, attempt=attempt),
            partial(images.renew, connection, [attempt], lease_s=-1),
            partial(images.take_expired, connection, lease_s=60, limit=10),
            partial(images.drop_attempt, connection, attempt),
            partial(start, attempt=later),
            partial(finish, connection, image_id, later),
            partial(images.knows_attempt, connection, later),
            partial(images.locations_to_remove, connection, other["id"]),
            partial(images.forget_location, connection, other["locations"][0]["id"]),
        ]
        for call in calls:
            async with databases.statements(images_database) as seen:
                await call()
            assert len(seen.texts) == 1, seen.texts


# Ids are never used twice


async def test_an_id_in_use_is_refused(connection: AsyncConnection):
    row = await make_image(connection)
    assert await images.insert(connection, {"id": row["id"], "owner": "other"}) is None
    assert await images.insert(connection, {"id": row["id"].upper(), "owner": "other"}) is None
    assert await images.get(connection, row["id"], project_id=OWNER, is_admin=False) == row


async def test_the_id_of_a_deleted_image_is_refused(connection: AsyncConnection):
    row = await make_image(connection)
    await images.mark_deleted(connection, row["id"])
    assert await images.insert(connection, {"id": row["id"]}) is None


# Changing


async def test_an_update_changes_what_it_names_and_the_time(connection: AsyncConnection):
    row = await make_active(connection, name="before", tags=["old"])
    changed = await images.update(
        connection, row["id"], {"name": None, "tags": ["a", "b"], "properties": {"x": "é"}}
    )
    assert changed["updated_at"] > row["updated_at"]
    assert changed == {
        **row,
        "name": None,
        "tags": ["a", "b"],
        "properties": {"x": "é"},
        "updated_at": changed["updated_at"],
    }
    assert await images.get(connection, row["id"], project_id=OWNER, is_admin=False) == changed


async def test_two_changes_of_an_image_come_one_after_the_other(images_db: Database):
    async with images_db.write() as connection:
        image_id = (await make_image(connection, tags=[]))["id"]

    async def add(tag: str) -> None:
        async with images_db.write() as connection:
            row = await images.get_for_update(
                connection, image_id, project_id=OWNER, is_admin=False
            )
            assert row is not None
            await asyncio.sleep(0.02)
            await images.update(connection, image_id, {"tags": [*row["tags"], tag]})

    await asyncio.gather(*(add(f"tag-{number}") for number in range(6)))
    async with images_db.read() as connection:
        row = await images.get(connection, image_id, project_id=OWNER, is_admin=False)
    assert row is not None
    assert sorted(row["tags"]) == [f"tag-{number}" for number in range(6)]


async def test_an_image_deleted_while_one_waits_for_it_is_not_found(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]

    async def wait_for_it() -> object:
        async with images_db.write() as connection:
            return await images.get_for_update(
                connection, image_id, project_id=OWNER, is_admin=False
            )

    async with images_db.write() as connection:
        await images.mark_deleted(connection, image_id)
        waiting = asyncio.create_task(wait_for_it())
        await waits_for_a_lock(images_db)
    assert await waiting is None


async def waits_for_a_lock(db: Database) -> None:
    """Return when a statement on this database waits for somebody."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10):
        while True:
            async with db.read() as connection:
                if (await connection.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.01)


# Deleting


async def test_a_deleted_image_is_gone_for_everybody(connection: AsyncConnection):
    row = await make_active(connection, visibility="public")
    deleted = await images.mark_deleted(connection, row["id"])
    assert deleted is not None
    assert deleted["status"] == "deleted"
    assert deleted["deleted_at"] is not None
    assert [place["url"] for place in deleted["locations"]] == [row["locations"][0]["url"]]
    assert await status(connection, row["id"]) is None
    assert await images.mark_deleted(connection, row["id"]) is None


async def test_the_bytes_of_a_deleted_image_are_listed_until_forgotten(
    connection: AsyncConnection,
):
    row = await make_active(connection)
    assert await images.locations_to_remove(connection, row["id"]) == []
    await images.forget_location(connection, row["locations"][0]["id"])
    assert await location_states(connection, row["id"]) == ["active"], "an active one stays"
    await images.mark_deleted(connection, row["id"])
    (place,) = await images.locations_to_remove(connection, row["id"])
    assert place == {**row["locations"][0], "status": "deleted"}
    await images.forget_location(connection, place["id"])
    await images.forget_location(connection, place["id"])
    assert await images.locations_to_remove(connection, row["id"]) == []


async def test_the_members_of_a_deleted_image_are_gone(connection: AsyncConnection):
    row = await make_image(connection)
    await members.add(connection, row["id"], "friend", quota=-1)
    await images.mark_deleted(connection, row["id"])
    assert await members.remove(connection, row["id"], "friend") is None


# Uploading


async def test_an_upload_makes_an_image_active(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"])
    assert await location_states(connection, row["id"]) == ["pending"]
    active = await finish(connection, row["id"], attempt)
    assert active is not None
    (place,) = active["locations"]
    assert active == {
        **row,
        "status": "active",
        "size": 3,
        "virtual_size": 30,
        "checksum": "c" * 32,
        "os_hash_algo": "sha512",
        "os_hash_value": "d" * 128,
        "updated_at": active["updated_at"],
        "locations": [
            {
                "id": place["id"],
                "store": "fast",
                "url": f"file:///images/{row['id']}",
                "metadata": {"store": "fast"},
                "status": "active",
            }
        ],
    }
    assert active["updated_at"] > row["updated_at"]
    assert await images.get(connection, row["id"], project_id=OWNER, is_admin=False) == active


async def test_an_upload_finishes_once(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"])
    assert await finish(connection, row["id"], attempt) is not None
    assert await finish(connection, row["id"], attempt) is None
    assert not await images.renew(connection, [attempt], lease_s=60)
    assert not await images.take_attempt(connection, attempt, lease_s=60)
    assert not await images.drop_attempt(connection, attempt)
    assert await location_states(connection, row["id"]) == ["active"]


async def test_of_many_uploads_at_a_time_one_starts(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]

    async def start() -> bool:
        async with images_db.write() as connection:
            row = await images.start_upload(
                connection, image_id, store="fast", attempt=str(uuid4()), lease_s=60
            )
            return row is not None

    assert sum(await asyncio.gather(*(start() for _ in range(8)))) == 1
    async with images_db.read() as connection:
        assert await location_states(connection, image_id) == ["pending"]


@pytest.mark.parametrize("state", ["saving", "active", "deactivated", "uploading", "importing"])
async def test_only_queued_images_take_an_upload(connection: AsyncConnection, state: str):
    row = await make_image(connection, status=state)
    started = await images.start_upload(
        connection, row["id"], store="fast", attempt=str(uuid4()), lease_s=60
    )
    assert started is None
    assert await location_states(connection, row["id"]) == []


async def test_an_attempt_finishes_only_its_own_image(connection: AsyncConnection):
    row, other = await make_image(connection), await make_image(connection)
    attempt = await begin(connection, row["id"])
    await begin(connection, other["id"])
    assert await finish(connection, other["id"], attempt) is None
    assert await status(connection, other["id"]) == "saving"
    assert await finish(connection, row["id"], attempt) is not None


async def test_an_upload_of_a_deleted_image_comes_to_nothing(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"])
    deleted = await images.mark_deleted(connection, row["id"])
    assert deleted is not None
    assert deleted["locations"] == [], "the attempt is the upload's to discard"
    assert not await images.renew(connection, [attempt], lease_s=60)
    assert await finish(connection, row["id"], attempt) is None
    assert await location_states(connection, row["id"]) == ["pending"]
    assert await images.take_attempt(connection, attempt, lease_s=60)
    assert await images.drop_attempt(connection, attempt)
    assert await location_states(connection, row["id"]) == []
    assert await status(connection, row["id"]) is None


async def test_bytes_that_land_while_a_delete_waits_are_given_to_it(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        attempt = await begin(connection, image_id)

    async def delete() -> images.ImageRow | None:
        async with images_db.write() as connection:
            return await images.mark_deleted(connection, image_id)

    async with images_db.write() as connection:
        assert await finish(connection, image_id, attempt) is not None
        deleting = asyncio.create_task(delete())
        await waits_for_a_lock(images_db)
    deleted = await deleting
    assert deleted is not None
    assert [place["url"] for place in deleted["locations"]] == [f"file:///images/{image_id}"]
    async with images_db.read() as connection:
        assert await location_states(connection, image_id) == ["deleted"]


async def test_an_upload_that_waits_for_a_delete_comes_to_nothing(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        attempt = await begin(connection, image_id)

    async def upload() -> images.ImageRow | None:
        async with images_db.write() as connection:
            return await finish(connection, image_id, attempt)

    async with images_db.write() as connection:
        await images.mark_deleted(connection, image_id)
        uploading = asyncio.create_task(upload())
        await waits_for_a_lock(images_db)
    assert await uploading is None
    async with images_db.read() as connection:
        assert await location_states(connection, image_id) == ["pending"]


async def test_an_upload_that_waits_for_the_reaper_comes_to_nothing(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        attempt = await begin(connection, image_id, lease_s=-1)

    async def upload() -> images.ImageRow | None:
        async with images_db.write() as connection:
            return await finish(connection, image_id, attempt)

    async with images_db.write() as connection:
        assert len(await images.take_expired(connection, lease_s=60, limit=10)) == 1
        uploading = asyncio.create_task(upload())
        await waits_for_a_lock(images_db)
    assert await uploading is None
    async with images_db.read() as connection:
        assert await status(connection, image_id) == "saving", "not active without a location"
        assert await location_states(connection, image_id) == ["discarding"]


# Giving up


async def test_a_discarded_upload_queues_its_image_again(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"])
    assert not await images.drop_attempt(connection, attempt), "it must be taken first"
    assert await images.take_attempt(connection, attempt, lease_s=60)
    assert not await images.take_attempt(connection, attempt, lease_s=60)
    assert await finish(connection, row["id"], attempt) is None
    assert await images.knows_attempt(connection, attempt)
    assert await images.drop_attempt(connection, attempt)
    assert not await images.drop_attempt(connection, attempt)
    assert not await images.knows_attempt(connection, attempt)
    again = await images.get(connection, row["id"], project_id=OWNER, is_admin=False)
    assert again is not None
    assert again == {**row, "updated_at": again["updated_at"]}
    assert await finish(connection, row["id"], await begin(connection, row["id"])) is not None


async def test_a_released_attempt_does_not_keep_its_image_waiting(connection: AsyncConnection):
    image_id = (await make_image(connection))["id"]
    attempt = await begin(connection, image_id)
    lease = await images.take_attempt(connection, attempt, lease_s=-1)
    assert lease is not None
    assert await images.release_attempt(connection, attempt, lease_until=lease)
    assert await status(connection, image_id) == "queued"
    newer = await begin(connection, image_id)
    (taken,) = await images.take_expired(connection, lease_s=60, limit=10)
    assert (taken.attempt, taken.released) == (attempt, True)
    assert await images.drop_attempt(connection, attempt)
    # It is the newer one's to say what becomes of the image.
    assert await status(connection, image_id) == "saving"
    assert await finish(connection, image_id, newer) is not None


async def test_an_attempt_that_another_took_is_not_released(connection: AsyncConnection):
    image_id = (await make_image(connection))["id"]
    attempt = await begin(connection, image_id)
    lease = await images.take_attempt(connection, attempt, lease_s=-1)
    assert lease is not None
    (taken,) = await images.take_expired(connection, lease_s=60, limit=10)
    assert not taken.released
    assert not await images.release_attempt(connection, attempt, lease_until=lease)
    assert await status(connection, image_id) == "saving"


async def test_only_attempts_whose_lease_is_over_are_taken(connection: AsyncConnection):
    dead, alive = await make_image(connection), await make_image(connection)
    attempt = await begin(connection, dead["id"], lease_s=-1)
    living = await begin(connection, alive["id"], lease_s=60)
    assert await images.take_expired(connection, lease_s=60, limit=10) == [
        images.ExpiredAttempt(
            dead["id"],
            store="fast",
            attempt=attempt,
            key=dead["id"],
            project_id=OWNER,
            released=False,
        )
    ]
    assert await images.take_expired(connection, lease_s=60, limit=10) == []
    assert not await images.renew(connection, [attempt], lease_s=60)
    assert await images.renew(connection, [living], lease_s=60)


async def test_a_renewed_attempt_is_not_taken(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"], lease_s=-1)
    assert await images.renew(connection, [attempt], lease_s=60)
    assert await images.take_expired(connection, lease_s=60, limit=10) == []


async def test_an_attempt_that_was_taken_and_not_dropped_is_taken_again(
    connection: AsyncConnection,
):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"], lease_s=-1)
    first = await images.take_expired(connection, lease_s=-1, limit=10)
    assert [taken.attempt for taken in first] == [attempt]
    assert await images.take_expired(connection, lease_s=60, limit=10) == first


async def test_reapers_at_the_same_time_take_different_attempts(images_db: Database):
    async with images_db.read() as connection:
        for _ in range(10):
            await begin(connection, (await make_image(connection))["id"], lease_s=-1)
    async with images_db.write() as one, images_db.write() as other:
        first = await images.take_expired(one, lease_s=60, limit=4)
        second = await images.take_expired(other, lease_s=60, limit=10)
    assert len(first) == 4
    assert len(second) == 6
    assert not {taken.attempt for taken in first} & {taken.attempt for taken in second}


async def test_the_reaper_leaves_a_deleted_image_deleted(connection: AsyncConnection):
    row = await make_image(connection)
    attempt = await begin(connection, row["id"], lease_s=-1)
    await images.mark_deleted(connection, row["id"])
    (taken,) = await images.take_expired(connection, lease_s=60, limit=10)
    assert await images.drop_attempt(connection, taken.attempt)
    assert not await images.knows_attempt(connection, attempt)
    assert await status(connection, row["id"]) is None
