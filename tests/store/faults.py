"""A wire between a store and its server that breaks when it is told to, in a given exchange.

It takes one connection to the server for each that it is given, and reads HTTP/1.1 as far as it has
to in order to know where a request and its answer begin and end.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

_PIECE = 64 * 1024
_ESTABLISHED = 1


@dataclass(frozen=True, slots=True)
class Break:
    """An exchange breaks off, on both sides of the wire.

    `after` counts bytes of the body of the request or of the answer; the server has not seen the
    request of which 0 came through. None: the whole request has come through, or the whole answer
    is there but not a byte of it goes on.
    """

    side: Literal["request", "answer"]
    after: int | None
    how: Literal["reset", "close", "stall"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The server is not asked, this is answered."""

    status: int
    body: bytes = b"not now"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Garbage:
    """The server is not asked, something is answered that is not HTTP."""


@dataclass(frozen=True, slots=True)
class WrongLength:
    """The answer's Content-Length is so many bytes too large; the connection ends after it."""

    by: int


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer begins after a while, and comes with so many bytes a second."""

    delay_s: float = 0
    bytes_per_s: float = float("inf")


Fault = Break | Answer | Garbage | WrongLength | Slow


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; names of headers are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]


class _BrokenError(Exception):
    def __init__(self, how: Literal["reset", "close", "stall"]) -> None:
        super().__init__(how)
        self.how: Literal["reset", "close", "stall"] = how


class Wire:
    """Listens on a port of its own on loopback, in a thread of its own, and leads to a server.

    `connections` and `exchanges` are what is open and under way at the moment; `requests` are those
    since `heal`; `struck` counts the exchanges that a fault befell since then.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.connections = 0
        self.exchanges = 0
        self.struck = 0
        self.requests: list[Request] = []
        self._server = (host, port)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._skip = 0
        self._times = 0
        self._when: Callable[[Request], bool] = lambda _: True
        self._loop = asyncio.new_event_loop()
        self._handlers: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        # Keeps the port while nobody listens, so that connections are refused.
        self._placeholder: socket.socket | None = None

    @classmethod
    @contextmanager
    def to(cls, host: str, port: int) -> "Generator[Wire]":
        """A wire to that server, gone in the end with all that goes over it."""
        wire = cls(host, port)
        thread = threading.Thread(target=wire._loop.run_forever, name="wire")
        thread.start()
        try:
            wire._do(wire._listen())
            yield wire
        finally:
            wire._do(wire._end())
            wire._loop.call_soon_threadsafe(wire._loop.stop)
            thread.join()
            wire._loop.close()

    def inflict(
        self,
        fault: Fault,
        *,
        skip: int = 0,
        times: int | None = 1,
        when: Callable[[Request], bool] = lambda _: True,
    ) -> None:
        """Have the fault befall the next exchanges, `times` of them (None: all), after `skip`.

        `when` chooses the exchanges that count.
        """
        with self._lock:
            self._fault, self._skip, self._when = fault, skip, when
            self._times = 1 << 62 if times is None else times

    def heal(self) -> None:
        """Let everything through again, and forget what went before."""
        with self._lock:
            self._fault, self.struck = None, 0
            self.requests.clear()

    def refuse(self) -> None:
        """Break all connections and refuse others, until `listen`."""
        self._do(self._stop_listening())

    def listen(self) -> None:
        """Take connections again."""
        self._do(self._listen())

    def _do(self, call: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _choose(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            if self._fault is None or not self._when(request):
                return None
            if self._skip:
                self._skip -= 1
                return None
            if not self._times:
                return None
            self._times -= 1
            self.struck += 1
            return self._fault

    # What follows runs in the wire's thread.

    async def _listen(self) -> None:
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        self._listening = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=1024 * 1024
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            self._placeholder = socket.socket()
            self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._placeholder.bind(("127.0.0.1", self.port))
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _end(self) -> None:
        await self._stop_listening()
        if self._placeholder is not None:
            self._placeholder.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._serve(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.exchanges += 1
                try:
                    request = _request(head)
                    fault = self._choose(request)
                    if isinstance(fault, Answer | Garbage):
                        await _answer(fault, request, reader, writer)
                        continue
                    if server is None:
                        server = await asyncio.open_connection(*self._server, limit=1024 * 1024)
                    if not await _exchange(request, head, fault, (reader, writer), server):
                        break
                except _BrokenError as broken:
                    await _break_off(broken.how, writer)
                    break
                finally:
                    self.exchanges -= 1
        except (OSError, EOFError):
            pass  # one of the two sides has gone
        except asyncio.CancelledError:
            await _break_off("reset", writer)
        finally:
            self.connections -= 1
            writer.close()
            if server is not None:
                server[1].transport.abort()


def _request(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    return Request(method, target, _headers(lines))


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _answer(
    fault: Answer | Garbage,
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    # Who asks first whether the body is wanted gets the answer to that.
    is_wanted = "expect" not in request.headers
    if is_wanted:
        async for _ in _body(reader, request.headers, is_answer=False):
            pass
    if isinstance(fault, Garbage):
        writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        raise _BrokenError("close")
    headers = [("Content-Length", str(len(fault.body))), *fault.headers]
    if not is_wanted:
        headers.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {fault.status} Fault", *(f"{name}: {value}" for name, value in headers)]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    if request.method != "HEAD":
        writer.write(fault.body)
    await writer.drain()
    if not is_wanted:
        raise _BrokenError("close")


async def _exchange(
    request: Request,
    head: bytes,
    fault: Break | WrongLength | Slow | None,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> bool:
    """Whether the connection is good for another exchange; raises _BrokenError."""
    sending = asyncio.create_task(_send(request, head, fault, client[0], server[1]))
    answering = asyncio.create_task(_pass_answer(request, fault, server[0], client[1]))
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await sending
        # An answer may come before the request has ended; nothing is sent after it then.
        return await answering and sending.done()
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(
    request: Request,
    head: bytes,
    fault: Break | WrongLength | Slow | None,
    reader: asyncio.StreamReader,
    server: asyncio.StreamWriter,
) -> None:
    left = fault.after if isinstance(fault, Break) and fault.side == "request" else None
    if isinstance(fault, Break) and left == 0:
        raise _BrokenError(fault.how)
    server.write(head)
    async for piece in _body(reader, request.headers, is_answer=False):
        if isinstance(fault, Break) and left is not None and left < len(piece):
            server.write(piece[:left])
            await server.drain()
            raise _BrokenError(fault.how)
        left = None if left is None else left - len(piece)
        server.write(piece)
        await server.drain()
    await server.drain()
    if isinstance(fault, Break) and fault.side == "request" and fault.after is None:
        raise _BrokenError(fault.how)


async def _pass_answer(
    request: Request,
    fault: Break | WrongLength | Slow | None,
    server: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Whether the server keeps the connection."""
    while True:
        head = await server.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        if status >= 200:
            break
        writer.write(head)
        await writer.drain()
    headers = _headers(lines)
    has_body = request.method != "HEAD" and status not in (204, 304)
    body = _body(server, headers, is_answer=True) if has_body else _nothing()
    left = fault.after if isinstance(fault, Break) and fault.side == "answer" else 1 << 62
    if isinstance(fault, Break) and left is None:
        async for _ in body:
            pass
        raise _BrokenError(fault.how)
    if isinstance(fault, Slow):
        await asyncio.sleep(fault.delay_s)
    if isinstance(fault, WrongLength) and "content-length" in headers:
        wrong = f"Content-Length: {int(headers['content-length']) + fault.by}"
        lines = [wrong if one.lower().startswith("content-length:") else one for one in lines]
        head = "\r\n".join([first, *lines]).encode("latin-1")
    writer.write(head)
    assert left is not None
    async for piece in body:
        if isinstance(fault, Slow):
            await asyncio.sleep(len(piece) / fault.bytes_per_s)
        writer.write(piece[:left])
        await writer.drain()
        if isinstance(fault, Break) and left < len(piece):
            raise _BrokenError(fault.how)
        left -= len(piece)
    if isinstance(fault, Break) and fault.side == "answer":
        raise _BrokenError(fault.how)  # the whole of it came through
    await writer.drain()
    if isinstance(fault, WrongLength):
        raise _BrokenError("close")
    return headers.get("connection", "").lower() != "close"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], *, is_answer: bool
) -> AsyncIterator[bytes]:
    """The body as it comes, with the marks of its chunks if it has any."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        size = 1
        while size:
            line = await reader.readline()
            yield line
            size = int(line.partition(b";")[0], 16)
            left = size
            while left:
                piece = await _some(reader, left)
                left -= len(piece)
                yield piece
            if size:
                yield await reader.readexactly(2)
        # What may follow the last chunk: lines up to an empty one.
        line = b""
        while line != b"\r\n":
            line = await reader.readline()
            yield line
    elif "content-length" in headers:
        left = int(headers["content-length"])
        while left:
            piece = await _some(reader, left)
            left -= len(piece)
            yield piece
    elif is_answer:
        while piece := await reader.read(_PIECE):
            yield piece


async def _some(reader: asyncio.StreamReader, most: int) -> bytes:
    piece = await reader.read(min(_PIECE, most))
    if not piece:
        raise EOFError
    return piece


async def _break_off(how: Literal["reset", "close", "stall"], writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    if how == "stall":
        # Nothing is read any more, so that the end of the connection is seen nowhere else.
        while _is_connected(peer):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    elif how == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()


def _is_connected(peer: socket.socket) -> bool:
    return peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
