"""The daemon as it runs in production, killed, cut off and overloaded in the middle of uploads."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import postgres
from diptych_common import migrations

from tests import databases
from tests.daemon import Daemon
from tests.images.service import ALICE, OCTETS, configuration

UPLOAD = {**ALICE, **OCTETS}
MIB = 1 << 20
LEASE_S = 3


def settings(database: str, folder: Path, **options: str) -> dict[str, str]:
    return configuration(
        database,
        folder,
        JOBS__WITH_WORKER="true",
        JOBS__LEASE=str(LEASE_S),
        JOBS__REAPER_INTERVAL="1",
        JOBS__POLL_INTERVAL="0.5",
        DEFAULT__WORKERS="2",
        **options,
    )


@pytest.fixture
async def daemon(empty_database: str, tmp_path: Path) -> AsyncGenerator[Daemon]:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    running = Daemon(settings(empty_database, tmp_path), tmp_path / "log")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
async def http(daemon: Daemon) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as client:
        yield client


async def new_image(http: httpx.AsyncClient) -> dict[str, Any]:
    body = {"disk_format": "raw", "container_format": "bare"}
    return (await http.post("/v2/images", json=body, headers=ALICE)).json()


async def state(http: httpx.AsyncClient, image: dict[str, Any]) -> str:
    return (await http.get(image["self"], headers=ALICE)).json()["status"]


def files(folder: Path) -> list[str]:
    stores = (folder / "fast", folder / "cheap")
    return [
        path.name
        for store in stores
        for path in store.rglob("*")
        if path.is_file() and path.name != ".mark"
    ]


async def until(condition: Callable[[], Any], *, seconds: float = LEASE_S + 15) -> None:
    """Wait for a condition (a function, or one that returns an awaitable)."""
    async with asyncio.timeout(seconds):
        while True:
            outcome = condition()
            if asyncio.iscoroutine(outcome):
                outcome = await outcome
            if outcome:
                return
            await asyncio.sleep(0.1)


class EndlessUpload:
    """A client that uploads to an image without end, until it, or the server, is gone."""

    def __init__(self, daemon: Daemon, image: dict[str, Any]) -> None:
        self._port = daemon.port
        self._path = image["file"]
        self.sent = 0
        self.was_cut_off = asyncio.Event()

    async def __aenter__(self) -> "EndlessUpload":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = "".join(f"{name}: {value}\r\n" for name, value in UPLOAD.items())
        self._writer.write(
            f"PUT {self._path} HTTP/1.1\r\nHost: x\r\n{head}"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    async def head(self) -> bytes:
        """The first lines of an answer that comes before the end of the upload."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def go_away(self) -> None:
        """Break the connection off, as a client that dies does."""
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        self._writer.transport.abort()

    async def _send(self) -> None:
        try:
            while True:
                self._writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await self._writer.drain()
                self.sent += 65536
                await asyncio.sleep(0.005)
        except ConnectionError:
            self.was_cut_off.set()


async def test_worker_killed_during_an_upload_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: upload.sent > 4 * MIB and files(tmp_path))
        for worker in daemon.workers():
            worker.send_signal(signal.SIGKILL)
        await upload.was_cut_off.wait()

    async def is_queued() -> bool:
        try:
            return await state(http, image) == "queued"
        except httpx.TransportError:  # the supervisor is still starting the next worker
            return False

    await until(is_queued)
    assert files(tmp_path) == []
    again = await http.put(image["file"], content=b"at last", headers=UPLOAD)
    assert again.status_code == 204
    assert (await http.get(image["file"], headers=ALICE)).content == b"at last"


async def test_whole_daemon_killed_during_an_upload_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: upload.sent > 4 * MIB and files(tmp_path))
        daemon.kill()
        await upload.was_cut_off.wait()
    assert files(tmp_path) != []
    daemon.start()
    await until(lambda: state(http, image), seconds=5)

    async def is_queued() -> bool:
        return await state(http, image) == "queued"

    await until(is_queued)
    assert files(tmp_path) == []


