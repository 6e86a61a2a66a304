"""A web server of a few lines, for answers that no real one would give."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """A request as it came: header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    content: bytes


Handle = Callable[[Asked, asyncio.StreamWriter], Awaitable[object]]


@dataclass
class Web:
    """A running server: what it was asked, and how many came without asking anything."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def head(status: int = 200, **headers: object) -> bytes:
    """The head of an answer; `_` in a name stands for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(body: bytes = b"", status: int = 200, **headers: object) -> Handle:
    """Answers every request alike, with the length of the body unless `content_length` says else.

    None leaves a header out.
    """
    all_headers = {"content_length": len(body)} | headers
    shown = {name: value for name, value in all_headers.items() if value is not None}

    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, **shown) + (b"" if asked.method == "HEAD" else body))
        await writer.drain()

    return handle


@asynccontextmanager
async def serving(handle: Handle, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Web]:
    """Serve on loopback; every connection is closed after one answer, and all are on leaving."""
    web = Web()
    tasks: set[asyncio.Task[None]] = set()
    if tls is not None:
        tls.sni_callback = lambda _connection, name, _context: web.names.append(name)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        web.connections += 1
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            method, target, _ = lines[0].split(" ")
            pairs = (line.split(": ", 1) for line in lines[1:])
            headers = {name.lower(): value for name, value in pairs}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(method, target, headers, content)
            web.asked.append(asked)
            await handle(asked, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(exchange(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def serving_from_a_thread(handle: Handle) -> Generator[Web]:
    """As `serving`, for tests that are no coroutines."""
    started: Future[tuple[Web, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        leave = asyncio.Event()
        async with serving(handle) as web:
            started.set_result((web, asyncio.get_running_loop(), leave))
            await leave.wait()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, serve())
        web, loop, leave = started.result(timeout=10)
        try:
            yield web
        finally:
            loop.call_soon_threadsafe(leave.set)
            running.result()
