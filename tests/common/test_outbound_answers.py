"""What becomes of a request that was let out: the answers of real and of hostile servers."""

import asyncio
import gzip
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from diptych_common.outbound import (
    MOST_HEAD,
    MOST_HEADERS,
    BadCertificate,
    Outbound,
    Refused,
    TooLarge,
    TooSlow,
)
from diptych_common.settings import Outbound as OutboundSettings

from tests.common.networks import PUBLIC, Leading, Refusing, fetched, on_loopback
from tests.waiting import open_sockets, until
from tests.web import Asked, Handle, answer, head, serving

MIB = 1 << 20


def raw(*pieces: bytes, forever: bytes = b"", pause_s: float = 0) -> Handle:
    """Sends the pieces as they are, then the last over and over, then closes the connection."""

    async def handle(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(pieces))
        await writer.drain()
        while forever:
            writer.write(forever)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return handle


async def hanging(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def tls_of(certificates: Path, name: str) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / f"{name}.pem")
    return tls


# Answers.


async def test_an_answer_is_given_as_it_came() -> None:
    body = os.urandom(3 * MIB + 17)
    async with (
        serving(answer(body, 203, etag='"1"', x_two="1\r\nX-Two: 2")) as web,
        on_loopback().open(f"{web.url}/a%20b/../c?d=e#f") as found,
    ):
        assert found.status == 203
        assert found.headers["etag"] == '"1"'
        assert found.headers["x-two"] == "1, 2"
        assert found.headers["content-length"] == str(len(body))
        assert found.url == f"{web.url}/a%20b/../c?d=e"
        assert b"".join([block async for block in found.blocks]) == body
    (asked,) = web.asked
    assert (asked.method, asked.target) == ("GET", "/a%20b/../c?d=e")
    assert asked.headers == {
        "host": f"127.0.0.1:{web.port}",
        "user-agent": "Diptych",
        "accept-encoding": "identity",
        "connection": "close",
    }


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 416, 500, 503])
async def test_every_status_is_an_answer(status: int) -> None:
    async with (
        serving(raw(head(status, content_length=0))) as web,
        on_loopback().open(web.url) as found,
    ):
        assert found.status == status
        assert [block async for block in found.blocks] == []


async def test_a_head_request_has_no_body() -> None:
    async with (
        serving(answer(bytes(1000))) as web,
        on_loopback().open(web.url, method="HEAD") as found,
    ):
        assert found.headers["content-length"] == "1000"
        assert [block async for block in found.blocks] == []


async def test_content_is_sent() -> None:
    async with serving(answer(b"thanks")) as web:
        how: dict[str, Any] = {"method": "POST", "headers": {"Content-Type": "application/json"}}
        assert await fetched(on_loopback(), web.url, content=b'{"a": 1}', **how) == b"thanks"
        assert await fetched(on_loopback(), web.url, content=b"", **how) == b"thanks"
    assert [asked.content for asked in web.asked] == [b'{"a": 1}', b""]
    assert web.asked[0].headers["content-type"] == "application/json"
    assert web.asked[1].headers["content-length"] == "0"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello world") + b"0\r\n\r\n",
    ],
)
async def test_chunks_are_joined(body: bytes) -> None:
    async with serving(raw(head(transfer_encoding="chunked") + body)) as web:
        assert await fetched(on_loopback(), web.url) == b"hello world"


async def test_a_million_tiny_chunks_leave_others_their_turn() -> None:
    body = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with (
        serving(raw(head(transfer_encoding="chunked") + body)) as web,
        on_loopback().open(web.url) as found,
    ):
        task = asyncio.create_task(other())
        read = 0
        async for block in found.blocks:
            read += len(block)
        assert turns > 300
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert read == 100_000


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with serving(answer(b"all of it", content_length=None)) as web:
        assert await fetched(on_loopback(), web.url) == b"all of it"


async def test_interim_answers_are_passed_over() -> None:
    early = head(103, link="</x>") + head(100)
    async with serving(raw(early, head(content_length=2), b"ok")) as web:
        assert await fetched(on_loopback(), web.url) == b"ok"


async def test_what_is_packed_stays_packed() -> None:
    bomb = gzip.compress(bytes(20 * MIB))
    async with serving(answer(bomb, content_encoding="gzip")) as web:
        assert await fetched(on_loopback(), web.url, max_bytes=len(bomb)) == bomb
    assert web.asked[0].headers["accept-encoding"] == "identity"


