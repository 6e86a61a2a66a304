import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from diptych_common.errors import ApiError
from diptych_common.identity import Identity
from diptych_common.logs import request_id
from diptych_common.metrics import Metrics
from diptych_common.middleware import AccessLog, Cors, LastResort, RequestId
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


def render_error(_: Scope, error: ApiError) -> Response:
    return PlainTextResponse(error.message, status_code=error.status, headers=dict(error.headers))


@asynccontextmanager
async def client(app: ASGIApp) -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://images.example") as opened:
        yield opened


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("fine")(scope, receive, send)


class TestRequestId:
    @staticmethod
    def app(inner: ASGIApp = ok) -> RequestId:
        return RequestId(inner, max_length=64, render_error=render_error)

    async def test_every_answer_has_an_id_of_its_own(self) -> None:
        async with client(self.app()) as http:
            ids = {(await http.get("/")).headers["x-openstack-request-id"] for _ in range(3)}
        assert len(ids) == 3
        assert all(re.fullmatch(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id) for id in ids)

    @pytest.mark.parametrize(
        ("given", "own"),
        [("req-123", "req-123"), ("123", "req-123"), ("x" * 64, "req-" + "x" * 64)],
    )
    async def test_the_callers_id_is_kept(self, given: str, own: str) -> None:
        seen: list[object] = []

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            seen.extend([scope["state"]["request_id"], request_id.get()])
            await ok(scope, receive, send)

        async with client(self.app(inner)) as http:
            answer = await http.get("/", headers={"X-OpenStack-Request-ID": given})
        assert answer.headers.get_list("x-openstack-request-id") == [own]
        assert seen == [own, own]

    async def test_an_id_that_is_too_long_is_refused_under_another(self) -> None:
        async with client(self.app()) as http:
            answer = await http.get("/", headers={"x-openstack-request-id": "x" * 65})
        assert answer.status_code == 431
        assert len(answer.headers["x-openstack-request-id"]) == 40

    @pytest.mark.parametrize("given", [b"", b"a b", b"a\x1b[2J", b"caf\xe9"])
    async def test_an_id_that_would_spoil_a_log_is_replaced(self, given: bytes) -> None:
        async with client(self.app()) as http:
            answer = await http.get("/", headers={b"x-openstack-request-id": given})
        assert answer.status_code == 200
        assert len(answer.headers["x-openstack-request-id"]) == 40


