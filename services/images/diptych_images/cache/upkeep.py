"""What a process does for its node's cache beside downloads: it prefetches and tidies up."""

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diptych_common.database import Database
from diptych_common.metrics import Metrics
from diptych_store.errors import StoreError
from diptych_store.protocol import ByteRange, Reading, Store
from diptych_store.registry import Stores

from diptych_images.cache.directory import Directory, Image
from diptych_images.cache.reading import Cache, NoRoom, Nowhere, Source
from diptych_images.db import cache as reports
from diptych_images.db import images
from diptych_images.db.images import ImageRow
from diptych_images.opening import first_that_opens
from diptych_images.settings import ImagesSettings

log = logging.getLogger(__name__)


def image_of(row: ImageRow) -> Image | None:
    """The image as a cache has it; None for one that no cache is to have.

    That are those whose bytes may still become others, and those without a digest, of which nobody
    could tell whether what is cached is what it should be. Glance caches these, and logs an error.
    """
    if row["status"] != "active" or row["size"] is None:
        return None
    algorithm, digest = row["os_hash_algo"], row["os_hash_value"]
    if algorithm is None or digest is None or algorithm not in hashlib.algorithms_available:
        algorithm, digest = "md5", row["checksum"]
    return None if digest is None else Image(row["id"], row["size"], algorithm, digest.lower())


def source_of(
    stores: Stores,
    row: ImageRow,
    acting: Callable[[Store], Store],
    preferred: Sequence[str] = (),
) -> Source:
    """Where a cache has an image from: see `opening.first_that_opens`."""

    @asynccontextmanager
    async def at(asked: ByteRange) -> AsyncGenerator[tuple[Store, Reading] | None]:
        async with AsyncExitStack() as stack:
            yield await first_that_opens(stack, stores, row, asked, acting, preferred)

    return at


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The cache of a node, with what its upkeep needs; `node` is how other nodes know this one.

    `stalled_s` is the age at which an image that is cached in part, and does not grow, goes. Set
    `wanted` when something was queued.
    """

    cache: Cache
    db: Database
    stores: Stores
    node: str
    stalled_s: float
    prefetch_every_s: float
    tidy_every_s: float
    wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Prefetch and tidy until the context is left."""
        tasks = [
            asyncio.create_task(self._prefetch_always()),
            asyncio.create_task(self._tidy_always()),
        ]
        try:
            yield
        finally:
            self.cache.stopping.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _prefetch_always(self) -> None:
        while True:
            try:
                if await self.prefetch():
                    await self.report()
            except Exception as error:  # whatever it was, the next round may get further
                log.warning("The image cache cannot prefetch: %r", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.prefetch_every_s):
                    await self.wanted.wait()
            self.wanted.clear()

    async def _tidy_always(self) -> None:
        while True:
            await asyncio.sleep(self.tidy_every_s)
            try:
                await self.tidy()
            except Exception as error:  # whatever it was, the next round may get further
                log.warning("The image cache cannot be tidied up: %r", error)

    async def prefetch(self) -> int:
        """Fetch what is queued and no other process fetches; how many images were fetched.

        What failed stays queued. Raises OSError, ServiceUnavailable.
        """
        fetched = 0
        for image_id in await self.cache.run(self.cache.directory.queued):
            held = await self.cache.run(self.cache.directory.hold, image_id)
            if held is None:
                continue
            try:
                fetched += await self._prefetch_one(image_id)
            finally:
                os.close(held)
        return fetched

    async def _prefetch_one(self, image_id: str) -> bool:
        async with self.db.read() as connection:
            row = await images.get(connection, image_id, project_id=None, is_admin=True)
        image = None if row is None else image_of(row)
        if row is None or image is None or not self.cache.can_have(image):
            log.warning("Image %s cannot be cached; it is not queued any more", image_id)
            await self.cache.run(self.cache.directory.unqueue, image_id)
            return False
        try:
            # A location tells by itself in whose account it is.
            await self.cache.fill(image, source_of(self.stores, row, _as_itself))
        except (StoreError, NoRoom, Nowhere) as failure:
            log.warning("Image %s was not prefetched: %r", image_id, failure)
            return False
        await self.cache.run(self.cache.directory.unqueue, image_id)
        return True

    async def tidy(self) -> None:
        """Remove images that were deleted and what died, verify what was not, tell other nodes.

        Raises OSError, ServiceUnavailable.
        """
        directory = self.cache.directory
        await self.cache.run(directory.prepare)
        cached = await self.cache.run(directory.cached)
        ids = [one.image.id for one in cached if images.is_uuid(one.image.id)]
        async with self.db.read() as connection:
            living = await reports.living(connection, ids)
        for one in cached:
            if one.image.id not in living:
                log.info("Image %s was deleted; it leaves the cache", one.image.id)
                await self.cache.run(directory.drop, one.image.id)
            elif one.stored == one.image.size and not one.is_verified:
                await self.cache.verify(one.image)
        await self.cache.run(directory.clean, self.stalled_s)
        await self.cache.run(directory.prune)
        await self.report()

    async def forget(self, image_id: str) -> None:
        """Drop an image that was deleted; where that fails, `tidy` does it, as on other nodes."""
        try:
            await self.cache.run(self.cache.directory.drop, image_id)
        except OSError as error:
            log.warning("Image %s cannot leave the cache: %s", image_id, error)

    async def report(self) -> None:
        """Tell other nodes which images are here. Raises OSError, ServiceUnavailable."""
        cached = await self.cache.run(self.cache.directory.cached)
        verified = {one.image.id for one in cached if one.is_verified}
        async with self.db.write() as connection:
            await reports.report(connection, self.node, sorted(verified))


def _as_itself(store: Store) -> Store:
    return store


def directory_of(settings: ImagesSettings) -> Directory | None:
    """The directory of the node's cache; None if it has none."""
    default = settings.default
    if default.image_cache_dir is None:
        return None
    return Directory(
        Path(default.image_cache_dir),
        max_size=default.image_cache_max_size,
        block_size=default.image_cache_block_size,
    )


@asynccontextmanager
async def opened(
    settings: ImagesSettings, db: Database, stores: Stores, metrics: Metrics
) -> AsyncGenerator[Upkeep | None]:
    """The cache of this node, and nothing in the background; None if it has none.

    One whose directory cannot be used is no reason not to start: downloads go on without it, and
    it is tried again.
    """
    directory, default = directory_of(settings), settings.default
    if directory is None:
        yield None
        return
    cache = Cache(directory, metrics, on_fetched=partial(_count, metrics))
    try:
        await cache.run(directory.prepare)
    except OSError as error:
        log.error("The image cache cannot be used: %s", error)
    try:
        yield Upkeep(
            cache,
            db,
            stores,
            node=default.worker_self_reference_url
            or f"http://{socket.gethostname()}:{default.bind_port}",
            stalled_s=default.image_cache_stall_time,
            prefetch_every_s=default.cache_prefetcher_interval,
            tidy_every_s=default.image_cache_tidy_interval,
        )
    finally:
        await cache.aclose()


@asynccontextmanager
async def kept(
    settings: ImagesSettings, db: Database, stores: Stores, metrics: Metrics
) -> AsyncGenerator[Upkeep | None]:
    """As `opened`, and prefetch and tidy up in the background."""
    async with opened(settings, db, stores, metrics) as upkeep:
        if upkeep is None:
            yield None
            return
        async with upkeep.running():
            yield upkeep


def _count(metrics: Metrics, store: str, size: int) -> None:
    metrics.store_bytes.labels(store, "out").inc(size)
