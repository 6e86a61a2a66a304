"""What lists cost at 100,000 images: the plans of PostgreSQL, and the pages that it reads.

`docs/operators/scale.md` shows these figures.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pytest
from diptych_common import migrations
from diptych_images.db import image_list, images
from diptych_images.db.image_list import Filter, ListQuery, SortKey
from diptych_images.db.pages import Direction
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.images.catalogue import fill, image_hash, image_id, image_name
from tests.images.rows import open_database
from tests.plans import nodes, prepared

ME = "me"


SEEN = 5000

A_NAME = image_name(2001)
A_HASH = image_hash(2000)
BY_NAME: tuple[tuple[SortKey, Direction], ...] = (
    ("name", "asc"),
    ("created_at", "asc"),
    ("id", "asc"),
)
AN_AMPHORA = ListQuery(limit=2, tags=("amphora",), filters=(Filter("status", "eq", "active"),))

# What clients ask as a project, and how many images the answer has.
OF_A_PROJECT: Mapping[str, tuple[ListQuery, int]] = {
    "default list": (ListQuery(limit=25), 25),
    "deep page": (ListQuery(limit=25, marker=image_id(3500)), 25),
    "page of 1,000": (ListQuery(limit=1000), 1000),
    "hidden images": (ListQuery(limit=25, os_hidden=True), 25),
    "sorted by name": (ListQuery(limit=25, sort=BY_NAME), 25),
    "sorted by name, deep page": (
        ListQuery(limit=25, sort=BY_NAME, marker=image_id(3500)),
        25,
    ),
    "by name": (ListQuery(limit=25, filters=(Filter("name", "eq", A_NAME),)), 1),
    "by a name that is not there": (
        ListQuery(limit=25, filters=(Filter("name", "eq", "cirros"),)),
        0,
    ),
    "by tag and status, newest two (Octavia)": (AN_AMPHORA, 1),
    "the same of one owner": (
        ListQuery(
            limit=2,
            tags=("amphora",),
            filters=(*AN_AMPHORA.filters, Filter("owner", "eq", "operator")),
        ),
        1,
    ),
    "by a common tag": (ListQuery(limit=25, tags=("linux",)), 25),
    "by a tag that is not there": (ListQuery(limit=25, tags=("nothing",)), 0),
    "by property": (ListQuery(limit=25, properties={"serial": "2001"}), 1),
    "by a common property": (ListQuery(limit=25, properties={"os_distro": "debian"}), 25),
    "by id": (ListQuery(limit=25, filters=(Filter("id", "eq", image_id(3500)),)), 1),
    "by creation": (
        ListQuery(
            limit=25, filters=(Filter("created_at", "lt", datetime(2020, 6, 1, tzinfo=UTC)),)
        ),
        25,
    ),
    "offers to answer": (ListQuery(limit=25, visibility="shared", member_status="pending"), 25),
    "everything, community images too": (ListQuery(limit=25, visibility="all"), 25),
}
# An administrator sees all of them, so here the answer may lie anywhere.
OF_AN_ADMINISTRATOR: Mapping[str, tuple[ListQuery, int]] = {
    "default list": (ListQuery(limit=25), 25),
    "deep page": (ListQuery(limit=25, marker=image_id(3500)), 25),
    "hidden images": (ListQuery(limit=25, os_hidden=True), 25),
    "sorted by name, then newest, deep page": (
        ListQuery(
            limit=25,
            sort=(("name", "asc"), ("created_at", "desc"), ("id", "desc")),
            marker=image_id(3501),
        ),
        25,
    ),
    "images of one project": (
        ListQuery(limit=25, filters=(Filter("owner", "eq", "project-54"),)),
        25,
    ),
    "by name": (ListQuery(limit=25, filters=(Filter("name", "eq", A_NAME),)), 4),
    "by hash": (
        ListQuery(
            limit=25,
            filters=(Filter("os_hash_value", "eq", A_HASH),),
        ),
        1,
    ),
    "by tag and status, newest two (Octavia)": (AN_AMPHORA, 1),
    "by a common tag": (ListQuery(limit=25, tags=("linux",)), 25),
    "by a tag that is not there": (ListQuery(limit=25, tags=("nothing",)), 0),
    "by property": (ListQuery(limit=25, properties={"serial": "2001"}), 1),
    "by a common property": (ListQuery(limit=25, properties={"os_distro": "debian"}), 25),
}

Who = Literal["project", "administrator"]
Plans = Literal["first", "kept"]
CASES: Sequence[tuple[Who, str]] = (
    *(("project", name) for name in OF_A_PROJECT),
    *(("administrator", name) for name in OF_AN_ADMINISTRATOR),
)


@dataclass(frozen=True)
class Cost:
    """What one page cost: pages of PostgreSQL read, tables read from end to end, and the plan."""

    rows: int
    buffers: int
    scanned: list[str]
    plan: list[str]


async def explain(
    connection: AsyncConnection, statement: str, parameters: Sequence[object], plans: Plans
) -> Cost:
    """Run the statement as a prepared one: for the first time, or when its plan may be kept."""
    async with prepared(connection, statement, parameters) as execute:
        if plans == "kept":
            # Planned five times with the values at hand; then a plan for all values is weighed.
            for _ in range(8):
                await connection.exec_driver_sql(execute)
        explained = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}"
        )
    (whole,) = explained.scalar_one()
    found = list(nodes(whole["Plan"]))
    return Cost(
        rows=whole["Plan"]["Actual Rows"],
        buffers=whole["Plan"]["Shared Hit Blocks"] + whole["Plan"]["Shared Read Blocks"],
        scanned=[node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"],
        plan=[f"{node['Node Type']} {node.get('Index Name', '')}".strip() for node in found],
    )


async def costs(connection: AsyncConnection) -> dict[tuple[Who, str, Plans], Cost]:
    measured: dict[tuple[Who, str, Plans], Cost] = {}
    for who, name in CASES:
        query, _ = (OF_A_PROJECT if who == "project" else OF_AN_ADMINISTRATOR)[name]
        with databases.noted(connection) as seen:
            await image_list.page(connection, query, project_id=ME, is_admin=who == "administrator")
        for plans in ("first", "kept"):
            measured[who, name, plans] = await explain(connection, *seen[0], plans)
    return measured


@dataclass(frozen=True)
class Catalogue:
    """A database with 100,000 images, and what pages cost there and when it had 20,000."""

    url: str
    small: dict[tuple[Who, str, Plans], Cost]
    large: dict[tuple[Who, str, Plans], Cost]


@pytest.fixture(scope="module")
async def catalogue(postgres_url: str) -> AsyncGenerator[Catalogue]:
    url = await databases.create(postgres_url)
    await migrations.upgrade(url, "diptych_images.migrations")
    async with open_database(url) as db, db.read() as connection:
        # A small sample, so that there are no figures of rare tags, as in a large catalogue.
        await connection.execute(text("ALTER TABLE images ALTER tags SET STATISTICS 10"))
        measured: list[dict[tuple[Who, str, Plans], Cost]] = []
        for first, last in ((1, 20_000), (20_001, 100_000)):
            await fill(connection, first, last, me=ME, seen=SEEN)
            await connection.execute(text("VACUUM ANALYZE"))
            measured.append(await costs(connection))
    yield Catalogue(url, *measured)
    await databases.drop(url)


@pytest.mark.parametrize(("who", "name"), CASES)
def test_a_page_reads_no_table_from_end_to_end(catalogue: Catalogue, who: Who, name: str):
    _, number = (OF_A_PROJECT if who == "project" else OF_AN_ADMINISTRATOR)[name]
    for plans in ("first", "kept"):
        cost = catalogue.large[who, name, plans]
        assert cost.rows == number
        assert cost.scanned == [], cost.plan


@pytest.mark.parametrize("name", OF_A_PROJECT)
def test_images_of_others_cost_a_project_nothing(catalogue: Catalogue, name: str):
    # Four fifths of the large catalogue are images of others that the small one does not have.
    query, _ = OF_A_PROJECT[name]
    for plans in ("first", "kept"):
        small = catalogue.small["project", name, plans]
        large = catalogue.large["project", name, plans]
        assert large.rows == small.rows
        # Trees grow a level here and there, and values are a little further apart.
        limit = small.buffers * 1.5 + 50
        if query.tags or query.properties:
            # PostgreSQL may look them up, or else walk along all that ME sees: a page for each
            # image, and three more for each that is offered and found by its id.
            limit = 3000 + 1000 + 4 * 1000 + 500
        assert large.buffers <= limit, (small, large)


@pytest.mark.parametrize("name", OF_AN_ADMINISTRATOR)
def test_a_page_costs_an_administrator_a_page(catalogue: Catalogue, name: str):
    for plans in ("first", "kept"):
        assert catalogue.large["administrator", name, plans].buffers < 1000


@pytest.mark.parametrize("is_admin", [False, True])
async def test_an_image_is_found_by_its_index(catalogue: Catalogue, is_admin: bool):
    async with open_database(catalogue.url) as db, db.read() as connection:
        with databases.noted(connection) as seen:
            row = await images.get(connection, image_id(4002), project_id=ME, is_admin=is_admin)
        assert row is not None
        assert len(row["locations"]) == 1
        for plans in ("first", "kept"):
            cost = await explain(connection, *seen[0], plans)
            assert cost.rows == 1
            assert cost.scanned == []
            assert cost.buffers < 30
