import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from diptych_store.drivers.http import FARTHEST_SKIP, HttpStore
from diptych_store.errors import (
    BadLocation,
    NotFound,
    RangeOutside,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.http import HttpOptions
from diptych_store.protocol import WHOLE, Attempt, ByteRange
from diptych_store.registry import Stores
from diptych_store.retries import Retries
from diptych_store.settings import StoresConfig

from tests.store.conformance import Calls, get, some_bytes
from tests.store.web_folder import loopback
from tests.web import Asked, Handle, answer, head, serving

DATA = some_bytes(100_000)
ETAG = '"one"'


def store(**more: Any) -> HttpStore:
    outbound = loopback(connect_timeout=1, answer_timeout=1, read_timeout=1)
    settings: dict[str, Any] = {"outbound": outbound, "retries": Retries(count=2, first_s=0.01)}
    return HttpStore("web", HttpOptions(), **(settings | more))


def once(first: Handle, then: Handle) -> Handle:
    """Answers the first request so and the others so."""
    handles = [first]

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (handles.pop() if handles else then)(asked, writer)

    return handle


def part(start: int, end: int, *, size: int = len(DATA), etag: str = ETAG) -> Handle:
    """A part of the data, `end` included."""
    return answer(
        DATA[start : end + 1], 206, content_range=f"bytes {start}-{end}/{size}", etag=etag
    )


def broken_off(at: int, **headers: Any) -> Handle:
    async def handle(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(content_length=len(DATA), **headers) + DATA[:at])
        await writer.drain()

    return handle


async def error_of(location: str, range: ByteRange = WHOLE, **more: Any) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await get(store(**more), location, range)
    return raised.value


# It only reads.


async def test_nothing_is_written_or_deleted() -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"x"

    attempt = Attempt(key="a", token="b")
    async with serving(answer(DATA)) as web:
        with pytest.raises(WriteDenied):
            await store().write(attempt, blocks(), size=1)
        with pytest.raises(WriteDenied):
            await store().publish(attempt)
        with pytest.raises(WriteDenied):
            await store().discard(attempt)
        with pytest.raises(WriteDenied):
            await store().delete(web.url)
        assert web.connections == 0


@pytest.mark.parametrize(
    ("location", "is_recognised"),
    [
        ("http://mirror.example/image.qcow2", True),
        ("https://mirror.example:8443/image.qcow2?version=1", True),
        ("HTTPS://mirror.example/image.qcow2", True),
        ("http://user:password@mirror.example/image.qcow2", True),
        ("http://[2001:db8::1]/", True),
        ("http://mirror.example", True),
        ("http:///image.qcow2", False),
        ("http://", False),
        ("http:/mirror.example/", False),
        ("ftp://mirror.example/", False),
        ("swift+http://mirror.example/", False),
        ("s3+https://mirror.example/", False),
        ("http://mirror.example/a b", False),
        ("http://mirror.example/\\b", False),
        ("http://mirror.example/\u00e9", False),
        (" http://mirror.example/", False),
    ],
)
def test_urls_are_recognised(location: str, is_recognised: bool) -> None:
    assert store().recognises(location) == is_recognised


async def test_a_configured_store_is_opened_with_the_services_way_out() -> None:
    config = StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "fast:memory, web:http"},
            "glance_store": {"default_backend": "fast"},
            "web": {"https_insecure": "true", "store_description": "mirrors"},
        }
    )
    assert [(one.section, one.option) for one in config.unused] == [("web", "https_insecure")]
    async with serving(answer(DATA)) as web, Stores.open(config, outbound=loopback()) as stores:
        assert stores.info["web"].read_only
        assert stores.by_location(web.url) is stores["web"]
        assert await get(stores["web"], web.url) == DATA
    async with Stores.open(config) as stores:
        with pytest.raises(ReadDenied):
            await get(stores["web"], "http://127.0.0.1/")


# What answers mean.


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ReadDenied),
        (401, ReadDenied),
        (403, ReadDenied),
        (405, ReadDenied),
        (407, ReadDenied),
        (451, ReadDenied),
        (404, NotFound),
        (410, NotFound),
        (408, Unreachable),
        (429, Unreachable),
        (500, Unreachable),
        (502, Unreachable),
        (503, Unreachable),
        (204, Unreachable),
        (206, Unreachable),
        (304, Unreachable),
        (416, Unreachable),
    ],
)
async def test_a_status_is_an_error(status: int, expected: type[StoreError]) -> None:
    async with serving(answer(b"secret-body", status)) as web:
        error = await error_of(f"{web.url}/image?secret-query")
    assert type(error) is expected
    assert "secret" not in str(error)
    assert str(status) in str(error)
    assert "web" in str(error)
    assert "/image" in str(error)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://10.0.0.1/", ReadDenied),
        ("http://169.254.169.254/latest/meta-data", ReadDenied),
        ("http://canary:canary@127.0.0.1/canary?canary", ReadDenied),
        ("http://127.1/", BadLocation),
        ("http://127.0.0.1:99999/", BadLocation),
        ("http://127.0.0.1:1/canary?canary", Unreachable),
        ("file:///etc/passwd", BadLocation),
        ("nonsense", BadLocation),
    ],
)
async def test_a_url_that_leads_nowhere(location: str, expected: type[StoreError]) -> None:
    error = await error_of(location)
    assert type(error) is expected
    assert "canary" not in str(error)


