from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from diptych_common.proxies import ProxyHeaders, is_proxied, peer
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

PROXY = "10.0.0.1"
TRUSTED = ("10.0.0.0/24", "2001:db8::/64")


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """What the application sees of a request."""
    document = {
        "client": scope["client"][0],
        "peer": peer(scope),
        "base": str(Request(scope).base_url),
        "path": scope["path"],
        "is_proxied": is_proxied(scope),
    }
    await JSONResponse(document)(scope, receive, send)


@asynccontextmanager
async def asking(
    *, source: str = PROXY, trusted: tuple[str, ...] = TRUSTED
) -> AsyncGenerator[httpx.AsyncClient]:
    app = ProxyHeaders(told, trusted=trusted)
    transport = httpx.ASGITransport(app, client=(source, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside:9292") as http:
        yield http


async def seen(headers: Any, **options: Any) -> dict[str, Any]:
    async with asking(**options) as http:
        return (await http.get("/v2/images", headers=headers)).json()


async def test_a_trusted_proxy_tells_how_the_client_reached_it() -> None:
    shown = await seen(
        {
            "X-Forwarded-For": "192.0.2.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "cloud.example:8443",
            "X-Forwarded-Prefix": "/image/",
        }
    )
    assert shown == {
        "client": "192.0.2.7",
        "peer": PROXY,
        "base": "https://cloud.example:8443/image/",
        "path": "/v2/images",
        "is_proxied": True,
    }


async def test_forwarded_counts_where_it_is_alone() -> None:
    forwarded = 'for=192.0.2.7;proto=http, for="[2001:db8::5]:1234";Proto=HTTPS;host="a.example"'
    shown = await seen({"Forwarded": forwarded})
    assert shown["client"] == "192.0.2.7"
    assert shown["base"] == "https://a.example/"

    older = await seen({"Forwarded": forwarded, "X-Forwarded-For": "192.0.2.8"})
    assert older["client"] == "192.0.2.8"
    assert older["base"] == "http://inside:9292/"


@pytest.mark.parametrize(
    ("trusted", "source"),
    [(TRUSTED, "10.0.1.1"), ((), "192.0.2.1"), (("10.0.0.1",), "10.0.0.2")],
)
async def test_nobody_else_is_believed_and_the_log_says_so_once(
    trusted: tuple[str, ...], source: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/x", "Forwarded": "for=::1"}
    async with asking(trusted=trusted, source=source) as http:
        for _ in range(2):
            shown = (await http.get("/v2/images", headers=headers)).json()
            assert shown["client"] == shown["peer"] == source
            assert shown["base"] == "http://inside:9292/"
    assert caplog.text.count("trusted_proxies") == 1
    assert source in caplog.text


async def test_without_a_named_proxy_those_on_this_host_are_believed() -> None:
    shown = await seen({"X-Forwarded-For": "192.0.2.7"}, trusted=(), source="127.0.0.1")
    assert shown["client"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("127.0.0.1, 192.0.2.7", "192.0.2.7"),  # the client wrote the first itself
        ("127.0.0.1, 192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("192.0.2.7, 2001:db8::9", "192.0.2.7"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db9::7]:4711", "2001:db9::7"),
        ("192.0.2.7, unknown", PROXY),
        ("", PROXY),
        ("_hidden", PROXY),
        ("1.2.3.4.5", PROXY),
        ("192.0.2.7\t", "192.0.2.7"),
    ],
)
async def test_the_client_is_the_last_that_is_no_proxy(chain: str, client: str) -> None:
    assert (await seen({"X-Forwarded-For": chain}))["client"] == client


async def test_several_lines_are_one_chain() -> None:
    lines = [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "192.0.2.7, 10.0.0.9")]
    assert (await seen(lines))["client"] == "192.0.2.7"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Host": "evil.example/path"},
        {"X-Forwarded-Host": "user@evil.example"},
        {"X-Forwarded-Host": ""},
        {"X-Forwarded-Prefix": "//evil.example"},
        {"X-Forwarded-Prefix": "/a/../b"},
        {"X-Forwarded-Prefix": "image"},
        {"X-Forwarded-Prefix": "/"},
        {"X-Forwarded-Prefix": "/a?b"},
        {"Forwarded": 'host="evil.example/x";proto="a b"'},
        {"Forwarded": '"'},
        {"Forwarded": ","},
    ],
    ids=str,
)
async def test_what_is_not_of_its_form_does_not_count(headers: dict[str, str]) -> None:
    assert (await seen(headers))["base"] == "http://inside:9292/"


async def test_a_prefix_that_paths_begin_with_is_not_taken_off() -> None:
    shown = await seen({"X-Forwarded-Prefix": "/v2"})
    assert shown["path"] == "/v2/images"
    assert shown["base"] == "http://inside:9292/v2/"
