"""As test_survival, with the bytes in S3 and Swift."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift
from diptych_common import migrations

from tests.daemon import Daemon
from tests.images.service import ALICE, OCTETS
from tests.images.stores import Bucket, Container
from tests.images.test_survival import (
    LEASE_S,
    MIB,
    EndlessUpload,
    new_image,
    peak_growth,
    settings,
    state,
    until,
)

# Multipart uploads and segments are begun once a part is full.
PART = 8 * MIB


# Swift's driver is held to the same contract by its own suite.
@pytest.fixture(params=["s3", pytest.param("swift", marks=pytest.mark.long)])
async def backend(
    request: pytest.FixtureRequest, s3: Seaweedfs, swift: Swift
) -> AsyncGenerator[Bucket | Container]:
    if request.param == "s3":
        made = Bucket(s3)
        await made.make()
    else:
        made = Container(swift)
    yield made
    await made.remove()


@pytest.fixture
async def daemon(
    empty_database: str, tmp_path: Path, backend: Bucket | Container
) -> AsyncGenerator[Daemon]:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    environ = settings(
        empty_database,
        tmp_path,
        **backend.options("remote"),
        DEFAULT__ENABLED_BACKENDS=f"remote:{backend.kind}",
        GLANCE_STORE__DEFAULT_BACKEND="remote",
    )
    running = Daemon(environ, tmp_path / "log")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
async def http(daemon: Daemon) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as client:
        yield client


async def is_queued(http: httpx.AsyncClient, image: dict[str, Any]) -> bool:
    try:
        return await state(http, image) == "queued"
    except httpx.TransportError:  # the supervisor is still starting the next worker
        return False


async def is_empty(backend: Bucket | Container) -> bool:
    return await backend.everything() == []


async def has_something(backend: Bucket | Container, upload: EndlessUpload) -> bool:
    return upload.sent > 2 * PART and await backend.everything() != []


async def test_worker_killed_during_an_upload_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, backend: Bucket | Container
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: has_something(backend, upload), seconds=60)
        for worker in daemon.workers():
            worker.send_signal(signal.SIGKILL)
        await upload.was_cut_off.wait()
    await until(lambda: is_queued(http, image), seconds=60)
    assert await backend.everything() == []
    upload_headers = {**ALICE, **OCTETS}
    again = await http.put(image["file"], content=b"at last", headers=upload_headers)
    assert again.status_code == 204
    assert (await http.get(image["file"], headers=ALICE)).content == b"at last"


async def test_client_gone_during_an_upload_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, backend: Bucket | Container
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: has_something(backend, upload), seconds=60)
    await until(lambda: is_queued(http, image))
    assert await backend.everything() == []


@pytest.mark.parametrize("ending", ["silent", "cut"])
async def test_a_client_that_announces_far_more_than_it_sends_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, backend: Bucket | Container, ending: str
) -> None:
    """Of a length that is known, parts are sent side by side."""
    image = await new_image(http)
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    headers = {**ALICE, **OCTETS, "Content-Length": str(1 << 40)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"PUT {image['file']} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    for _ in range(3 * PART // MIB):
        writer.write(bytes(MIB))
        await writer.drain()
    await until(lambda: has_begun(backend))
    if ending == "cut":
        writer.transport.abort()
    else:
        writer.write_eof()
        await reader.read()
        writer.close()
    await until(lambda: is_queued(http, image))
    assert await backend.everything() == []
    again = await http.put(image["file"], content=b"at last", headers={**ALICE, **OCTETS})
    assert again.status_code == 204


async def has_begun(backend: Bucket | Container) -> bool:
    return await backend.everything() != []


async def test_delete_ends_a_running_upload(
    daemon: Daemon, http: httpx.AsyncClient, backend: Bucket | Container
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: has_something(backend, upload), seconds=60)
        assert (await http.delete(image["self"], headers=ALICE)).status_code == 204
        # By a renewal of the lease, though the client would go on for ever.
        await until(lambda: is_empty(backend), seconds=LEASE_S + 20)


async def test_transfers_need_little_memory(daemon: Daemon, http: httpx.AsyncClient) -> None:
    """Of unknown length, so that a store has to find out how to cut as it goes."""
    size = 128 * MIB

    async def pieces() -> AsyncIterator[bytes]:
        piece = os.urandom(MIB)
        for _ in range(size // MIB):
            yield piece

    async def upload(image: dict[str, Any]) -> None:
        headers = {**ALICE, **OCTETS}
        answer = await http.put(image["file"], content=pieces(), headers=headers)
        assert answer.status_code == 204

    async def download(image: dict[str, Any]) -> None:
        async with http.stream("GET", image["file"], headers=ALICE) as answer:
            assert sum([len(part) async for part in answer.aiter_bytes(MIB)]) == size

    # What is allocated once and kept is no part of a transfer's cost.
    for _ in range(2):
        await upload(image := await new_image(http))
        await download(image)
    image = await new_image(http)
    assert await peak_growth(daemon, asyncio.create_task(upload(image))) < 64 * MIB
    assert await peak_growth(daemon, asyncio.create_task(download(image))) < 64 * MIB