async def test_a_redirect_keeps_the_part_that_was_asked_for() -> None:
    async with serving(once(answer(status=302, location="/real?signed"), part(10, 19))) as web:
        assert await get(store(), web.url, ByteRange(10, 10)) == DATA[10:20]
    assert [asked.target for asked in web.asked] == ["/", "/real?signed"]
    assert {asked.headers["range"] for asked in web.asked} == {"bytes=10-19"}


async def test_a_redirect_to_a_forbidden_place_is_refused() -> None:
    async with serving(answer(status=302, location="http://169.254.169.254/")) as web:
        assert isinstance(await error_of(web.url), ReadDenied)


async def test_packed_bytes_stay_packed() -> None:
    async with serving(answer(DATA, content_encoding="gzip")) as web:
        assert await get(store(), web.url) == DATA


async def test_a_private_authority_can_be_named(certificates: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / "good.pem")
    own = HttpOptions(https_ca_certificates_file=str(certificates / "ca.pem"))
    async with serving(answer(DATA), tls=tls) as web:
        url = web.url.replace("http:", "https:")
        trusting = HttpStore("web", own, outbound=loopback())
        assert await get(trusting, url) == DATA
        assert isinstance(await error_of(url), Unreachable)


# How long it is.


def as_chunks(data: bytes, *, size: int | None, **headers: Any) -> Handle:
    """Tells the size, if any, to HEAD only."""

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.method == "HEAD":
            writer.write(head(**({} if size is None else {"content_length": size})))
        else:
            chunk = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            writer.write(head(transfer_encoding="chunked", **headers) + chunk + b"0\r\n\r\n")
        await writer.drain()

    return handle


async def test_a_server_that_tells_the_size_only_when_asked() -> None:
    async with serving(as_chunks(DATA, size=len(DATA))) as web:
        async with store().open(web.url) as reading:
            assert (reading.size, reading.length) == (len(DATA), len(DATA))
        assert await get(store(), web.url) == DATA
        assert await get(store(), web.url, ByteRange(5, 10)) == DATA[5:15]
    async with serving(as_chunks(DATA, size=len(DATA), content_length=7)) as web:
        assert await get(store(), web.url) == DATA


async def test_a_server_that_sees_to_one_request_at_a_time() -> None:
    """As Python's own: while it sends one body it takes no request for the size."""
    turn = asyncio.Lock()
    chunked = as_chunks(DATA, size=len(DATA))

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        async with turn:
            if asked.method == "GET" and len(web.asked) == 1:
                writer.write(head(transfer_encoding="chunked"))
                with suppress(ConnectionError):
                    while True:
                        writer.write(b"1\r\nx\r\n")
                        await writer.drain()
                        await asyncio.sleep(0.01)
            else:
                await chunked(asked, writer)

    async with serving(handle) as web:
        assert await get(store(), web.url) == DATA
    assert [asked.method for asked in web.asked] == ["GET", "HEAD", "GET"]


@pytest.mark.parametrize("by", [-1, 1])
async def test_a_size_that_was_a_lie_is_an_error(by: int) -> None:
    async with serving(as_chunks(DATA, size=len(DATA) + by)) as web:
        assert isinstance(await error_of(web.url), Unreachable)


async def test_a_server_that_tells_no_size_is_an_error_on_entry() -> None:
    for handle in (as_chunks(DATA, size=None), answer(DATA, content_length=None)):
        async with serving(handle) as web:
            with pytest.raises(Unreachable, match="how long"):
                async with store().open(web.url):
                    pytest.fail("the size is not known")


# Parts.


@pytest.mark.parametrize(
    ("range", "asked_for"),
    [
        (ByteRange(0, 10), "bytes=0-9"),
        (ByteRange(5, 1), "bytes=5-5"),
        (ByteRange(5), "bytes=5-"),
        (ByteRange(5, 0), "bytes=5-5"),
    ],
)
async def test_a_server_without_ranges_is_read_from_the_start(
    range: ByteRange, asked_for: str
) -> None:
    expected = DATA[range.start :][: range.length]
    async with serving(answer(DATA)) as web:
        async with store().open(web.url, range) as reading:
            assert (reading.size, reading.length) == (len(DATA), len(expected))
        assert await get(store(), web.url, range) == expected
    assert web.asked[0].headers["range"] == asked_for