async def test_client_gone_during_an_upload_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: upload.sent > 4 * MIB and files(tmp_path))

    async def is_queued() -> bool:
        return await state(http, image) == "queued"

    # At once, by the request itself: long before any lease is over.
    await until(is_queued, seconds=2)
    assert files(tmp_path) == []


async def test_delete_removes_the_bytes_soon(http: httpx.AsyncClient, tmp_path: Path) -> None:
    image = await new_image(http)
    assert (await http.put(image["file"], content=b"x", headers=UPLOAD)).status_code == 204
    assert files(tmp_path) == [image["id"]]
    assert (await http.delete(image["self"], headers=ALICE)).status_code == 204
    await until(lambda: files(tmp_path) == [], seconds=5)


async def test_delete_ends_a_running_upload(
    daemon: Daemon, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    image = await new_image(http)
    async with EndlessUpload(daemon, image) as upload:
        await until(lambda: upload.sent > 4 * MIB and files(tmp_path))
        assert (await http.delete(image["self"], headers=ALICE)).status_code == 204
        # Within a renewal of the lease, though the client would go on for ever.
        await until(lambda: files(tmp_path) == [], seconds=LEASE_S + 2)


async def test_postgresql_killed_during_an_upload(
    private_postgres: postgres.Server, tmp_path: Path
) -> None:
    url = await databases.create(private_postgres.url())
    await migrations.upgrade(url, "diptych_images.migrations")
    daemon = Daemon(settings(url, tmp_path), tmp_path / "log")
    daemon.start()
    try:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as http:
            survivor, victim = await new_image(http), await new_image(http)
            gate = asyncio.Event()

            async def gated() -> AsyncIterator[bytes]:
                yield b"a" * MIB
                await gate.wait()
                yield b"b" * MIB

            put = http.put(survivor["file"], content=gated(), headers=UPLOAD)
            upload = asyncio.create_task(put)
            async with EndlessUpload(daemon, victim) as endless:
                await until(lambda: endless.sent > 4 * MIB and len(files(tmp_path)) == 2)
                os.kill(private_postgres.pid, signal.SIGKILL)
                refused = await http.get(survivor["self"], headers=ALICE)
                assert refused.status_code == 503
                assert "retry-after" in refused.headers
            # The client went away while there was no database to say so to.
            await asyncio.sleep(0.5)
            await asyncio.to_thread(private_postgres.start)
            gate.set()
            # What was uploaded while the database was away is not lost.
            assert (await upload).status_code == 204
            assert (await http.get(survivor["file"], headers=ALICE)).content == (
                b"a" * MIB + b"b" * MIB
            )

            async def is_queued() -> bool:
                return await state(http, victim) == "queued"

            await until(is_queued)
            assert files(tmp_path) == [survivor["id"]]
    finally:
        daemon.stop()


async def test_stopped_daemon_finishes_the_upload_first(
    daemon: Daemon, http: httpx.AsyncClient
) -> None:
    image = await new_image(http)
    gate = asyncio.Event()

    async def gated() -> AsyncIterator[bytes]:
        yield b"a" * MIB
        await gate.wait()
        yield b"b" * MIB

    upload = asyncio.create_task(http.put(image["file"], content=gated(), headers=UPLOAD))
    await asyncio.sleep(0.5)
    stopping = asyncio.create_task(asyncio.to_thread(daemon.stop))
    await asyncio.sleep(0.5)
    gate.set()
    assert (await upload).status_code == 204
    assert await stopping == 0
    daemon.start()
    assert await state(http, image) == "active"


async def test_an_upload_that_a_stop_does_not_wait_for_may_be_tried_again(
    empty_database: str, tmp_path: Path
) -> None:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    environ = settings(empty_database, tmp_path, DEFAULT__GRACEFUL_TIMEOUT="1")
    daemon = Daemon(environ, tmp_path / "log")
    daemon.start()

    async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as http:
        image = await new_image(http)
        async with EndlessUpload(daemon, image) as upload:
            await until(lambda: files(tmp_path))
            stopping = asyncio.create_task(asyncio.to_thread(daemon.stop))
            head = await upload.head()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in head
        assert await stopping == 0
        # By the request itself, before the process ended.
        assert files(tmp_path) == []
        daemon.start()
        assert await state(http, image) == "queued"
        again = await http.put(image["file"], content=b"at last", headers=UPLOAD)
        assert again.status_code == 204
    assert daemon.stop() == 0


def resident(daemon: Daemon) -> int:
    """The largest worker's memory that is its own, in bytes."""
    return max(worker.memory_full_info().uss for worker in daemon.workers())


async def peak_growth(daemon: Daemon, work: asyncio.Task[Any]) -> int:
    """How far the largest worker's memory went up while the work was done."""
    before = peak = resident(daemon)
    while not work.done():
        peak = max(peak, resident(daemon))
        await asyncio.sleep(0.05)
    await work
    return peak - before


async def warm_up(http: httpx.AsyncClient) -> None:
    """What is allocated once and kept is no part of a transfer's cost."""
    for _ in range(8):
        image = await new_image(http)
        await http.put(image["file"], content=b"x" * 8 * MIB, headers=UPLOAD)
        await http.get(image["file"], headers=ALICE)


@pytest.mark.timeout(600)  # 2 GiB are half a minute on an idle machine; its disk may be anybody's
@pytest.mark.parametrize("mib", [512, pytest.param(2048, marks=pytest.mark.long)])
async def test_a_large_upload_and_download_need_little_memory(
    daemon: Daemon, http: httpx.AsyncClient, mib: int
) -> None:
    await warm_up(http)
    image = await new_image(http)

    async def large() -> AsyncIterator[bytes]:
        piece = os.urandom(MIB)
        for _ in range(mib):
            yield piece

    async def upload() -> None:
        answer = await http.put(image["file"], content=large(), headers=UPLOAD)
        assert answer.status_code == 204

    assert await peak_growth(daemon, asyncio.create_task(upload())) < 32 * MIB

    async def download() -> None:
        async with http.stream("GET", image["file"], headers=ALICE) as answer:
            assert sum([len(part) async for part in answer.aiter_bytes(MIB)]) == mib * MIB

    assert await peak_growth(daemon, asyncio.create_task(download())) < 32 * MIB


async def test_20_slow_clients_need_little_memory(daemon: Daemon, http: httpx.AsyncClient) -> None:
    await warm_up(http)
    images = [await new_image(http) for _ in range(20)]

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * MIB
            await asyncio.sleep(0.05)

    async def upload(image: dict[str, Any]) -> None:
        answer = await http.put(image["file"], content=slow(), headers=UPLOAD)
        assert answer.status_code == 204

    async def all_of_them() -> None:
        await asyncio.gather(*map(upload, images))

    # 1,280 MiB pass; alone it grows by some 45, beside other tests by up to 80.
    assert await peak_growth(daemon, asyncio.create_task(all_of_them())) < 96 * MIB


async def test_reader_who_stops_reading_holds_no_memory(
    daemon: Daemon, http: httpx.AsyncClient
) -> None:
    await warm_up(http)
    image = await new_image(http)
    await http.put(image["file"], content=b"x" * 64 * MIB, headers=UPLOAD)
    before = resident(daemon)
    sockets = []
    for _ in range(10):
        stuck = socket.create_connection(("127.0.0.1", daemon.port))
        head = "".join(f"{name}: {value}\r\n" for name, value in ALICE.items())
        stuck.sendall(f"GET {image['file']} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        sockets.append(stuck)
    await asyncio.sleep(2)
    assert resident(daemon) - before < 64 * MIB
    for stuck in sockets:
        stuck.close()
