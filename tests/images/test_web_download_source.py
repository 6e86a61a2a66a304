"""Where web-download takes bytes from: servers that break off, lie, dawdle or lead astray."""

import asyncio
import gzip
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from diptych_common.errors import BadRequest
from diptych_common.jobs import GiveUp
from diptych_common.outbound import Outbound
from diptych_images.imports.sources import SourceFailed
from diptych_images.imports.web import check_uri, web_download
from diptych_images.settings import ImagesSettings, load
from diptych_store.retries import Retries

from tests.common.networks import PUBLIC, Leading, Refusing, on_loopback
from tests.common.ssrf import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS, in_url
from tests.common.test_outbound import redirecting
from tests.common.test_outbound_answers import tls_of
from tests.store.faults import Break, Wire
from tests.store.web_folder import Folder, serving_with_nginx
from tests.waiting import open_sockets, until
from tests.web import Asked, Handle, answer, head, serving

KIB = 1 << 10
DATA = random.Random(4).randbytes(700 * KIB + 13)
ETAG = '"of-this-data"'
AT_ONCE = Retries(count=3, first_s=0.001, longest_s=0.001)


def settings(**options: str) -> ImagesSettings:
    """`settings(ALLOWED_HOSTS="a.example")`, other sections with their names and `__`.

    Without options the lists let everything through.
    """
    given = {"ALLOWED_PORTS": "[]"} | options
    names = {name: name if "__" in name else f"IMPORT_FILTERING_OPTS__{name}" for name in given}
    return load(
        environ={f"DIPTYCH_IMAGES__{names[name]}": value for name, value in given.items()}
    ).settings


ANY = settings()


async def downloaded(
    url: str,
    *,
    outbound: Outbound | None = None,
    settings: ImagesSettings = ANY,
    size: int | None = len(DATA),
) -> bytes:
    outbound = outbound or on_loopback()
    async with web_download(outbound, url, settings=settings, retries=AT_ONCE) as source:
        assert source.size == size
        return b"".join([block async for block in source.blocks])


@dataclass
class Flaky:
    """Serves DATA with parts as it should, but breaks off: `cuts` are bytes of each body in turn.

    `headers` come on top of those of every answer, None leaves one out; `rests` are handlers for
    the requests after the first, in turn, instead of what is right.
    """

    cuts: Sequence[int]
    headers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    rests: Sequence[Handle] = ()
    times: int = 0

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        number, self.times = self.times, self.times + 1
        if 0 < number <= len(self.rests):
            await self.rests[number - 1](asked, writer)
            return
        start = int(asked.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        told: dict[str, str | None] = {
            "Content-Length": str(len(DATA) - start),
            "ETag": ETAG,
            "Accept-Ranges": "bytes",
        }
        if "range" in asked.headers:
            told["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        told |= self.headers
        shown = {name: value for name, value in told.items() if value is not None}
        writer.write(head(206 if "range" in asked.headers else 200, **shown))
        body = DATA[start:]
        writer.write(body[: self.cuts[number]] if number < len(self.cuts) else body)
        await writer.drain()


# In the good case.


async def test_a_file_is_asked_for_once() -> None:
    async with serving(answer(DATA, etag=ETAG)) as web:
        assert await downloaded(f"{web.url}/a%20b?c=d") == DATA
    (asked,) = web.asked
    assert (asked.method, asked.target) == ("GET", "/a%20b?c=d")
    assert asked.headers["accept-encoding"] == "identity"
    assert {"range", "if-range"}.isdisjoint(asked.headers)


async def test_an_answer_in_chunks_has_no_size_beforehand() -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
    handle = answer(body, content_length=None, transfer_encoding="chunked")
    async with serving(handle) as web:
        assert await downloaded(web.url, size=None) == DATA


async def test_an_empty_file_is_one() -> None:
    async with serving(answer(b"", etag=ETAG)) as web:
        assert await downloaded(web.url, size=0) == b""
    assert len(web.asked) == 1


async def test_nothing_is_left_open_by_a_reader_that_leaves() -> None:
    before = open_sockets()
    async with serving(Flaky([300_000])) as web:
        async with web_download(on_loopback(), web.url, settings=ANY, retries=AT_ONCE) as source:
            read = 0
            while read <= 300_000:  # into what was asked for after the break
                read += len(await anext(source.blocks))
        assert len(web.asked) == 2
    await until(lambda: open_sockets() <= before)


# Broken connections.


@pytest.mark.parametrize(
    "cuts",
    [
        [0],
        [1],
        [300_000],
        [len(DATA) - 1],
        [100_000, 0, 0, 200_000, 1, 100_000],
    ],
)
async def test_a_broken_download_goes_on_where_it_broke_off(cuts: list[int]) -> None:
    async with serving(Flaky(cuts)) as web:
        assert await downloaded(web.url) == DATA
    reached = [sum(cuts[:number]) for number in range(1, len(cuts) + 1)]
    first, *others = [asked.headers for asked in web.asked]
    assert "range" not in first
    assert [asked.get("range") for asked in others] == [f"bytes={at}-" for at in reached]
    assert {asked.get("if-range") for asked in others} == {ETAG}


async def test_tries_are_counted_from_the_last_byte() -> None:
    async with serving(Flaky([5, *[0] * AT_ONCE.count])) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url)
    assert len(web.asked) == 1 + AT_ONCE.count


async def test_a_server_that_is_out_of_order_for_a_moment_is_asked_again() -> None:
    rests = (answer(b"later", 503), answer(b"slower", 429))
    async with serving(Flaky([1000], rests=rests)) as web:
        assert await downloaded(web.url) == DATA
    assert len(web.asked) == 4


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": None},
        {"ETag": f"W/{ETAG}"},
        {"ETag": "without-quotes"},
        {"ETag": None, "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"},
        {"Accept-Ranges": "none"},
    ],
    ids=str,
)
async def test_without_a_strong_validator_and_parts_a_break_is_the_end(
    headers: dict[str, str | None],
) -> None:
    async with serving(Flaky([1000], headers)) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url)
    assert len(web.asked) == 1


