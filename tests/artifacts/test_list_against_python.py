"""Lists of random queries on random artifacts, against what plain Python makes of the same rows."""

import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from diptych_artifacts.db import artifact_list
from diptych_artifacts.types import semver
from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.registry import Types
from diptych_artifacts.wire import listing
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import databases

THINGS = ArtifactType(
    "things",
    "Things",
    {
        "int1": Field("Integer", sortable=True),
        "float1": Field("Float", sortable=True),
        "bool1": Field("Boolean", default=False, sortable=True),
        "str1": Field("String", sortable=True, filter_ops=("like", "eq", "neq", "in")),
        "kind": Field("String", default="b", sortable=True),
        "size": Field("Integer", default=3, sortable=True),
        "moment": Field("DateTime", sortable=True),
        "words": Field("String", "list", filter_ops=("like", "eq", "neq", "in")),
        "numbers": Field("Integer", "list", default=[1, 2]),
        "labels": Field("String", "dict"),
        "sizes": Field("Integer", "dict", default={"a": 1}),
    },
)
ALL = Types([THINGS]).all

TEXTS = ("a", "b", "B", "a,b", 'q"t', "ä", "50%", "", "a_b")
VERSIONS = ("0.0.0", "1.0.0", "1.0.0-alpha", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0+b", "10.0.0")
TIMES = tuple(datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(4))
NUMBER_OPS = ("eq", "neq", "in", "gt", "gte", "lt", "lte")
TEXT_OPS = ("eq", "neq", "in", "like")

Row = dict[str, Any]
Predicate = Callable[[Row], bool]


@dataclass(frozen=True)
class Asked:
    """A query and what it means."""

    items: list[tuple[str, str]]
    matches: Predicate
    latest: bool
    sort: list[tuple[str, str]]


def make_rows(dice: random.Random, number: int) -> list[Row]:
    rows: list[Row] = []
    taken: set[tuple[str, ...]] = set()

    def maybe(values: Callable[[], object]) -> object:
        return values() if dice.random() < 0.7 else None

    while len(rows) < number:
        status = dice.choice(["drafted", "active", "active", "deactivated", "deleted"])
        row: Row = {
            "id": str(UUID(int=dice.getrandbits(128), version=4)),
            "type_name": dice.choice(["things", "things", "others"]),
            "name": dice.choice(TEXTS[:-2]) or "x",
            "version": dice.choice(VERSIONS),
            "owner": dice.choice(["me", "me", "you"]),
            "status": status,
            "visibility": dice.choice(["private", "public"]),
            "display_type_name": maybe(lambda: dice.choice(["Things", "Others"])),
            "tags": dice.sample(["x", "y", "z"], dice.randrange(4)),
            "created_at": dice.choice(TIMES) + timedelta(milliseconds=500),
            "updated_at": dice.choice(TIMES),
            "activated_at": maybe(lambda: dice.choice(TIMES)),
            "deleted_at": TIMES[0] if status == "deleted" else None,
        }
        fields = {
            "int1": maybe(lambda: dice.randrange(-2, 12)),
            "float1": maybe(lambda: dice.choice([-1.5, 0, 2, 1e30])),
            "bool1": maybe(lambda: dice.random() < 0.5),
            "str1": maybe(lambda: dice.choice(TEXTS)),
            "kind": maybe(lambda: dice.choice(TEXTS)),
            "size": maybe(lambda: dice.randrange(5)),
            "moment": maybe(lambda: text(dice.choice(TIMES))),
            "words": maybe(lambda: dice.sample(TEXTS, 2)),
            "numbers": maybe(lambda: dice.sample(range(4), 2)),
            "labels": maybe(lambda: {key: dice.choice(TEXTS) for key in dice.sample("abc", 2)}),
            "sizes": maybe(lambda: {key: dice.randrange(4) for key in dice.sample("abc", 2)}),
        }
        row["fields"] = {name: value for name, value in fields.items() if value is not None}
        scope = (row["type_name"], row["name"], row["version"], row["visibility"])
        if row["visibility"] == "private":
            scope += (row["owner"],)
        if status == "deleted" or scope not in taken:
            if status != "deleted":
                taken.add(scope)
            rows.append(row)
    return rows


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def insert(url: str, rows: Sequence[Row]) -> None:
    columns = [*rows[0], "version_sort", "version_build"]
    marks = ", ".join(f"${at + 1}" for at in range(len(columns)))
    async with databases.connection(url) as server:
        await server.executemany(
            f"INSERT INTO artifacts ({', '.join(columns)}) VALUES ({marks})",
            [
                (
                    *({**row, "fields": json.dumps(row["fields"])}).values(),
                    semver.coerce(row["version"]).sort_key,
                    semver.coerce(row["version"]).build,
                )
                for row in rows
            ],
        )


def value_of(row: Row, name: str) -> Any:
    """What a client sees in the field."""
    if name in row:
        return row[name]
    field = THINGS.fields.get(name)
    value = row["fields"].get(name)
    return field.default if value is None and field is not None else value


def holds(op: str, value: Any, operand: Any) -> bool:
    if value is None:
        return False
    match op:
        case "eq":
            return value == operand
        case "neq":
            return value != operand
        case "in":
            return value in operand
        case "gt":
            return value > operand
        case "gte":
            return value >= operand
        case "lt":
            return value < operand
        case "lte":
            return value <= operand
        case _:
            return fnmatchcase(value, operand.replace("%", "*").replace("_", "?"))


def listed(values: Sequence[object]) -> str:
    return ",".join('"' + str(value).replace('"', '\\"') + '"' for value in values)


def random_filter(dice: random.Random, known: ArtifactType) -> tuple[str, str, Predicate]:
    """A parameter, its value without a combiner, and what it means."""

    def operand(op: str, choices: Sequence[Any]) -> tuple[Any, str]:
        if op == "in":
            several = dice.sample(list(choices), 2)
            return several, listed(several)
        one = dice.choice(choices)
        return one, str(one)

    columns = ("name", "owner", "status", "visibility", "display_type_name", "id", "tags")
    of_columns = (*columns, "tags-any", "created_at", "activated_at", "version")
    own = (
        "int1", "float1", "bool1", "str1", "kind", "size", "moment", "words", "numbers",
        "labels", "sizes", "labels.", "sizes.",
    )  # fmt: skip
    name = dice.choice(of_columns if known is ALL else (*of_columns, *own))
    match name:
        case "tags" | "tags-any":
            tags = dice.sample(["x", "y", "z", "w"], dice.randrange(3))
            having = all if name == "tags" else any

            def has(row: Row) -> bool:
                return not tags or having(tag in row["tags"] for tag in tags)

            return name, ",".join(tags), has
        case "created_at" | "activated_at" | "moment":
            op = dice.choice(["lt", "gt"])
            moment = dice.choice(TIMES)

            def compares(row: Row) -> bool:
                value = value_of(row, name)
                value = text(value) if isinstance(value, datetime) else value
                return holds(op, value, text(moment))

            return name, f"{op}:{text(moment)}", compares
        case "version":
            op = dice.choice(NUMBER_OPS)
            given, shown = operand(op, VERSIONS)
            if op in ("eq", "neq", "in"):
                return name, f"{op}:{shown}", lambda row: holds(op, row["version"], given)
            place = semver.coerce(given).sort_key
            return (
                name,
                f"{op}:{shown}",
                lambda row: holds(op, semver.coerce(row["version"]).sort_key, place),
            )
        case "labels" | "sizes":
            op = dice.choice(["eq", "in"])
            keys, shown = operand(op, "abcd")
            return (
                name,
                f"{op}:{shown}",
                lambda row: any(holds(op, key, keys) for key in value_of(row, name) or ()),
            )
        case "labels." | "sizes.":
            op = dice.choice(["eq", "neq", "in"] if name == "labels." else NUMBER_OPS)
            given, shown = operand(op, TEXTS if name == "labels." else range(4))
            key = dice.choice("abcd")
            return (
                name + key,
                f"{op}:{shown}",
                lambda row: holds(op, (value_of(row, name[:-1]) or {}).get(key), given),
            )
        case "words" | "numbers":
            op = dice.choice(TEXT_OPS if name == "words" else NUMBER_OPS)
            given, shown = operand(
                op, ("a%", "_", *TEXTS) if op == "like" else TEXTS if name == "words" else range(5)
            )
            return (
                name,
                f"{op}:{shown}",
                lambda row: any(holds(op, one, given) for one in value_of(row, name)),
            )
        case "int1" | "float1" | "size":
            op = dice.choice(NUMBER_OPS)
            given, shown = operand(op, range(-2, 12))
        case "bool1":
            op = dice.choice(["eq", "neq"])
            given, shown = operand(op, [True, False])
        case "status" | "visibility" | "owner" | "id":
            choices = {
                "status": ["drafted", "active", "deactivated", "deleted"],
                "visibility": ["private", "public"],
                "owner": ["me", "you"],
                "id": [f"{number:08}-0000-4000-8000-000000000000" for number in range(3)],
            }
            op = dice.choice(["eq", "neq", "in"])
            given, shown = operand(op, choices[name])
        case _:
            op = dice.choice(["eq", "neq", "in"] if name == "kind" else TEXT_OPS)
            texts = tuple(one for one in TEXTS if one or name != "name")
            given, shown = operand(op, ("a%", "_", "%") if op == "like" else texts)
    return name, f"{op}:{shown}", lambda row: holds(op, value_of(row, name), given)


def random_query(dice: random.Random, known: ArtifactType) -> Asked:
    items: list[tuple[str, str]] = []
    every: list[Predicate] = []
    some: list[Predicate] = []
    of_tags: list[Predicate] = []
    for _ in range(dice.choice([0, 1, 1, 2, 3])):
        name, value, matches = random_filter(dice, known)
        is_or = dice.random() < 0.3
        if is_or and not (name in ("tags", "tags-any") and not value):
            (of_tags if name in ("tags", "tags-any") else some).append(matches)
        elif not is_or:
            every.append(matches)
        items.append((name, f"or:{value}" if is_or else value))
    if of_tags:
        some.append(lambda row: all(matches(row) for matches in of_tags))

    def means(row: Row) -> bool:
        if not all(each(row) for each in every):
            return False
        return not some or any(each(row) for each in some)

    latest = dice.random() < 0.25
    if latest:
        items.append(("version", "latest"))
    keys = ["name", "version", "status", "display_type_name", "activated_at", "created_at", "id"]
    own = ["int1", "float1", "bool1", "str1", "kind", "size", "moment"]
    sort = [(key, dice.choice(["asc", "desc"])) for key in dice.sample(keys, dice.randrange(3))]
    if known is THINGS and dice.random() < 0.5:
        sort.insert(dice.randrange(len(sort) + 1), (dice.choice(own), dice.choice(["asc", "desc"])))
    if sort:
        items.append(("sort", ",".join(":".join(each) for each in sort)))
    named = [name for name, _ in sort]
    sort += [each for each in (("created_at", "desc"), ("id", "asc")) if each[0] not in named]
    return Asked(items, means, latest, sort)


def expected(
    rows: Sequence[Row], asked: Asked, known: ArtifactType, project: str | None, *, sees_all: bool
) -> list[str]:
    found = [
        row
        for row in rows
        if row["status"] != "deleted"
        and (known is ALL or row["type_name"] == known.name)
        and (sees_all or row["visibility"] == "public" or row["owner"] == project)
        and asked.matches(row)
    ]
    if asked.latest:
        best: dict[str, str] = {}
        for row in found:
            place = semver.coerce(row["version"]).sort_key
            best[row["name"]] = max(best.get(row["name"], ""), place)
        found = [
            row for row in found if semver.coerce(row["version"]).sort_key == best[row["name"]]
        ]
    # Sorting is stable, so the last key first; what has no value stays behind either way.
    for name, direction in reversed(asked.sort):
        with_value = [row for row in found if value_of(row, name) is not None]
        without = [row for row in found if value_of(row, name) is None]
        with_value.sort(key=lambda row: place_of(row, name), reverse=direction == "desc")
        found = with_value + without
    return [row["id"] for row in found]


def place_of(row: Row, name: str) -> Any:
    value = value_of(row, name)
    if name == "version":
        version = semver.coerce(value)
        return (version.sort_key, version.build)
    return value


async def pages(
    connection: AsyncConnection,
    asked: Asked,
    known: ArtifactType,
    project: str | None,
    *,
    sees_all: bool,
    limit: int,
) -> tuple[list[str], set[int]]:
    """The ids on all pages, and what they tell of how many there are."""
    ids: list[str] = []
    totals: set[int] = set()
    while True:
        items = [*asked.items, ("limit", str(limit))]
        if ids:
            items.append(("marker", ids[-1]))
        text = urlencode(items, quote_via=quote).encode()
        query = listing.parse(listing.items(text), known, default_limit=25, max_limit=1000)
        page = await artifact_list.page(connection, query, project_id=project, sees_all=sees_all)
        assert page.marker_found
        totals.add(page.total)
        ids += [row["id"] for row in page.rows]
        if len(page.rows) < limit:
            return ids, totals


CALLERS: Mapping[str, tuple[str | None, bool]] = {
    "project": ("me", False),
    "anonymous": (None, False),
    "administrator": ("service", True),
}


@pytest.fixture
async def connection(artifacts_database: str) -> AsyncGenerator[AsyncConnection]:
    settings = DatabaseSettings(connection=artifacts_database)
    async with Database(settings) as db, db.read() as opened:
        yield opened


async def compare(
    connection: AsyncConnection, url: str, *, seed: int, rows: int, queries: int
) -> None:
    dice = random.Random(seed)
    every = make_rows(dice, rows)
    await insert(url, every)
    found = 0
    for _ in range(queries):
        known = dice.choice([THINGS, THINGS, ALL])
        asked = random_query(dice, known)
        who = dice.choice([*CALLERS])
        project, sees_all = CALLERS[who]
        wanted = expected(every, asked, known, project, sees_all=sees_all)
        limit = dice.choice([1, 3, 1000]) if len(wanted) < 20 else 7
        ids, totals = await pages(connection, asked, known, project, sees_all=sees_all, limit=limit)
        assert ids == wanted, (seed, known.name, who, asked.items)
        assert totals == {len(wanted)}, (seed, known.name, who, asked.items)
        found += bool(wanted)
    # That queries find nothing would prove little.
    assert found > queries / 3


async def test_pages_are_what_python_finds(
    connection: AsyncConnection, artifacts_database: str
) -> None:
    await compare(connection, artifacts_database, seed=6, rows=80, queries=60)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30))
async def test_pages_of_many_queries_are_what_python_finds(
    connection: AsyncConnection, artifacts_database: str, seed: int
) -> None:
    await compare(connection, artifacts_database, seed=1000 + seed, rows=150, queries=200)
