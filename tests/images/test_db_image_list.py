"""The list statement against the same list made by hand, and what a page is, on PostgreSQL."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal, cast
from uuid import uuid4

import pytest
from diptych_common.database import Database
from diptych_images.db import image_list, images, members
from diptych_images.db.image_list import Field, Filter, ListQuery, Operator, SortKey
from diptych_images.db.images import ImageRow
from diptych_images.db.pages import Direction
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.images.rows import OWNER, make_active, make_image, open_database

START = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def images_db(images_database: str) -> AsyncIterator[Database]:
    async with open_database(images_database) as db:
        yield db


@pytest.fixture
async def connection(images_db: Database) -> AsyncIterator[AsyncConnection]:
    async with images_db.read() as connection:
        yield connection


async def listed(
    connection: AsyncConnection,
    query: ListQuery,
    *,
    project_id: str | None = OWNER,
    is_admin: bool = False,
) -> list[ImageRow]:
    """The whole list, page after page as clients walk it."""
    rows: list[ImageRow] = []
    while True:
        page = await image_list.page(connection, query, project_id=project_id, is_admin=is_admin)
        assert page.marker_found
        assert len(page.rows) <= query.limit
        rows += page.rows
        if len(page.rows) < query.limit:
            return rows
        query = replace(query, marker=page.rows[-1]["id"])


# The list made by hand

Members = Mapping[tuple[str, str], str]
COMPARE: Mapping[Operator, Callable[[Any, Any], bool]] = {
    "eq": eq,
    "neq": ne,
    "gt": gt,
    "gte": ge,
    "lt": lt,
    "lte": le,
    "in": lambda value, several: value in several,
}


def belongs(
    row: ImageRow, query: ListQuery, answers: Members, project_id: str | None, *, is_admin: bool
) -> bool:
    """Whether the caller lists this image, by its visibility."""
    own = project_id is not None and row["owner"] == project_id
    kind = row["visibility"]
    if is_admin:
        return kind == query.visibility or (
            query.visibility == "all" or (query.visibility is None and (own or kind != "community"))
        )
    answer = None if project_id is None else answers.get((row["id"], project_id))
    offered = (kind == "shared" and not own and answer is not None) and query.member_status in (
        "all",
        answer,
    )
    match query.visibility:
        case None:
            return kind == "public" or own or offered
        case "all":
            return kind in ("public", "community") or own or offered
        case "shared":
            return kind == "shared" and (own or offered)
        case "private":
            return kind == "private" and own
        case open_to_all:
            return kind == open_to_all


def meets(row: ImageRow, condition: Filter) -> bool:
    value = row[condition.field]
    if isinstance(value, datetime):
        value = value.replace(microsecond=0)
    return value is not None and COMPARE[condition.op](value, condition.value)


def list_by_hand(
    rows: Sequence[ImageRow],
    query: ListQuery,
    answers: Members,
    project_id: str | None,
    *,
    is_admin: bool,
) -> list[str]:
    chosen = [
        row
        for row in rows
        if row["deleted_at"] is None
        and row["status"] != "killed"
        and row["os_hidden"] == query.os_hidden
        and belongs(row, query, answers, project_id, is_admin=is_admin)
        and all(meets(row, condition) for condition in query.filters)
        and set(query.tags) <= set(row["tags"])
        and query.properties.items() <= row["properties"].items()
    ]
    for key, direction in reversed(query.sort):
        nothing = 0 if key == "size" else ""
        chosen.sort(
            key=lambda row: nothing if row[key] is None else row[key],
            reverse=direction == "desc",
        )
    return [row["id"] for row in chosen]


def some_image(dice: random.Random) -> dict[str, object]:
    """Few values for each column, so that they meet often; letters sort alike everywhere."""
    created = START + timedelta(milliseconds=dice.choice([0, 0, 300, 700, 1400, 5000, 86_400_000]))
    return {
        "name": dice.choice([None, "", "a", "b", "cirros", "fedora"]),
        "status": dice.choice(["active"] * 5 + ["queued", "saving", "deactivated", "killed"]),
        "visibility": dice.choice(["public", "community", "shared", "shared", "private"]),
        "owner": dice.choice(["alpha", "alpha", "beta", "gamma", None]),
        "disk_format": dice.choice([None, "qcow2", "raw"]),
        "container_format": dice.choice([None, "bare", "docker"]),
        "min_disk": dice.choice([0, 0, 10]),
        "min_ram": dice.choice([0, 512]),
        "size": dice.choice([None, 0, 1, 1, 2**40]),
        "virtual_size": dice.choice([None, 5]),
        "checksum": dice.choice([None, "c" * 32]),
        "os_hash_algo": dice.choice([None, "sha512"]),
        "os_hash_value": dice.choice([None, "d" * 128]),
        "protected": dice.random() < 0.3,
        "os_hidden": dice.random() < 0.2,
        "tags": dice.sample(["x", "y", "z"], dice.randrange(4)),
        "properties": {
            key: dice.choice(["1", "2", None])
            for key in dice.sample(["p", "q", 'it\'s "%(odd)s" :1 $2'], dice.randrange(4))
        },
        "created_at": created,
        "updated_at": created + timedelta(milliseconds=dice.choice([0, 900, 2000])),
    }


TEXTS: Sequence[Field] = ("name", "status", "container_format", "disk_format", "id")
OTHER_TEXTS: Sequence[Field] = ("owner", "checksum", "os_hash_algo", "os_hash_value")
NUMBERS: Sequence[Field] = ("size", "virtual_size", "min_disk", "min_ram")
TIMES: Sequence[Literal["created_at", "updated_at"]] = ("created_at", "updated_at")
NUMBER_OPERATORS: Sequence[Operator] = ("eq", "gte", "lte")
TIME_OPERATORS: Sequence[Operator] = ("eq", "neq", "gt", "gte", "lt", "lte")
SORT_KEYS: Sequence[SortKey] = (
    "name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at",
)  # fmt: skip
DIRECTIONS: Sequence[Direction] = ("asc", "desc")
ANSWERS: Sequence[images.MemberStatus] = ("pending", "accepted", "rejected")


def some_filter(dice: random.Random, rows: Sequence[ImageRow]) -> Filter:
    row = dice.choice(rows)
    match dice.randrange(5):
        case 0:
            text = dice.choice(TEXTS)
            return Filter(text, "in", tuple(str(dice.choice(rows)[text]) for _ in range(3)))
        case 1:
            number = dice.choice([0, 1, 5, 10, 512, 2**40, 10**30, -(10**30)])
            return Filter(dice.choice(NUMBERS), dice.choice(NUMBER_OPERATORS), number)
        case 2:
            time = dice.choice(TIMES)
            moment = row[time].replace(microsecond=dice.choice([0, 0, 0, 250_000]))
            return Filter(time, dice.choice(TIME_OPERATORS), moment)
        case 3:
            return Filter("protected", "eq", dice.random() < 0.5)
        case _:
            field = dice.choice((*TEXTS, *OTHER_TEXTS))
            return Filter(field, "eq", str(row[field] or ""))


def some_sort(dice: random.Random) -> tuple[tuple[SortKey, Direction], ...]:
    keys = dice.sample(SORT_KEYS, dice.randrange(4))
    one = dice.choice(DIRECTIONS)
    mixed = dice.random() < 0.4
    sort: list[tuple[SortKey, Direction]] = [
        (key, dice.choice(DIRECTIONS) if mixed else one) for key in keys
    ]
    return (*sort, ("created_at", one), ("id", one))


def some_query(dice: random.Random, rows: Sequence[ImageRow]) -> ListQuery:
    return ListQuery(
        limit=dice.choice([1, 2, 3, 5, 25, 1000]),
        filters=tuple(some_filter(dice, rows) for _ in range(dice.choice([0, 0, 0, 1, 1, 2]))),
        tags=tuple(dice.sample(["x", "y", "z"], dice.choice([0, 0, 0, 1, 2]))),
        properties={
            key: dice.choice(["1", "2"])
            for key in dice.sample(["p", "q", 'it\'s "%(odd)s" :1 $2'], dice.choice([0, 0, 0, 1]))
        },
        visibility=dice.choice([None, None, "public", "community", "shared", "private", "all"]),
        member_status=dice.choice(["accepted", "accepted", "pending", "rejected", "all"]),
        os_hidden=dice.random() < 0.2,
        sort=some_sort(dice),
    )


@pytest.mark.parametrize("seed", range(3))
async def test_any_list_is_the_one_made_by_hand(connection: AsyncConnection, seed: int):
    dice = random.Random(seed)
    rows: list[ImageRow] = []
    answers: dict[tuple[str, str], str] = {}
    for _ in range(70):
        row = await make_image(connection, **some_image(dice))
        for project in ("alpha", "beta"):
            if row["visibility"] == "shared" and dice.random() < 0.6:
                answer = dice.choice(ANSWERS)
                answers[row["id"], project] = answer
                await members.add(connection, row["id"], project, quota=-1)
                await members.set_status(connection, row["id"], project, answer)
        if dice.random() < 0.1:
            row = cast("ImageRow", await images.mark_deleted(connection, row["id"]))
        rows.append(row)

    found = 0
    for _ in range(120):
        query = some_query(dice, rows)
        project_id = dice.choice(["alpha", "alpha", "beta", "nobody", None])
        is_admin = dice.random() < 0.25
        by_hand = list_by_hand(rows, query, answers, project_id, is_admin=is_admin)
        walked = await listed(connection, query, project_id=project_id, is_admin=is_admin)
        assert [row["id"] for row in walked] == by_hand, (query, project_id, is_admin)
        for row in walked:
            assert row["member_status"] == answers.get((row["id"], project_id or ""))
        found += len(by_hand)
    assert found > 400, "the queries found too little to show anything"


# Pages


async def test_a_row_of_a_list_is_the_row_of_the_image(connection: AsyncConnection):
    row = await make_active(connection, properties={"a": "b"}, tags=["t"])
    assert await listed(connection, ListQuery(limit=5)) == [row]


async def test_the_newest_image_is_first(connection: AsyncConnection):
    rows = [await make_image(connection) for _ in range(3)]
    found = await listed(connection, ListQuery(limit=5))
    assert [row["id"] for row in found] == [row["id"] for row in reversed(rows)]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_hold_each_image_once_although_all_sort_alike(
    connection: AsyncConnection, limit: int, direction: Direction
):
    made = {(await make_image(connection, created_at=START))["id"] for _ in range(6)}
    query = ListQuery(
        limit=limit, sort=(("name", direction), ("created_at", direction), ("id", direction))
    )
    found = [row["id"] for row in await listed(connection, query)]
    assert len(found) == 6
    assert set(found) == made


async def test_a_page_of_no_images_still_looks_for_its_marker(connection: AsyncConnection):
    row = await make_image(connection)
    for marker, known in ((None, True), (row["id"], True), (UNKNOWN, False)):
        page = await image_list.page(
            connection, ListQuery(limit=0, marker=marker), project_id=OWNER, is_admin=False
        )
        assert page == image_list.Page([], marker_found=known)


@pytest.mark.parametrize("is_admin", [False, True])
@pytest.mark.parametrize("marker", [UNKNOWN, "cirros", ""])
async def test_an_unknown_marker_is_told(connection: AsyncConnection, marker: str, is_admin: bool):
    await make_image(connection)
    page = await image_list.page(
        connection, ListQuery(limit=5, marker=marker), project_id=OWNER, is_admin=is_admin
    )
    assert page == image_list.Page([], marker_found=False)


async def test_a_marker_that_the_caller_cannot_see_is_unknown(connection: AsyncConnection):
    await make_image(connection, visibility="public", created_at=START)
    row = await make_image(connection, visibility="private")
    query = ListQuery(limit=5, marker=row["id"])
    page = await image_list.page(connection, query, project_id="stranger", is_admin=False)
    assert not page.marker_found
    page = await image_list.page(connection, query, project_id="stranger", is_admin=True)
    assert page.marker_found
    assert len(page.rows) == 1


async def test_a_marker_need_not_be_in_the_list(connection: AsyncConnection):
    older = await make_image(connection, name="wanted")
    marker = await make_image(connection, name="other", os_hidden=True)
    await make_image(connection, name="wanted")
    query = ListQuery(limit=5, marker=marker["id"], filters=(Filter("name", "eq", "wanted"),))
    page = await image_list.page(connection, query, project_id=OWNER, is_admin=False)
    assert [row["id"] for row in page.rows] == [older["id"]]


@pytest.mark.parametrize("key", ["created_at", "updated_at", "name", "size", "id"])
async def test_deleting_while_paging_misses_no_image(connection: AsyncConnection, key: SortKey):
    made = {(await make_image(connection, name="same"))["id"] for _ in range(7)}
    query = ListQuery(limit=2, sort=((key, "desc"), ("id", "desc")))
    seen: list[str] = []
    while True:
        page = await image_list.page(connection, query, project_id=OWNER, is_admin=False)
        assert page.marker_found
        seen += [row["id"] for row in page.rows]
        if len(page.rows) < 2:
            break
        await images.mark_deleted(connection, seen[-1])
        query = replace(query, marker=seen[-1])
    assert len(seen) == 7
    assert set(seen) == made


async def test_a_list_by_status_has_no_place_for_a_deleted_marker(connection: AsyncConnection):
    row = await make_image(connection)
    await images.mark_deleted(connection, row["id"])
    query = ListQuery(limit=2, marker=row["id"], sort=(("status", "desc"), ("id", "desc")))
    page = await image_list.page(connection, query, project_id=OWNER, is_admin=False)
    assert not page.marker_found


# What is in no list


@pytest.mark.parametrize("is_admin", [False, True])
async def test_killed_and_deleted_images_are_in_no_list(
    connection: AsyncConnection, is_admin: bool
):
    await make_image(connection, status="killed")
    await images.mark_deleted(connection, (await make_image(connection))["id"])
    for conditions in ((), (Filter("status", "in", ("killed", "deleted")),)):
        query = ListQuery(limit=5, visibility="all", filters=conditions)
        assert await listed(connection, query, is_admin=is_admin) == []


async def test_hidden_images_are_listed_apart(connection: AsyncConnection):
    hidden = await make_image(connection, os_hidden=True)
    by_id = (Filter("id", "eq", hidden["id"]),)
    assert await listed(connection, ListQuery(limit=5, filters=by_id)) == []
    assert await listed(connection, ListQuery(limit=5, os_hidden=True)) == [hidden]


async def test_an_image_without_an_owner_is_not_everybodys(connection: AsyncConnection):
    await make_image(connection, owner=None, visibility="private")
    await make_image(connection, owner=None, visibility="shared")
    query = ListQuery(limit=5, visibility="all")
    assert await listed(connection, query, project_id="alpha") == []
    assert await listed(connection, query, project_id=None) == []
    assert len(await listed(connection, query, project_id=None, is_admin=True)) == 2


async def test_membership_of_an_image_that_is_private_now_lists_nothing(
    connection: AsyncConnection,
):
    row = await make_image(connection)
    await members.add(connection, row["id"], "friend", quota=-1)
    query = ListQuery(limit=5, visibility="shared", member_status="pending")
    assert [found["id"] for found in await listed(connection, query, project_id="friend")] == [
        row["id"]
    ]
    await images.update(connection, row["id"], {"visibility": "private"})
    assert await listed(connection, query, project_id="friend") == []


# One statement, whose text depends on no value


async def test_a_page_is_one_statement(images_db: Database, images_database: str):
    async with images_db.read() as connection:
        row = await make_image(connection, tags=["t"], properties={"a": "b"})
        for query in (
            ListQuery(limit=5),
            ListQuery(limit=5, marker=row["id"]),
            ListQuery(limit=5, marker=UNKNOWN),
            ListQuery(
                limit=5,
                tags=("t",),
                properties={"a": "b"},
                filters=(Filter("name", "in", ("a", "b")), Filter("created_at", "gt", START)),
            ),
        ):
            async with databases.statements(images_database) as seen:
                await image_list.page(connection, query, project_id=OWNER, is_admin=False)
            assert len(seen.texts) == 1, seen.texts


async def test_a_marker_that_is_no_id_costs_no_statement(images_db: Database, images_database: str):
    async with images_db.read() as connection:
        async with databases.statements(images_database) as seen:
            query = ListQuery(limit=5, marker="cirros")
            await image_list.page(connection, query, project_id=OWNER, is_admin=False)
        assert seen.texts == []


async def test_one_text_serves_all_values(connection: AsyncConnection):
    def query(word: str, number: int) -> ListQuery:
        return ListQuery(
            limit=number,
            tags=(word,) * number,
            properties={f"{word}-{key}": word for key in range(number)},
            filters=(
                Filter("name", "in", (word,) * number),
                Filter("size", "gte", number),
                Filter("created_at", "lt", START + timedelta(days=number)),
            ),
            marker=str(uuid4()),
        )

    with databases.noted(connection) as seen:
        for word, number in (("a", 1), ("'; DROP TABLE images; --", 3)):
            await image_list.page(connection, query(word, number), project_id=word, is_admin=False)
    assert len({text for text, _ in seen}) == 1