async def test_chunks_that_break_off_are_not_the_end() -> None:
    handle = answer(b"5\r\nhello", content_length=None, transfer_encoding="chunked", etag=ETAG)
    async with serving(handle) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url, size=None)
    assert len(web.asked) == 1


def part(start: int, end: int, total: object, **headers: object) -> Handle:
    """Answers with a part that is said to be this one."""
    body = DATA[start : end + 1]
    shown = {"etag": ETAG, "content_range": f"bytes {start}-{end}/{total}"} | headers
    return answer(body, 206, **shown)


LAST = len(DATA) - 1


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(answer(DATA, etag='"another"'), id="whole, with another validator"),
        pytest.param(answer(DATA, etag=ETAG), id="whole, for want of parts"),
        pytest.param(part(1000, LAST, len(DATA), etag='"another"'), id="part of another"),
        pytest.param(part(1000, LAST, len(DATA), etag=None), id="part of whatever"),
        pytest.param(part(1001, LAST, len(DATA)), id="part too late"),
        pytest.param(part(0, LAST, len(DATA)), id="part too early"),
        pytest.param(part(1000, LAST - 1, LAST), id="part of less"),
        pytest.param(part(1000, LAST, len(DATA) + 1), id="part of more"),
        pytest.param(part(1000, LAST, "*"), id="part of unknown"),
        pytest.param(part(1000, LAST, 0, content_range=None), id="part without a place"),
        pytest.param(part(1000, LAST, 0, content_range="bytes x"), id="part of nonsense"),
        pytest.param(answer(b"", 412), id="precondition failed"),
        pytest.param(answer(b"", 416, content_range="bytes */7"), id="range not satisfiable"),
    ],
)
async def test_what_is_not_the_rest_of_the_same_file_is_not_taken(rest: Handle) -> None:
    """And no reason to give up: from its start the file may be had."""
    async with serving(Flaky([1000], rests=[rest])) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url)
    assert len(web.asked) == 2


async def test_a_rest_that_is_too_long_is_not_taken() -> None:
    rest = DATA[1000:] + b"x"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
    handle = answer(
        body,
        206,
        etag=ETAG,
        content_length=None,
        transfer_encoding="chunked",
        content_range=f"bytes 1000-{LAST}/{len(DATA)}",
    )
    async with serving(Flaky([1000], rests=[handle])) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url)


