"""What lists cost at 20,000 artifacts: the plans of PostgreSQL, and the rows that it passes."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from diptych_artifacts.db import artifact_list, artifacts, quotas
from diptych_artifacts.types.all import ALL
from diptych_artifacts.wire import listing
from diptych_artifacts_sample.sample import SAMPLE_ARTIFACT
from diptych_common import migrations
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases
from tests.plans import nodes, prepared

ME = "me"
VISIBLE = 2000


def artifact_id(number: int) -> str:
    """The id of the artifact with this number."""
    return f"00000000-0000-4000-8000-{number:012x}"


# The numbers 1 to 2,000 are what ME sees, and never change: 1,000 public artifacts of the operator
# and 1,000 private ones of ME. Those above are private artifacts of 1,000 other projects, with the
# same names and fields, and ids after those. One in 20 is deleted.
FILL = """
INSERT INTO artifacts (id, type_name, name, version, version_sort, owner, status, visibility,
    display_type_name, tags, fields, created_at, updated_at, activated_at, deleted_at)
SELECT
    ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n % 10 = 3 THEN 'images' ELSE 'sample_artifact' END,
    'name-' || n * 7919 % 500, n || '.0.0', lpad(n::text, 5, '0') || '.00000.00000~',
    CASE WHEN n <= 1000 THEN 'operator' WHEN n <= 2000 THEN 'me'
        ELSE 'project-' || n * 104729 % 1000 END,
    CASE WHEN n % 20 = 11 THEN 'deleted' WHEN n % 2 = 0 THEN 'drafted' ELSE 'active' END,
    CASE WHEN n <= 1000 THEN 'public' ELSE 'private' END,
    'Sample Artifact',
    CASE WHEN n = 1998 THEN ARRAY['rare', 'linux'] WHEN n > 2000 THEN ARRAY['theirs']
        WHEN n % 3 = 0 THEN ARRAY['linux'] ELSE '{}' END,
    jsonb_build_object('string_mutable', CASE WHEN n > 2000 THEN 'theirs' ELSE 'ours' END,
        'int1', n % 100, 'str1', 'text-' || n % 1000,
        'list_of_int', jsonb_build_array(n % 7, n), 'dict_of_str', jsonb_build_object('k', n % 9)),
    timestamptz '2020-01-01' + n * 7919 % 1000003 * interval '1 minute',
    timestamptz '2020-01-01' + n * 7919 % 1000003 * interval '1 minute',
    CASE WHEN n % 2 = 1 THEN timestamptz '2020-01-01' + n * interval '1 minute' END,
    CASE WHEN n % 20 = 11 THEN now() END
