"""To whom downloads are handed over, and how a file is named to him."""

from pathlib import Path

import pytest
from diptych_common.handover import Handover
from diptych_common.proxies import trusted_networks
from starlette.requests import Request

OFFER = {"X-Sendfile-Type": "X-Accel-Redirect"}
HANDOVER = Handover("/_store", trusted_networks(["192.0.2.0/24"]))


def request(
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    client: str = "192.0.2.1",
    peer: str | None = None,
) -> Request:
    fields = OFFER if headers is None else headers
    return Request(
        {
            "type": "http",
            "method": method,
            "path": "/",
            "client": (client, 1),
            "state": {} if peer is None else {"peer": peer},
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        }
    )


def test_a_proxy_that_is_trusted_and_asks_gets_files() -> None:
    assert HANDOVER.is_wanted(request())
    assert HANDOVER.is_wanted(request({"X-Sendfile-Type": "x-accel-redirect "}))
    # The client is somebody else, and told by the proxy.
    assert HANDOVER.is_wanted(request(client="198.51.100.7", peer="192.0.2.9"))
    assert HANDOVER.is_wanted(request({**OFFER, "Range": "bytes=5-"}))


@pytest.mark.parametrize(
    "asked",
    [
        request({}),
        request({"X-Sendfile-Type": "X-Sendfile"}),
        request(client="198.51.100.7"),
        request(client="192.0.2.1", peer="198.51.100.7"),
        request(method="HEAD"),
        request({**OFFER, "If-Match": "*"}),
        request({**OFFER, "If-Unmodified-Since": "Thu, 01 Jan 2015 00:00:00 GMT"}),
        request({**OFFER, "Content-Range": "bytes 0-1/*"}),
        request({**OFFER, "Range": "bytes=0-1,3-4"}),
        request({**OFFER, "Range": "bytes= 0-1"}),
    ],
    ids=range(10),
)
def test_others_get_bytes(asked: Request) -> None:
    assert not HANDOVER.is_wanted(asked)


def test_nothing_is_handed_over_unless_it_is_switched_on() -> None:
    assert not Handover("", HANDOVER.trusted).is_wanted(request())


def test_a_file_is_named_so_that_nginx_finds_it() -> None:
    answer = HANDOVER.answer(
        Path("/a b/%41?é#;&+"), {"ETag": '"x"', "Accept-Ranges": "bytes", "Content-Range": "bytes"}
    )
    assert answer.headers["x-accel-redirect"] == "/_store/a%20b/%2541%3F%C3%A9%23%3B%26%2B"
    assert answer.headers["etag"] == '"x"'
    assert answer.headers["content-length"] == "0"
    assert {"accept-ranges", "content-range"}.isdisjoint(answer.headers)
