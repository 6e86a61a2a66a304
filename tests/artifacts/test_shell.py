"""The artifacts service so far: its versions, its probes, and an error for everything else."""

from collections.abc import AsyncGenerator

import httpx
import pytest
from diptych_artifacts.app import create_app
from diptych_artifacts.settings import load


@pytest.fixture
async def api() -> AsyncGenerator[httpx.AsyncClient]:
    app = create_app(
        load(
            environ={
                "DIPTYCH_ARTIFACTS__PASTE_DEPLOY__FLAVOR": "trusted",
                "DIPTYCH_ARTIFACTS__DEFAULT__BIND_HOST": "127.0.0.1",
            }
        )
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://artifacts") as client:
        yield client


async def test_versions_need_no_token(api: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/"), ("GET", "/versions"), ("POST", "/")):
        answer = await api.request(method, path)
        assert answer.status_code == 300
        versions = answer.json()["versions"]
        assert [one["version"] for one in versions] == ["1.0", "1.1"]
        assert versions[0]["media-type"] == "application/vnd.openstack.artifacts-1.0"


async def test_probes(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthcheck")).text == "OK"
    assert (await api.get("/readyz")).status_code == 200


async def test_errors_are_faults(api: httpx.AsyncClient) -> None:
    assert (await api.get("/artifacts")).status_code == 401
    caller = {"X-User-Id": "u", "X-Project-Id": "p", "X-Roles": "member"}
    answer = await api.get("/artifacts", headers=caller)
    assert answer.status_code == 404
    assert answer.json()["code"] == 404
    assert answer.json()["title"] == "Not Found"
    assert answer.headers["x-openstack-request-id"].startswith("req-")
