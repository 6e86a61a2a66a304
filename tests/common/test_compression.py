import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from diptych_common.compression import Compression
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TEXT = b'{"a": "' + b"x" * 5000 + b'"}'


def document(body: bytes = TEXT, kind: str = "application/json", **headers: str) -> Response:
    return Response(body, media_type=kind, headers=headers)


async def got(app: ASGIApp, accepted: str | None = "gzip, deflate") -> httpx.Response:
    transport = httpx.ASGITransport(Compression(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://images") as http:
        if accepted is None:
            del http.headers["accept-encoding"]
        else:
            http.headers["accept-encoding"] = accepted
        return await http.get("/")


@pytest.mark.parametrize("size", [5000, 500_000])
@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8", "text/plain"])
async def test_a_document_is_smaller_and_the_same(kind: str, size: int) -> None:
    answer = await got(document(b"x" * size, kind))
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < size / 10
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.content == b"x" * size


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip; q=0", None),
        ("gzip;q=0.0", None),
        ("gzipped", None),
        ("br", None),
        ("", None),
        (None, None),
    ],
)
async def test_the_client_chooses(accepted: str | None, encoding: str | None) -> None:
    answer = await got(document(), accepted)
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.content == TEXT


async def stream() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"x" * 2000


@pytest.mark.parametrize(
    ("app", "length"),
    [
        (document(kind="application/octet-stream"), 5009),
        (Response(TEXT, media_type="text/plain", headers={"accept-ranges": "bytes"}), 5009),
        (document(b"x" * 1000), 1000),
        (document(b"", kind="text/plain"), 0),
        (PlainTextResponse(TEXT, status_code=206), 5009),
        (StreamingResponse(stream(), media_type="application/json"), 6000),
        (Response(status_code=204), 0),
    ],
    ids=["image", "text that is data", "short", "empty", "part", "stream", "none"],
)
async def test_the_rest_goes_out_as_it_is(app: ASGIApp, length: int) -> None:
    answer = await got(app)
    assert "content-encoding" not in answer.headers
    assert len(answer.content) == length


async def test_what_is_compressed_already_is_left_alone() -> None:
    packed = gzip.compress(bytes(range(256)) * 100)
    answer = await got(
        Response(packed, media_type="text/plain", headers={"content-encoding": "gzip"})
    )
    assert answer.content == bytes(range(256)) * 100
    assert int(answer.headers["content-length"]) == len(packed)


async def test_each_piece_of_a_stream_goes_out_when_it_comes() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 2000, "more_body": True})
        assert len(sent) == 2
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    scope = {"type": "http", "headers": [(b"accept-encoding", b"gzip")]}
    await Compression(app)(scope, receive, send)
    assert [message["type"].rpartition(".")[2] for message in sent] == ["start", "body", "body"]
