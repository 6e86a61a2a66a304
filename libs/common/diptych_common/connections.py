"""What one connection to the server may do before anybody knows who it is.

uvicorn leaves these limits to a proxy in front; here they hold without one.
"""

import asyncio
import fcntl
import os
import struct
import termios
from typing import Any, cast
from uuid import uuid4

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from diptych_common.responses import PASSING, PassTo

# Bytes of a request's first line and headers. Keystone's largest tokens take 8 KiB.
MAX_HEAD = 64 * 1024

# Seconds to send them in, from the first byte (from connecting, for the first request).
HEAD_TIMEOUT_S = 30.0

# Bytes of a body that are read and thrown away once its request was answered, so that a client
# which sends everything before it listens hears why it was refused.
MAX_DISCARDED = 16 * 1024 * 1024


class Connections(ServerState):
    """All connections of a process. Once it drains, each is closed by the next answer it gets.

    The answer says so, and the other end takes another connection for its next request: nobody
    sends one to a connection that is being closed.
    """

    is_draining = False

    def drain(self) -> None:
        """Begin to drain."""
        self.is_draining = True
        for one in self._all:
            one.close_after_answer()

    @property
    def has_strangers(self) -> bool:
        """Whether a connection is so new that its first request has not come yet."""
        return any(one.is_new for one in self._all)

    @property
    def _all(self) -> "set[GuardedConnection]":
        return cast("set[GuardedConnection]", self.connections)


