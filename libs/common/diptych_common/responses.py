"""What a route answers with: a JSON document in one pass, or the bytes of a blob as they come.

Error bodies are each service's own; `RenderError` is their shape.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final, cast

import anyio
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diptych_common.errors import ApiError

RenderError = Callable[[Scope, ApiError], Response]

Block = bytes | bytearray | memoryview

# Has the kernel pass the next bytes to a socket that never blocks, by its descriptor, a number of
# them at most; how many went, 0 if the socket takes none for now, None if it never will again. What
# it does after it was cancelled it does with a descriptor of its own.
PassTo = Callable[[int, int], Awaitable[int | None]]

# An extension of ASGI, and the type of its message, which has `pass_to` and a `count`: the server
# has so many bytes of the body passed to the connection's own socket.
PASSING: Final = "diptych.http.response.pass"

# Bytes for which it is worth while: fewer are sent by fewer calls as a block.
_WORTHWHILE = 256 * 1024
# Bytes that are passed by one message, after which they are counted.
_PASSED_AT_ONCE = 8 * 1024 * 1024


def counting(pass_to: PassTo, count: Callable[[int], None]) -> PassTo:
    """The same, and `count` is told the numbers of bytes that went."""

    async def counted(socket: int, at_most: int) -> int | None:
        passed = await pass_to(socket, at_most)
        if passed:
            count(passed)
        return passed

    return counted


class BrokenOff(Exception):
    """A body ended before, or went beyond, the length that its header had promised."""


def json_response(
    document: object,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """Answer with `document`, made of what orjson writes by itself."""
    return Response(
        orjson.dumps(document), status_code=status, headers=headers, media_type=media_type
    )


class BlobResponse(Response):
    """Answer with `length` bytes from `blocks`, block by block as they come.

    `close` is awaited exactly once, whether the body was sent whole, the client went away (which
    ends the reading at once, whatever it waits for), `blocks` failed, or the request was
    cancelled; it gets what the route opened (`AsyncExitStack.aclose`). `on_sent` is told the size
    of every block that was handed to the server.

    An error of `blocks`, or a sum of bytes other than `length`, is raised: the server then breaks
    the connection, so that no client takes a part for the whole. HEAD gets the headers only, and
    nothing is read. Blocks should be large: each costs one turn of the loop (256 KiB blocks were
    measured a third slower than 1 MiB), and should be `bytes`, for others are copied. With
    `pass_to`, and a server that knows how, nothing is asked of `blocks`.
    """

    def __init__(
        self,
        blocks: AsyncIterator[Block],
        *,
        length: int,
        close: Callable[[], Awaitable[None]],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/octet-stream",
        on_sent: Callable[[int], None] | None = None,
        pass_to: PassTo | None = None,
    ) -> None:
        # As StreamingResponse does, not calling Response.__init__, which renders a body.
        self.status_code = status
        self.media_type = media_type
        self.background = None
        self.init_headers({**(headers or {}), "content-length": str(length)})
        self._blocks = blocks
        self._length = length
        self._close = close
        self._on_sent = on_sent
        self._pass_to = pass_to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or raise."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
            else:
                sending = self._send_blocks
                can_pass = PASSING in scope.get("extensions", ())
                if self._pass_to is not None and can_pass and self._length >= _WORTHWHILE:
                    sending = partial(self._pass, pass_to=self._pass_to)
                await self._send_while_wanted(sending, receive, send)
        finally:
            # A client that is gone, or a server that stops, must not keep the file open.
            with anyio.CancelScope(shield=True):
                if isinstance(self._blocks, AsyncGenerator):
                    await cast(AsyncGenerator[Block], self._blocks).aclose()
                await self._close()

    async def _send_while_wanted(
        self, sending: Callable[[Send], Awaitable[None]], receive: Receive, send: Send
    ) -> None:
        # uvicorn tells of a lost connection by `receive` only: its `send` then drops what it is
        # given, without a word.
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                await sending(send)
            except Exception as error:
                failure = error
            group.cancel_scope.cancel()
        # Raised out here, for a task group would wrap it.
        if failure is not None:
            raise failure

    async def _send_blocks(self, send: Send) -> None:
        missing = self._length
        if missing == 0:
            await send({"type": "http.response.body"})
            return
        async for block in self._blocks:
            size = len(block)
            if size > missing:
                raise BrokenOff(f"There are more bytes than the {self._length} announced.")
            missing -= size
            # The server may hold on to a block when `send` has returned, the store may not let
            # anybody: only an immutable block goes through as it is.
            body = block if isinstance(block, bytes) else bytes(block)
            del block
            await send({"type": "http.response.body", "body": body, "more_body": missing > 0})
            del body
            if self._on_sent is not None:
                self._on_sent(size)
            if missing == 0:
                return
            # uvicorn waits for the connection when it is given more. Were that the next block, a
            # slow client would hold it, the one before, and the one that is read ahead.
            await send({"type": "http.response.body", "more_body": True})
            # Neither a quick store nor a server that drops what it is given need ever wait; were
            # this not to, nothing else would run, the watching for a client that is gone least.
            await asyncio.sleep(0)
        raise BrokenOff(f"{missing} of {self._length} bytes are missing.")

    async def _pass(self, send: Send, pass_to: PassTo) -> None:
        missing = self._length
        counted = pass_to if self._on_sent is None else counting(pass_to, self._on_sent)
        while missing:
            count = min(missing, _PASSED_AT_ONCE)
            await send({"type": PASSING, "pass_to": counted, "count": count})
            missing -= count
            await asyncio.sleep(0)  # as above
        await send({"type": "http.response.body"})
