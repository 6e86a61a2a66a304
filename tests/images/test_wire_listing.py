"""The query string of the image list, parameter by parameter, and the page's document."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from diptych_common.errors import BadRequest
from diptych_images.db.image_list import Filter, ListQuery
from diptych_images.wire import listing
from hypothesis import example, given, settings
from hypothesis import strategies as st

ID = "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"


def parse(query: str) -> ListQuery:
    return listing.parse(listing.items(query.encode()), default_limit=25, max_limit=1000)


def only(query: str) -> Filter:
    (condition,) = parse(query).filters
    return condition


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # pyright: ignore[reportArgumentType]


def test_without_parameters_the_newest_images_come_first() -> None:
    assert parse("") == ListQuery(limit=25)


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "limit"), [("limit=0", 0), ("limit=7", 7), ("limit=5000", 1000), ("limit=1000", 1000)]
)
def test_the_limit_is_capped(query: str, limit: int) -> None:
    assert parse(query).limit == limit


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=", "limit=1.5"])
def test_a_bad_limit_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        parse(query)


def test_the_marker_is_handed_on() -> None:
    assert parse(f"marker={ID}").marker == ID
    assert parse("marker=anything").marker == "anything"


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sort"),
    [
        ("sort=name", "name:desc created_at:desc id:desc"),
        ("sort=name:asc", "name:asc created_at:asc id:asc"),
        ("sort=name:asc,size", "name:asc size:desc created_at:desc id:desc"),
        ("sort=name:asc, size:asc", "name:asc size:asc created_at:desc id:desc"),
        ("sort=created_at:desc", "created_at:desc id:desc"),
        ("sort=id:asc", "id:asc created_at:asc"),
        ("sort_key=name", "name:desc created_at:desc id:desc"),
        ("sort_key=name&sort_dir=asc", "name:asc created_at:asc id:asc"),
        ("sort_key=name&sort_key=size&sort_dir=asc", "name:asc size:asc created_at:asc id:asc"),
        (
            "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc",
            "name:asc size:desc created_at:desc id:desc",
        ),
        ("sort_dir=asc", "created_at:asc id:asc"),
        ("sort_key=name&sort_key=name", "name:desc created_at:desc id:desc"),
        (
            "sort=status,container_format,disk_format,updated_at",
            "status:desc container_format:desc disk_format:desc updated_at:desc"
            " created_at:desc id:desc",
        ),
    ],
)
def test_the_order_is_made_total(query: str, sort: str) -> None:
    assert " ".join(f"{key}:{direction}" for key, direction in parse(query).sort) == sort


@pytest.mark.parametrize(
    "query",
    [
        "sort=",
        "sort=name,",
        "sort=owner",
        "sort=name:up",
        "sort=name:",
        "sort=name:asc:desc",
        "sort=name&sort_key=size",
        "sort=name&sort_dir=asc",
        "sort_key=",
        "sort_key=owner",
        "sort_key=min_ram",
        "sort_key=name&sort_dir=ASC",
        "sort_dir=up",
        "sort_dir=asc&sort_dir=desc",
        "sort_key=name&sort_dir=asc&sort_dir=desc",
        "sort_key=name&sort_key=size&sort_key=id&sort_dir=asc&sort_dir=asc",
    ],
)
def test_an_order_that_makes_no_sense_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        parse(query)


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "id", "status", "container_format", "disk_format"])
def test_texts_are_equal_or_in_a_list(field: str) -> None:
    assert only(f"{field}=x") == Filter(field, "eq", "x")  # pyright: ignore[reportArgumentType]
    assert only(f"{field}=") == Filter(field, "eq", "")  # pyright: ignore[reportArgumentType]
    assert only(f"{field}=eq:a:b") == Filter(field, "eq", "a:b")  # pyright: ignore[reportArgumentType]
    assert only(f"{field}=in:a,b") == Filter(field, "in", ("a", "b"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("field", ["name", "id", "status", "container_format", "disk_format"])
@pytest.mark.parametrize("operator", ["neq", "gt", "gte", "lt", "lte", "like", "", "EQ", "a"])
def test_a_colon_makes_an_operator_that_must_be_known(field: str, operator: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"{field}={operator}:x")


def test_a_name_that_is_a_time_needs_no_operator() -> None:
    assert only("name=2016-01-01T00:00:00Z") == Filter("name", "eq", "2016-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        ("a b, c", ("a b", " c")),
        ('"a,b",c', ("a,b", "c")),
        ('c,"a,b"', ("c", "a,b")),
        ('"a\\"b"', ('a"b',)),
        ('"a\\b"', ("a\\b",)),
        ('""', ("",)),
        ("a,,b", ("a", "b")),
        ("", ()),
        ("a,a", ("a",)),
        ("a:b", ("a:b",)),
    ],
)
def test_a_list_of_values_is_split_at_commas_outside_quotes(
    text: str, values: tuple[str, ...]
) -> None:
    assert only(f"name=in:{quote(text)}") == Filter("name", "in", values)


@pytest.mark.parametrize(
    "text", ['"a', 'a"', 'a"b', '"a"b', 'a,"b', '"a" ,b', 'a,b"c"', '"a\\"', '"a"\n', '"']
)
def test_a_misplaced_quote_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"name=in:{quote(text)}")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\\\x00")), unique=True))
def test_any_value_can_be_written_in_quotes(values: list[str]) -> None:
    written = ",".join('"' + value.replace('"', '\\"') + '"' for value in values)

    assert only(f"name=in:{quote(written)}").value == tuple(values)


@pytest.mark.parametrize("field", ["owner", "checksum", "os_hash_algo", "os_hash_value"])
def test_other_texts_are_taken_as_they_are(field: str) -> None:
    assert only(f"{field}=in:a") == Filter(field, "eq", "in:a")  # pyright: ignore[reportArgumentType]


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["created_at", "updated_at"])
@pytest.mark.parametrize(
    ("text", "op", "moment"),
    [
        ("2016-01-02T03:04:05Z", "eq", utc(2016, 1, 2, 3, 4, 5)),
        ("2016-01-02T03:04:05", "eq", utc(2016, 1, 2, 3, 4, 5)),
        ("eq:2016-01-02T03:04:05Z", "eq", utc(2016, 1, 2, 3, 4, 5)),
        ("neq:2016-01-02T03:04:05Z", "neq", utc(2016, 1, 2, 3, 4, 5)),
        ("gt:2016-01-02", "gt", utc(2016, 1, 2)),
        ("gte:2016-01-02T03:04:05%2B01:00", "gte", utc(2016, 1, 2, 2, 4, 5)),
        ("lt:2016-01-02T03:04:05-0130", "lt", utc(2016, 1, 2, 4, 34, 5)),
        ("lte:2016-01-02 03:04", "lte", utc(2016, 1, 2, 3, 4)),
        ("gt:2016-01-02T03:04:05.25Z", "gt", utc(2016, 1, 2, 3, 4, 5, 250_000)),
    ],
)
def test_times_are_compared_in_utc(field: str, text: str, op: str, moment: datetime) -> None:
    assert only(f"{field}={text}") == Filter(field, op, moment)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "gt:",
        "gt:yesterday",
        "in:2016-01-02",
        "between:2016-01-02",
        "2016-13-01",
        "gt:2016-02-30T00:00:00Z",
        "2016-01-01T00:00:00+01:00",  # an unescaped plus is a space
        "gt:0001-01-01T00:00:00%2B01:00",
        "gt:9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"updated_at={text}")


def test_the_end_of_time_leaves_room_for_arithmetic() -> None:
    assert only("created_at=lte:9999-12-31T23:59:59Z").value == utc(9999, 12, 31)


# --- numbers and flags ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["size", "virtual_size", "min_disk", "min_ram"])
def test_numbers_are_equal_or_within_limits(field: str) -> None:
    assert only(f"{field}=5") == Filter(field, "eq", 5)  # pyright: ignore[reportArgumentType]
    assert only(f"{field}_min=5") == Filter(field, "gte", 5)  # pyright: ignore[reportArgumentType]
    assert only(f"{field}_max=-5") == Filter(field, "lte", -5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["size", "size_min", "size_max", "min_ram", "min_disk_min"])
@pytest.mark.parametrize("value", ["", "x", "1.5", "1e3", "1_000", "٣", "9" * 19, "9" * 5000])
def test_what_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"{name}={quote(value)}")


def test_a_number_beyond_its_column_is_refused() -> None:
    assert only(f"size_max={2**63 - 1}").value == 2**63 - 1
    for query in (f"size_max={2**63}", f"min_ram={2**31}"):
        with pytest.raises(BadRequest):
            parse(query)


@pytest.mark.parametrize(
    "name", ["name_min", "created_at_max", "hw_cpu_max", "_min", "whatever_min"]
)
def test_limits_of_what_is_no_number_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"{name}=1")


def test_flags() -> None:
    assert only("protected=true") == Filter("protected", "eq", value=True)
    assert only("protected=false") == Filter("protected", "eq", value=False)
    assert parse("os_hidden=True").os_hidden
    assert not parse("os_hidden=FALSE").os_hidden


@pytest.mark.parametrize(
    "query",
    [
        "protected=True",
        "protected=1",
        "protected=",
        "os_hidden=1",
        "os_hidden=",
        "os_hidden=yes",
        "visibility=hidden",
        "visibility=",
        "visibility=Public",
        "member_status=none",
        "member_status=",
        "changes-since=2016-01-01",
    ],
)
def test_what_is_none_of_the_choices_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        parse(query)


@pytest.mark.parametrize("visibility", ["public", "private", "shared", "community", "all"])
def test_visibilities(visibility: str) -> None:
    assert parse(f"visibility={visibility}").visibility == visibility


@pytest.mark.parametrize("status", ["pending", "accepted", "rejected", "all"])
def test_member_statuses(status: str) -> None:
    assert parse(f"member_status={status}").member_status == status


# --- tags and properties --------------------------------------------------------------------------


def test_every_tag_counts() -> None:
    assert parse("tag=b&tag=%20a%20&tag=b").tags == ("b", "a")


def test_unknown_names_are_custom_properties() -> None:
    query = parse("os_distro=debian&owner_specified.openstack.md5=x&a:b=in:c&Name=x")

    assert query.properties == {
        "os_distro": "debian",
        "owner_specified.openstack.md5": "x",
        "a:b": "in:c",
        "Name": "x",
    }
    assert query.filters == ()


def test_of_a_repeated_parameter_the_last_counts() -> None:
    query = parse("name=a&os_distro=x&name=b&os_distro=y&visibility=bogus&visibility=all")

    assert query.filters == (Filter("name", "eq", "b"),)
    assert query.properties == {"os_distro": "y"}
    assert query.visibility == "all"


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [b"name=%ff", b"name=\xff", b"%ff=x", b"tag=%ED%A0%80"])
def test_what_is_not_utf_8_is_refused(query: bytes) -> None:
    with pytest.raises(BadRequest):
        listing.items(query)


@pytest.mark.parametrize("query", ["name=a%00", "a%00=b", "tag=%00", "marker=%00"])
def test_the_null_character_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        parse(query)


NAMES = st.sampled_from(
    [
        "limit", "marker", "sort", "sort_key", "sort_dir", "name", "id", "status", "size",
        "size_min", "min_ram_max", "x_min", "created_at", "updated_at", "tag", "visibility",
        "member_status", "os_hidden", "protected", "owner", "checksum", "changes-since", "custom",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [
        "1", "-1", "asc", "desc", "name", "name:asc", "name,size:desc", "true", "all", "shared",
        "in:a,b", 'in:"a', "gt:2016-01-01T00:00:00Z", "2016-01-01T00:00:00Z", "eq:x", ID,
    ]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES | st.text(max_size=6), VALUES | st.text(max_size=12)), max_size=6))
@example([("created_at", "9999-12-31T23:59:59.999999Z")])
@example([("size", "1" * 10_000)])
def test_any_parameters_are_understood_or_refused(items: list[tuple[str, str]]) -> None:
    try:
        query = listing.parse(items, default_limit=25, max_limit=1000)
    except BadRequest:
        return
    assert 0 <= query.limit <= 1000
    keys = [key for key, _ in query.sort]
    assert len(set(keys)) == len(keys)
    assert {"created_at", "id"} <= set(keys)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_understood_or_refused(query: bytes) -> None:
    try:
        items = listing.items(query)
    except BadRequest:
        return
    for name, value in items:
        # No half of a surrogate pair, which no database takes.
        f"{name}{value}".encode()


# --- the page -------------------------------------------------------------------------------------


def images(count: int) -> list[dict[str, Any]]:
    return [{"id": f"id-{number}"} for number in range(count)]


def test_a_full_page_links_to_the_next_with_every_parameter() -> None:
    items = listing.items(b"tag=a&limit=2&tag=b%26&marker=old&name=eq:x")

    page = listing.document(images(2), items, page_is_full=True)

    assert page["images"] == images(2)
    assert page["schema"] == "/v2/schemas/images"
    assert page["first"] == "/v2/images?" + urlencode(
        [("tag", "a"), ("limit", "2"), ("tag", "b&"), ("name", "eq:x")]
    )
    following = urlsplit(str(page["next"]))
    assert following.path == "/v2/images"
    assert parse_qsl(following.query) == [
        ("tag", "a"), ("limit", "2"), ("tag", "b&"), ("name", "eq:x"), ("marker", "id-1"),
    ]  # fmt: skip


def test_the_last_page_has_no_next() -> None:
    assert "next" not in listing.document(images(1), [], page_is_full=False)
    assert listing.document([], [], page_is_full=True) == {
        "images": [],
        "schema": "/v2/schemas/images",
        "first": "/v2/images",
    }


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_following_next_asks_the_same_from_the_marker_on(items: list[tuple[str, str]]) -> None:
    try:
        asked = listing.parse(items, default_limit=25, max_limit=1000)
    except BadRequest:
        return
    page = listing.document([{"id": ID}], items, page_is_full=True)

    followed = parse(urlsplit(str(page["next"])).query)

    assert followed.marker == ID
    for part in ("limit", "filters", "tags", "properties", "visibility", "member_status", "sort"):
        assert getattr(followed, part) == getattr(asked, part)