class GuardedConnection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection with limits; trailers of a body are dropped.

    uvicorn would append them to the headers that the application is looking at. A request to
    upgrade is answered as if it were none (RFC 9110 §7.8): with uvicorn its body would be lost.
    """

    _in_head = True
    _head_bytes = 0
    _is_head_too_large = False
    _discarded = 0
    _head_timer: asyncio.TimerHandle | None = None
    _is_upgrade = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's own
        """Begin to wait for the first request."""
        self._lost = asyncio.Event()
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget_timer()
        super().connection_lost(exc)
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; refuse a head without an end."""
        if self._in_head:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > MAX_HEAD:
            self._refuse_head()
            return
        # Any data stops uvicorn's timer for idle connections, that of a body which nobody reads
        # any more too; only the end of an answer starts it.
        is_answered = self.cycle is not None and self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
        if is_answered and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @property
    def is_new(self) -> bool:
        """Whether no request has come yet."""
        return self.cycle is None  # pyright: ignore[reportUnnecessaryComparison] - before the first request

    def close_after_answer(self) -> None:
        """Have the answer that is to come say that the connection is closed after it.

        Not while the body has not come whole: a connection that is closed with bytes unread is
        reset, and what it was answered may be lost.
        """
        cycle = None if self.is_new else self.cycle
        if cycle is not None and not cycle.response_started and not cycle.more_body:
            cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close, or close after the answer; one that has a request waiting is answered first."""
        # Not what is left of a body that was refused: nobody waits for that.
        is_idle = self.is_new or (self.cycle.response_complete and not self.cycle.more_body)
        if is_idle and not self.transport.is_closing() and self._has_unread():
            return
        super().shutdown()

    def _has_unread(self) -> bool:
        socket = self.transport.get_extra_info("socket")
        waiting = fcntl.ioctl(socket.fileno(), termios.FIONREAD, bytes(4))
        return struct.unpack("i", waiting)[0] > 0

    @property
    def _parser(self) -> httptools.HttpRequestParser:
        # uvicorn drops it with the connection, when no more data comes.
        return cast(httptools.HttpRequestParser, self.parser)

    def _parse(self, data: bytes) -> None:
        """Feed the parser; a head that asks for an upgrade goes in again without that."""
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
                data = self._head_without_upgrade() + rest if self._is_upgrade else b""
                self._is_upgrade = False
            except httptools.HttpParserError:
                if self._is_head_too_large:
                    self._refuse_head()
                else:
                    self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_upgrade(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {PASSING: {}}  # pyright: ignore[reportArgumentType] - not in the specification
        if not self._in_head:
            self._in_head = True
            self._head_bytes = 0
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; not a trailer."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, unless the head is too large."""
        # Of a head that comes in one piece nothing was counted before its end.
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD:
            self._is_head_too_large = True
            raise ValueError("the head is too large")  # the parser stops, and tells its caller
        # The parser takes what follows for another protocol, and would not read a body. CONNECT
        # always asks for one; the application refuses it.
        self._is_upgrade = self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"
        if self._is_upgrade:
            return
        self._in_head = False
        self._discarded = 0
        self._forget_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that a request has come whole."""
        if self._is_upgrade:
            return
        super().on_message_complete()
        if cast(Connections, self.server_state).is_draining:
            self.close_after_answer()

    def on_body(self, body: bytes) -> None:
        """Hand over a piece of the body, or throw it away when the answer is out."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARDED:
                self.transport.close()
            return
        if not self.cycle.body and len(body) > HIGH_WATER_LIMIT:
            # uvicorn gathers pieces in a bytearray, of which it makes bytes for the application:
            # two copies that one piece, after which it reads no more for now, does without.
            self.cycle.body = body  # pyright: ignore[reportAttributeAccessIssue]
            self.flow.pause_reading()
            self.cycle.message_event.set()
            return
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def passing(scope: Any, receive: Any, send: Any) -> None:
            async def passing_send(message: Any) -> None:
                if message["type"] == PASSING:
                    await self._pass(cycle, message["pass_to"], message["count"])
                else:
                    await send(message)

            await app(scope, receive, passing_send)

        super()._start_asgi_task(cycle, passing if cycle.scope["method"] == "GET" else app)

    async def _pass(self, cycle: RequestResponseCycle, pass_to: PassTo, count: int) -> None:
        """Have so many bytes passed to the socket, as many at a time as it takes.

        Where the connection is lost before all went, it ends when `receive` has told of that.
        """
        if not self.transport.is_closing():
            # What was written before goes first; afterwards uvicorn's own limits hold again.
            self.transport.set_write_buffer_limits(0)
            await self.flow.drain()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()
            # The transport may close the socket meanwhile, and its number be another's.
            own = os.dup(self.transport.get_extra_info("socket").fileno())
            try:
                while count and not cycle.disconnected:
                    passed = await pass_to(own, count)
                    if passed is None:
                        break
                    count -= passed
                    cycle.expected_content_length -= passed
                    if not passed:
                        await self._writable(own)
            finally:
                os.close(own)
        if count:
            self.transport.abort()
            await self._lost.wait()

    async def _writable(self, descriptor: int) -> None:
        writable = asyncio.Event()
        self.loop.add_writer(descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            self.loop.remove_writer(descriptor)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(b"400 Bad Request", msg.encode("ascii"))

    def _refuse_head(self) -> None:
        self._refuse(b"431 Request Header Fields Too Large", b"The headers are too large.")

    def _refuse(self, status: bytes, text: bytes) -> None:
        # Never into the middle of another answer.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nx-openstack-request-id: req-%s\r\n"
                b"connection: close\r\n\r\n%s" % (status, len(text), str(uuid4()).encode(), text)
            )
        self.transport.close()

    def _expect_head(self) -> None:
        self._forget_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            # A request sent ahead of the answer to the one before: nobody reads it yet.
            self._expect_head()
        else:
            self.transport.close()

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class CloseAfterRefusal:
    """Closes the connection when a request that awaits `100 Continue` is answered without it.

    The client may then send the body or leave it out (RFC 9110 §10.1.1); on a connection that
    stayed open, its next request would be taken for that body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch it if it awaits."""
        if scope["type"] != "http" or not any(name == b"expect" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def noting_receive() -> Message:
            nonlocal is_read
            is_read = True
            return await receive()

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, noting_receive, closing_send)