# Redirects.


def chain(length: int, status: int = 302) -> Handle:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        number = int(asked.target.strip("/") or 0)
        if number < length:
            writer.write(head(status, content_length=4, location=f"/{number + 1}") + b"gone")
        else:
            writer.write(head(content_length=3) + b"end")
        await writer.drain()

    return handle


async def test_redirects_are_followed_up_to_a_limit() -> None:
    async with serving(chain(5)) as web, on_loopback().open(web.url) as found:
        assert found.url == f"{web.url}/5"
        assert b"".join([block async for block in found.blocks]) == b"end"
    async with serving(chain(6)) as web:
        with pytest.raises(Refused):
            await fetched(on_loopback(), web.url)
        assert len(web.asked) == 6
    async with serving(chain(1)) as web:
        with pytest.raises(Refused):
            await fetched(on_loopback(max_redirects=0), web.url)
        assert len(web.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_each_kind_of_redirect_is_followed(status: int, method: str) -> None:
    async with (
        serving(chain(1, status)) as web,
        on_loopback().open(web.url, method=method) as found,
    ):
        assert found.status == 200
    assert [asked.method for asked in web.asked] == [method, method]


async def test_what_is_sent_is_sent_once() -> None:
    async with (
        serving(chain(1, 307)) as web,
        on_loopback().open(web.url, method="POST", content=b"x") as found,
    ):
        assert (found.status, found.headers["location"]) == (307, "/1")
    assert len(web.asked) == 1


async def test_a_redirect_without_a_place_is_an_answer() -> None:
    async with (
        serving(raw(head(302, content_length=0))) as web,
        on_loopback().open(web.url) as found,
    ):
        assert found.status == 302


@pytest.mark.parametrize(
    ("location", "is_same"),
    [
        ("/next", True),
        ("http://example.org:80/next", True),
        ("http://other.example/next", False),
        ("http://example.org:8080/next", False),
    ],
)
async def test_credentials_stay_with_the_origin(location: str, is_same: bool) -> None:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        found = head(302, location=location) if asked.target == "/" else head(content_length=0)
        writer.write(found)
        await writer.drain()

    secrets = {"Authorization": "Basic x", "X-Auth-Token": "t", "Cookie": "c", "X-Any": "a"}
    harmless = {"Range": "bytes=1-", "If-Range": '"1"', "Accept": "*/*"}
    async with serving(handle) as web:
        outbound = Leading(web).outbound(allowed_ports=())
        await fetched(outbound, "http://example.org/", headers=secrets | harmless)
    first, second = (asked.headers for asked in web.asked)
    assert {name.lower() for name in secrets | harmless} <= first.keys()
    assert {name.lower() for name in harmless} <= second.keys()
    carried = {name.lower() for name in secrets} & second.keys()
    assert carried == ({name.lower() for name in secrets} if is_same else set())


async def test_cookies_are_not_kept() -> None:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        where = {"location": "/2"} if asked.target == "/" else {}
        writer.write(head(302 if where else 200, content_length=0, set_cookie="a=b", **where))
        await writer.drain()

    outbound = on_loopback()
    async with serving(handle) as web:
        await fetched(outbound, web.url)
        await fetched(outbound, web.url)
    assert [asked for asked in web.asked if "cookie" in asked.headers] == []
    assert len(web.asked) == 4


# TLS.


async def test_the_name_is_kept_for_tls_and_the_host_header(certificates: Path) -> None:
    tls = tls_of(certificates, "wrong-name")  # it is of keystone.example
    async with serving(answer(b"here"), tls=tls) as web:
        network = Leading(web, {"keystone.example": [PUBLIC]})
        outbound = network.outbound(cafile=str(certificates / "ca.pem"))
        assert await fetched(outbound, "https://keystone.example/x") == b"here"
        assert network.connected == [(PUBLIC, 443, "keystone.example")]
        assert web.names == ["keystone.example"]
        assert web.asked[0].headers["host"] == "keystone.example"


@pytest.mark.parametrize(
    ("certificate", "authority", "is_accepted"),
    [
        ("good", "ca.pem", True),
        ("good", "other-ca.pem", False),
        ("good", None, False),
        ("wrong-name", "ca.pem", False),
        ("expired", "ca.pem", False),
    ],
)
@pytest.mark.parametrize("by", ["operator", "caller"])
async def test_certificates_are_always_checked(
    certificates: Path, certificate: str, authority: str | None, is_accepted: bool, by: str
) -> None:
    cafile = None if authority is None else str(certificates / authority)
    outbound = on_loopback(cafile=cafile if by == "operator" else None)
    how = {"cafile": cafile} if by == "caller" else {}
    async with serving(answer(b"here"), tls=tls_of(certificates, certificate)) as web:
        url = f"https://127.0.0.1:{web.port}/"
        if is_accepted:
            assert await fetched(outbound, url, **how) == b"here"
            return
        with pytest.raises(BadCertificate):
            await fetched(outbound, url, **how)
        assert web.asked == []


async def test_a_callers_authorities_are_no_others(certificates: Path, tmp_path: Path) -> None:
    outbound = on_loopback(cafile=str(certificates / "ca.pem"))
    async with serving(answer(b"here"), tls=tls_of(certificates, "good")) as web:
        url = f"https://127.0.0.1:{web.port}/"
        with pytest.raises(ConnectionError):
            await fetched(outbound, url, cafile=str(certificates / "other-ca.pem"))
        with pytest.raises(ConnectionError):
            await fetched(outbound, url, cafile=str(tmp_path / "missing.pem"))
        assert await fetched(outbound, url) == b"here"


async def test_https_is_not_given_up_on_the_way(certificates: Path) -> None:
    tls = tls_of(certificates, "wrong-name")
    async with serving(raw(head(302, location="http://keystone.example/")), tls=tls) as web:
        network = Leading(web, {"keystone.example": [PUBLIC]})
        outbound = network.outbound(cafile=str(certificates / "ca.pem"))
        with pytest.raises(Refused):
            await fetched(outbound, "https://keystone.example/")
        assert network.connected == [(PUBLIC, 443, "keystone.example")]


async def test_a_server_without_tls_is_no_answer() -> None:
    async with serving(answer(b"here")) as web:
        with pytest.raises((ConnectionError, TimeoutError)):
            await fetched(on_loopback(connect_timeout=0.3), f"https://127.0.0.1:{web.port}/")
        assert web.asked == []


# What the environment says does not count.


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answer(b"proxy")) as proxy, serving(answer(b"here")) as web:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await fetched(on_loopback(), web.url) == b"here"
        assert proxy.connections == 0


