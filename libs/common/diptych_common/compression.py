"""Documents made smaller for clients that accept it; data go out as they are."""

import asyncio
import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Bytes. Below, the answer fits a packet or two anyway.
_WORTHWHILE = 1024
# Bytes that are compressed in the time of a short statement; more go to a thread.
_SHORT = 64 * 1024
# Twice as fast as the usual 6, for a few percent of the size of JSON.
_LEVEL = 4

_KINDS = ("application/json", "text/html", "text/plain")


class Compression:
    """Compresses documents of over 1 KB with gzip where `Accept-Encoding` names it.

    Only what is sent in one piece: a stream, a part, and whatever is not text or JSON are neither
    changed nor held back.

    Source: Glance 33.0 `api/middleware/gzip.py`, which is in no pipeline that it ships, and would
    compress images too, so that neither their length nor a range could be told.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, with a smaller answer where there can be one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_accepted = _accepts_gzip(Headers(scope=scope))
        start: Message | None = None

        async def compressing_send(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_document(message):
                # Whether the body is one piece is told by its first message.
                start = message
                return
            if start is not None:
                begun, start = start, None
                body = message.get("body", b"")
                if not message.get("more_body", False) and len(body) > _WORTHWHILE:
                    begun, message = await _compressed(begun, message, is_accepted=is_accepted)
                await send(begun)
            await send(message)

        await self._app(scope, receive, compressing_send)


def _is_document(start: Message) -> bool:
    headers = Headers(raw=list(start.get("headers", ())))
    return (
        headers.get("content-type", "").partition(";")[0] in _KINDS
        and "content-encoding" not in headers
        # Data of blobs, of which parts can be had: their length, digests and strong ETag are those
        # of the bytes as they are.
        and "accept-ranges" not in headers
        and start["status"] not in (206, 304)
    )


async def _compressed(
    start: Message, body: Message, *, is_accepted: bool
) -> tuple[Message, Message]:
    start = {**start, "headers": list(start["headers"])}
    headers = MutableHeaders(scope=start)
    # A cache must not give it to those who cannot read it, nor the other to those who can.
    headers.add_vary_header("Accept-Encoding")
    if not is_accepted:
        return start, body
    plain: bytes = body["body"]
    if len(plain) <= _SHORT:
        packed = gzip.compress(plain, _LEVEL, mtime=0)
    else:
        packed = await asyncio.to_thread(gzip.compress, plain, _LEVEL, mtime=0)
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(packed))
    return start, {**body, "body": packed}


def _accepts_gzip(headers: Headers) -> bool:
    for item in headers.get("accept-encoding", "").lower().split(","):
        coding, _, quality = item.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return quality.replace(" ", "").rstrip("0") not in ("q=", "q=0.", "q=.")
    return False