FROM generate_series(CAST(:first AS bigint), :last) n
"""
BLOBS = """
INSERT INTO blobs (artifact_id, owner, type_name, field, status, size, url, store)
SELECT id, owner, type_name, 'blob', 'active', 5, 'file:///' || id, 'fast'
FROM artifacts WHERE name <> '' AND split_part(version, '.', 1)::int BETWEEN :first AND :last
"""

# What is asked, and how many rows the answer has; of sample_artifact, unless of `all`.
Asked = tuple[str, int]
A_NAME = f"name-{1998 * 7919 % 500}"
CASES: Mapping[str, tuple[list[tuple[str, str]], int]] = {
    "default list": ([], 25),
    "deep page": ([("marker", artifact_id(1500))], 25),
    "page of 1,000": ([("limit", "1000")], 1000),
    "nothing but the number": ([("limit", "0")], 1),
    "sorted by name": ([("sort", "name:asc")], 25),
    "sorted by name, deep page": ([("sort", "name:asc"), ("marker", artifact_id(1500))], 25),
    "sorted by id": ([("sort", "id:asc")], 25),
    "sorted by id, deep page": ([("sort", "id:asc"), ("marker", artifact_id(1500))], 25),
    "sorted by id, backwards": ([("sort", "id:desc")], 25),
    "sorted by version": ([("sort", "version:desc")], 25),
    "sorted by a field": ([("sort", "int1:desc,name:asc")], 25),
    "sorted by a field, deep page": ([("sort", "str1:asc"), ("marker", artifact_id(1500))], 25),
    "by name": ([("name", A_NAME)], 4),
    "by name, latest (glareclient)": ([("name", A_NAME), ("version", "latest")], 1),
    "by a name that is not there": ([("name", "none")], 1),
    "by the beginning of a name": ([("name", "like:name-1%")], 25),
    "latest": ([("version", "latest")], 25),
    "latest, deep page": ([("version", "latest"), ("marker", artifact_id(1500))], 25),
    "latest, sorted by id, deep page": (
        [("version", "latest"), ("sort", "id:asc"), ("marker", artifact_id(1500))],
        25,
    ),
    "by version": ([("version", "gte:1990")], 9),
    "by a rare tag": ([("tags", "rare")], 1),
    "by a tag that is not there": ([("tags", "none")], 1),
    "by a common tag": ([("tags-any", "linux,none")], 25),
    "by a tag of others": ([("tags", "theirs")], 1),
    "by any of the tags of others": ([("tags-any", "theirs,none")], 1),
    "by a field of others": ([("string_mutable", "theirs")], 1),
    "by a field": ([("str1", "text-998")], 2),
    "by a part of a list": ([("list_of_int", "1998")], 1),
    "by an entry": ([("dict_of_str.k", "4")], 1),
    "by a comparison": ([("int1", "gt:98")], 20),
    "by id": ([("id", artifact_id(1500))], 1),
    "by owner": ([("owner", "operator")], 25),
    "by owner of others": ([("owner", "project-54")], 1),
    "by status and time": ([("status", "active"), ("created_at", "lt:2020-06-01T00:00:00Z")], 25),
    "alternatives": ([("str1", "or:text-998"), ("tags", "or:rare")], 2),
    "all types": ([("all", "")], 25),
    "all types, deep page": ([("all", ""), ("marker", artifact_id(1500))], 25),
    "all types, by type": ([("all", ""), ("type_name", "images")], 25),
    "all types, by name": ([("all", ""), ("name", A_NAME)], 4),
}

# Where an index has the order, or leads to what is asked.
WALKS = {
    "default list",
    "deep page",
    "nothing but the number",
    "sorted by name",
    "sorted by name, deep page",
    "by name",
    "by name, latest (glareclient)",
    "by a name that is not there",
}

Who = Literal["project", "administrator"]
Plans = Literal["first", "kept"]
Measured = dict[tuple[Who, str, Plans], "Cost"]
WHO: Mapping[Who, tuple[str | None, bool]] = {
    "project": (ME, False),
    "administrator": ("admin", True),
}


@dataclass(frozen=True)
class Cost:
    """What one page cost.

    `touched` are entries of indexes and rows of tables that were looked at, `scanned` tables that
    were read from end to end.
    """

    rows: int
    touched: int
    scanned: list[str]
    plan: list[str]


def touched(node: Mapping[str, Any]) -> int:
    if not re.fullmatch("(Bitmap |Index |Index Only |Seq )?.*Scan", node["Node Type"]):
        return 0
    if node["Node Type"] in ("Subquery Scan", "CTE Scan", "Function Scan"):
        return 0
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    each = node["Actual Rows"] + sum(node.get(name, 0) for name in removed)
    return each * node["Actual Loops"]


async def explain(
    connection: AsyncConnection, statement: str, parameters: Sequence[object], plans: Plans
) -> Cost:
    """Run the statement as a prepared one: for the first time, or when its plan was kept."""
    # PostgreSQL weighs a plan for all values against those for the values at hand; which one it
    # keeps depends on what is asked first.
    mode = "force_generic_plan" if plans == "kept" else "force_custom_plan"
    async with prepared(connection, statement, parameters) as execute:
        await connection.exec_driver_sql(f"SET plan_cache_mode = {mode}")
        explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}")
    (whole,) = explained.scalar_one()
    found = list(nodes(whole["Plan"]))
    return Cost(
        rows=whole["Plan"]["Actual Rows"],
        touched=sum(map(touched, found)),
        scanned=[node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"],
        plan=[f"{node['Node Type']} {node.get('Index Name', '')}".strip() for node in found],
    )


async def costs(connection: AsyncConnection, who: Who) -> Measured:
    measured: Measured = {}
    project_id, sees_all = WHO[who]
    for name, (asked, _) in CASES.items():
        known = ALL if ("all", "") in asked else SAMPLE_ARTIFACT
        items = listing.items(urlencode([each for each in asked if each[0] != "all"]).encode())
        query = listing.parse(items, known, default_limit=25, max_limit=1000)
        with databases.noted(connection) as seen:
            await artifact_list.page(connection, query, project_id=project_id, sees_all=sees_all)
        ((statement, parameters),) = seen
        for plans in ("first", "kept"):
            measured[who, name, plans] = await explain(connection, statement, parameters, plans)
    return measured


@dataclass(frozen=True)
class Catalogue:
    """A database with 20,000 artifacts, and what pages cost there and when it had 4,000."""

    url: str
    small: Measured
    large: Measured


@pytest.fixture(scope="module")
async def catalogue(postgres_url: str) -> AsyncGenerator[Catalogue]:
    url = await databases.create(postgres_url)
    await migrations.upgrade(url, "diptych_artifacts.migrations")
    settings = DatabaseSettings(connection=url)
    async with Database(settings) as db, db.read() as connection:
        measured: list[Measured] = []
        for first, last in ((1, 4_000), (4_001, 20_000)):
            for fill in (FILL, BLOBS):
                await connection.execute(text(fill), {"first": first, "last": last})
            await connection.execute(text("VACUUM ANALYZE"))
            measured.append(await costs(connection, "project"))
        measured[1] |= await costs(connection, "administrator")
    yield Catalogue(url, *measured)
    await databases.drop(url)


@pytest.mark.parametrize("name", CASES)
def test_a_page_reads_no_table_from_end_to_end(catalogue: Catalogue, name: str):
    _, number = CASES[name]
    for plans in ("first", "kept"):
        cost = catalogue.large["project", name, plans]
        assert cost.scanned == [], (plans, cost.plan)
        assert cost.rows == number


@pytest.mark.parametrize("name", CASES)
def test_artifacts_of_others_cost_nothing(catalogue: Catalogue, name: str):
    # Four fifths of the large catalogue are artifacts of others that the small one does not have.
    for plans in ("first", "kept"):
        small = catalogue.small["project", name, plans]
        large = catalogue.large["project", name, plans]
        assert large.rows == small.rows
        # What is looked for among all that the caller sees is passed twice, for the page and the
        # number, by a bitmap or without one; and each row of the page has a blob.
        most = small.touched * 1.1 if name in WALKS else VISIBLE * 4
        assert large.touched <= most + 2 * large.rows, (plans, small, large)


# What an administrator asks about little may not cost as much as the whole.
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("by name", 1000),
        ("by name, latest (glareclient)", 1000),
        ("by a name that is not there", 50),
        ("by a rare tag", 50),
        ("by a field", 600),
        ("by a part of a list", 50),
        ("by id", 50),
    ],
)
def test_few_artifacts_cost_an_administrator_little(catalogue: Catalogue, name: str, most: int):
    cost = catalogue.large["administrator", name, "first"]
    assert cost.scanned == []
    assert cost.touched <= most, cost


@pytest.mark.parametrize("sees_all", [False, True])
async def test_an_artifact_is_found_by_its_index(catalogue: Catalogue, sees_all: bool):
    settings = DatabaseSettings(connection=catalogue.url)
    async with Database(settings) as db, db.read() as connection:
        with databases.noted(connection) as seen:
            row = await artifacts.get(
                connection,
                artifact_id(1500),
                type_name="sample_artifact",
                project_id=ME,
                sees_all=sees_all,
            )
        assert row is not None
        assert len(row["blobs"]) == 1
        for plans in ("first", "kept"):
            cost = await explain(connection, *seen[0], plans)
            assert cost.rows == 1
            assert cost.scanned == []
            assert cost.touched < 5


@pytest.mark.parametrize(("type_name", "number"), [(None, 1000), ("sample_artifact", 900)])
async def test_what_a_project_has_is_counted_by_indexes(
    catalogue: Catalogue, type_name: str | None, number: int
):
    settings = DatabaseSettings(connection=catalogue.url)
    async with Database(settings) as db, db.read() as connection:
        with databases.noted(connection) as seen:
            assert await quotas.artifacts_of(connection, ME, type_name) == number
        for plans in ("first", "kept"):
            cost = await explain(connection, *seen[0], plans)
            assert cost.scanned == []
            assert cost.touched < 2.1 * number
