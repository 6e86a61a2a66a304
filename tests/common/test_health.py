import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from diptych_common.errors import ApiError
from diptych_common.health import Check, Health
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

BEHIND = PlainTextResponse("behind", status_code=418)


def render_error(_: Scope, error: ApiError) -> Response:
    return PlainTextResponse(error.message, status_code=error.status, headers=dict(error.headers))


@asynccontextmanager
async def probing(
    *,
    checks: dict[str, Check] | None = None,
    drain_file: Path | None = None,
    by_port: tuple[str, ...] = (),
    detailed: bool = False,
) -> AsyncGenerator[httpx.AsyncClient]:
    app = Health(
        BEHIND,
        checks=checks or {},
        render_error=render_error,
        disable_by_file_path=str(drain_file) if drain_file else None,
        disable_by_file_paths=by_port,
        detailed=detailed,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://images:9292") as http:
        yield http


async def test_a_load_balancer_finds_what_oslo_answers() -> None:
    async with probing() as http:
        answer = await http.get("/healthcheck")
        assert (answer.status_code, answer.text) == (200, "OK")
        assert answer.headers["content-type"].startswith("text/plain")
        head = await http.head("/healthcheck")
        assert (head.status_code, head.content) == (204, b"")


async def test_the_drain_file_takes_the_server_out(tmp_path: Path) -> None:
    drain_file = tmp_path / "healthcheck_disable"
    async with probing(drain_file=drain_file) as http:
        assert (await http.get("/healthcheck")).status_code == 200
        drain_file.touch()
        answer = await http.get("/healthcheck")
        assert (answer.status_code, answer.text) == (503, "DISABLED BY FILE")
        assert (await http.head("/healthcheck")).status_code == 503
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/livez")).status_code == 200
        drain_file.unlink()
        assert (await http.get("/healthcheck")).status_code == 200


async def test_a_drain_file_may_be_for_one_port(tmp_path: Path) -> None:
    drain_file = tmp_path / "drained"
    drain_file.touch()
    async with probing(by_port=(f"9292:{drain_file}",)) as http:
        assert (await http.get("/healthcheck")).status_code == 503
    async with probing(by_port=(f"9293:{drain_file}",)) as http:
        assert (await http.get("/healthcheck")).status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("", "text/plain"),
        ("image/png", "text/plain"),
        ("application/json", "application/json"),
        ("text/html", "text/html"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, text/*", "text/plain"),
        ("text/plain;q=0, */*;q=0.1", "text/html"),
        ("application/json;q=x", "text/plain"),
    ],
)
async def test_the_form_is_negotiated(accept: str, kind: str) -> None:
    async with probing() as http:
        answer = await http.get("/healthcheck", headers={"accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert "OK" in answer.text
    if kind == "application/json":
        assert answer.json() == {"detailed": False, "reasons": ["OK"]}


async def test_details_are_for_those_who_asked_for_them() -> None:
    async with probing(detailed=True) as http:
        answer = await http.get("/healthcheck", headers={"accept": "application/json"})
    assert answer.json()["detailed"] is True
    assert answer.json()["reasons"][0]["reason"] == "OK"
    assert "threads" not in answer.json()


async def test_only_reading_is_allowed() -> None:
    async with probing() as http:
        answer = await http.post("/healthcheck")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


async def test_other_paths_are_handed_on() -> None:
    async with probing() as http:
        assert (await http.get("/healthcheck/")).status_code == 418


async def test_readiness_names_what_fails_and_not_why() -> None:
    async def good(_: Scope) -> None:
        pass

    async def bad(_: Scope) -> None:
        raise ConnectionError("password=hunter2 refused")

    async with probing(checks={"database": good, "store": bad}) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "failing",
            "checks": {"database": "ok", "store": "failing", "drain": "ok"},
        }
        assert (await http.get("/livez")).status_code == 200


async def test_a_flood_of_probes_checks_once() -> None:
    checked = 0

    async def count(_: Scope) -> None:
        nonlocal checked
        checked += 1
        await asyncio.sleep(0.01)

    async with probing(checks={"database": count}) as http:
        answers = await asyncio.gather(*(http.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert checked == 1


async def test_a_file_that_has_to_be_there_is_missing(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    app = Health(
        BEHIND,
        checks={},
        render_error=render_error,
        enable_by_file_paths=[str(first), str(second)],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://images:9292") as http:
        answer = await http.get("/healthcheck")
        assert (answer.status_code, answer.text) == (503, "FILE PATH MISSING")
        assert (await http.head("/healthcheck")).status_code == 503
        assert (await http.get("/readyz")).status_code == 503
        second.touch()
        assert (await http.get("/healthcheck")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("source", "headers", "ranges", "ignored", "status"),
    [
        ("10.1.2.3", {}, ["10.0.0.0/8", "192.0.2.1"], False, 200),
        ("::ffff:10.1.2.3", {}, ["10.0.0.0/8"], False, 200),
        ("192.0.2.1", {}, ["10.0.0.0/8", "192.0.2.1"], True, 200),
        ("192.0.2.2", {}, ["10.0.0.0/8", "192.0.2.1"], False, 404),
        ("2001:db8::1", {}, ["10.0.0.0/8"], False, 404),
        ("10.1.2.3", {"X-Forwarded-For": "10.1.2.4"}, ["10.0.0.0/8"], False, 200),
        ("10.1.2.3", {"X-Forwarded-For": "10.1.2.4"}, [], True, 404),
        ("10.1.2.3", {"X-Forwarded-Prefix": "/x"}, [], True, 404),
        ("10.1.2.3", {"Forwarded": "for=10.1.2.4"}, [], True, 404),
    ],
    ids=str,
)
async def test_who_may_ask(
    source: str, headers: dict[str, str], ranges: list[str], ignored: bool, status: int
) -> None:
    app = Health(
        BEHIND,
        checks={},
        render_error=render_error,
        allowed_source_ranges=ranges,
        ignore_proxied_requests=ignored,
    )
    transport = httpx.ASGITransport(app, client=(source, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://images:9292") as http:
        for path in ("/healthcheck", "/livez", "/readyz"):
            assert (await http.get(path, headers=headers)).status_code == status
        assert (await http.get("/elsewhere", headers=headers)).status_code == 418
