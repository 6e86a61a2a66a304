"""Slots: a database and stores of one test's own, and services that run on them.

What is in a slot after something was killed is exactly what that left.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests import databases
from tests.images.service import client, configuration, opened
from tests.images.stores import Bucket
from tests.waiting import until

LEASE_S = 2
SETTLED_WITHIN_S = LEASE_S + 30
STORES = ("fast", "cheap", "third", "fourth")
STAGING = "os_glance_staging_store"
SCRATCH = "scratch"

# What still has to be done in a database, and so must be nothing in the end.
_UNSETTLED = """
    SELECT 'job ' || kind || ' ' || state FROM jobs
        WHERE period IS NULL AND state IN ('waiting', 'running')
    UNION ALL SELECT 'location in ' || store || ' ' || status FROM image_locations
        WHERE status IN ('pending', 'discarding', 'deleted') OR attempt IS NOT NULL
    UNION ALL SELECT 'image ' || status FROM images
        WHERE status IN ('saving', 'importing')
    UNION ALL SELECT 'lock of ' || import_task FROM images
        WHERE import_task IS NOT NULL AND deleted_at IS NULL
    UNION ALL SELECT 'image uploading without staged data' FROM images
        WHERE status = 'uploading' AND NOT EXISTS (
            SELECT FROM image_locations WHERE image_id = images.id AND status = 'staged')
    UNION ALL SELECT 'staged data of an image ' || images.status FROM image_locations
        JOIN images ON images.id = image_id
        WHERE image_locations.status = 'staged' AND images.status <> 'uploading'
    UNION ALL SELECT 'task ' || status FROM tasks WHERE status IN ('pending', 'processing')
