"""Stores that fail, are full, are away or hang: the blob is as it was before."""

import asyncio
import shutil
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from dev import ports
from starlette.types import ASGIApp

from tests import databases
from tests.artifacts.sending import path_of
from tests.artifacts.service import ALICE, OCTETS, CustomApi, configuration, opened
from tests.artifacts.uploads import Paused, chunks, files, rows, working
from tests.store.mounts import mounted
from tests.waiting import until

UPLOAD = {**ALICE, **OCTETS}
OLD = b"the old bytes"


def s3_at(port: int) -> dict[str, str]:
    """Settings with a store in S3 at this port, that is quick to give up."""
    options = {
        "s3_store_host": f"http://127.0.0.1:{port}",
        "s3_store_access_key": "key",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "bucket",
        "s3_store_retries": "0",
    }
    return {
        "DEFAULT__ENABLED_BACKENDS": "fast:file, s3:s3",
        **{f"S3__{name.upper()}": value for name, value in options.items()},
    }


async def image(api: httpx.AsyncClient) -> str:
    created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
    return path_of(created.json(), "image", kind="images")


async def saved(api: httpx.AsyncClient, path: str) -> dict[str, Any] | None:
    shown = await api.get(path.removesuffix("/image"), headers=ALICE)
    return shown.json()["image"]


async def test_a_store_that_fails(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    api = await custom_api()
    path = await image(api)
    await api.put(path, content=OLD, headers=UPLOAD)
    async with Paused(api, path, bytes(5 << 20)) as upload:
        shutil.move(tmp_path / "fast", tmp_path / "away")
        failed = await upload.answer()
    assert failed.status_code == 503
    assert failed.headers["retry-after"]
    # What the store may still have of it is the reaper's business, and nobody else's.
    assert {one for one in await rows(artifacts_database) if one[1] is not None} == {
        ("active", len(OLD))
    }
    shutil.rmtree(tmp_path / "fast", ignore_errors=True)
    shutil.move(tmp_path / "away", tmp_path / "fast")
    assert (await api.get(path, headers=ALICE)).content == OLD
    assert (await api.put(path, content=b"new", headers=UPLOAD)).status_code == 200


async def test_a_store_that_is_full(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    with mounted(tmp_path / "fast", "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        api = await custom_api()
        path = await image(api)
        await api.put(path, content=OLD, headers=UPLOAD)
        there = files(tmp_path / "fast")
        failed = await api.put(path, content=chunks(bytes(4 << 20), 1 << 20), headers=UPLOAD)
        assert failed.status_code == 413
        assert files(tmp_path / "fast") == there
        assert await rows(artifacts_database) == [("active", len(OLD))]
        assert (await api.get(path, headers=ALICE)).content == OLD


async def test_a_store_that_is_away(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    settings = s3_at(ports.any_free())
    api = await custom_api(types={"images": {"default_store": "s3"}}, **settings)
    path = await image(api)
    for _ in range(2):
        # Its place is free at once, though what is in the store is not known.
        assert (await api.put(path, content=b"x", headers=UPLOAD)).status_code == 503
        assert await saved(api, path) is None
    assert await rows(artifacts_database) == [("saving", None), ("saving", None)]
    # Those that the reaper cannot undo either are left to its next round.
    async with databases.connection(artifacts_database) as server:
        await server.execute("UPDATE blobs SET lease_until = now() - interval '1 second'")

        async def are_taken() -> bool:
            taken = "SELECT count(*) FROM blobs WHERE lease_until > now() AND status = 'saving'"
            return await server.fetchval(taken) == 2

        async with working(configuration(artifacts_database, tmp_path, **settings)):
            await until(are_taken)


@asynccontextmanager
async def hanging() -> AsyncGenerator[tuple[int, Callable[[], None]]]:
    """The port of a server that answers nobody, and what ends it."""
    is_over = asyncio.Event()

    def end() -> None:
        is_over.set()
        server.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], end
    finally:
        end()
        await server.wait_closed()


async def test_a_store_that_hangs(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    async with hanging() as (port, end):
        settings = {**s3_at(port), "JOBS__LEASE": "1", "JOBS__REAPER_INTERVAL": "1"}
        api = await custom_api(types={"images": {"default_store": "s3"}}, **settings)
        path = await image(api)
        upload = asyncio.create_task(api.put(path, content=bytes(1000), headers=UPLOAD))

        async def is_saving() -> bool:
            return await rows(artifacts_database) == [("saving", 1000)]

        async def is_free() -> bool:
            return await rows(artifacts_database) == [("saving", None)]

        await until(is_saving)
        # The client has gone, and the request waits for the store to undo what it began. When the
        # lease is over nobody else waits for that.
        upload.cancel()
        async with working(configuration(artifacts_database, tmp_path, **settings)):
            await until(is_free)
            assert await saved(api, path) is None
            end()
    with suppress(asyncio.CancelledError):
        await upload


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncGenerator[int]:
    """The port of a server of the kind that the service runs in."""
    config = uvicorn.Config(app, lifespan="off", ws="none", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve([listening]))
        await until(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


async def test_clients_that_break_the_rules(artifacts_database: str, tmp_path: Path) -> None:
    """By the real server, which tells the service of a broken request in its own way."""

    async def is_saving() -> bool:
        return len(await rows(artifacts_database)) == 2

    async def is_over() -> bool:
        return await rows(artifacts_database) == [("active", len(OLD))]

    async with (
        opened(configuration(artifacts_database, tmp_path)) as app,
        serving(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as api,
    ):
        path = await image(api)
        assert (await api.put(path, content=OLD, headers=UPLOAD)).status_code == 200
        there = files(tmp_path / "fast")
        for framing, body, is_sound in (
            ("Content-Length: 1000000", b"x" * 70_000, True),
            ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n", True),
            ("Transfer-Encoding: chunked", b"5\r\nbytes\r\nno number\r\nx\r\n", False),
            ("Transfer-Encoding: chunked", b"5\r\nmore than five\r\n0\r\n\r\n", False),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = "".join(f"{name}: {value}\r\n" for name, value in UPLOAD.items())
            writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\n{head}{framing}\r\n\r\n".encode())
            writer.write(body)
            await writer.drain()
            if is_sound:  # as far as it goes
                await until(is_saving)
            else:
                assert b" 400 " in await reader.readline()
            writer.transport.abort()
            await until(is_over)
        await until(lambda: files(tmp_path / "fast") == there)
        assert (await api.get(path, headers=ALICE)).content == OLD

        async def is_taken() -> bool:
            # What the server refused by itself may not have been noticed before it.
            return (await api.put(path, content=b"new", headers=UPLOAD)).status_code == 200

        await until(is_taken)