async def test_a_server_without_ranges_is_not_read_for_long() -> None:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(content_length=FARTHEST_SKIP + 100))
        for _ in range(FARTHEST_SKIP // 65_536):
            writer.write(bytes(65_536))
            await writer.drain()
        writer.write(DATA[:100])
        await writer.drain()

    async with serving(handle) as web:
        assert await get(store(), web.url, ByteRange(FARTHEST_SKIP, 5)) == DATA[:5]
        error = await error_of(web.url, ByteRange(FARTHEST_SKIP + 1, 5))
    assert isinstance(error, ReadDenied)
    assert "gives no parts" in str(error)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 11-20/100000",
        "bytes 9-18/100000",
        "bytes 10-19/*",
        "bytes 10-19",
        "bytes 10-100000/100000",
        "items 10-19/100000",
        "bytes 10-19/" + "9" * 5000,
        None,
    ],
    ids=ascii,
)
async def test_another_part_than_was_asked_for_is_an_error(content_range: str | None) -> None:
    async with serving(answer(DATA[10:20], 206, content_range=content_range)) as web:
        assert isinstance(await error_of(web.url, ByteRange(10, 10)), Unreachable)


async def test_a_part_that_is_given_in_pieces_is_put_together() -> None:
    async with serving(once(part(10, 14), part(15, 19))) as web:
        assert await get(store(), web.url, ByteRange(10, 10)) == DATA[10:20]
    assert [asked.headers["range"] for asked in web.asked] == ["bytes=10-19", "bytes=15-19"]


async def test_more_than_the_part_is_cut() -> None:
    async with serving(part(10, 29)) as web:
        assert await get(store(), web.url, ByteRange(10, 10)) == DATA[10:20]


@pytest.mark.parametrize("content_range", ["bytes */100000", "*/100000", "bytes */*", None])
async def test_a_range_beyond_the_end_tells_the_size(content_range: str | None) -> None:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.method == "HEAD":
            await answer(DATA)(asked, writer)
        else:
            await answer(b"", 416, content_range=content_range)(asked, writer)

    async with serving(handle) as web:
        error = await error_of(web.url, ByteRange(len(DATA)))
        assert isinstance(error, RangeOutside)
        assert error.size == len(DATA)
        # Within the object it is the server that is wrong.
        assert isinstance(await error_of(web.url, ByteRange(5)), Unreachable)


# Downloads that break off.


async def test_a_download_goes_on_with_the_same_object() -> None:
    async with serving(once(broken_off(60_000, etag=ETAG), part(60_000, 99_999))) as web:
        assert await get(store(), web.url) == DATA
    again = web.asked[1].headers
    assert (again["range"], again["if-range"]) == ("bytes=60000-99999", ETAG)


@pytest.mark.parametrize(
    "then",
    [
        answer(DATA, etag='"two"'),
        answer(DATA, etag=ETAG),
        part(60_000, 99_999, etag='"two"'),
        part(60_000, 99_999, size=200_000),
        answer(b"", 416, content_range="bytes */5"),
    ],
    ids=["another object", "no ranges", "another validator", "another size", "shorter"],
)
async def test_another_object_is_not_gone_on_with(then: Handle) -> None:
    async with serving(once(broken_off(60_000, etag=ETAG), then)) as web:
        assert isinstance(await error_of(web.url), ReadDenied)
        assert len(web.asked) == 2


async def test_an_object_that_has_gone_is_not_gone_on_with() -> None:
    async with serving(once(broken_off(60_000, etag=ETAG), answer(status=404))) as web:
        assert isinstance(await error_of(web.url), NotFound)


@pytest.mark.parametrize("headers", [{}, {"etag": 'W/"one"'}, {"etag": "one"}, {"etag": '"o"n"'}])
async def test_without_a_strong_validator_nothing_is_gone_on_with(headers: dict[str, str]) -> None:
    async with serving(broken_off(60_000, **headers)) as web:
        read = b""

        async def read_all() -> None:
            nonlocal read
            async with store().open(web.url) as reading:
                async for block in reading.blocks:
                    read += block

        with pytest.raises(Unreachable):
            await read_all()
        assert read == DATA[:60_000]
        assert len(web.asked) == 1


async def test_tries_are_counted() -> None:
    async with serving(answer(status=503)) as web:
        await error_of(web.url)
        assert len(web.asked) == 3
    async with serving(broken_off(0, etag=ETAG)) as web:
        await error_of(web.url, retries=Retries(count=0))
        assert len(web.asked) == 1


async def test_a_silent_server_is_not_tried_again() -> None:
    async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as web:
        error = await error_of(web.url, outbound=loopback(answer_timeout=0.1))
        assert isinstance(error, Unreachable)
        assert len(web.asked) == 1


async def test_calls_are_told() -> None:
    calls = Calls()
    async with serving(once(answer(status=503), as_chunks(DATA, size=len(DATA)))) as web:
        assert await get(store(on_call=calls), web.url) == DATA
    async with serving(answer(status=404)) as web:
        await error_of(web.url, on_call=calls)
    assert [(name, type(error)) for name, error in calls.made] == [
        ("open", Unreachable),
        ("open", type(None)),
        ("size", type(None)),
        ("open", type(None)),
        ("open", NotFound),
    ]
