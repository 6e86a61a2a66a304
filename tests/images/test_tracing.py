"""Spans of the service as a collector gets them, by OTLP over HTTP."""

import asyncio
import gzip
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from dev import ports
from diptych_common import tracing
from diptych_common.settings import Tracing
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests import databases, web
from tests.daemon import working
from tests.images.service import ALICE, OCTETS, client, configuration, opened
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACED = {**ALICE, "traceparent": f"00-{TRACE}-{CALLER}-01"}
RAW = {"disk_format": "raw", "container_format": "bare"}


class Collector:
    """What was sent to it so far."""

    def __init__(self, site: web.Web) -> None:
        self._site = site
        self.options = {
            "TRACING__ENABLED": "true",
            "TRACING__ENDPOINT": f"{site.url}/v1/traces",
        }

    @property
    def messages(self) -> list[bytes]:
        return [
            gzip.decompress(one.content)
            if one.headers.get("content-encoding") == "gzip"
            else one.content
            for one in self._site.asked
        ]

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for message in self.messages
            for of_resource in ExportTraceServiceRequest.FromString(message).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def within(self, span: Span) -> set[str]:
        return {one.name for one in self.spans if one.parent_span_id == span.span_id}


def attributes(span: Span) -> dict[str, str | int]:
    return {one.key: one.value.int_value or one.value.string_value for one in span.attributes}


@pytest.fixture
def collector() -> Generator[Collector]:
    with web.serving_from_a_thread(web.answer()) as site:
        yield Collector(site)


@asynccontextmanager
async def traced(
    database: str, folder: Path, collector: Collector, **options: str
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the service, whose spans have been sent when the context was left."""
    environ = configuration(database, folder, **collector.options, **options)
    async with opened(environ) as app, client(app) as http:
        yield http


async def test_an_upload_is_a_span_in_the_callers_trace(
    images_database: str, tmp_path: Path, collector: Collector
) -> None:
    async with traced(images_database, tmp_path, collector) as http:
        image = (await http.post("/v2/images", json=RAW, headers=ALICE)).json()
        uploaded = await http.put(
            image["file"], content=b"bytes", headers={**TRACED, **OCTETS, "X-Auth-Token": "hush"}
        )
        assert uploaded.status_code == 204
    request = collector.named("PUT /v2/images/{image_id}/file")
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == CALLER
    assert request.kind == Span.SPAN_KIND_SERVER
    assert attributes(request) == {
        "http.request.method": "PUT",
        "http.route": "/v2/images/{image_id}/file",
        "http.response.status_code": 204,
        "diptych.request_id": uploaded.headers["x-openstack-request-id"],
    }
    assert {"database read", "database write"} <= collector.within(request)
    assert not any(b"hush" in message for message in collector.messages)


async def test_calls_to_a_backend_are_within_and_say_no_more_than_how_they_ended(
    images_database: str, tmp_path: Path, collector: Collector
) -> None:
    image = str(uuid4())
    answers = [web.answer(b"bytes"), web.answer(status=500)]

    async def answer(asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        await answers[asked.target.startswith("/away")](asked, writer)

    async with web.serving(answer) as site:
        async with databases.connection(images_database) as server:
            await server.execute(
                "INSERT INTO images (id, status, owner, size, disk_format, container_format)"
                " VALUES ($1, 'active', 'alpha', 5, 'raw', 'bare')",
                image,
            )
            await server.execute(
                "INSERT INTO image_locations (image_id, store, url, metadata, status)"
                " VALUES ($1, 'web', $2, '{}', 'active')",
                image,
                f"{site.url}/disk.img?key=hush",
            )
        options = {
            "DEFAULT__ENABLED_BACKENDS": "fast:file, web:http",
            "OUTBOUND__ALLOWED_HOSTS": f"127.0.0.1:{site.port}",
        }
        async with traced(images_database, tmp_path, collector, **options) as http:
            path = f"/v2/images/{image}/file"
            assert (await http.get(path, headers=TRACED)).content == b"bytes"
            async with databases.connection(images_database) as server:
                await server.execute(
                    "UPDATE image_locations SET url = $1", f"{site.url}/away?key=hush"
                )
            assert (await http.get(path, headers=ALICE)).status_code == 503
    # Tried again and again.
    good, *_, bad = sorted(
        (span for span in collector.spans if span.name == "store open"),
        key=lambda span: span.start_time_unix_nano,
    )
    assert attributes(good) == {"diptych.store": "web"}
    assert attributes(bad) == {"diptych.store": "web", "error.type": "Unreachable"}
    assert bad.status.code == Status.STATUS_CODE_ERROR
    served, failed = (
        next(span for span in collector.spans if span.span_id == one.parent_span_id)
        for one in (good, bad)
    )
    assert served.trace_id.hex() == TRACE
    assert served.name == failed.name == "GET /v2/images/{image_id}/file"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert not any(b"hush" in message for message in collector.messages)


async def test_probes_are_not_traced_and_strangers_are(
    images_database: str, tmp_path: Path, collector: Collector
) -> None:
    async with traced(images_database, tmp_path, collector) as http:
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/v2/images")).status_code == 401
    # It met no route.
    assert [span.name for span in collector.spans] == ["GET unmatched"]


async def test_a_job_is_a_trace_of_its_own(
    images_database: str, tmp_path: Path, collector: Collector
) -> None:
    environ = configuration(images_database, tmp_path)
    async with opened(environ) as app, client(app) as http:
        image = (await http.post("/v2/images", json=RAW, headers=ALICE)).json()
        await http.put(image["file"], content=b"bytes", headers={**ALICE, **OCTETS})
        assert (await http.delete(image["self"], headers=ALICE)).status_code == 204
    options = {f"DIPTYCH_IMAGES__{name}": value for name, value in collector.options.items()}
    with working({**environ, **options}, tmp_path / "worker.log"):
        async with databases.connection(images_database) as server:

            async def is_done() -> bool:
                left = "kind = 'remove_bytes' AND state IN ('waiting', 'running')"
                return await server.fetchval(f"SELECT count(*) FROM jobs WHERE {left}") == 0

            await until(is_done)
    job = collector.named("job remove_bytes")
    assert not job.parent_span_id
    assert {"database read", "database write"} <= collector.within(job)


async def test_nobody_waits_for_a_collector_that_is_away(
    images_database: str, tmp_path: Path
) -> None:
    environ = configuration(
        images_database,
        tmp_path,
        TRACING__ENABLED="true",
        TRACING__ENDPOINT=f"http://127.0.0.1:{ports.any_free()}/v1/traces",
    )
    async with opened(environ) as app, client(app) as http:
        assert (await http.get("/v2/images", headers=ALICE)).status_code == 200


async def test_who_samples_nothing_sends_nothing(
    images_database: str, tmp_path: Path, collector: Collector
) -> None:
    async with traced(images_database, tmp_path, collector, TRACING__SAMPLE_RATIO="0") as http:
        assert (await http.get("/v2/images", headers=ALICE)).status_code == 200
        # The caller has decided.
        assert (await http.get("/v2/images/x", headers=TRACED)).status_code == 404
    assert collector.named("GET /v2/images/{image_id}").trace_id.hex() == TRACE
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    tracing.check(Tracing())
    with pytest.raises(ValueError, match="otel"):
        tracing.check(Tracing(enabled=True))
