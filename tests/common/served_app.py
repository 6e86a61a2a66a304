"""A small application, and a program that serves it: `python served_app.py HOST PORT METRICS_PORT`.

Blobs are zeros. What the last blob of a worker came to is asked at /last.
"""

import asyncio
import logging
import os
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from tempfile import TemporaryFile

from diptych_common.application import Application, assemble
from diptych_common.errors import ApiError, Conflict
from diptych_common.health import LIVE, READY, Health
from diptych_common.metrics import Metrics
from diptych_common.middleware import AccessLog, LastResort, RequestId
from diptych_common.ranges import requested_part
from diptych_common.responses import BlobResponse, json_response
from diptych_common.server import ServerError, serve
from fastapi import APIRouter, FastAPI, Request
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

BLOCK = 1 << 20
START = random.Random(1).randbytes(3 * BLOCK)

router = APIRouter()
last: dict[str, object] = {}


class BackendDown(Exception):
    pass


@asynccontextmanager
async def opened() -> AsyncGenerator[None]:
    last.clear()
    last["closed"] = False
    try:
        yield
    finally:
        last["closed"] = True


@router.api_route("/blob/{size}", methods=["GET", "HEAD"])
async def blob(
    request: Request, size: int, fail_at: int | None = None, step: int = BLOCK
) -> Response:
    part = None
    if request.method == "GET":
        part = requested_part(request.headers, size=size)
    length = part.length if part else size

    async def blocks() -> AsyncIterator[bytes]:
        sent = 0
        while sent < length:
            if fail_at is not None and sent >= fail_at:
                raise BackendDown("the disk is gone")
            block = bytes(min(step, length - sent))
            yield block
            sent += len(block)

    stack = AsyncExitStack()
    stack.enter_context(request.state.metrics.transferring("out"))
    await stack.enter_async_context(opened())
    return BlobResponse(
        blocks(),
        length=length,
        close=stack.aclose,
        status=206 if part else 200,
        headers={"content-range": part.content_range(size)} if part else None,
    )


@router.get("/file/{size}")
async def file(request: Request, size: int, fail_at: int | None = None) -> Response:
    """A file that begins with START, zeros after it; the kernel passes it to the connection."""
    stack = AsyncExitStack()
    stack.enter_context(request.state.metrics.transferring("out"))
    await stack.enter_async_context(opened())
    there = stack.enter_context(TemporaryFile())  # noqa: SIM115 - it is closed with the answer
    there.write(START)
    there.truncate(size)
    reached = 0

    async def pass_to(socket: int, count: int) -> int | None:
        nonlocal reached
        if fail_at is not None and reached >= fail_at:
            raise BackendDown("the disk is gone")
        try:
            passed = os.sendfile(socket, there.fileno(), reached, min(count, BLOCK))
        except BlockingIOError:
            return 0
        except ConnectionError:
            return None
        reached += passed
        return passed

    async def no_blocks() -> AsyncIterator[bytes]:
        raise BackendDown("a block was asked for")
        yield b""

    return BlobResponse(no_blocks(), length=size, close=stack.aclose, pass_to=pass_to)


@router.get("/stuck")
async def stuck() -> Response:
    """One block, and a backend that never gives the second."""

    async def blocks() -> AsyncIterator[bytes]:
        yield b"x" * 10
        await asyncio.sleep(3600)

    stack = AsyncExitStack()
    await stack.enter_async_context(opened())
    return BlobResponse(blocks(), length=20, close=stack.aclose)


@router.get("/last")
async def tell_last() -> Response:
    return json_response({**last, "pid": os.getpid()})


@router.get("/sleep/{seconds}")
async def sleep(seconds: float) -> Response:
    await asyncio.sleep(seconds)
    return json_response({"pid": os.getpid()})


@router.post("/change")
async def change(request: Request) -> Response:
    """What no proxy sends again by itself."""
    return json_response({"taken": len(await request.body())})


@router.put("/upload")
async def upload(request: Request) -> Response:
    taken = 0
    async for piece in request.stream():
        taken += len(piece)
    return json_response({"taken": taken})


@router.put("/refused")
async def refused() -> Response:
    raise Conflict("Not now.")


@router.get("/boom")
async def boom() -> Response:
    raise ValueError("a secret detail")


def render_error(scope: Scope, error: ApiError) -> Response:
    text = f"{error.status}: {error.message}"
    return PlainTextResponse(text, status_code=error.status, headers=dict(error.headers))


def make() -> Application:
    if os.environ.get("SERVED_APP_FAILS"):
        raise RuntimeError("no such setting")
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, object]]:
        await asyncio.sleep(float(os.environ.get("SERVED_APP_STARTS_IN", "0")))
        try:
            yield {"metrics": metrics}
        finally:
            logging.getLogger("served").info("lifespan closed")

    return assemble(
        title="served",
        version="1",
        routers=[router],
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId, max_length=64, render_error=render_error),
            Middleware(AccessLog, metrics=metrics, probes=frozenset({"/healthcheck", LIVE, READY})),
            Middleware(LastResort, render_error=render_error),
            Middleware(Health, checks={}, render_error=render_error),
        ],
        render_error=render_error,
    )


def end_fork(number: int) -> None:
    """End the fork of this number at its birth."""
    made = 0

    def count() -> None:
        nonlocal made
        made += 1

    def end() -> None:
        if made == number:
            os._exit(3)

    os.register_at_fork(before=count, after_in_child=end)


def main() -> None:
    host, port, metrics_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logging.basicConfig(level=logging.INFO)
    if number := os.environ.get("SERVED_APP_ENDS_FORK"):
        end_fork(int(number))
    try:
        serve(
            make,
            host=host,
            port=port,
            processes=int(os.environ.get("SERVED_APP_PROCESSES", "2")),
            metrics=(host, metrics_port),
            graceful_timeout=int(os.environ.get("SERVED_APP_GRACE", "10")),
            drain_delay=float(os.environ.get("SERVED_APP_DRAIN", "0")),
        )
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
