"""Spans for OpenTelemetry, where `[tracing]` asks for them: of requests and jobs, and within.

Like log lines they belong to the process: who makes one asks `span`, which does nothing while
tracing is off. OpenTelemetry is an extra (`otel`) and is imported when it is switched on; all that
knows it is in `spans.py`.
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych_common.settings import Tracing

if TYPE_CHECKING:
    from diptych_common.spans import Spans

_spans: "Spans | None" = None
_NOTHING: Final = nullcontext()


def check(settings: Tracing) -> None:
    """Raise ValueError where tracing is asked for and its packages are not there."""
    if settings.enabled and importlib.util.find_spec("opentelemetry") is None:
        raise ValueError(
            "[tracing] enabled: its packages are missing; install the service with the extra `otel`"
        )


@asynccontextmanager
async def sending(settings: Tracing, *, service: str) -> AsyncGenerator[None]:
    """Collect the spans of this process and send them, while the context is open.

    In each process by itself, for a thread of it sends them. What the collector does not take is
    dropped, and told in the log; nobody waits for it but the end of the context, some seconds.
    """
    if not settings.enabled:
        yield
        return
    from diptych_common.spans import Spans  # noqa: PLC0415 - the packages of an extra

    global _spans
    _spans = Spans(settings, service=service)
    try:
        yield
    finally:
        spans, _spans = _spans, None
        await asyncio.to_thread(spans.close)


def span(name: str, **attributes: str) -> AbstractContextManager[object]:
    """A span around the block, within the one that is open; if the block raises, its error.

    Nothing where none is open: what belongs to no request and no job tells nobody anything.
    """
    return _NOTHING if _spans is None else _spans.within(name, attributes)


def job(kind: str) -> AbstractContextManager[object]:
    """A span around a run of a background job: a trace of its own."""
    return _NOTHING if _spans is None else _spans.of_job(kind)


def ended(name: str, seconds: float, error: Exception | None, **attributes: str) -> None:
    """A span of what has taken so long and has just ended, within the one that is open.

    In the context of its cause. Threads that stores keep have none, so that nothing is told of the
    blocks of files, which are thousands.
    """
    if _spans is not None:
        _spans.ended(name, seconds, error, attributes)


def ids() -> Mapping[str, str]:
    """`trace_id` and `span_id`, in hex, of the span that is open; empty without one."""
    return {} if _spans is None else _spans.ids()


class Requests:
    """ASGI middleware: a span for each request, within the caller's trace if it names one.

    None for the paths in `probes`.
    """

    def __init__(self, app: ASGIApp, *, probes: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within a span."""
        if scope["type"] != "http" or _spans is None or scope["path"] in self._probes:
            await self._app(scope, receive, send)
            return
        with _spans.of_request(scope) as answered:

            async def noting_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered(message["status"])
                await send(message)

            await self._app(scope, receive, noting_send)
