"""One ASGI application of routers, middleware and a lifespan; all errors in the service's form."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from diptych_common.errors import (
    ApiError,
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    NotImplementedMethod,
)
from diptych_common.middleware import STOPPING
from diptych_common.responses import RenderError
from diptych_common.routing import Routes

State = Mapping[str, Any]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]
Translate = Callable[[Any], ApiError]

log = logging.getLogger(__name__)

# The verbs that the APIs have; any other is 501 where the path is unknown as well.
_VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# Seconds that requests get to clean up after themselves when they were cancelled at shutdown.
_CLEAN_UP_S = 10.0


class Application:
    """An assembled application: called by the server, looked at by tools through `api`."""

    def __init__(self, api: FastAPI, asgi: ASGIApp, in_flight: "_InFlight") -> None:
        self.api = api
        self._asgi = asgi
        self._in_flight = in_flight
        self._stopping = stopping(api)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through one lifespan."""
        if scope["type"] != "http":
            await self._asgi(scope, receive, send)
            return
        scope.setdefault("state", {})[STOPPING] = self._stopping
        with self._in_flight:
            await self._asgi(scope, receive, send)

    def stop(self) -> None:
        """Say that the process is going to stop: probes fail, and jobs are handed back.

        Requests are answered as before; the server ends when it will.
        """
        self._stopping.set()


def stopping(api: FastAPI) -> asyncio.Event:
    """What is set when the process is going to stop, for the lifespan to wait for."""
    return cast(asyncio.Event, api.state.stopping)


def assemble(
    *,
    title: str,
    version: str,
    routers: Sequence[APIRouter],
    lifespan: Lifespan,
    middleware: Sequence[Middleware],
    render_error: RenderError,
    errors: Mapping[type[Exception], Translate] | None = None,
) -> Application:
    """Put the application together; nothing is opened before the server starts the lifespan.

    `middleware` goes from the outermost to the innermost. What `lifespan` yields is in
    `scope["state"]` of every request, and stays open until the last request has ended, cancelled
    ones included (for 10 s at most). `errors` says what to answer for exceptions other than
    ApiError; the narrowest class counts. Paths are never redirected: a slash at the end makes
    another path, and FastAPI's own pages (`/docs`, `/openapi.json`) are not served.
    """
    in_flight = _InFlight()

    @asynccontextmanager
    async def open_until_idle(api: FastAPI) -> AsyncGenerator[State]:
        async with lifespan(api) as state:
            yield state
            await in_flight.wait(_CLEAN_UP_S)

    api = FastAPI(
        title=title,
        version=version,
        lifespan=open_until_idle,
        redirect_slashes=False,
        openapi_url=None,
    )
    api.state.stopping = asyncio.Event()
    # Not `include_router`: it would leave a router within the router, and every request would be
    # matched twice.
    for router in routers:
        api.router.routes.extend(router.routes)
    translations: dict[type[Exception], Translate] = {
        ApiError: _as_it_is,
        ClientDisconnect: _gone,
        RequestValidationError: _invalid,
        **(errors or {}),
    }

    def respond(request: Request, error: Exception) -> tuple[Response, bool]:
        if isinstance(error, HTTPException):
            return render_error(request.scope, _from_http(api, request.scope, error)), True
        kinds = type(error).__mro__
        translate = next((translations[kind] for kind in kinds if kind in translations), None)
        return render_error(request.scope, (translate or _unexpected)(error)), translate is not None

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request, error)[0]

    for kind in (Exception, HTTPException, *translations):
        api.add_exception_handler(kind, handle)

    asgi: ASGIApp = Routes(api, respond)
    for layer, args, kwargs in reversed(middleware):
        asgi = layer(asgi, *args, **kwargs)
    return Application(api, asgi, in_flight)


class _InFlight:
    """Counts the requests that have not ended."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self._count += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when there are none, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests did not end; closing without them", self._count)


def _as_it_is(error: ApiError) -> ApiError:
    return error


def _unexpected(_: Exception) -> ApiError:
    return InternalError("The server met an error that it did not expect.")


def _gone(_: ClientDisconnect) -> ApiError:
    # Nobody reads this answer; the access log shows it.
    return BadRequest("The client went away in the middle of the request.")


def _invalid(error: RequestValidationError) -> ApiError:
    first = cast(Mapping[str, Any], error.errors()[0])
    where = " ".join(str(part) for part in first["loc"])
    return BadRequest(f"{where}: {first['msg']}")


def _from_http(api: FastAPI, scope: Scope, error: HTTPException) -> ApiError:
    """The ApiError for what the router, or FastAPI itself, raised."""
    match error.status_code:
        case 404 if scope["method"] not in _VERBS:
            return NotImplementedMethod(f"This server does not know {scope['method']}.")
        case 404:
            return NotFound("There is nothing at this path.")
        case 405:
            allowed = ", ".join(_allowed(api, scope))
            message = f"{scope['method']} is not allowed here, but {allowed}."
            return MethodNotAllowed(message, headers={"Allow": allowed})
        case status:
            kinds = {kind.status: kind for kind in ApiError.__subclasses__()}
            return kinds.get(status, InternalError)(error.detail, headers=error.headers)


def _allowed(api: FastAPI, scope: Scope) -> list[str]:
    """The verbs of all routes at this path: Starlette's own `Allow` names the first route's."""
    verbs = {
        verb
        for route in api.router.routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        for verb in route.methods or ()
    }
    return [verb for verb in _VERBS if verb in verbs]
