"""The query string of lists: what it means, and what it cannot be."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from diptych_artifacts.db.artifact_list import (
    Condition,
    ListQuery,
    OfColumn,
    OfField,
    OfTags,
    OwnKey,
)
from diptych_artifacts.types import semver
from diptych_artifacts.types.all import ALL
from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.wire import listing
from diptych_artifacts_sample.sample import SAMPLE_ARTIFACT
from diptych_common.errors import BadRequest

AN_ID = "0b6c9bd1-6d27-4b04-a4ce-9c4fd86f7d1f"


def parse(text: str, known: ArtifactType = SAMPLE_ARTIFACT) -> ListQuery:
    items = listing.items(text.encode())
    return listing.parse(items, known, default_limit=25, max_limit=1000)


# Glare's unit tests of its own grammar, and what follows from it.
@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a", ("and", "eq", "a")),
        ("", ("and", "eq", "")),
        ("and", ("and", "eq", "and")),
        ("or:eq", ("or", "eq", "eq")),
        ("and:5", ("and", "eq", "5")),
        ("t:tt", ("and", "t", "tt")),
        ("lt:", ("and", "lt", "")),
        (":", ("and", "", "")),
        ("and:tt:tt:t", ("and", "tt", "tt:t")),
        ("or:eq:blabla:t:tt", ("or", "eq", "blabla:t:tt")),
        ("eq:tt:t", ("and", "eq", "tt:t")),
        ("or:or:eq", ("or", "or", "eq")),
        ("2020-01-01T10:20:30", ("and", "eq", "2020-01-01T10:20:30")),
        ("or:2020-01-01T10:20:30Z", ("or", "eq", "2020-01-01T10:20:30Z")),
        ("or:2020-01-01T10:20", ("or", "eq", "2020-01-01T10:20")),
        ("gt:2020-01-01T10:20:30Z", ("and", "gt", "2020-01-01T10:20:30Z")),
        ("or:gt:2020-01-01T10:20:30Z", ("or", "gt", "2020-01-01T10:20:30Z")),
        # With two parts nothing is taken for a time.
        ("2020-01-01T10:20", ("and", "2020-01-01T10", "20")),
    ],
)
def test_parts_of_a_filter(value: str, parts: tuple[str, str, str]) -> None:
    assert listing.split(value) == parts


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        ("a,,b", ("a", "", "b")),
        (",a", ("", "a")),
        ("a,", ("a",)),
        ('"a,b",c', ("a,b", "c")),
        ('c,"a,b"', ("c", "a,b")),
        ('"a\\"b"', ('a"b',)),
        ('a\\"b,c', ('a"b', "c")),
        ('""', ("",)),
        ("a\\b", ("a\\b",)),
    ],
)
def test_items_of_a_list(text: str, values: tuple[str, ...]) -> None:
    assert listing.values("str1", text) == values


@pytest.mark.parametrize("text", ['"a', 'a"', 'a"b"', '"a"b', '"a\\"', '"', '"a""b"'])
def test_quotes_are_around_whole_items(text: str) -> None:
    with pytest.raises(BadRequest):
        listing.values("str1", text)


@pytest.mark.parametrize(
    ("name", "value", "condition"),
    [
        ("name", "x", OfColumn("name", "eq", "x")),
        ("name", "eq:tt:t", OfColumn("name", "eq", "tt:t")),
        ("name", "like:x%", OfColumn("name", "like", "x%")),
        # PostgreSQL fails where nothing follows the backslash.
        ("name", "like:x\\", OfColumn("name", "like", "x\\\\")),
        ("name", "like:x\\\\", OfColumn("name", "like", "x\\\\")),
        ("id", f"in:{AN_ID}", OfColumn("id", "in", (AN_ID,))),
        ("owner", "neq:alpha", OfColumn("owner", "neq", "alpha")),
        ("status", "in:active,deactivated", OfColumn("status", "in", ("active", "deactivated"))),
        ("visibility", "public", OfColumn("visibility", "eq", "public")),
        ("version", "1", OfColumn("version", "eq", "1.0.0")),
        ("version", "in:1,2.0", OfColumn("version", "in", ("1.0.0", "2.0.0"))),
        (
            "version",
            "gte:1-beta+x",
            OfColumn("version_sort", "gte", semver.coerce("1.0.0-beta").sort_key),
        ),
        (
            "created_at",
            "lt:2020-01-01T10:20:30Z",
            OfColumn("created_at", "lt", datetime(2020, 1, 1, 10, 20, 30, tzinfo=UTC)),
        ),
        (
            "activated_at",
            "gt:2020-01-01T12:20:30+02:00",
            OfColumn("activated_at", "gt", datetime(2020, 1, 1, 10, 20, 30, tzinfo=UTC)),
        ),
        ("int1", "5", OfField("int1", "value", "eq", 5)),
        ("int1", "gt:-5", OfField("int1", "value", "gt", -5)),
        ("float1", "lte:1e3", OfField("float1", "value", "lte", 1000.0)),
        # What is not set is false to clients, so it is to filters.
        ("bool1", "Yes", OfField("bool1", "value", "eq", True, default=False)),
        ("bool1", "whatever", OfField("bool1", "value", "eq", False, default=False)),
        ("str1", "or:eq", OfField("str1", "value", "eq", "eq")),
        ("str1", "like:50\\", OfField("str1", "value", "like", "50\\\\")),
        ("str1", 'in:"a,b",c', OfField("str1", "value", "in", ("a,b", "c"))),
        ("str1", "in:", OfField("str1", "value", "in", ())),
        ("metadata_attribute", "x", OfField("metadata_attribute", "value", "eq", "x",
                                            default="default")),
        ("list_of_int", "5", OfField("list_of_int", "element", "eq", 5)),
        ("list_of_str", "in:a,b", OfField("list_of_str", "element", "in", ("a", "b"))),
        ("dict_of_str", "key", OfField("dict_of_str", "has", "eq", "key")),
        ("dict_of_str", "in:a,b", OfField("dict_of_str", "has", "in", ("a", "b"))),
        ("dict_of_int.key", "5", OfField("dict_of_int", "entry", "eq", 5, key="key")),
        ("dict_of_str.", "5", OfField("dict_of_str", "entry", "eq", "5", key="")),
        ("metadata.key", "neq:x", OfField("metadata", "entry", "neq", "x", key="key")),
        ("tags", "a,b", OfTags(("a", "b"), any_of=False)),
        ("tags-any", "and:a", OfTags(("a",), any_of=True)),
    ],
)  # fmt: skip
def test_a_filter(name: str, value: str, condition: Condition) -> None:
    query = parse(urlencode([(name, value)]))
    assert (*query.conditions, *(one for member in query.any_of for one in member)) == (condition,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nothing", "x"),
        ("type_name", "images"),  # of `all` only
        ("str1.key", "x"),
        ("name.key", "x"),
        ("tags.key", "x"),
        ("dict_of_str.a.b", "x"),  # split at the last dot
        (".", "x"),
        ("", "x"),
        ("name", ""),
        ("name", "tt:t"),
        ("name", "gt:x"),
        ("name", "n" * 256),
        ("str1", "and:tt:tt:t"),
        ("str1", "or:or:eq"),
        ("str1", 'in:"a'),
        ("name", "in:a,,b"),
        ("description", "x"),
        ("description", "like:x"),
        ("blob", "x"),
        ("dict_of_blobs", "x"),
        ("dict_of_blobs.key", "x"),
        ("created_at", "eq:2020-01-01T00:00:00Z"),
        ("created_at", "2020-01-01T00:00:00Z"),
        ("created_at", "gt:yesterday"),
        ("created_at", "gt:0001-01-01T00:00:00+23:00"),
        ("visibility", "blabla"),
        ("visibility", "neq:blabla"),
        ("visibility", "gt:public"),
        ("status", "deleting"),
        ("version", "INVALID"),
        ("version", "lt:"),
        ("version", "like:1%"),
        ("version", "65536"),
        ("version", "eq:latest"),
        ("id", "1"),
        ("id", f"in:{AN_ID},1"),
        ("int1", "x"),
        ("int1", "2.5"),
        ("int1", "9223372036854775808"),
        ("int1", "in:1,x"),
        ("int1", "like:1%"),
        ("float1", "nan"),
        ("float1", "1e999"),
        ("bool1", "neq:true"),
        ("string_regex", "no"),
        ("int_validators", "9"),
        ("list_of_int", "lala"),
        ("list_of_str", "neq:a"),
        ("list_validators", "a"),
        ("dict_of_int.1", "lala"),
        ("dict_of_str", "neq:a"),
        ("dict_of_str", "gt:a"),
        ("dict_of_str.a", "like:a"),
        ("dict_validators.abc", "a"),
        ("tags", "in:a"),
        ("tags", "or:eq:a"),
        ("tags-any", "eq:a"),
        ("tags", '"a'),
        ("link1", "no link"),
        ("limit", "x"),
        ("limit", "-1"),
        ("sort", ""),
        ("sort", "nothing"),
        ("sort", "name:up"),
        ("sort", "name:asc:desc"),
        ("sort", "name,"),
        ("sort", "description"),
        ("sort", "tags"),
        ("sort", "dict_of_str"),
        ("sort", "dict_of_str.a"),
        ("sort", "blob"),
        ("sort", "bool1"),
        ("sort", "int1:asc,str1:asc"),
    ],
)
def test_what_cannot_be_asked(name: str, value: str) -> None:
    with pytest.raises(BadRequest):
        parse(urlencode([(name, value)]))


@pytest.mark.parametrize("query", [b"name=\xff", b"name=%ff", b"name=%00", b"%00=x", b"x\xff=1"])
def test_bytes_that_are_no_text(query: bytes) -> None:
    with pytest.raises(BadRequest):
        listing.items(query)


def test_filters_of_all_types() -> None:
    query = parse("type_name=in:images,things", ALL)
    assert query.type_name is None
    assert query.conditions == (OfColumn("type_name", "in", ("images", "things")),)
    with pytest.raises(BadRequest):
        parse("int1=5", ALL)


def test_every_filter_counts() -> None:
    query = parse("int1=gt:1&int1=lt:9&version=latest&version=gte:1&version=latest")
    assert [one.op for one in query.conditions if isinstance(one, OfField)] == ["gt", "lt"]
    assert len(query.conditions) == 3
    assert query.latest


def test_there_is_an_end_of_filters() -> None:
    assert len(parse("int1=1&limit=1&" * 100).conditions) == 100
    with pytest.raises(BadRequest):
        parse("int1=1&" * 101)


def test_alternatives_are_one_group() -> None:
    query = parse("name=or:a&tags=or:x,y&int1=5&tags-any=or:z&str1=or:b")
    assert query.conditions == (OfField("int1", "value", "eq", 5),)
    assert query.any_of == (
        (OfColumn("name", "eq", "a"),),
        (OfField("str1", "value", "eq", "b"),),
        (OfTags(("x", "y"), any_of=False), OfTags(("z",), any_of=True)),
    )


def test_no_tags_are_no_filter() -> None:
    query = parse("tags=&tags-any=&tags=or:&tags=and:")
    assert (query.conditions, query.any_of) == ((), ())


BY_DEFAULT = (("created_at", "desc"), ("id", "asc"))


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (None, BY_DEFAULT),
        ("name", (("name", "desc"), *BY_DEFAULT)),
        (" name:asc ", (("name", "asc"), *BY_DEFAULT)),
        ("id:desc", (("id", "desc"), ("created_at", "desc"))),
        ("created_at:asc", (("created_at", "asc"), ("id", "asc"))),
        ("name:asc,name:desc", (("name", "asc"), *BY_DEFAULT)),
        ("version:asc", (("version_sort", "asc"), ("version_build", "asc"), *BY_DEFAULT)),
        (
            "name:asc,int1:desc",
            (("name", "asc"), (OwnKey("int1", is_text=False), "desc"), *BY_DEFAULT),
        ),
        (
            "system_attribute",
            ((OwnKey("system_attribute", is_text=True, default="default"), "desc"), *BY_DEFAULT),
        ),
    ],
)
def test_sort(sort: str | None, order: Any) -> None:
    assert parse(urlencode([("sort", sort)]) if sort else "").sort == order


@pytest.mark.parametrize(
    ("text", "limit"), [("", 25), ("limit=0", 0), ("limit=7", 7), ("limit=9999999", 1000)]
)
def test_limit(text: str, limit: int) -> None:
    assert parse(text).limit == limit


def links(text: str, *, shown: int, limit: int) -> dict[str, object]:
    document = listing.document(
        [{"id": f"id-{number}"} for number in range(shown)],
        listing.items(text.encode()),
        type_name="images",
        total=9,
        limit=limit,
    )
    return {name: document[name] for name in ("first", "next") if name in document}


def test_links_keep_all_that_was_asked() -> None:
    asked = "int1=gt:1&int1=lt:9&limit=2&name=%D0%B0&marker=x&sort=name:asc"
    kept = "int1=gt%3A1&int1=lt%3A9&limit=2&name=%D0%B0&sort=name%3Aasc"
    assert links(asked, shown=2, limit=2) == {
        "first": f"/artifacts/images?{kept}",
        "next": f"/artifacts/images?{kept}&marker=id-1",
    }


def test_only_a_full_page_has_a_next_one() -> None:
    assert links("", shown=1, limit=2) == {"first": "/artifacts/images"}
    assert links("limit=0", shown=0, limit=0) == {"first": "/artifacts/images?limit=0"}