async def test_a_part_that_is_shorter_than_asked_for_is_followed_by_another() -> None:
    async with serving(Flaky([1000], rests=[part(1000, 1999, len(DATA))])) as web:
        assert await downloaded(web.url) == DATA
    assert [asked.headers.get("range") for asked in web.asked] == [
        None,
        "bytes=1000-",
        "bytes=2000-",
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_file_that_went_away_meanwhile_is_given_up(status: int) -> None:
    async with serving(Flaky([1000], rests=[answer(b"", status)])) as web:
        with pytest.raises(GiveUp, match=f"The server answered {status}."):
            await downloaded(web.url)


def leading(paths: Mapping[str, Handle], redirects: Sequence[str]) -> Handle:
    """`/` redirects to each of these in turn; the other paths have handlers."""
    left = list(redirects)

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == "/":
            writer.write(head(302, content_length=0, location=left.pop(0)))
            await writer.drain()
        else:
            await paths[asked.target](asked, writer)

    return handle


async def test_the_rest_is_asked_for_where_the_redirects_led() -> None:
    """The next redirect may lead to another mirror, with validators of its own."""
    mirrors = {"/mirror1": Flaky([1000]), "/mirror2": answer(DATA, etag='"of-mirror-2"')}
    async with serving(leading(mirrors, ["/mirror1", "/mirror2"])) as web:
        assert await downloaded(web.url) == DATA
    assert [asked.target for asked in web.asked] == ["/", "/mirror1", "/mirror1"]


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_the_rest_is_asked_for_where_they_began_if_that_is_over(status: int) -> None:
    """The address was signed for a minute, say."""
    signed = {"/signed1": Flaky([1000], rests=[answer(b"", status)] * 9), "/signed2": Flaky([])}
    async with serving(leading(signed, ["/signed1", "/signed2"])) as web:
        assert await downloaded(web.url) == DATA
    assert [asked.target for asked in web.asked] == ["/", "/signed1", "/signed1", "/", "/signed2"]


@pytest.fixture(scope="module")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str]
) -> Generator[Folder]:
    program = debian("nginx-light", "nginx")
    with serving_with_nginx(program, tmp_path_factory.mktemp("nginx")) as folder:
        yield folder


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_real_server_is_asked_for_the_rest(nginx: Folder, how: Any) -> None:
    with Wire.to("127.0.0.1", nginx.port) as wire:
        url = nginx.put("disk.img", DATA, port=wire.port)
        wire.inflict(Break("answer", after=200_000, how=how), times=2)
        assert await downloaded(url) == DATA
        first, *others = wire.requests
    assert "range" not in first.headers
    assert len(others) == 2
    for asked in others:
        assert asked.headers["range"].startswith("bytes=")
        assert asked.headers["if-range"].startswith('"')


async def test_a_silent_server_is_asked_for_the_rest(nginx: Folder) -> None:
    with Wire.to("127.0.0.1", nginx.port) as wire:
        url = nginx.put("disk.img", DATA, port=wire.port)
        wire.inflict(Break("answer", after=200_000, how="stall"))
        outbound = on_loopback(read_timeout=0.5, min_rate=0)
        assert await downloaded(url, outbound=outbound) == DATA
        assert wire.requests[1].headers["range"] == "bytes=200000-"


async def test_a_file_that_a_real_server_got_anew_is_not_patched_together(nginx: Folder) -> None:
    with Wire.to("127.0.0.1", nginx.port) as wire:
        url = nginx.put("changing.img", DATA, port=wire.port)
        wire.inflict(Break("answer", after=200_000, how="close"))
        async with web_download(on_loopback(), url, settings=ANY, retries=AT_ONCE) as source:
            await anext(source.blocks)
            nginx.put("changing.img", DATA[::-1] + b"x")
            with pytest.raises(SourceFailed):
                async for _ in source.blocks:
                    pass


# Answers that are none.


