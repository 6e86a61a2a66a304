import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from diptych_common.responses import BlobResponse, Block, BrokenOff, json_response
from starlette.types import Message, Scope


class Connection:
    """What a server is to an application; `gone` is set when the client goes away."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.is_body_taken = False

    async def receive(self) -> Message:
        if not self.is_body_taken:
            self.is_body_taken = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:] if "body" in message)

    @property
    def is_whole(self) -> bool:
        return not self.sent[-1].get("more_body", False) and len(self.sent) > 1


class Source:
    """Blocks that note how often they were closed and how many were read."""

    def __init__(self, blocks: Iterable[Block | Exception]) -> None:
        self.given = list(blocks)
        self.read = self.closed = 0

    async def blocks(self) -> AsyncIterator[Block]:
        for block in self.given:
            self.read += 1
            if isinstance(block, Exception):
                raise block
            yield block

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


def scope(method: str = "GET") -> Scope:
    return {"type": "http", "method": method, "headers": []}


async def test_the_body_is_the_blocks() -> None:
    connection, source, sizes = (
        Connection(),
        Source([b"abc", bytearray(b"d"), memoryview(b"ef")]),
        [],
    )
    response = BlobResponse(
        source.blocks(),
        length=6,
        close=source.close,
        status=206,
        headers={"content-range": "bytes 0-5/9"},
        on_sent=sizes.append,
    )
    await response(scope(), connection.receive, connection.send)
    assert connection.sent[0]["status"] == 206
    assert dict(connection.sent[0]["headers"]) == {
        b"content-range": b"bytes 0-5/9",
        b"content-length": b"6",
        b"content-type": b"application/octet-stream",
    }
    assert connection.body == b"abcdef"
    assert connection.is_whole
    assert sizes == [3, 1, 2]
    assert source.closed == 1


async def test_a_block_that_its_store_uses_again_is_sent_as_it_was() -> None:
    connection, source, buffer = Connection(), Source([]), bytearray(1)

    async def blocks() -> AsyncIterator[memoryview]:
        for value in b"xyz":
            buffer[0] = value
            yield memoryview(buffer)

    response = BlobResponse(blocks(), length=3, close=source.close)
    await response(scope(), connection.receive, connection.send)
    assert connection.body == b"xyz"


async def test_an_empty_blob_is_sent() -> None:
    connection, source = Connection(), Source([])
    await BlobResponse(source.blocks(), length=0, close=source.close)(
        scope(), connection.receive, connection.send
    )
    assert connection.body == b""
    assert connection.is_whole
    assert source.closed == 1


async def test_head_reads_nothing() -> None:
    connection, source = Connection(), Source([b"abc"])
    await BlobResponse(source.blocks(), length=3, close=source.close)(
        scope("HEAD"), connection.receive, connection.send
    )
    assert (b"content-length", b"3") in connection.sent[0]["headers"]
    assert connection.body == b""
    assert connection.is_whole
    assert (source.read, source.closed) == (0, 1)


@pytest.mark.parametrize(
    ("blocks", "length", "error"),
    [
        ([b"abc", OSError("the disk is gone")], 6, OSError),
        ([b"abc"], 6, BrokenOff),
        ([b"abc", b"def"], 5, BrokenOff),
        ([], 1, BrokenOff),
    ],
)
async def test_a_body_that_cannot_be_whole_is_never_ended(
    blocks: list[Block | Exception], length: int, error: type[Exception]
) -> None:
    connection, source = Connection(), Source(blocks)
    with pytest.raises(error):
        await BlobResponse(source.blocks(), length=length, close=source.close)(
            scope(), connection.receive, connection.send
        )
    assert not connection.is_whole
    assert len(connection.body) < length
    assert source.closed == 1


async def test_a_client_that_goes_away_ends_a_reading_that_waits() -> None:
    connection, source = Connection(), Source([])
    waits = asyncio.Event()
    was_cancelled = False

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal was_cancelled
        yield b"abc"
        waits.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    response = BlobResponse(blocks(), length=6, close=source.close)
    answering = asyncio.create_task(response(scope(), connection.receive, connection.send))
    await waits.wait()
    connection.gone.set()
    await answering
    assert was_cancelled
    assert source.closed == 1
    assert not connection.is_whole


async def test_a_store_and_a_server_that_never_wait_starve_nobody() -> None:
    connection, source = Connection(), Source([])

    async def blocks() -> AsyncIterator[bytes]:
        while True:
            yield b"x"

    async def dropping(_: Message) -> None:
        pass

    response = BlobResponse(blocks(), length=1 << 60, close=source.close)
    answering = asyncio.create_task(response(scope(), connection.receive, dropping))
    await asyncio.sleep(0.01)
    connection.gone.set()
    await answering
    assert source.closed == 1


async def test_a_cancelled_request_frees_the_reading() -> None:
    connection, source = Connection(), Source([])
    waits = asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        waits.set()
        await asyncio.sleep(3600)
        yield b""

    response = BlobResponse(blocks(), length=6, close=source.close)
    answering = asyncio.create_task(response(scope(), connection.receive, connection.send))
    await waits.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert source.closed == 1


async def test_a_client_gone_before_the_first_byte_frees_the_reading() -> None:
    connection, source = Connection(), Source([b"abc"])

    async def broken(_: Message) -> None:
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        await BlobResponse(source.blocks(), length=3, close=source.close)(
            scope(), connection.receive, broken
        )
    assert source.closed == 1


def test_json_is_utf8_and_unescaped() -> None:
    response = json_response({"name": "Bär", "n": [1, None]}, status=201, headers={"x-y": "z"})
    assert response.status_code == 201
    assert response.body == '{"name":"Bär","n":[1,null]}'.encode()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-y"] == "z"
