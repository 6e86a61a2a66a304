"""The way from a request to its route: that of FastAPI, without what our routes do not need of it.

FastAPI declares routes and describes them. To find and to call one it goes through every route that
comes before, four middlewares, three exit stacks and a solver of dependencies: of a request that
shows one row that was a third. Our routes take parts of their path, the request, and what plain
coroutines make of these; whatever takes more is still FastAPI's to answer.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Call = Callable[[Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Way:
    """`call` is None where only FastAPI can call the route."""

    path: re.Pattern[str]
    route: APIRoute
    call: Call | None


class Routes:
    """Answers with the routes of `api`; what meets none of them, `api` itself answers.

    `respond` makes the answer to an exception of a route, and says whether it was expected: one
    that was not is raised when it was answered.
    """

    def __init__(
        self, api: FastAPI, respond: Callable[[Request, Exception], tuple[Response, bool]]
    ) -> None:
        self._api: ASGIApp = api
        self._router = api.router
        self._respond = respond
        self._ways: dict[str, list[_Way]] = {}
        for route in api.router.routes:
            if isinstance(route, APIRoute):
                way = _Way(route.path_regex, route, _direct(route))
                for method in route.methods or ():
                    self._ways.setdefault(method, []).append(way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it to FastAPI."""
        if scope["type"] != "http" or scope.get("root_path"):
            await self._api(scope, receive, send)
            return
        path = scope["path"]
        for way in self._ways.get(scope["method"], ()):
            met = way.path.match(path)
            if met is not None:
                break
        else:
            await self._api(scope, receive, send)
            return
        if way.call is None:
            await self._api(scope, receive, send)
            return
        # As Starlette leaves them for the log, the metrics and `url_for`.
        scope["route"] = way.route
        scope["router"] = self._router
        scope["path_params"] = met.groupdict()
        await self._answer(way.call, scope, receive, send)

    async def _answer(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        request = Request(scope, receive, send)
        try:
            response = await call(request)
            await response(scope, receive, noting_send)
        except Exception as error:
            if has_begun:
                raise
            response, was_expected = self._respond(request, error)
            await response(scope, receive, send)
            if not was_expected:
                raise


def is_direct(route: APIRoute) -> bool:
    """Whether the route is called without FastAPI."""
    return _direct(route) is not None


def _direct(route: APIRoute) -> Call | None:
    """What calls the route with all that it takes; None where that is more than said above."""
    returned = inspect.get_annotations(route.endpoint, eval_str=True).get("return")
    is_answer = isinstance(returned, type) and issubclass(returned, Response)
    called = [each.call for each in _all(route.dependant)]
    # FastAPI calls a dependency once for all who take it.
    if not is_answer or len({*called}) < len(called):
        return None
    if not all(_is_plain(each) for each in _all(route.dependant)):
        return None
    return _solving(route.dependant)


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)


def _is_plain(dependant: Dependant) -> bool:
    more = (
        *(dependant.query_params, dependant.header_params, dependant.cookie_params),
        *(dependant.body_params, dependant.websocket_param_name, dependant.response_param_name),
        *(dependant.http_connection_param_name, dependant.background_tasks_param_name),
        *(dependant.security_scopes_param_name, dependant.concurrency),
    )
    return (
        not any(more)
        and inspect.iscoroutinefunction(dependant.call)
        and all(
            field.field_info.annotation is str and not field.field_info.metadata
            for field in dependant.path_params
        )
    )


def _solving(dependant: Dependant) -> Call:
    call: Any = dependant.call
    parts = [field.alias for field in dependant.path_params]
    names = [field.name for field in dependant.path_params]
    of_path = list(zip(names, parts, strict=True))
    dependencies = [(each.name, _solving(each)) for each in dependant.dependencies]
    request_name = dependant.request_param_name

    async def solve(request: Request) -> Any:
        given: Mapping[str, str] = request.scope["path_params"]
        values: dict[str, object] = {name: given[part] for name, part in of_path}
        for name, dependency in dependencies:
            value = await dependency(request)
            if name is not None:
                values[name] = value
        if request_name is not None:
            values[request_name] = request
        return await call(**values)

    return solve