async def test_no_file_gives_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    async with serving(answer(b"here")) as web:
        assert await fetched(on_loopback(), web.url) == b"here"
    assert "authorization" not in web.asked[0].headers


# Hostile servers.


@pytest.mark.parametrize(
    "handle",
    [
        raw(b"HTTP/1.1 200 OK\r\nX: ", forever=b"x" * 65536),
        raw(b"HTTP/1.1 200 OK\r\n", forever=b"X: y\r\n" * 1000),
        raw(b"HTTP/1.1 200 ", forever=b"x" * 65536),
        raw(forever=b"x" * 65536),
        raw(forever=head(100) * 100),
        raw(forever=head(103, link="</" + "x" * 1000 + ">")),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MOST_HEADERS + 1) + b"\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MOST_HEAD + b"\r\n\r\n"),
        raw(head(101, upgrade="websocket", connection="upgrade")),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"220 mail.example ESMTP\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: y\r\n"),
        raw(b""),
    ],
    ids=range(19),
)
async def test_what_is_no_answer_raises_on_entry(handle: Handle) -> None:
    async with serving(handle) as web:
        with pytest.raises(ConnectionError):
            async with on_loopback().open(web.url):
                pytest.fail("there was no answer")
        assert len(web.asked) == 1


@pytest.mark.parametrize(
    "handle",
    [
        raw(head(content_length=20) + b"half of it"),
        raw(head(transfer_encoding="chunked") + b"5\r\nhello\r\n"),
        raw(head(transfer_encoding="chunked") + b"14\r\nhalf of it"),
        raw(head(transfer_encoding="chunked") + b"5\r\nhello\r\nnonsense\r\n"),
        raw(head(transfer_encoding="chunked") + b"5\r\nhelloworld"),
        raw(head(transfer_encoding="chunked") + b"1;", forever=b"x" * 65536),
        raw(head(transfer_encoding="chunked") + b"0\r\n", forever=b"X: y\r\n" * 1000),
    ],
    ids=range(7),
)
async def test_a_body_that_breaks_off_raises(handle: Handle) -> None:
    async with serving(handle) as web, on_loopback().open(web.url) as found:
        with pytest.raises(ConnectionError):
            async for _ in found.blocks:
                pass


