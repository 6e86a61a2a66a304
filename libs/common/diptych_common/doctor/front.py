"""Whether a URL leads to this service, and whether what is between lets transfers through.

How uploads come through is told without an image, and without a token, which would not be safe at
an address that somebody mistyped: the service turns a stranger away before it has the body of the
request, so a proxy that hands over bodies as they come has an answer while the body is not over.
One that gathers the whole body first has none.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
import orjson

from diptych_common.doctor.findings import Ended, Examination, Notes

_TROUBLES: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, EOFError, ValueError)
_REACH: Final = "Is the address right, and does what answers there pass requests to this service?"
_LINKS: Final = (
    "Have the proxy send X-Forwarded-Proto and -Host, set [oslo_middleware]"
    " enable_proxy_headers_parsing and trusted_proxies; or set [DEFAULT] public_endpoint."
)
_BUFFERS: Final = (
    "Have it pass bodies on as they come (nginx: proxy_request_buffering off, proxy_http_version"
    " 1.1): each upload waits for its last byte, and fills the proxy's disk."
)
_LIMITS: Final = "Lift its limit (nginx: client_max_body_size 0)."

# Seconds without an answer to half a request after which nobody gives one; at least so long, and so
# many times as long as a whole request takes.
_SILENCE_S: Final = 3.0
_TIMES: Final = 10

_LONGEST_HEAD: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Front:
    """What this service is seen by.

    `is_ours` tells whether a document of versions, decoded, is that of such a service; `links_of`
    has the addresses in it that are the service's own. To the path `upload` bodies of up to
    `largest` bytes may be sent by PUT, by those who are somebody.
    """

    is_ours: Callable[[Any], bool]
    links_of: Callable[[Any], list[str]]
    upload: str
    largest: int


def verifying(cafile: str | None) -> ssl.SSLContext:
    """Checks certificates against these authorities, None: the system's. OSError."""
    return ssl.create_default_context(cafile=cafile)


def examination(url: str, front: Front, cafile: str | None) -> Examination:
    """Of the service as it is seen at `url`, a proxy's: whether it is there, how uploads come."""

    async def examine(notes: Notes) -> None:
        async with notes.asking("proxy", "Check the file of authorities.", troubles=(OSError,)):
            context = verifying(cafile)
        await answers(notes, "proxy", url, front, context)
        address = urlsplit(url)
        await _uploads(notes, address, front, context)
        await _sizes(notes, address, front, context)

    return examine


async def answers(
    notes: Notes, about: str, url: str, front: Front, context: ssl.SSLContext
) -> None:
    """Note whether this service is at `url`, and says so in its links; Ended where it is not."""
    async with (
        notes.asking(about, _REACH, troubles=_TROUBLES),
        httpx.AsyncClient(verify=context, timeout=notes.seconds, trust_env=False) as client,
    ):
        answer = await client.get(f"{url.rstrip('/')}/")
    told = f"{url} answers {answer.status_code}"
    try:
        document = orjson.loads(answer.content)
        is_ours = front.is_ours(document)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        document, is_ours = None, False
    if not is_ours:
        notes.fail(about, f"{told}, and not as this service does.", _REACH)
        raise Ended
    beginning = _origin(urlsplit(url))
    others = {_origin(urlsplit(link)) for link in front.links_of(document)} - {beginning}
    if others:
        notes.warn(about, f"{told}; its links lead to {', '.join(sorted(others))}.", _LINKS)
    else:
        notes.ok(about, f"{told} as this service does.")


def _origin(address: SplitResult) -> str:
    host = (address.hostname or "").lower()
    default = {"http": 80, "https": 443}.get(address.scheme)
    port = "" if address.port in (None, default) else f":{address.port}"
    return f"{address.scheme}://{host}{port}"


async def _uploads(
    notes: Notes, address: SplitResult, front: Front, context: ssl.SSLContext
) -> None:
    about = "uploads"
    async with (
        notes.asking(about, _REACH, troubles=_TROUBLES),
        _put(address, front, context, "Transfer-Encoding: chunked") as whole,
    ):
        began = time.perf_counter()
        whole.send(b"1\r\nx\r\n0\r\n\r\n")
        status = await whole.status()
        silence = max(_SILENCE_S, _TIMES * (time.perf_counter() - began))
    if status == 411:
        told = "The proxy takes no body whose length it is not told."
        notes.warn(about, told, "Have it speak HTTP/1.1 with both sides.")
        return
    if not 200 <= status < 500:
        notes.fail(about, f"The proxy answers {status}.", _REACH)
        return
    async with (
        notes.asking(about, _REACH, troubles=_TROUBLES),
        _put(address, front, context, "Transfer-Encoding: chunked") as half,
    ):
        half.send(b"1\r\nx\r\n")
        early = await half.status_within(min(silence, notes.seconds / 2))
        if early is None:
            half.send(b"0\r\n\r\n")
            await half.status()
    if early is None:
        notes.warn(about, "The proxy gathers whole bodies before it passes them on.", _BUFFERS)
    else:
        notes.ok(about, "They are passed on as they come.")


async def _sizes(notes: Notes, address: SplitResult, front: Front, context: ssl.SSLContext) -> None:
    about = "size of uploads"
    async with (
        notes.asking(about, _REACH, troubles=_TROUBLES),
        _put(address, front, context, f"Content-Length: {front.largest}") as announced,
    ):
        announced.send(b"x")
        # A proxy that gathers bodies answers nothing here unless it refuses.
        status = await announced.status_within(min(_SILENCE_S, notes.seconds / 2))
    if status == 413:
        told = f"The proxy refuses {front.largest} bytes, which this service would take."
        notes.fail(about, told, _LIMITS)
    else:
        notes.ok(about, f"{front.largest} bytes are not refused.")


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose body is not over; what is answered is read meanwhile."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        """More of the body."""
        self.writer.write(data)

    async def status(self) -> int:
        """The status of the answer. EOFError, OSError, ValueError if there is none."""
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            words = head.split(maxsplit=2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/"):
                raise ValueError("The answer is not HTTP.")
            status = int(words[1])
            if status >= 200:  # 100 is no answer yet
                return status

    async def status_within(self, seconds: float) -> int | None:
        """The same, None if there is none within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self.status()
        except TimeoutError:
            return None


@asynccontextmanager
async def _put(
    address: SplitResult, front: Front, context: ssl.SSLContext, length: str
) -> AsyncGenerator[_Request]:
    """Begin a PUT of a body, by nobody."""
    is_tls = address.scheme == "https"
    host = address.hostname or ""
    reader, writer = await asyncio.open_connection(
        host,
        address.port or (443 if is_tls else 80),
        ssl=context if is_tls else None,
        limit=_LONGEST_HEAD,
    )
    try:
        path = address.path.rstrip("/") + front.upload
        named = address.netloc.rpartition("@")[2]
        writer.write(
            f"PUT {path} HTTP/1.1\r\nHost: {named}\r\nContent-Type: application/octet-stream\r\n"
            f"{length}\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        yield _Request(reader, writer)
    finally:
        # At once: nobody waits for a body that ends here.
        writer.transport.abort()
