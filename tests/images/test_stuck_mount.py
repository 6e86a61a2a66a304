"""A store's file system that answers nobody, and the service that goes on with the others."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon import Daemon
from tests.images.service import ALICE, OCTETS, configuration
from tests.store.conformance import MIB, some_bytes
from tests.store.mounts import Debian, Served, served


@pytest.fixture
def network(tmp_path: Path, debian: Debian) -> Iterator[Served]:
    with served(debian, tmp_path / "server", tmp_path / "network") as mount:
        yield mount


@pytest.fixture
def daemon(images_database: str, tmp_path: Path, network: Served) -> Iterator[Daemon]:
    directory = str(network.target / "images")
    options = {"DEFAULT__WORKERS": "1", "CHEAP__FILESYSTEM_STORE_DATADIR": directory}
    daemon = Daemon(configuration(images_database, tmp_path, **options), log=tmp_path / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        network.answer()
        daemon.stop()


@pytest.fixture
async def http(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=daemon.url, headers=ALICE, timeout=60, limits=limits
    ) as client:
        yield client


async def new_image(http: httpx.AsyncClient) -> str:
    body = {"disk_format": "raw", "container_format": "bare"}
    return str((await http.post("/v2/images", json=body)).json()["file"])


async def upload(http: httpx.AsyncClient, path: str, data: bytes, *, store: str) -> int:
    headers = {**OCTETS, "X-Image-Meta-Store": store}
    return (await http.put(path, content=data, headers=headers)).status_code


async def test_a_store_without_an_answer_holds_up_its_own_requests_alone(
    http: httpx.AsyncClient, network: Served
):
    data = some_bytes(3 * MIB)
    stuck = await new_image(http)
    assert await upload(http, stuck, data, store="cheap") == 204
    paths = [await new_image(http) for _ in range(8)]

    network.hang()
    # More than the threads that the store has.
    reads = [asyncio.create_task(http.get(stuck)) for _ in range(30)]
    writes = [asyncio.create_task(upload(http, path, data, store="cheap")) for path in paths]
    for _ in range(8):
        path = await new_image(http)
        assert await upload(http, path, data, store="fast") == 204
        assert (await http.get(path)).content == data
        assert len((await http.get("/v2/images")).json()["images"]) > len(paths)
        for probe in ("/livez", "/readyz", "/healthcheck", "/v2/info/stores"):
            assert (await http.get(probe)).status_code == 200
    assert not any(task.done() for task in (*reads, *writes))

    network.answer()
    for answer in await asyncio.gather(*reads):
        assert answer.content == data
    assert await asyncio.gather(*writes) == [204] * len(paths)
    for path in paths:
        assert (await http.get(path)).content == data