async def test_what_had_come_before_the_break_is_given() -> None:
    async with (
        serving(raw(head(content_length=20) + b"half of it")) as web,
        on_loopback().open(web.url) as found,
    ):
        assert await anext(found.blocks) == b"half of it"
        with pytest.raises(ConnectionError):
            await anext(found.blocks)


async def test_a_body_longer_than_announced_is_cut() -> None:
    async with serving(raw(head(content_length=4) + b"more than four")) as web:
        assert await fetched(on_loopback(), web.url) == b"more"


async def test_a_body_announced_as_too_large_raises_on_entry() -> None:
    async with serving(answer(bytes(1001))) as web:
        with pytest.raises(TooLarge):
            async with on_loopback().open(web.url, max_bytes=1000):
                pytest.fail("it was let in")
        assert len(await fetched(on_loopback(), web.url, max_bytes=1001)) == 1001


@pytest.mark.parametrize(
    "handle",
    [
        raw(head(), forever=bytes(5000)),
        raw(head(transfer_encoding="chunked"), forever=b"64\r\n" + bytes(100) + b"\r\n"),
    ],
    ids=["unframed", "chunked"],
)
async def test_no_more_is_given_than_is_allowed(handle: Handle) -> None:
    given: list[bytes] = []

    async def take(blocks: AsyncIterator[bytes]) -> None:
        async for block in blocks:
            given.append(block)

    async with serving(handle) as web, on_loopback().open(web.url, max_bytes=100_000) as found:
        with pytest.raises(TooLarge):
            await take(found.blocks)
    assert sum(map(len, given)) <= 100_000


@pytest.mark.parametrize(
    ("handle", "options"),
    [
        (hanging, {"answer_timeout": 0.2}),
        (raw(b"HTTP/1.1 200 OK\r\nX: ", forever=b"x", pause_s=0.01), {"answer_timeout": 0.5}),
        (raw(forever=b"HTTP/1.1 100 C\r\n\r\n", pause_s=0.01), {"answer_timeout": 0.5}),
    ],
    ids=["silent", "drip in a header", "drip of interim answers"],
)
async def test_an_answer_that_does_not_begin_is_given_up(
    handle: Handle, options: dict[str, Any]
) -> None:
    async with serving(handle) as web:
        with pytest.raises(TimeoutError, match=r"127\.0\.0\.1"):
            async with on_loopback(**options).open(web.url):
                pytest.fail("there was no answer")


def stalling(first: bytes) -> Handle:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await hanging(asked, writer)

    return handle


@pytest.mark.parametrize(
    ("handle", "options", "error"),
    [
        (stalling(head(content_length=9) + b"x"), {"read_timeout": 0.2}, TimeoutError),
        (
            raw(head(content_length=10**6), forever=b"x", pause_s=0.01),
            {"read_timeout": 0.5, "min_rate": 100_000},
            TooSlow,
        ),
        (raw(head(), forever=bytes(1000), pause_s=0.001), {"transfer_timeout": 0.5}, TimeoutError),
        (stalling(head(content_length=9) + b"x"), {"transfer_timeout": 0.2}, TimeoutError),
    ],
    ids=["stalled", "drip", "endless", "stalled until the deadline"],
)
async def test_a_body_that_comes_too_slowly_is_given_up(
    handle: Handle, options: dict[str, Any], error: type[TimeoutError]
) -> None:
    async with serving(handle) as web, on_loopback(**options).open(web.url) as found:
        with pytest.raises(TimeoutError, match=r"127\.0\.0\.1") as failed:
            async for _ in found.blocks:
                pass
        assert failed.type is error


async def test_a_slow_reader_is_not_taken_for_a_slow_server() -> None:
    body = bytes(4 * MIB)
    async with serving(answer(body)) as web:
        outbound = on_loopback(read_timeout=5.0, min_rate=100 * MIB)
        async with outbound.open(web.url) as found:
            read = len(await anext(found.blocks))
            await asyncio.sleep(0.3)
            async for block in found.blocks:
                read += len(block)
    assert read == len(body)