@pytest.mark.parametrize("status", [203, 204, 206, 304, 400, 401, 403, 404, 405, 410, 416, 451])
async def test_an_answer_that_stays_the_same_is_given_up(status: int) -> None:
    async with serving(answer(b"", status)) as web:
        with pytest.raises(GiveUp, match=f"^The server answered {status}.$"):
            await downloaded(web.url)
    assert len(web.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_answer_that_may_pass_is_not(status: int) -> None:
    async with serving(answer(b"", status)) as web:
        with pytest.raises(SourceFailed, match=f"^The server answered {status}.$"):
            await downloaded(web.url)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br", "Deflate", "identity, gzip"])
async def test_a_packed_body_is_refused(encoding: str) -> None:
    async with serving(answer(gzip.compress(DATA), content_encoding=encoding)) as web:
        with pytest.raises(GiveUp, match="sends the data packed"):
            await downloaded(web.url)


async def test_a_server_cannot_have_its_own_words_in_a_message() -> None:
    async with serving(answer(DATA, content_encoding="\x1b[2J" + "ä" * 50)) as web:
        with pytest.raises(GiveUp, match=r"packed \(\?\[2j\?{16}\), though"):
            await downloaded(web.url)


async def test_a_body_that_is_said_not_to_be_packed_is_taken() -> None:
    async with serving(answer(DATA, content_encoding="identity")) as web:
        assert await downloaded(web.url) == DATA


async def test_a_packed_rest_is_refused() -> None:
    rest = part(1000, LAST, len(DATA), content_encoding="gzip")
    async with serving(Flaky([1000], rests=[rest])) as web:
        with pytest.raises(GiveUp, match="sends the data packed"):
            await downloaded(web.url)


async def test_a_server_that_is_not_there_may_be_back() -> None:
    async with serving(answer()) as web:
        pass
    with pytest.raises(SourceFailed):
        await downloaded(web.url)


async def test_a_host_that_nobody_knows_is_given_up() -> None:
    with pytest.raises(GiveUp, match=r"The host nowhere\.example is not known"):
        await downloaded("http://nowhere.example/", outbound=Refusing().outbound())


async def test_a_certificate_that_is_not_the_servers_is_given_up(certificates: Path) -> None:
    async with serving(answer(DATA), tls=tls_of(certificates, "wrong-name")) as web:
        outbound = on_loopback(cafile=str(certificates / "ca.pem"))
        with pytest.raises(GiveUp, match=r"The certificate of 127\.0\.0\.1 is not valid"):
            await downloaded(f"https://127.0.0.1:{web.port}/", outbound=outbound)
    assert web.asked == []


async def test_less_than_was_announced_is_a_failure() -> None:
    async with serving(answer(DATA, content_length=len(DATA) + 1)) as web:
        with pytest.raises(SourceFailed):
            await downloaded(web.url, size=len(DATA) + 1)


# Limits.


@pytest.mark.parametrize("is_announced", [True, False])
async def test_what_is_larger_than_an_image_may_be_is_given_up(is_announced: bool) -> None:
    limited = settings(DEFAULT__IMAGE_SIZE_CAP=str(len(DATA) - 1))
    handle = answer(DATA) if is_announced else answer(DATA, content_length=None)
    async with serving(handle) as web:
        with pytest.raises(GiveUp, match=f"has more than {len(DATA) - 1} bytes"):
            await downloaded(web.url, settings=limited, size=None)


async def test_what_is_just_as_large_as_an_image_may_be_is_taken() -> None:
    limited = settings(DEFAULT__IMAGE_SIZE_CAP=str(len(DATA)))
    async with serving(Flaky([1000])) as web:
        assert await downloaded(web.url, settings=limited) == DATA


async def dripping(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, content_length=len(DATA), etag=ETAG))
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_server_that_drips_is_not_asked_for_the_rest() -> None:
    async with serving(dripping) as web:
        with pytest.raises(SourceFailed, match="sends too slowly"):
            await downloaded(web.url, outbound=on_loopback(read_timeout=0.5, min_rate=100_000))
    assert len(web.asked) == 1


async def test_a_download_that_takes_too_long_is_given_up() -> None:
    limited = settings(IMPORT_SOURCES__TIMEOUT="0.2")
    async with serving(dripping) as web:
        with pytest.raises(GiveUp, match=r"took longer than 0\.2 s"):
            await downloaded(web.url, settings=limited)


# Where it must not go.


@pytest.mark.parametrize("url", FORBIDDEN_URLS, ids=ascii)
async def test_a_forbidden_url_is_refused_and_nobody_asked(url: str) -> None:
    network = Refusing({"allowed.example.org": [PUBLIC]})
    with pytest.raises(GiveUp):
        await downloaded(url, outbound=network.outbound())
    with pytest.raises(BadRequest):
        check_uri(url, ANY)
    assert (network.asked, network.connected) == ([], [])


async def test_forbidden_addresses_are_refused_and_nobody_asked() -> None:
    for address in FORBIDDEN_ADDRESSES:
        network = Refusing({"name.example": [address], "mixed.example": [PUBLIC, address]})
        for host in (in_url(address), "name.example", "mixed.example"):
            with pytest.raises(GiveUp) as refused:
                await downloaded(f"http://{host}/", outbound=network.outbound())
            if host.endswith(".example"):
                assert address not in str(refused.value)
        with pytest.raises(BadRequest):
            check_uri(f"http://{in_url(address)}/", ANY)
        assert network.connected == []


async def test_redirects_to_forbidden_places_are_refused() -> None:
    places = (*(f"http://{in_url(address)}/" for address in FORBIDDEN_ADDRESSES), "file:///etc/x")
    for place in places:
        async with serving(redirecting(place)) as web:
            network = Leading(web)
            with pytest.raises(GiveUp):
                await downloaded("http://example.org/", outbound=network.outbound())
        assert len(network.connected) == 1


