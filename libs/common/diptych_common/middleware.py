"""Pure ASGI middleware, in the order in which a request should meet it:

RequestId → tracing.Requests → proxies.ProxyHeaders → AccessLog → Cors → compression.Compression →
LastResort → health.Health → openapi.ApiPages → the versions → authentication.Authentication → the
routes.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Final, cast
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych_common.errors import HeaderTooLarge, InternalError, ServiceUnavailable
from diptych_common.identity import ANONYMOUS, Identity
from diptych_common.logs import global_request_id, request_id
from diptych_common.metrics import Metrics
from diptych_common.responses import PASSING, RenderError, counting

# In a request's state: an asyncio.Event that is set when the process is going to stop.
STOPPING: Final = "stopping"

# Seconds for which the rest of a body is taken whose request the stopping server gave up.
_LINGER_S = 2.0

access_log = logging.getLogger("diptych.access")
log = logging.getLogger(__name__)

# What a script may send without asking. Source: Fetch standard, "CORS-safelisted request-header";
# `origin` because oslo.middleware counts it in.
_SAFE_HEADERS = {"accept", "accept-language", "content-language", "content-type", "origin"}
_REQUEST_ID = b"x-openstack-request-id"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# Characters of a path that a log line shows: twice those of the longest path that leads anywhere.
_LONGEST_PATH = 1024


class RequestId:
    """Gives every request an id: that of the caller, or a new one; every answer carries it.

    It is in `scope["state"]["request_id"]` and in the log's context variable. An id longer than
    `max_length` is answered with 431, one with blanks or control characters is not used.

    Source: Glance 33.0 `api/middleware/context.py`; 431 is what Glance means to answer.
    """

    def __init__(self, app: ASGIApp, *, max_length: int, render_error: RenderError) -> None:
        self._app = app
        self._max_length = max_length
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request its id, or refuse the one it has."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-openstack-request-id", "").strip()
        too_long = len(given) > self._max_length
        is_usable = not too_long and _PRINTABLE.fullmatch(given) is not None
        own = given if is_usable else str(uuid4())
        if not own.startswith("req-"):
            own = f"req-{own}"
        scope.setdefault("state", {})["request_id"] = own
        # Not reset at the end: each request has a task of its own, and what the server logs
        # about it afterwards should still name it.
        request_id.set(own)
        global_request_id.set(own if is_usable else None)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (_REQUEST_ID, own.encode("ascii"))]
                message = {**message, "headers": headers}
            await send(message)

        if too_long:
            error = HeaderTooLarge(f"A request id has at most {self._max_length} characters.")
            await self._render_error(scope, error)(scope, receive, send_with_id)
        else:
            await self._app(scope, receive, send_with_id)


class AccessLog:
    """One line per request when its answer has ended, and the same figures as metrics.

    Requests for the paths in `probes` are logged at debug level while they succeed.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, probes: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._probes = probes
        self._bytes_in = metrics.http_bytes.labels("in")
        self._bytes_out = metrics.http_bytes.labels("out")
        self._seconds = cache(metrics.requests.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and time the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0
        is_whole = False
        taken = sent = 0

        async def counting_receive() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request" and (size := len(message.get("body", b""))):
                taken += size
                self._bytes_in.inc(size)
            return message

        def passed(size: int) -> None:
            nonlocal sent
            sent += size
            self._bytes_out.inc(size)

        async def counting_send(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == PASSING:
                await send({**message, "pass_to": counting(message["pass_to"], passed)})
                return
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                if size := len(message.get("body", b"")):
                    passed(size)
                is_whole = not message.get("more_body", False)

        self._metrics.requests_in_flight.inc()
        try:
            await self._app(scope, counting_receive, counting_send)
        finally:
            self._metrics.requests_in_flight.dec()
            duration = time.perf_counter() - begun
            is_probe = scope["path"] in self._probes
            route = scope["path"] if is_probe else route_template(scope)
            outcome = f"{status // 100}xx" if is_whole else "broken"
            method = scope["method"]
            self._seconds(method, route, outcome).observe(duration)
            who = cast(Identity, scope.get("state", {}).get("who", ANONYMOUS))
            client = scope.get("client")
            _log(
                logging.DEBUG if is_probe and status < 400 else logging.INFO,
                "%s %s %s route=%s status=%d%s ms=%.1f in=%d out=%d user=%s project=%s",
                client[0] if client else "-",
                method,
                # Escaped, for a line break in a path must not begin a line of its own.
                scope["path"][:_LONGEST_PATH].encode("unicode_escape").decode("ascii"),
                route,
                status,
                "" if is_whole else " broken",
                duration * 1000,
                taken,
                sent,
                who.user_id or "-",
                who.project_id or "-",
                extra={
                    "method": method,
                    "route": route,
                    "status": status,
                    "is_whole": is_whole,
                    "duration_ms": round(duration * 1000, 1),
                    "bytes_in": taken,
                    "bytes_out": sent,
                    "user_id": who.user_id,
                    "project_id": who.project_id,
                },
            )


def _log(level: int, message: str, *values: object, extra: Mapping[str, object]) -> None:
    """As `access_log.log`, which would look for the line that called it: a fifth of its time."""
    if access_log.isEnabledFor(level):
        access_log.handle(
            access_log.makeRecord(
                access_log.name, level, __file__, 0, message, values, None, extra=extra
            )
        )


class Cors:
    """Lets scripts of the origins in `allowed_origin` call the API from a browser.

    Origins are compared as they are written; `*` admits all of them, and then without
    credentials, for browsers refuse the two together. Preflight requests are answered here,
    before anybody asks for a token, which they never carry.

    Source: Fetch standard, CORS protocol; options as in oslo.middleware 8.1.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_origin: Sequence[str],
        allow_credentials: bool,
        expose_headers: Sequence[str],
        max_age: int,
        allow_methods: Sequence[str],
        allow_headers: Sequence[str],
    ) -> None:
        self._app = app
        self._origins = frozenset(origin.rstrip("/") for origin in allowed_origin)
        self._allow_credentials = allow_credentials
        self._expose_headers = ",".join(expose_headers)
        self._max_age = str(max_age)
        self._allow_methods = tuple(allow_methods)
        self._allow_headers = tuple(allow_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or add to the application's answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        granted = self._granted(headers.get("origin"))
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            if "access-control-allow-origin" in granted:
                granted = self._preflight(headers, granted)
            await Response(headers=granted)(scope, receive, send)
            return
        if self._expose_headers and "access-control-allow-origin" in granted:
            granted["access-control-expose-headers"] = self._expose_headers

        async def send_with_grant(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list(message.get("headers", ()))}
                answer = MutableHeaders(scope=message)
                for name, value in granted.items():
                    if name == "vary":
                        answer.add_vary_header(value)
                    else:
                        answer[name] = value
            await send(message)

        await self._app(scope, receive, send_with_grant)

    def _granted(self, origin: str | None) -> dict[str, str]:
        if origin in self._origins:
            granted = {"vary": "Origin", "access-control-allow-origin": origin or ""}
            if self._allow_credentials:
                granted["access-control-allow-credentials"] = "true"
            return granted
        if origin is not None and "*" in self._origins:
            return {"access-control-allow-origin": "*"}
        # A cache must not serve this answer to an origin that would have been granted.
        return {"vary": "Origin"}

    def _preflight(self, headers: Headers, granted: Mapping[str, str]) -> dict[str, str]:
        method = headers["access-control-request-method"]
        asked = headers.get("access-control-request-headers", "")
        wanted = [name for item in asked.split(",") if (name := item.strip())]
        allowed = _SAFE_HEADERS | {name.lower() for name in self._allow_headers}
        if method not in self._allow_methods or not {name.lower() for name in wanted} <= allowed:
            return {"vary": "Origin"}
        answer = {
            **granted,
            "access-control-allow-methods": method,
            "access-control-max-age": self._max_age,
        }
        if wanted:
            # All that was asked: browsers want Content-Type named too, unless it is a form's.
            answer["access-control-allow-headers"] = ",".join(wanted)
        return answer


class LastResort:
    """Turns an exception that nobody expected into a 500 that says nothing about its cause.

    The cause is logged. Where the answer has begun, the exception goes on, and the server breaks
    the connection: a part must not look like the whole. A request that is cancelled because the
    process stops, and its time is over, is a 503: the client may try again, elsewhere.
    """

    def __init__(self, app: ASGIApp, *, render_error: RenderError) -> None:
        self._app = app
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the application where it raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = is_whole = False

        async def noting_send(message: Message) -> None:
            nonlocal has_begun, is_whole
            has_begun = True
            is_whole = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if has_begun or task is None or not is_stopping(scope):
                raise
            task.uncancel()
            error = ServiceUnavailable(
                "The service is being stopped; try again.", headers={"Retry-After": "5"}
            )
            await _answer_early(self._render_error(scope, error), scope, receive, send)
        except Exception:
            if has_begun and not is_whole:
                raise
            log.exception("%s %s failed", scope["method"], route_template(scope))
            # Starlette has answered what went wrong in a route, and raised it again.
            if not has_begun:
                error = InternalError("The server met an error that it did not expect.")
                await self._render_error(scope, error)(scope, receive, send)


def is_stopping(scope: Scope) -> bool:
    """Whether the process that serves this request is going to stop."""
    event = cast("asyncio.Event | None", scope.get("state", {}).get(STOPPING))
    return event is not None and event.is_set()


async def _answer_early(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose body was not read to its end, on a connection that is closed next.

    A connection that is closed with bytes unread is reset, and the answer may be lost with it. So
    the rest is taken for a while before the answer ends.
    """

    async def unending_send(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    await response(scope, receive, unending_send)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body"})


def route_template(scope: Scope) -> str:
    """The template of the route that a request met, e.g. `/v2/images/{image_id}`.

    `unmatched` where it met none.
    """
    template = getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else "unmatched"
