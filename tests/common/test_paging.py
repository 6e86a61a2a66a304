from urllib.parse import parse_qsl, urlsplit

import pytest
from diptych_common.errors import BadRequest
from diptych_common.paging import limit_of, links, marker_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([], 25),
        ([("limit", "10")], 10),
        ([("limit", "0")], 0),
        ([("limit", "+7")], 7),
        ([("limit", " 7 ")], 7),
        ([("limit", "5000")], 1000),
        ([("limit", "9" * 5000)], 1000),
        ([("limit", "10"), ("limit", "20")], 20),
    ],
)
def test_limit(query: list[tuple[str, str]], expected: int) -> None:
    assert limit_of(query, default=25, cap=1000) == expected


def test_the_default_is_capped_too() -> None:
    assert limit_of([], default=25, cap=10) == 10


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1_0", "\u0663", "0x10", "-" + "9" * 5000])
def test_a_limit_that_is_no_number_is_400(text: str) -> None:
    with pytest.raises(BadRequest):
        limit_of([("limit", text)], default=25, cap=1000)


def test_marker() -> None:
    assert marker_of([]) is None
    assert marker_of([("marker", "")]) is None
    assert marker_of([("marker", "a"), ("marker", "b")]) == "b"


def test_links_keep_repeated_parameters() -> None:
    query = [("tag", "a"), ("tag", "b"), ("marker", "1"), ("limit", "2")]
    assert links("/v2/images", query, next_marker="9") == {
        "first": "/v2/images?tag=a&tag=b&limit=2",
        "next": "/v2/images?tag=a&tag=b&limit=2&marker=9",
    }


def test_the_last_page_has_no_next_link() -> None:
    assert links("/v2/images", [], next_marker=None) == {"first": "/v2/images"}


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1))), st.text(min_size=1))
def test_a_next_link_says_what_the_request_said(query: list[tuple[str, str]], marker: str) -> None:
    link = links("/v2/images", query, next_marker=marker)["next"]
    kept = [(name, value) for name, value in query if name != "marker"]
    assert parse_qsl(urlsplit(link).query, strict_parsing=True) == [*kept, ("marker", marker)]
