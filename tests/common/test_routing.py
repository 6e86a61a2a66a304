"""Our routes are met and called without FastAPI, and it answers as before where it takes more."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from diptych_common.application import Application, assemble
from diptych_common.errors import ApiError, Conflict
from diptych_common.responses import json_response
from diptych_common.routing import is_direct
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Scope


async def _word(request: Request) -> str:
    return request.headers["x-word"]


async def _checked(part: str, request: Request) -> None:
    if part == "refused":
        raise Conflict(f"{part} by a dependency")
    request.state.checked = part


Word = Annotated[str, Depends(_word)]

router = APIRouter(prefix="/things")


@router.get("/{part}", dependencies=[Depends(_checked)])
async def show(part: str, word: Word, request: Request) -> Response:
    document = {"part": part, "word": word, "checked": request.state.checked}
    return json_response({**document, "at": str(request.url_for("show", part="x"))})


@router.get("/special/{part:path}")
async def deep(part: str) -> Response:
    return json_response({"deep": part})


@router.get("/{part}/numbers")
async def numbers(part: str, number: int) -> Response:
    return json_response({"number": number})


@router.get("/{part}/twice", dependencies=[Depends(_word)])
async def twice(part: str, word: Word) -> Response:
    return json_response({"word": word})


@router.get("/{part}/plain")
async def plain(part: str) -> dict[str, str]:
    return {"part": part}


@router.get("/{part}/breaks")
async def breaks(part: str) -> Response:
    async def blocks() -> AsyncGenerator[bytes]:
        yield b"a"
        raise Conflict("too late")

    return StreamingResponse(blocks())


DIRECT = {"/things/{part}", "/things/special/{part:path}", "/things/{part}/breaks"}


def test_what_takes_more_than_the_path_and_the_request_is_fastapis() -> None:
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes if is_direct(route)} == DIRECT


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, str]]:
    yield {}


def render_error(_: Scope, error: ApiError) -> Response:
    return PlainTextResponse(error.message, status_code=error.status)


def application() -> Application:
    return assemble(
        title="things",
        version="1",
        routers=[router],
        lifespan=lifespan,
        middleware=[],
        render_error=render_error,
    )


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application()),
        base_url="http://things",
        headers={"x-word": "word"},
    ) as opened:
        yield opened


async def test_a_route_gets_what_it_asks_for(http: httpx.AsyncClient) -> None:
    answer = await http.get("/things/a%20b")
    at = "http://things/things/x"
    assert answer.json() == {"part": "a b", "word": "word", "checked": "a b", "at": at}


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/things/special/a/b", {"deep": "a/b"}),
        ("/things/a/numbers?number=7", {"number": 7}),
        ("/things/a/twice", {"word": "word"}),
        ("/things/a/plain", {"part": "a"}),
    ],
)
async def test_every_kind_of_route_answers(
    http: httpx.AsyncClient, path: str, document: dict[str, object]
) -> None:
    assert (await http.get(path)).json() == document


async def test_an_error_of_a_dependency_is_an_answer(http: httpx.AsyncClient) -> None:
    answer = await http.get("/things/refused")
    assert (answer.status_code, answer.text) == (409, "refused by a dependency")


async def test_an_error_after_the_beginning_of_an_answer_breaks_it_off(
    http: httpx.AsyncClient,
) -> None:
    with pytest.raises(Conflict):
        await http.get("/things/a/breaks")
