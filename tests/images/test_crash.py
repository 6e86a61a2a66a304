"""`make crash`: the daemon is killed again and again at any moment, and nothing is lost or left."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_common import migrations

from tests.daemon import Daemon
from tests.images.service import ALICE, OCTETS, configuration

ROUNDS = 40
CLIENTS = 6
LEASE_S = 3


class Client:
    """Uploads, downloads and deletes images; remembers what the service said it had done."""

    def __init__(self, http: httpx.AsyncClient, dice: random.Random) -> None:
        self.http = http
        self.dice = dice
        self.stored: dict[str, str] = {}  # path → digest of what was acknowledged
        self.deleted: set[str] = set()

    async def work(self) -> None:
        while True:
            try:
                await self.step()
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def step(self) -> None:
        body = {"disk_format": "raw", "container_format": "bare"}
        created = await self.http.post("/v2/images", json=body, headers=ALICE)
        if created.status_code != 201:
            return
        path = created.json()["self"]
        data = os.urandom(self.dice.choice([0, 1000, 1 << 20, 5 << 20]))

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 1 << 18):
                yield data[at : at + (1 << 18)]
                await asyncio.sleep(self.dice.uniform(0, 0.02))

        stored = await self.http.put(f"{path}/file", content=pieces(), headers={**ALICE, **OCTETS})
        if stored.status_code == 204:
            self.stored[path] = hashlib.sha256(data).hexdigest()
        if self.dice.random() < 0.4:
            # A deletion that is not acknowledged may have happened or not.
            digest = self.stored.pop(path, None)
            answer = await self.http.delete(path, headers=ALICE)
            if answer.status_code == 204:
                self.deleted.add(path)
            elif digest is not None:
                self.stored[path] = digest


@pytest.mark.crash
async def test_killed_again_and_again_nothing_is_lost_or_left(
    empty_database: str, tmp_path: Path
) -> None:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    daemon = Daemon(
        configuration(
            empty_database,
            tmp_path,
            JOBS__WITH_WORKER="true",
            JOBS__LEASE=str(LEASE_S),
            JOBS__REAPER_INTERVAL="1",
            JOBS__POLL_INTERVAL="0.5",
            DEFAULT__WORKERS="2",
            DEFAULT__API_LIMIT_MAX="100000",
        ),
        tmp_path / "log",
    )
    dice = random.Random(os.environ.get("CRASH_SEED", "1"))
    daemon.start()
    async with httpx.AsyncClient(base_url=daemon.url, timeout=30) as http:
        clients = [Client(http, random.Random(dice.random())) for _ in range(CLIENTS)]
        working = [asyncio.create_task(client.work()) for client in clients]
        for _ in range(ROUNDS):
            await asyncio.sleep(dice.uniform(0.1, 1.0))
            if dice.random() < 0.5:
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)
            else:
                dice.choice(daemon.workers()).kill()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

        async def everything() -> list[dict[str, Any]]:
            while True:
                try:
                    page = await http.get("/v2/images?limit=100000", headers=ALICE)
                    return page.json()["images"]
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

        async with asyncio.timeout(LEASE_S + 30):
            folder = tmp_path / "fast"
            while True:
                images = await everything()
                active = {image["id"] for image in images if image["status"] == "active"}
                files = {path.name for path in folder.rglob("*") if path.is_file()} - {".mark"}
                if files == active and all(image["status"] != "saving" for image in images):
                    break
                await asyncio.sleep(0.2)
        assert {image["status"] for image in images} <= {"queued", "active"}
        shown = {image["self"] for image in images}
        for client in clients:
            assert client.stored.keys() <= shown
            assert not client.deleted & shown
            for path, digest in client.stored.items():
                got = await http.get(f"{path}/file", headers=ALICE)
                assert hashlib.sha256(got.content).hexdigest() == digest
        # The clients got somewhere between the kills.
        assert sum(len(client.stored) for client in clients) > ROUNDS
    daemon.stop()
