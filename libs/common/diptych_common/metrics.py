"""What Prometheus is told, and the listener that tells it, summed over the worker processes.

In a process that `server.serve` started, values live in files that all workers share a folder of,
and a process of its own sums them; anywhere else they live in memory.
"""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import (
    ThreadingWSGIServer,
    make_wsgi_app,  # pyright: ignore[reportUnknownVariableType]
    start_http_server,
)
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
)

from diptych_common import tracing

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

Direction = Literal["in", "out"]

# Seconds. A read takes a few milliseconds, a transfer up to hours.
_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


@contextmanager
def shared(folder: str) -> Generator[None]:
    """Have the values of metrics made in the context live in files in the folder.

    Those of a process that was forked since live in files of its own.
    """
    variable = "PROMETHEUS_MULTIPROC_DIR"
    before = os.environ.get(variable), values.ValueClass
    os.environ[variable] = folder
    # prometheus_client settles it when it is imported, by this variable: before the settings are
    # read that tell the folder.
    values.ValueClass = values.MultiProcessValue()  # pyright: ignore[reportUnknownMemberType]
    try:
        yield
    finally:
        os.environ.pop(variable)
        values.ValueClass = before[1]
        if before[0] is not None:
            os.environ[variable] = before[0]


class Metrics:
    """All metrics of one process; no more than one is to be made in a process under `serve`.

    `requests` is observed once per request with its method, route template (`unmatched` without
    one, so that a scanner makes no new series) and class of status (`2xx`; `broken` when the
    answer was not sent whole). `store_bytes` are bytes that a store took in or gave out,
    `store_calls` the calls to its backend, observed by `store_called`;
    `transfers` the blobs on their way now. `jobs` are runs of background jobs, of which
    `jobs_running` run now; `worker.Worker` calls `job_started` and `job_ended`. `token_lookups` has
    the outcomes of `keystone.Keystone.on_lookup`. `database_connections` are those checked out of
    the pool. `events_waiting` and `oldest_event` tell of the outbox of all processes; set by
    `events_wait`. `jobs_overdue`, `oldest_job`, `attempts_overdue` and `oldest_attempt` tell of the
    database; set by `is_overdue`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "diptych_http_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["method", "route", "status"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.requests_in_flight = Gauge(
            "diptych_http_requests_in_flight",
            "Requests being answered now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.http_bytes = Counter(
            "diptych_http_body_bytes",
            "Bytes of request (in) and answer (out) bodies.",
            ["direction"],
            registry=self.registry,
        )
        self.transfers = Gauge(
            "diptych_transfers",
            "Blobs being received (in) and sent (out) now.",
            ["direction"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.store_bytes = Counter(
            "diptych_store_bytes",
            "Bytes written to (in) and read from (out) a store.",
            ["store", "direction"],
            registry=self.registry,
        )
        self.store_calls = Histogram(
            "diptych_store_call_seconds",
            "Time of a call to a store's backend, by what it was for and how it ended: ok, or the"
            " kind of error.",
            ["store", "operation", "outcome"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.jobs = Histogram(
            "diptych_job_seconds",
            "Time of a run of a background job, by kind and how it ended: succeeded, retried (it"
            " failed and runs again later), failed, cancelled, returned (its worker was stopped) or"
            " lost (its lease was over).",
            ["kind", "outcome"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.jobs_running = Gauge(
            "diptych_jobs_running",
            "Background jobs running now.",
            ["kind"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.token_lookups = Counter(
            "diptych_token_lookups",
            "Tokens looked up, by outcome: hit, miss, negative, error.",
            ["outcome"],
            registry=self.registry,
        )
        self.database_connections = Gauge(
            "diptych_database_connections",
            "Database connections in use now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

        self.events_waiting = Gauge(
            "diptych_events_waiting",
            "Events in the outbox that no message broker has taken yet.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.oldest_event = Gauge(
            "diptych_oldest_event_seconds",
            "How long the oldest event in the outbox has waited.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )

        self.jobs_overdue = Gauge(
            "diptych_jobs_overdue",
            "Background jobs that are due, or whose worker is silent, and that nobody has taken.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.oldest_job = Gauge(
            "diptych_oldest_overdue_job_seconds",
            "How long the job has waited that was due first.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.attempts_overdue = Gauge(
            "diptych_attempts_overdue",
            "Uploads and copies whose process is silent, and that nobody has undone yet.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.oldest_attempt = Gauge(
            "diptych_oldest_overdue_attempt_seconds",
            "How long ago the first of them should have been heard of.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    @contextmanager
    def transferring(self, direction: Direction) -> Generator[None]:
        """Count a blob as on its way for as long as the context is open."""
        gauge = self.transfers.labels(direction)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def store_called(
        self, store: str, operation: str, seconds: float, error: Exception | None, /
    ) -> None:
        """Observe a call to a store's backend, as a span too; from any thread."""
        outcome = "ok" if error is None else type(error).__name__
        self.store_calls.labels(store, operation, outcome).observe(seconds)
        tracing.ended(f"store {operation}", seconds, error, **{"diptych.store": store})

    def job_started(self, kind: str) -> None:
        """Count a job as running until `job_ended`."""
        self.jobs_running.labels(kind).inc()

    def job_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Observe how a run of a job ended."""
        self.jobs_running.labels(kind).dec()
        self.jobs.labels(kind, outcome).observe(seconds)

    def events_wait(self, number: int, oldest_s: float) -> None:
        """Observe what is in the outbox."""
        self.events_waiting.set(number)
        self.oldest_event.set(oldest_s)

    def is_overdue(
        self, jobs: int, oldest_job_s: float, attempts: int, oldest_attempt_s: float
    ) -> None:
        """Observe what nobody does although it should be done by now."""
        self.jobs_overdue.set(jobs)
        self.oldest_job.set(oldest_job_s)
        self.attempts_overdue.set(attempts)
        self.oldest_attempt.set(oldest_attempt_s)

    @contextmanager
    def listening(self, host: str, port: int | None) -> Generator[None]:
        """Answer Prometheus for this process alone while the context is open; port None: don't.

        For a process that `server.serve` did not start. Raises OSError when the address cannot be
        had.
        """
        if port is None:
            yield
            return
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def render(self) -> bytes:
        """This process's values in Prometheus' text form."""
        return generate_latest(self.registry)


class Listener:
    """Answers Prometheus on an address of its own, to which it is bound from construction on.

    `folder` is where the worker processes keep their values. Raises OSError when the address
    cannot be had. Never to be reached by users: it shows projects' habits, and asks nobody who
    they are.
    """

    def __init__(self, host: str, port: int, *, folder: Path) -> None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))
        self.host = host
        self._folder = folder
        kind = _IPv6Server if ":" in host else ThreadingWSGIServer
        answer = cast("WSGIApplication", make_wsgi_app(registry))
        self._server = make_server(host, port, answer, kind, _Silent)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def serve(self) -> None:
        """Answer, for ever, each request in a thread."""
        self._server.serve_forever()

    def forget(self, pid: int) -> None:
        """Take a dead worker's gauges out of the sums.

        Its counters and histograms stay: were they to go, sums would fall, which Prometheus reads
        as a restart and counts everything again.
        """
        mark_process_dead(pid, str(self._folder))

    def close(self) -> None:
        """Give the address back."""
        self._server.server_close()


class _IPv6Server(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: who asks is told at intervals of seconds."""
