"""The spans themselves: the only module that knows OpenTelemetry, imported when it is switched on.

No words of an error are in a span, for they may hold an address with a signature; its type is.

Source of names: OpenTelemetry semantic conventions 1.38, HTTP and database.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from diptych_common.middleware import route_template
from diptych_common.settings import Tracing

# Seconds for one message to the collector, and so what stopping waits for at most.
_SEND_S: Final = 5
_CALLER: Final = (b"traceparent", b"tracestate")


class Spans:
    """The spans of this process and the thread that sends them; `close` it, from a thread."""

    def __init__(self, settings: Tracing, *, service: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service}),
            sampler=ParentBasedTraceIdRatio(settings.sample_ratio),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_SEND_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("diptych")
        self._caller = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left; blocks for seconds where the collector does not answer."""
        self._provider.shutdown()

    @contextmanager
    def of_request(self, scope: Scope) -> Generator[Callable[[int], None]]:
        """A span around a request; what it yields is to be told the status of the answer.

        The name is `METHOD route`, so that there are few of them.
        """
        method = scope["method"]
        named = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _CALLER
        }
        with self._open(
            method,
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "diptych.request_id": scope.get("state", {}).get("request_id", ""),
            },
            context=self._caller.extract(named),
        ) as own:

            def answered(status: int) -> None:
                own.set_attribute("http.response.status_code", status)
                if status >= 500:
                    own.set_status(StatusCode.ERROR)

            try:
                yield answered
            finally:
                # Known only when the router has seen the request.
                route = route_template(scope)
                own.update_name(f"{method} {route}")
                own.set_attribute("http.route", route)

    def of_job(self, kind: str) -> AbstractContextManager[object]:
        """See `tracing.job`."""
        # Whatever was open when the worker began belongs to nobody's job.
        return self._open(
            f"job {kind}", SpanKind.CONSUMER, {"diptych.job.kind": kind}, context=Context()
        )

    def within(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[object]:
        """See `tracing.span`."""
        if not get_current_span().get_span_context().is_valid:
            return nullcontext()
        return self._open(name, SpanKind.CLIENT, attributes)

    def ended(
        self, name: str, seconds: float, error: Exception | None, attributes: Mapping[str, str]
    ) -> None:
        """See `tracing.ended`."""
        if not get_current_span().get_span_context().is_valid:
            return
        now = time.time_ns()
        done = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now - int(seconds * 1e9),
        )
        if error is not None:
            _failed(done, error)
        done.end(now)

    def ids(self) -> Mapping[str, str]:
        """See `tracing.ids`."""
        context = get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {
            "trace_id": format_trace_id(context.trace_id),
            "span_id": format_span_id(context.span_id),
        }

    @contextmanager
    def _open(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, str],
        *,
        context: Context | None = None,
    ) -> Generator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as own:
            try:
                yield own
            except BaseException as error:
                _failed(own, error)
                raise


def _failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR)