async def test_a_redirect_after_a_break_is_vetted_as_well() -> None:
    rest = answer(b"", 302, location="http://169.254.169.254/latest/meta-data")
    async with serving(Flaky([1000], rests=[rest])) as web:
        network = Leading(web)
        with pytest.raises(GiveUp):
            await downloaded("http://example.org/", outbound=network.outbound())
    assert [address for address, *_ in network.connected] == [PUBLIC, PUBLIC]


# The operator's filters. Source: Glance 33.0, glance/tests/unit/common/test_utils.py.


@pytest.mark.parametrize(
    ("options", "uri", "passes"),
    [
        ({}, "http://example.org", True),
        ({}, "https://example.org:443/a", True),
        ({"ALLOWED_PORTS": "[80,443]"}, "http://example.org:443/", True),
        ({"ALLOWED_PORTS": "80"}, "http://example.org:443/", False),
        ({"ALLOWED_PORTS": "80"}, "https://example.org/", True),
        ({"ALLOWED_PORTS": "80", "DISALLOWED_PORTS": "80"}, "http://example.org:80/", True),
        ({"DISALLOWED_PORTS": "[80]"}, "http://example.org:80/", False),
        ({"DISALLOWED_PORTS": "80"}, "http://example.org/", True),
        ({"DISALLOWED_PORTS": "80"}, "http://example.org:443/", True),
        ({"ALLOWED_SCHEMES": "[https]"}, "http://example.org/", False),
        ({"ALLOWED_SCHEMES": "[HTTPS]"}, "https://example.org/", True),
        ({"ALLOWED_SCHEMES": "", "DISALLOWED_SCHEMES": "['http']"}, "http://example.org/", False),
        ({"ALLOWED_SCHEMES": "http", "DISALLOWED_SCHEMES": "http"}, "http://example.org/", True),
        ({"ALLOWED_SCHEMES": "ftp"}, "ftp://example.org/", False),
        ({"ALLOWED_HOSTS": "[example.org]"}, "http://EXAMPLE.org./", True),
        ({"ALLOWED_HOSTS": "Example.org"}, "http://example.org/", True),
        ({"ALLOWED_HOSTS": "example.org"}, "http://www.example.org/", False),
        ({"DISALLOWED_HOSTS": "example.org"}, "http://example.org/", False),
        ({"DISALLOWED_HOSTS": "example.org"}, "http://other.example/", True),
        (
            {"ALLOWED_HOSTS": "example.org", "DISALLOWED_HOSTS": "example.org"},
            "http://example.org/",
            True,
        ),
    ],
    ids=str,
)
async def test_lists_let_through_what_they_do_in_glance(
    options: dict[str, str], uri: str, passes: bool
) -> None:
    filtered = settings(**options)
    async with serving(answer(DATA)) as web:
        outbound = Leading(web).outbound(allowed_ports=())
        if passes:
            check_uri(uri, filtered)
            if uri.startswith("http:"):
                assert await downloaded(uri, outbound=outbound, settings=filtered) == DATA
        else:
            with pytest.raises(BadRequest):
                check_uri(uri, filtered)
            with pytest.raises(GiveUp):
                await downloaded(uri, outbound=outbound, settings=filtered)


async def test_a_redirect_passes_the_lists_or_is_not_followed() -> None:
    filtered = settings(ALLOWED_HOSTS="example.org")
    async with serving(redirecting("http://other.example/")) as web:
        network = Leading(web)
        with pytest.raises(GiveUp):
            await downloaded("http://example.org/", outbound=network.outbound(), settings=filtered)
    assert network.asked == ["example.org"]


def test_a_uri_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(BadRequest) as refused:
        check_uri("http://user:canary@example.org/", ANY)
    assert "canary" not in str(refused.value)


def test_lists_default_to_glances() -> None:
    options = ImagesSettings().import_filtering_opts
    assert options.allowed_schemes == ("http", "https")
    assert options.allowed_ports == (80, 443)
    empty = ("disallowed_schemes", "disallowed_ports", "allowed_hosts", "disallowed_hosts")
    assert [getattr(options, name) for name in empty] == [(), (), (), ()]
    check_uri("http://example.org/", ImagesSettings())
    with pytest.raises(BadRequest):
        check_uri("http://example.org:8080/", ImagesSettings())


async def test_a_host_that_does_not_exist_is_not_asked_for_again() -> None:
    network = Refusing()
    with pytest.raises(GiveUp, match=r"unknown\.example is not known"):
        await downloaded("http://unknown.example/", outbound=network.outbound())
    assert network.asked == ["unknown.example"]
