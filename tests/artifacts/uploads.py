"""Uploads that stop in the middle, break off, or lie; and what they leave behind."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from diptych_artifacts.db.blob_store import DatabaseStore
from diptych_artifacts.settings import DATABASE_STORE, load, stores
from diptych_artifacts.worker import Equipment, make_worker
from diptych_common.database import Database
from diptych_common.metrics import Metrics
from diptych_store.registry import Stores
from starlette.types import ASGIApp

from tests import databases
from tests.artifacts.service import ALICE, OCTETS
from tests.waiting import until


def digests(data: bytes) -> dict[str, str]:
    """As documents have them."""
    return {name: hashlib.new(name, data).hexdigest() for name in ("md5", "sha1", "sha256")}


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """A body of which nobody says how long it is."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


def files(folder: Path) -> set[str]:
    """What is in the file stores below the folder, attempts too."""
    return {
        path.name
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".mark", "types.conf")
    }


async def rows(url: str) -> list[tuple[str, int | None]]:
    """Status and size of all blobs."""
    async with databases.connection(url) as server:
        found = await server.fetch("SELECT status, size FROM blobs ORDER BY status, size")
    return [tuple(row) for row in found]


class Paused:
    """An upload whose client waits after the first half of the data, until `go_on` is set.

    Entered when the blob is being saved; `answer` is what the service says in the end.
    """

    def __init__(
        self,
        api: httpx.AsyncClient,
        path: str,
        data: bytes,
        *,
        headers: dict[str, str] | None = None,
        is_announced: bool = True,
    ) -> None:
        self.go_on = asyncio.Event()
        self._is_waiting = asyncio.Event()
        self._data = data
        sent = {**ALICE, **OCTETS, **(headers or {})}
        if is_announced:
            sent["Content-Length"] = str(len(data))
        self._task = asyncio.create_task(api.put(path, content=self._pieces(), headers=sent))

    async def _pieces(self) -> AsyncIterator[bytes]:
        half = len(self._data) // 2
        yield self._data[:half]
        self._is_waiting.set()
        await self.go_on.wait()
        yield self._data[half:]

    async def __aenter__(self) -> "Paused":
        waiting = asyncio.create_task(self._is_waiting.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert not self._task.done(), self._task.result().text
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def answer(self) -> httpx.Response:
        """Let it go on, and wait for what the service says."""
        self.go_on.set()
        return await self._task


async def broken_off(
    app: ASGIApp, path: str, pieces: Iterable[bytes], headers: dict[str, str]
) -> list[int]:
    """Upload as a client that goes away after these pieces; the statuses it would have got."""
    body = iter(pieces)
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        piece = next(body, None)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    sent = {**ALICE, **OCTETS, **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("artifacts.example", 80),
    }
    await app(scope, receive, send)
    return statuses


@asynccontextmanager
async def working(environ: dict[str, str]) -> AsyncGenerator[Equipment]:
    """A worker in this process, with the stores of these settings, beside the block."""
    loaded = load(environ=environ)
    async with (
        Database(loaded.settings.database) as db,
        Stores.open(
            stores(loaded),
            of_service={DATABASE_STORE: lambda on_call: DatabaseStore(DATABASE_STORE, db)},
        ) as opened,
    ):
        equipment = Equipment(loaded.settings, db, opened, Metrics())
        stop = asyncio.Event()
        worker = asyncio.create_task(make_worker(equipment).run(stop))
        try:
            yield equipment
        finally:
            stop.set()
            await worker


async def settled(url: str, environ: dict[str, str]) -> None:
    """Have all jobs of removal done."""

    async def is_done() -> bool:
        async with databases.connection(url) as server:
            return not await server.fetchval(
                "SELECT count(*) FROM jobs WHERE kind = 'remove_bytes'"
                " AND state IN ('waiting', 'running')"
            )

    async with working({**environ, "DIPTYCH_ARTIFACTS__JOBS__POLL_INTERVAL": "0.1"}):
        await until(is_done)
