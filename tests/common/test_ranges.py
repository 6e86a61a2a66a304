import pytest
from diptych_common.errors import BadRequest, RangeNotSatisfiable
from diptych_common.ranges import Part, has_current, requested_part
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

SIZE = 1000
ETAG = '"abc"'


def part(value: str, *, size: int = SIZE, others: dict[str, str] | None = None) -> Part | None:
    return requested_part(Headers({"range": value, **(others or {})}), size=size, etag=ETAG)


@pytest.mark.parametrize(
    ("value", "start", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=500-", 500, 500),
        ("bytes=999-", 999, 1),
        ("bytes=-1", 999, 1),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=990-5000", 990, 10),
        ("bytes=0-" + "9" * 5000, 0, 1000),
        ("bytes=00000000000000000000000007-8", 7, 2),
        ("BYTES=1-2", 1, 2),
        ("bytes= 1-2 ,", 1, 2),
    ],
)
def test_a_range_is_cut_to_what_there_is(value: str, start: int, length: int) -> None:
    assert part(value) == Part(start, length)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=2-1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=\u0661-\u0662",
        "bytes=1_0-20",
        "bytes=-0",
        "bytes=1000-",
        "bytes=1000-1001",
        "bytes=" + "9" * 5000 + "-",
        "0-5",
    ],
)
def test_a_malformed_range_or_one_beyond_the_end_is_416(value: str) -> None:
    headers = Headers(raw=[(b"range", value.encode())])
    with pytest.raises(RangeNotSatisfiable) as refused:
        requested_part(headers, size=SIZE)
    assert refused.value.headers == {"Content-Range": "bytes */1000"}


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_an_empty_blob_has_no_ranges(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        part(value, size=0)


def test_several_ranges_are_400() -> None:
    with pytest.raises(BadRequest):
        part("bytes=0-1,5-6")
    twice = Headers(raw=[(b"range", b"bytes=0-1"), (b"range", b"bytes=5-6")])
    with pytest.raises(BadRequest):
        requested_part(twice, size=SIZE)


def test_an_unknown_unit_is_ignored() -> None:
    assert part("chapters=1-2") is None


def test_no_range_is_the_whole() -> None:
    assert requested_part(Headers({}), size=SIZE) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/1000", Part(0, 10)),
        ("bytes 990-2000/*", Part(990, 10)),
    ],
)
def test_a_request_content_range_counts_as_a_range(value: str, expected: Part) -> None:
    assert requested_part(Headers({"content-range": value}), size=SIZE) == expected


@pytest.mark.parametrize(
    "value", ["bytes 0-9", "bytes */1000", "bytes 9-0/1000", "bytes 1000-1001/*"]
)
def test_a_request_content_range_without_such_bytes_is_416(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_part(Headers({"content-range": value}), size=SIZE)


def test_range_wins_over_content_range() -> None:
    assert part("bytes=1-1", others={"content-range": "bytes 5-9/*"}) == Part(1, 1)


@pytest.mark.parametrize(
    ("if_range", "counts"),
    [
        (ETAG, True),
        ('"other"', False),
        ('W/"abc"', False),
        ("Wed, 21 Oct 2026 07:28:00 GMT", False),
    ],
)
def test_a_range_counts_only_if_the_blob_is_the_same(if_range: str, counts: bool) -> None:
    assert (part("bytes=1-1", others={"if-range": if_range}) is not None) is counts
    # Not even an impossible range matters then.
    if not counts:
        assert part("bytes=5000-", others={"if-range": if_range}) is None


@pytest.mark.parametrize(
    ("value", "current"),
    [
        (ETAG, True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"x"', False),
        ('"x,"abc', False),
        ("abc", False),
        ("", False),
    ],
)
def test_if_none_match(value: str, current: bool) -> None:
    assert has_current(Headers({"if-none-match": value}), ETAG) is current


def test_if_none_match_may_be_repeated() -> None:
    headers = Headers(raw=[(b"if-none-match", b'"x"'), (b"if-none-match", b'"abc"')])
    assert has_current(headers, ETAG)


def test_content_range_of_a_part() -> None:
    assert Part(5, 10).content_range(100) == "bytes 5-14/100"


@given(
    size=st.integers(1, 10**13),
    first=st.none() | st.integers(0, 10**13),
    last=st.none() | st.integers(0, 10**13),
)
def test_a_part_is_what_slicing_gives(size: int, first: int | None, last: int | None) -> None:
    value = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    whole = range(size)
    if first is None and last is not None:
        expected = whole[-last:] if last else whole[:0]
    elif first is not None and (last is None or last >= first):
        expected = whole[first : None if last is None else last + 1]
    else:
        expected = whole[:0]
    try:
        found = part(value, size=size)
    except RangeNotSatisfiable:
        assert not expected
    else:
        assert found == Part(expected[0], len(expected))


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    headers = Headers(raw=[(b"range", text.encode("utf-8", "surrogatepass"))])
    try:
        found = requested_part(headers, size=SIZE)
    except (BadRequest, RangeNotSatisfiable):
        return
    assert found is None or (found.start >= 0 < found.length <= SIZE - found.start)
