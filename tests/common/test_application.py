import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from diptych_common.application import Application, assemble
from diptych_common.errors import ApiError, Conflict, ServiceUnavailable
from diptych_common.responses import json_response
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Scope


class StoreDown(Exception):
    pass


class DiskDown(StoreDown):
    pass


def render_error(scope: Scope, error: ApiError) -> Response:
    text = f"{error.title} at {scope['path']}: {error.message}"
    return PlainTextResponse(text, status_code=error.status, headers=dict(error.headers))


async def note(request: Request) -> None:
    request.state.noted = True


things = APIRouter(prefix="/v2/things", dependencies=[Depends(note)])
more = APIRouter(prefix="/v2/things")


@things.get("/{thing_id}")
async def show(request: Request, thing_id: str) -> Response:
    return json_response({"id": thing_id, "noted": request.state.noted})


@things.delete("/{thing_id}")
async def delete(thing_id: str) -> Response:
    raise Conflict(f"{thing_id} is in use.", headers={"x-why": "in-use"})


@more.patch("/{thing_id}")
async def update(thing_id: str) -> Response:
    return Response(status_code=204)


@more.get("/{thing_id}/pages")
async def pages(thing_id: str, number: int) -> Response:
    return json_response({"number": number})


@more.get("/{thing_id}/fails/{how}")
async def fails(thing_id: str, how: str) -> Response:
    raise {
        "store": StoreDown("no answer"),
        "disk": DiskDown("no disk"),
        "teapot": HTTPException(409, "fastapi's own", headers={"x-why": "fastapi"}),
        "bug": ValueError("a secret detail"),
        "gone": ClientDisconnect(),
    }[how]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, str]]:
    yield {"resource": "open"}


def application() -> Application:
    return assemble(
        title="things",
        version="1",
        routers=[things, more],
        lifespan=lifespan,
        middleware=[],
        render_error=render_error,
        errors={
            StoreDown: lambda error: ServiceUnavailable(str(error)),
            DiskDown: lambda error: Conflict(str(error)),
        },
    )


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://things") as opened:
        yield opened


async def test_routes_of_all_routers_answer_and_keep_their_dependencies(
    http: httpx.AsyncClient,
) -> None:
    assert (await http.get("/v2/things/7")).json() == {"id": "7", "noted": True}
    assert (await http.patch("/v2/things/7")).status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("DELETE", "/v2/things/7", 409, "Conflict at /v2/things/7: 7 is in use."),
        ("GET", "/v2/nothing", 404, "Not Found at /v2/nothing"),
        ("GET", "/v2/things/7/", 404, "Not Found"),
        ("GET", "/docs", 404, "Not Found"),
        ("GET", "/openapi.json", 404, "Not Found"),
        ("PUT", "/v2/things/7", 405, "Method Not Allowed"),
        ("HEAD", "/v2/things/7", 405, ""),
        ("PROPFIND", "/v2/things/7", 405, "Method Not Allowed"),
        ("PROPFIND", "/v2/nothing", 501, "Not Implemented"),
        ("OPTIONS", "/v2/nothing", 501, "Not Implemented"),
        ("GET", "/v2/things/7/pages?number=x", 400, "query number"),
        ("GET", "/v2/things/7/pages", 400, "query number"),
        ("GET", "/v2/things/7/fails/store", 503, "no answer"),
        ("GET", "/v2/things/7/fails/disk", 409, "no disk"),
        ("GET", "/v2/things/7/fails/teapot", 409, "fastapi's own"),
        ("GET", "/v2/things/7/fails/gone", 400, "went away"),
        ("GET", "/v2/things/7/fails/bug", 500, "Internal Server Error"),
    ],
)
async def test_every_error_is_the_services_own(
    http: httpx.AsyncClient, method: str, path: str, status: int, text: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert text in answer.text
    assert "detail" not in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def test_headers_of_errors_are_kept(http: httpx.AsyncClient) -> None:
    assert (await http.delete("/v2/things/7")).headers["x-why"] == "in-use"
    assert (await http.get("/v2/things/7/fails/teapot")).headers["x-why"] == "fastapi"


async def test_allow_names_the_verbs_of_all_routes_of_the_path(http: httpx.AsyncClient) -> None:
    assert (await http.put("/v2/things/7")).headers["allow"] == "GET, PATCH, DELETE"


async def test_what_the_lifespan_opened_outlives_a_cancelled_request() -> None:
    events: list[str] = []
    router = APIRouter()

    @router.get("/slow")
    async def slow() -> Response:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            events.append("request cleaned up")
        return Response()

    @asynccontextmanager
    async def noting(_: FastAPI) -> AsyncGenerator[dict[str, str]]:
        yield {}
        events.append("lifespan closed")

    app = assemble(
        title="t",
        version="1",
        routers=[router],
        lifespan=noting,
        middleware=[],
        render_error=render_error,
    )
    stop = asyncio.Event()
    started = asyncio.Event()

    async def lifespan_receive() -> dict[str, str]:
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def lifespan_send(message: Message) -> None:
        started.set()
        events.append(message["type"])

    living = asyncio.create_task(
        app({"type": "lifespan", "state": {}}, lifespan_receive, lifespan_send)
    )
    await started.wait()
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/slow",
        "query_string": b"",
        "headers": [],
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: object) -> None:
        pass

    request = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0.05)
    request.cancel()
    stop.set()
    await living
    assert events == [
        "lifespan.startup.complete",
        "request cleaned up",
        "lifespan closed",
        "lifespan.shutdown.complete",
    ]
