"""What statements about imports do, and what they refuse."""

from collections.abc import AsyncGenerator, Collection
from typing import Any
from uuid import uuid4

import pytest
from diptych_images.db import images, imports
from diptych_images.db.images import ImageRow, Status
from diptych_images.db.imports import Bytes
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.images.rows import OWNER, make_active, make_image, open_database

FOUND = Bytes(3, 3, "c" * 32, "sha512", "d" * 128)
STAGED = {"digests": {}, "findings": {}}


@pytest.fixture
async def connection(images_database: str) -> AsyncGenerator[AsyncConnection]:
    async with open_database(images_database) as db, db.read() as opened:
        yield opened


async def stage(connection: AsyncConnection, image_id: str, *, lease_s: float = 60) -> str:
    token = str(uuid4())
    started = await imports.start_stage(
        connection, image_id, store="fast", attempt=token, lease_s=lease_s, project_id=OWNER
    )
    assert started is not None
    assert started["status"] == "uploading"
    return token


async def staged(connection: AsyncConnection) -> ImageRow:
    image = await make_image(connection)
    token = await stage(connection, image["id"])
    row = await imports.finish_stage(
        connection, image["id"], attempt=token, url="file:///staged", size=3, staged=STAGED
    )
    assert row is not None
    assert (row["status"], row["size"]) == ("uploading", 3)
    return row


async def start(
    connection: AsyncConnection,
    image_id: str,
    *,
    expected: Status = "uploading",
    stores: Collection[str] = ("fast",),
) -> str | None:
    task = str(uuid4())
    row = await imports.start(
        connection,
        image_id,
        task_id=task,
        expected=[expected],
        importing=expected != "active",
        stores=stores,
    )
    return None if row is None else task


async def attempt(connection: AsyncConnection, image_id: str, task: str, store: str) -> str:
    token = str(uuid4())
    assert await imports.start_attempt(
        connection,
        image_id,
        task_id=task,
        store=store,
        attempt=token,
        lease_s=60,
        project_id=OWNER,
    )
    return token


async def land(
    connection: AsyncConnection,
    image_id: str,
    task: str,
    token: str,
    *,
    found: Bytes = FOUND,
    activate: bool = False,
) -> tuple[ImageRow, bool] | None:
    return await imports.land(
        connection,
        image_id,
        task_id=task,
        attempt=token,
        url=f"file:///{token}",
        metadata={},
        found=found,
        becomes={"disk_format": "raw", "properties": {"color": "blue"}},
        activate=activate,
    )


async def get(connection: AsyncConnection, image_id: str) -> ImageRow:
    row = await images.get(connection, image_id, project_id=OWNER, is_admin=True)
    assert row is not None
    return row


async def test_of_two_who_stage_one_does(connection: AsyncConnection) -> None:
    image = await make_image(connection)
    await stage(connection, image["id"])
    again = await imports.start_stage(
        connection, image["id"], store="fast", attempt=str(uuid4()), lease_s=60, project_id=None
    )
    assert again is None


async def test_what_was_reaped_is_not_staged(connection: AsyncConnection) -> None:
    image = await make_image(connection)
    token = await stage(connection, image["id"], lease_s=-1)
    (taken,) = await images.take_expired(connection, lease_s=60, limit=10)
    assert taken.key == imports.staged_key(image["id"], token)
    finished = await imports.finish_stage(
        connection, image["id"], attempt=token, url="file:///staged", size=3, staged=STAGED
    )
    assert finished is None
    assert await images.drop_attempt(connection, token)
    assert (await get(connection, image["id"]))["status"] == "queued"


async def test_only_what_is_staged_whole_is_imported(connection: AsyncConnection) -> None:
    image = await make_image(connection)
    await stage(connection, image["id"])
    assert await start(connection, image["id"]) is None
    assert (await get(connection, image["id"]))["import_task"] is None


async def test_an_image_is_held_by_one_import(connection: AsyncConnection) -> None:
    image = await staged(connection)
    task = await start(connection, image["id"])
    assert (await get(connection, image["id"]))["import_task"] == task
    assert await start(connection, image["id"], expected="importing") is None


async def test_lists_of_stores_are_merged_in_order(connection: AsyncConnection) -> None:
    image = await make_active(
        connection,
        properties={imports.IMPORTING: "", imports.FAILED: "b,z", imports.MESSAGE: "Sorry."},
    )
    task = await start(connection, image["id"], expected="active", stores=["c", "b", "a"])
    assert task is not None
    row = await get(connection, image["id"])
    assert row["status"] == "active"
    assert row["properties"] == {imports.IMPORTING: "a,b,c", imports.FAILED: "z"}
    await imports.store_failed(connection, image["id"], task_id=task, store="b")
    token = await attempt(connection, image["id"], task, "a")
    assert await land(connection, image["id"], task, token) is not None
    row = await get(connection, image["id"])
    assert row["properties"] == {imports.IMPORTING: "c", imports.FAILED: "b,z"}