class TestAccessLog:
    async def asked(
        self,
        inner: ASGIApp,
        caplog: pytest.LogCaptureFixture,
        path: str = "/v2/images/1",
        *,
        content: bytes = b"",
    ) -> tuple[logging.LogRecord, Metrics]:
        metrics = Metrics()
        app = AccessLog(inner, metrics=metrics, probes=frozenset({"/livez"}))
        caplog.set_level(logging.DEBUG, "diptych.access")
        async with client(app) as http:
            await http.put(path, content=content)
        (record,) = [record for record in caplog.records if record.name == "diptych.access"]
        return record, metrics

    async def test_a_request_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = {"who": Identity(user_id="u1", project_id="p1")}
            scope["route"] = Route("/v2/images/{image_id}", ok)
            await receive()
            await PlainTextResponse("fine", status_code=201)(scope, receive, send)

        record, metrics = await self.asked(inner, caplog, content=b"12345")
        assert record.levelno == logging.INFO
        assert re.search(
            r" PUT /v2/images/1 route=/v2/images/\{image_id\} status=201 ms=[0-9.]+ in=5 out=4"
            r" user=u1 project=p1$",
            record.getMessage(),
        )
        text = metrics.render().decode()
        labels = 'method="PUT",route="/v2/images/{image_id}",status="2xx"'
        assert f"diptych_http_request_seconds_count{{{labels}}} 1.0" in text
        assert 'diptych_http_body_bytes_total{direction="in"} 5.0' in text
        assert 'diptych_http_body_bytes_total{direction="out"} 4.0' in text
        assert "diptych_http_requests_in_flight 0.0" in text

    async def test_a_line_break_in_a_path_begins_no_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        record, _ = await self.asked(ok, caplog, "/a%0AINFO forged")
        assert "\n" not in record.getMessage()
        assert "route=unmatched" in record.getMessage()

    async def test_a_scanner_makes_one_series(self, caplog: pytest.LogCaptureFixture) -> None:
        _, metrics = await self.asked(ok, caplog, "/wp-login.php")
        assert "wp-login" not in metrics.render().decode()

    async def test_an_answer_that_breaks_off_is_marked(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            raise OSError

        record, metrics = await self.asked(inner, caplog)
        assert "status=200 broken" in record.getMessage()
        assert 'status="broken"' in metrics.render().decode()

    async def test_probes_are_quiet_while_they_succeed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        record, metrics = await self.asked(ok, caplog, "/livez")
        assert record.levelno == logging.DEBUG
        assert 'route="/livez"' in metrics.render().decode()

    async def test_a_failing_probe_is_not_quiet(self, caplog: pytest.LogCaptureFixture) -> None:
        record, _ = await self.asked(PlainTextResponse("down", status_code=503), caplog, "/livez")
        assert record.levelno == logging.INFO


ORIGIN = "https://horizon.example"


class TestCors:
    @staticmethod
    def app(*, origins: tuple[str, ...] = (ORIGIN,), inner: ASGIApp = ok) -> Cors:
        return Cors(
            inner,
            allowed_origin=origins,
            allow_credentials=True,
            expose_headers=["X-OpenStack-Request-ID"],
            max_age=3600,
            allow_methods=["GET", "PUT"],
            allow_headers=["X-Auth-Token"],
        )

    async def preflight(self, **headers: str) -> httpx.Response:
        async def never(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("no token", status_code=401)(scope, receive, send)

        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        async with client(self.app(inner=never)) as http:
            return await http.options("/v2/images/1/file", headers=asked)

    async def test_a_browser_may_upload(self) -> None:
        answer = await self.preflight(
            origin=ORIGIN,
            access_control_request_method="PUT",
            access_control_request_headers="content-type, x-auth-token",
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-methods"] == "PUT"
        # A browser does not send bytes unless Content-Type is allowed by its name.
        assert answer.headers["access-control-allow-headers"] == "content-type,x-auth-token"
        assert answer.headers["access-control-max-age"] == "3600"
        assert answer.headers["vary"] == "Origin"

    @pytest.mark.parametrize(
        "asked",
        [
            {"access_control_request_method": "DELETE"},
            {"access_control_request_method": "put"},
            {
                "access_control_request_method": "PUT",
                "access_control_request_headers": "x-other",
            },
        ],
    )
    async def test_what_is_not_allowed_is_not_granted(self, asked: dict[str, str]) -> None:
        answer = await self.preflight(origin=ORIGIN, **asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["vary"] == "Origin"

    async def test_another_origin_is_granted_nothing(self) -> None:
        answer = await self.preflight(
            origin="https://evil.example", access_control_request_method="PUT"
        )
        assert not [name for name in answer.headers if name.startswith("access-control")]

    async def test_answers_and_errors_are_readable_for_the_origin(self) -> None:
        not_found = PlainTextResponse("no", status_code=404, headers={"vary": "Accept"})
        async with client(self.app(inner=not_found)) as http:
            answer = await http.get("/", headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-expose-headers"] == "X-OpenStack-Request-ID"
        assert answer.headers["vary"] == "Accept, Origin"

    async def test_without_an_origin_only_caches_are_told(self) -> None:
        async with client(self.app()) as http:
            answer = await http.get("/")
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers

    async def test_any_origin_comes_without_credentials(self) -> None:
        async with client(self.app(origins=("*",))) as http:
            answer = await http.get("/", headers={"origin": "https://any.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


class TestLastResort:
    async def test_an_unexpected_error_is_a_500_that_tells_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("a secret detail")

        async with client(LastResort(inner, render_error=render_error)) as http:
            answer = await http.get("/")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "a secret detail" in caplog.text

    async def test_an_error_after_the_answer_is_logged_only(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await ok(scope, receive, send)
            raise ValueError("too late")

        await called(LastResort(inner, render_error=render_error))
        assert "too late" in caplog.text

    async def test_an_error_in_the_middle_reaches_the_server(self) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ValueError("in the middle")

        with pytest.raises(ValueError, match="in the middle"):
            await called(LastResort(inner, render_error=render_error))


async def called(app: ASGIApp) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