"""


class Place(Protocol):
    """Where a store keeps its bytes."""

    async def everything(self) -> list[str]:
        """The names of all that is there."""
        ...

    async def read(self, key: str) -> bytes:
        """What is there under a key."""
        ...

    async def clear(self) -> None:
        """Remove all that is there."""
        ...


# What a store's start leaves if it is cut short, for the sweep to find in days; what is to stay.
_OWN_FILES = (".probe", ".probe.link", ".mark")


@dataclass(frozen=True)
class Folder:
    """A folder of a file store, or the one for scratch files."""

    path: Path

    async def everything(self) -> list[str]:
        return [
            str(found.relative_to(self.path))
            for found in self.path.rglob("*")
            if found.is_file() and not found.name.endswith(_OWN_FILES)
        ]

    async def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    async def clear(self) -> None:
        for found in self.path.iterdir():
            if found.is_dir():
                shutil.rmtree(found)
            elif found.name != ".mark":
                found.unlink()


@dataclass(frozen=True)
class Slot:
    """A database and stores for one service at a time; `environ` are its settings."""

    url: str
    folder: Path
    environ: dict[str, str]
    places: dict[str, Place]

    @property
    def log(self) -> Path:
        """What the forked services say."""
        return self.folder / "log"

    def having(self, options: Mapping[str, str]) -> "Slot":
        """This slot for services that have these settings, too."""
        more = {f"DIPTYCH_IMAGES__{name}": value for name, value in options.items()}
        return replace(self, environ={**self.environ, **more})

    def without(self, place: str) -> "Slot":
        """This slot for who does not look into one of its places."""
        return replace(self, places={n: p for n, p in self.places.items() if n != place})

    async def park(self) -> None:
        """Have nothing recur in the service that is killed: that comes by the clock."""
        async with databases.connection(self.url) as database:
            await database.execute(
                "UPDATE jobs SET run_after = now() + interval '1 day' WHERE period IS NOT NULL"
            )

    async def unpark(self) -> None:
        async with databases.connection(self.url) as database:
            await database.execute("UPDATE jobs SET run_after = now() WHERE period IS NOT NULL")

    async def clear(self) -> None:
        """Forget everything, as if no service had been here."""
        async with databases.connection(self.url) as database:
            await database.execute(
                "DELETE FROM image_locations; DELETE FROM image_members; DELETE FROM tasks;"
                "DELETE FROM images; DELETE FROM jobs WHERE period IS NULL;"
                "UPDATE jobs SET state = 'waiting', lease_until = NULL, worker = NULL"
            )
        for place in self.places.values():
            await place.clear()
        self.log.write_bytes(b"")

    async def unsettled(self, database: asyncpg.Connection) -> list[str]:
        """What somebody still has to do here, and what nobody knows of any more."""
        found = [row[0] for row in await database.fetch(_UNSETTLED)]
        if found:
            return found
        rows = await database.fetch("SELECT store, url FROM image_locations")
        known = {(row["store"], urlsplit(row["url"]).path.rpartition("/")[2]) for row in rows}
        there = [
            (name, key.rpartition("/")[2])
            for name, place in self.places.items()
            for key in await place.everything()
        ]
        found += [f"nobody knows {one}" for one in sorted(set(there) - known)]
        found += [f"nowhere: {one}" for one in sorted(known - set(there))]
        if len(there) > len(set(there)):
            found.append(f"there twice: {there}")
        return found

    async def everything(self) -> list[object]:
        """All rows and objects, to see whether anything has changed."""
        found: list[object] = []
        async with databases.connection(self.url) as database:
            for table in ("images", "image_locations", "tasks", "jobs"):
                rows = await database.fetch(f'SELECT * FROM "{table}" ORDER BY id')
                found += [dict(row) for row in rows if not row.get("period")]
        for name, place in sorted(self.places.items()):
            found += [(name, key) for key in sorted(await place.everything())]
        return found

    async def settle(self, *, within_s: float = SETTLED_WITHIN_S) -> None:
        """Wait until nothing is left to do."""
        deadline = time.monotonic() + within_s
        async with databases.connection(self.url) as database:
            while problems := await self.unsettled(database):
                assert time.monotonic() < deadline, problems
                await asyncio.sleep(0.05)


@dataclass(frozen=True)
class InBucket:
    """A bucket, looked at by a client that stays open."""

    bucket: Bucket
    client: Any

    async def everything(self) -> list[str]:
        objects = await self.client.list_objects_v2(Bucket=self.bucket.name)
        uploads = await self.client.list_multipart_uploads(Bucket=self.bucket.name)
        return [one["Key"] for one in (*objects.get("Contents", ()), *uploads.get("Uploads", ()))]

    async def read(self, key: str) -> bytes:
        found = await self.client.get_object(Bucket=self.bucket.name, Key=key)
        return await found["Body"].read()

    async def clear(self) -> None:
        name = self.bucket.name
        for one in (await self.client.list_objects_v2(Bucket=name)).get("Contents", ()):
            await self.client.delete_object(Bucket=name, Key=one["Key"])
        for one in (await self.client.list_multipart_uploads(Bucket=name)).get("Uploads", ()):
            await self.client.abort_multipart_upload(
                Bucket=name, Key=one["Key"], UploadId=one["UploadId"]
            )


@asynccontextmanager
async def slot(
    url: str, folder: Path, *, buckets: Mapping[str, Bucket] | None = None, **options: str
) -> AsyncGenerator[Slot]:
    """A slot with a migrated database; its stores are folders, but for those that have buckets."""
    buckets = buckets or {}
    places: dict[str, Place] = {SCRATCH: Folder(folder / SCRATCH)}
    (folder / SCRATCH).mkdir(parents=True)
    async with AsyncExitStack() as stack:
        for name in (*STORES, STAGING):
            if name in buckets:
                bucket = buckets[name]
                await bucket.make()
                stack.push_async_callback(bucket.remove)
                reading = await stack.enter_async_context(bucket.client())
                places[name] = InBucket(bucket, reading)
                options |= bucket.options(name)
            else:
                (folder / name).mkdir()
                places[name] = Folder(folder / name)
                options[f"{name}__FILESYSTEM_STORE_DATADIR".upper()] = str(folder / name)
        environ = configuration(
            url,
            folder,
            **{
                "JOBS__LEASE": str(LEASE_S),
                "JOBS__REAPER_INTERVAL": "1",
                "JOBS__POLL_INTERVAL": "0.5",
                "DATABASE__MAX_POOL_SIZE": "3",
                # What delivers them works by the clock.
                "OSLO_MESSAGING_NOTIFICATIONS__DRIVER": "noop",
                # One that is stopped within a statement keeps its rows for 5 s more.
                "DATABASE__STATEMENT_TIMEOUT": "10",
                "DEFAULT__ENABLED_BACKENDS": ",".join(
                    f"{name}:{'s3' if name in buckets else 'file'}" for name in (*STORES, STAGING)
                ),
                "TASK__WORK_DIR": str(folder / SCRATCH),
                "OUTBOUND__ALLOWED_NETWORKS": "127.0.0.0/8",
                "OUTBOUND__ALLOWED_PORTS": "",
                "IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "",
                **options,
            },
        )
        made = Slot(url, folder, environ, places)
        made.log.touch()
        # The rows of what recurs, which are parked later, are made by the first worker.
        async with serving(made), databases.connection(url) as database:

            async def is_scheduled() -> bool:
                return bool(await database.fetchval("SELECT count(*) > 2 FROM jobs"))

            await until(is_scheduled)
        yield made
        for place in places.values():
            await place.clear()


@asynccontextmanager
async def serving(slot: Slot, *, worker: bool = True) -> AsyncGenerator[httpx.AsyncClient]:
    """A service in this process."""
    environ = {**slot.environ, "DIPTYCH_IMAGES__JOBS__WITH_WORKER": str(worker).lower()}
    async with opened(environ) as app, client(app) as http:
        yield http