async def test_the_first_that_lands_says_what_the_bytes_are(connection: AsyncConnection) -> None:
    image = await staged(connection)
    task = await start(connection, image["id"], stores=["a", "b"])
    assert task is not None
    first, second = [await attempt(connection, image["id"], task, store) for store in "ab"]
    bigger = Bytes(4, 9, "e" * 32, "sha512", "f" * 128)
    landed = await land(connection, image["id"], task, first, found=bigger)
    assert landed is not None
    row, is_activated = landed
    assert not is_activated
    assert (row["size"], row["virtual_size"], row["status"]) == (4, 9, "importing")
    assert row["disk_format"] is None, "the image gets that when it is active"
    with pytest.raises(imports.Disagrees):
        await land(connection, image["id"], task, second)
    ended = await imports.finish(connection, image["id"], task_id=task, stores=["a", "b"])
    assert ended is not None
    assert ended.is_activated
    assert ended.has_bytes_to_remove
    row = ended.image
    assert (row["status"], row["disk_format"], row["import_task"]) == ("active", "raw", None)
    assert row["properties"] == {imports.IMPORTING: "", imports.FAILED: "", "color": "blue"}


async def test_nothing_lands_for_another_task_or_in_a_deleted_image(
    connection: AsyncConnection,
) -> None:
    image = await staged(connection)
    task = await start(connection, image["id"])
    assert task is not None
    token = await attempt(connection, image["id"], task, "fast")
    assert await land(connection, image["id"], str(uuid4()), token) is None
    await images.mark_deleted(connection, image["id"])
    assert await imports.begin(connection, image["id"], task_id=task) is None
    assert await imports.give_up(connection, image["id"], task_id=task, message="x") is None
    assert await imports.finish(connection, image["id"], task_id=task, stores=["fast"]) is None
    assert await images.renew(connection, [token], lease_s=60) == set()


async def test_one_attempt_at_an_object_at_a_time(connection: AsyncConnection) -> None:
    image = await staged(connection)
    task = await start(connection, image["id"])
    assert task is not None
    token = await attempt(connection, image["id"], task, "fast")
    options: dict[str, Any] = {
        "store": "fast",
        "attempt": str(uuid4()),
        "lease_s": 60,
        "project_id": None,
    }
    again = await imports.start_attempt(connection, image["id"], task_id=task, **options)
    assert again is False
    other = await imports.start_attempt(connection, image["id"], task_id=str(uuid4()), **options)
    assert other is None
    assert await imports.busy_stores(connection, image["id"]) == {"fast"}
    assert await land(connection, image["id"], task, token) is not None
    assert await imports.busy_stores(connection, image["id"]) == set()
    again = await imports.start_attempt(connection, image["id"], task_id=task, **options)
    assert again is False, "the object is there"


async def test_what_a_failed_import_left_is_in_the_way_until_it_is_gone(
    connection: AsyncConnection,
) -> None:
    image = await staged(connection)
    task = await start(connection, image["id"], stores=["fast", "cheap"])
    assert task is not None
    landed = await attempt(connection, image["id"], task, "fast")
    assert await land(connection, image["id"], task, landed) is not None
    pending = await attempt(connection, image["id"], task, "cheap")
    keys: dict[str, Any] = {"task_id": task, "lease_s": 60}
    left = await imports.leave_attempts(connection, image["id"], **keys)
    assert [one.attempt for one in left] == [pending]
    left = await imports.leave_landed(connection, image["id"], **keys)
    assert [(one.attempt, one.key) for one in left] == [(landed, image["id"])]
    ended = await imports.give_up(connection, image["id"], task_id=task, message="Sorry.")
    assert ended is not None
    row = ended.image
    assert (row["status"], row["size"], row["checksum"]) == ("queued", None, None)
    assert row["properties"][imports.FAILED] == "cheap"
    assert row["locations"] == []

    async def upload(store: str) -> ImageRow | None:
        return await images.start_upload(
            connection, image["id"], store=store, attempt=str(uuid4()), lease_s=60
        )

    assert await upload("fast") is None
    assert await images.drop_attempt(connection, landed)
    assert await upload("fast") is not None
    assert await images.drop_attempt(connection, pending)
    assert (await get(connection, image["id"]))["status"] == "saving", "that is the upload's"
