"""A large import into three stores of different kinds: read once, in little memory, in the open."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift
from diptych_common import migrations

from tests import databases, web
from tests.daemon import Daemon, working
from tests.images.service import ALICE, configuration
from tests.images.stores import Bucket, Container
from tests.waiting import until

MIB = 1 << 20
STORES = ["bucket", "container", "fast"]


@dataclass
class Source:
    """What is downloaded: one block, again and again. It stops where `gates` stand until they open.

    `sent` counts the bytes of all answers together.
    """

    size: int
    gates: dict[int, asyncio.Event] = field(default_factory=dict[int, asyncio.Event])
    block: bytes = field(default_factory=lambda: os.urandom(MIB))
    sent: int = 0

    async def answer(self, asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(web.head(content_length=self.size, etag='"strong"'))
        for start in range(0, self.size, MIB):
            if start in self.gates:
                await self.gates[start].wait()
            writer.write(self.block)
            await writer.drain()
            self.sent += MIB

    def sha512(self) -> str:
        digest = hashlib.sha512()
        for _ in range(self.size // MIB):
            digest.update(self.block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Site:
    """An API, and apart from it a worker, whose process id is `worker`."""

    http: httpx.AsyncClient
    worker: int
    database: str
    bucket: Bucket
    container: Container
    folder: Path

    async def begin(self, uri: str) -> str:
        """Import from there into all stores; the new image's path."""
        body = {"disk_format": "raw", "container_format": "bare"}
        image = (await self.http.post("/v2/images", json=body)).json()["self"]
        body = {"method": {"name": "web-download", "uri": uri}, "stores": STORES}
        answer = await self.http.post(f"{image}/import", json=body)
        assert answer.status_code == 202, answer.text
        return image

    async def end(self, image: str) -> dict[str, Any]:
        """The image when it is active."""

        async def is_active() -> bool:
            shown = (await self.http.get(image)).json()
            assert shown["status"] in ("importing", "active"), shown
            return shown["status"] == "active"

        await until(is_active, within_s=300)
        return (await self.http.get(image)).json()

    async def told(self, image: str) -> int:
        """How many bytes of the running import the task and the job tell of, the lesser."""
        [task] = (await self.http.get(f"{image}/tasks")).json()["tasks"]
        mebibytes = re.search(r"(\d+) MiB of (\d+) MiB", task["message"])
        async with databases.connection(self.database) as database:
            progress = await database.fetchval(
                "SELECT progress FROM jobs WHERE kind = 'import' AND dedup_key = $1", task["id"]
            )
        if mebibytes is None or progress is None:
            return 0
        done, total = (int(number) * MIB for number in mebibytes.groups())
        told = json.loads(progress)
        assert told["total"] == total
        return min(done, told["done"])


@pytest.fixture
async def site(
    s3: Seaweedfs, swift: Swift, empty_database: str, tmp_path: Path
) -> AsyncGenerator[Site]:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    bucket, container = Bucket(s3), Container(swift)
    await bucket.make()
    options = {
        "DEFAULT__ENABLED_BACKENDS": "bucket:s3, container:swift, fast:file",
        "DEFAULT__WORKERS": "1",
        "OUTBOUND__ALLOWED_NETWORKS": "127.0.0.0/8",
        "OUTBOUND__ALLOWED_PORTS": "",
        "IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "",
        **bucket.options("bucket"),
        **container.options("container"),
    }
    environ = configuration(empty_database, tmp_path, **options)
    daemon = Daemon(environ, tmp_path / "log")
    daemon.start()
    with working(environ, tmp_path / "worker.log") as worker:
        async with httpx.AsyncClient(base_url=daemon.url, headers=ALICE, timeout=60) as http:
            yield Site(http, worker, empty_database, bucket, container, tmp_path)
    assert daemon.stop() == 0
    await bucket.remove()
    await container.remove()


def in_memory(process: int, name: str) -> int:
    """VmRSS, or VmHWM, its peak since `forget_peak`, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def forget_peak(process: int) -> None:
    # See proc(5).
    Path(f"/proc/{process}/clear_refs").write_text("5")


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(64 * MIB, id="64 MiB"),
        pytest.param(2048 * MIB, id="2 GiB", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_an_import_reads_its_source_once_in_little_memory_and_tells_how_far_it_is(
    site: Site, size: int
) -> None:
    # What is loaded once and kept is no part of an import's cost.
    small = Source(24 * MIB)
    async with web.serving(small.answer) as server:
        await site.end(await site.begin(server.url))

    source = Source(size, gates={size // 4: asyncio.Event(), size // 2: asyncio.Event()})
    before = in_memory(site.worker, "VmRSS")
    forget_peak(site.worker)
    async with web.serving(source.answer) as server:
        image = await site.begin(server.url)
        told = 0

        async def goes_on() -> bool:
            return await site.told(image) > told

        for sent, gate in source.gates.items():
            await until(goes_on, within_s=120)
            told = await site.told(image)
            assert told <= source.sent <= sent
            gate.set()
        shown = (await site.http.get(image)).json()
        assert shown["status"] == "importing"
        assert shown["os_glance_importing_to_stores"] == "bucket,container,fast"
        shown = await site.end(image)
        peak = in_memory(site.worker, "VmHWM")
        assert len(server.asked) == 1
    assert source.sent == size
    assert peak - before < 64 * MIB, f"{(peak - before) / MIB:.1f} MiB"
    assert (shown["stores"], shown["size"]) == ("bucket,container,fast", size)
    assert shown["os_hash_value"] == source.sha512()
    assert (site.folder / "fast" / shown["id"]).stat().st_size == size
    async with site.bucket.client() as s3:
        head = await s3.head_object(Bucket=site.bucket.name, Key=shown["id"])
    assert head["ContentLength"] == size
    assert shown["id"] in await site.container.everything()
