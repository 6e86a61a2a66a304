"""Rows of tasks, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from diptych_common.database import Database
from diptych_images.db import images, tasks
from diptych_images.db.pages import Direction
from diptych_images.db.tables import tasks as tasks_table
from diptych_images.db.tasks import TaskQuery, TaskRow
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.images.rows import OWNER, make_image, open_database

AN_HOUR = timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def images_db(images_database: str) -> AsyncIterator[Database]:
    async with open_database(images_database) as db:
        yield db


async def make_task(connection: AsyncConnection, **values: Any) -> TaskRow:
    """A pending import of OWNER, unless told otherwise."""
    task: dict[str, Any] = {
        "task_id": str(uuid4()),
        "type": "api_image_import",
        "owner": OWNER,
        "image_id": None,
        "user_id": "u",
        "request_id": "req-1",
        "input": {"import_req": {"method": {"name": "web-download"}}},
        **values,
    }
    return await tasks.insert(connection, **task)


async def set_columns(connection: AsyncConnection, task_id: str, **values: object) -> None:
    await connection.execute(update(tasks_table).where(tasks_table.c.id == task_id).values(values))


async def test_a_new_task_is_pending(images_db: Database):
    async with images_db.read() as connection:
        task = await make_task(connection)
        assert (task["status"], task["message"], task["result"]) == ("pending", "", None)
        assert task["expires_at"] is None
        got = await tasks.get(connection, task["id"], project_id=OWNER, is_admin=False)
        assert got == task


async def test_a_task_goes_forward_only(images_db: Database):
    async with images_db.read() as connection:
        task_id = (await make_task(connection))["id"]
        running = await tasks.change(connection, task_id, status="processing", message="1 of 2")
        assert running is not None
        assert (running["status"], running["message"]) == ("processing", "1 of 2")
        ended = await tasks.change(
            connection, task_id, status="success", result={"image_id": "i"}, kept_for=AN_HOUR
        )
        assert ended is not None
        assert (ended["status"], ended["message"]) == ("success", "1 of 2")
        assert ended["result"] == {"image_id": "i"}
        assert ended["expires_at"] == ended["updated_at"] + AN_HOUR
        assert await tasks.change(connection, task_id, status="processing") is None
        assert await tasks.change(connection, task_id, status="failure", message="no") is None
        assert await tasks.get(connection, task_id, project_id=OWNER, is_admin=False) == ended


async def test_a_task_that_is_gone_is_not_changed(images_db: Database):
    async with images_db.read() as connection:
        assert await tasks.change(connection, str(uuid4()), status="failure") is None


async def test_who_sees_a_task(images_db: Database):
    async with images_db.read() as connection:
        task_id = (await make_task(connection))["id"]
        unowned = (await make_task(connection, owner=None))["id"]

        async def sees(asked: str, project: str | None, *, is_admin: bool = False) -> bool:
            row = await tasks.get(connection, asked, project_id=project, is_admin=is_admin)
            return row is not None

        assert await sees(task_id, OWNER)
        assert not await sees(task_id, "another")
        assert not await sees(task_id, None)
        assert await sees(task_id, "another", is_admin=True)
        assert not await sees(unowned, None)
        assert not await sees("no-uuid", OWNER, is_admin=True)


async def test_an_expired_task_is_seen_by_nobody_and_then_removed(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection))["id"]
        task_id = (await make_task(connection, image_id=image_id))["id"]
        kept = (await make_task(connection, image_id=image_id))["id"]
        await tasks.change(connection, kept, status="failure", kept_for=AN_HOUR)
        await tasks.change(connection, task_id, status="failure", kept_for=-AN_HOUR)
        assert await tasks.get(connection, task_id, project_id=None, is_admin=True) is None
        page = await tasks.page(connection, TaskQuery(limit=9), project_id=None, is_admin=True)
        assert [row["id"] for row in page.rows] == [kept]
        found = await tasks.of_image(connection, image_id, project_id=None, is_admin=True)
        assert found is not None
        assert [row["id"] for row in found[1]] == [kept]

        assert await tasks.remove_expired(connection, at_most=9) == 1
        assert await tasks.remove_expired(connection, at_most=9) == 0


async def test_the_tasks_of_an_image_come_with_it(images_db: Database):
    async with images_db.read() as connection:
        image = await make_image(connection, visibility="public")
        first = await make_task(connection, image_id=image["id"])
        second = await make_task(connection, image_id=image["id"], owner="another")
        await make_task(connection, image_id=str(uuid4()))

        async def seen(project: str, *, is_admin: bool = False) -> list[TaskRow]:
            with databases.noted(connection) as sent:
                found = await tasks.of_image(
                    connection, image["id"], project_id=project, is_admin=is_admin
                )
            assert len(sent) == 1
            assert found is not None
            assert found[0] == await images.get(
                connection, image["id"], project_id=project, is_admin=is_admin
            )
            return found[1]

        assert await seen(OWNER) == [first]
        assert await seen("another") == [second]
        assert await seen("a third") == []
        assert await seen("a third", is_admin=True) == [first, second]


async def test_tasks_of_an_image_that_is_not_seen(images_db: Database):
    async with images_db.read() as connection:
        image_id = (await make_image(connection, visibility="private"))["id"]
        await make_task(connection, image_id=image_id, owner="another")
        for asked in (image_id, str(uuid4()), "no-uuid"):
            found = await tasks.of_image(connection, asked, project_id="another", is_admin=False)
            assert found is None, asked


KEYS: tuple[tasks.SortKey, ...] = (
    "id", "type", "status", "owner", "created_at", "updated_at", "expires_at",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_hold_every_task_once(
    images_db: Database, key: tasks.SortKey, direction: Direction
):
    async with images_db.read() as connection:
        made: list[str] = []
        for number in range(7):
            task_id = (await make_task(connection, owner=("a", "b", None)[number % 3]))["id"]
            made.append(task_id)
            if number % 2:
                await tasks.change(connection, task_id, status="failure", kept_for=AN_HOUR)
            # Several of the same moment: the order must tell them apart all the same.
            moment = LONG_AGO + timedelta(seconds=number // 3)
            await set_columns(connection, task_id, created_at=moment, updated_at=moment)
        listed: list[str] = []
        marker = None
        while True:
            query = TaskQuery(limit=3, sort_key=key, sort_dir=direction, marker=marker)
            with databases.noted(connection) as sent:
                page = await tasks.page(connection, query, project_id=None, is_admin=True)
            assert len(sent) == 1
            assert page.marker_found
            if not page.rows:
                break
            listed += [row["id"] for row in page.rows]
            marker = listed[-1]
        assert sorted(listed) == sorted(made)
        whole = TaskQuery(limit=9, sort_key=key, sort_dir=direction)
        page = await tasks.page(connection, whole, project_id=None, is_admin=True)
        assert [row["id"] for row in page.rows] == listed
        values = [row[key] for row in page.rows if row[key] is not None]
        assert values == sorted(values, reverse=direction == "desc")  # pyright: ignore


async def test_a_list_is_of_the_project_and_of_the_values_asked_for(images_db: Database):
    async with images_db.read() as connection:
        own = await make_task(connection)
        legacy = await make_task(connection, type="import", image_id=str(uuid4()))
        await make_task(connection, owner="another", type="import")

        async def listed(**filters: str) -> list[str]:
            query = TaskQuery(limit=9, sort_dir="asc", filters=filters)  # pyright: ignore[reportArgumentType]
            page = await tasks.page(connection, query, project_id=OWNER, is_admin=False)
            return [row["id"] for row in page.rows]

        assert await listed() == [own["id"], legacy["id"]]
        assert await listed(type="import") == [legacy["id"]]
        assert await listed(type="import", status="success") == []
        assert await listed(image_id=str(legacy["image_id"])) == [legacy["id"]]
        assert await listed(image_id="no-uuid") == []
        assert await listed(owner="another") == []


async def test_a_marker_that_the_project_does_not_see(images_db: Database):
    async with images_db.read() as connection:
        await make_task(connection)
        others = (await make_task(connection, owner="another"))["id"]
        for marker in (others, str(uuid4()), "no-uuid"):
            query = TaskQuery(limit=9, marker=marker)
            page = await tasks.page(connection, query, project_id=OWNER, is_admin=False)
            assert not page.marker_found, marker
            assert page.rows == []