@pytest.mark.parametrize("part", ["resolve", "connect"])
async def test_a_network_that_hangs_is_given_up(part: str) -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    network = Refusing({"example.org": [PUBLIC]})
    parts: dict[str, Any] = {"resolve": network.resolve, "connect": network.connect, part: never}
    outbound = Outbound(OutboundSettings(connect_timeout=0.1), **parts)
    with pytest.raises(TimeoutError, match=r"example\.org"):
        await fetched(outbound, "http://example.org/")


async def test_a_name_that_nobody_knows_is_no_connection() -> None:
    network = Refusing({"empty.example": []})
    for name in ("unknown.example", "empty.example"):
        with pytest.raises(ConnectionError, match=name):
            await fetched(network.outbound(), f"http://{name}/")


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    class Half(Leading):
        async def connect(self, address: str, port: int, tls: Any, name: str) -> Any:
            if address == PUBLIC:
                return await Refusing.connect(self, address, port, tls, name)
            return await super().connect(address, port, tls, name)

    async with serving(answer(b"here")) as web:
        network = Half(web, {"example.org": [PUBLIC, "93.184.216.35"]})
        assert await fetched(network.outbound(), "http://example.org/") == b"here"


# Requests that nobody should make.


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"X-Any": "a\r\nX-Other: b"}},
        {"headers": {"X Any": "a"}},
        {"method": "GET / HTTP/1.1\r\nHost: internal\r\n\r\nGET"},
    ],
    ids=["value", "name", "method"],
)
async def test_a_request_cannot_be_split(how: dict[str, Any]) -> None:
    async with serving(answer(b"")) as web:
        with pytest.raises(ValueError, match="request"):
            await fetched(on_loopback(), web.url, **how)
        assert web.asked == []


async def test_a_caller_cannot_name_another_host_or_length() -> None:
    headers = {"Host": "internal", "Content-Length": "7", "Transfer-Encoding": "chunked"}
    async with serving(answer(b"here")) as web:
        assert await fetched(on_loopback(), web.url, headers=headers) == b"here"
    sent = web.asked[0].headers
    assert sent["host"] == f"127.0.0.1:{web.port}"
    assert not {"content-length", "transfer-encoding"} & sent.keys()


# Nothing is left.


async def cancelled_after(turns: int, call: Callable[[], Any]) -> bool:
    task = asyncio.create_task(call())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done = await asyncio.gather(task, return_exceptions=True)
    return isinstance(done[0], asyncio.CancelledError)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_cancelled_at_any_moment_nothing_is_left(
    certificates: Path, is_encrypted: bool
) -> None:
    async def two_steps(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == "/":
            writer.write(head(302, location="/2"))
        else:
            writer.write(head(content_length=MIB) + bytes(MIB))
        await writer.drain()

    tls = tls_of(certificates, "good") if is_encrypted else None
    outbound = on_loopback(cafile=str(certificates / "ca.pem"))
    async with serving(two_steps, tls=tls) as web:
        url = web.url.replace("http:", "https:") if is_encrypted else web.url
        sockets, tasks = open_sockets(), asyncio.all_tasks()
        turns, cancelled = 0, True
        while cancelled:
            cancelled = await cancelled_after(turns, lambda: fetched(outbound, url))
            # The server's ends are among them.
            await until(lambda: open_sockets() <= sockets and asyncio.all_tasks() <= tasks)
            turns += 1
        assert turns > 5
        assert len(await fetched(outbound, url)) == MIB


async def test_leaving_early_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def handle(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        except OSError:
            closed.set()

    async with serving(handle) as web:
        async with on_loopback().open(web.url) as found:
            await anext(found.blocks)
        async with asyncio.timeout(10):
            await closed.wait()


async def test_messages_hold_no_secret() -> None:
    secret = "canary-4f1c"
    urls = (
        f"http://{secret}:{secret}@example.org/",
        f"http://example.org/{secret}?{secret}#{secret}",
        f"http://private.example.org/?{secret}",
        f"http://example.org:22/{secret}",
        f"http://unknown.example/{secret}",
        f"http://example.org/ {secret}",
        f"file://{secret}",
    )
    network = Refusing({"example.org": [PUBLIC], "private.example.org": ["10.1.2.3"]})
    for url in urls:
        with pytest.raises((OSError, ValueError)) as raised:
            await fetched(network.outbound(), url)
        assert secret not in str(raised.value)
        assert "10.1.2.3" not in str(raised.value)
