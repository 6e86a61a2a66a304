"""Objects as images in a pool of Ceph: `<pool>/<key>@snap`, protected, as Nova clones them.

An attempt is an image of another name, which a location cannot name; it is renamed to its key.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

from diptych_store.calls import OnCall, tell_nobody, told
from diptych_store.drivers.rbd import images
from diptych_store.drivers.rbd.cluster import Cluster, libraries
from diptych_store.drivers.rbd.images import OpenImage, Place, Writings
from diptych_store.drivers.rbd.locations import SNAPSHOT, RbdLocation, parse_location
from diptych_store.errors import (
    BadLocation,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import check_attempt
from diptych_store.options.rbd import RbdOptions
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading
from diptych_store.threads import Threads

T = TypeVar("T")


class RbdStore:
    """A pool; see docs/drivers/rbd.md.

    Has the capabilities Measures and Sweeps. Every call is made by the store's own threads: a
    cluster that hangs blocks neither the loop nor another store. Raises ImportError where Ceph's
    Python bindings are missing.
    """

    def __init__(
        self,
        name: str,
        options: RbdOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._options = options
        self._read_only = read_only
        self._on_call = on_call
        self._cluster = Cluster(name, options, libraries())
        self._writings = Writings()
        # Requests have a time limit of their own; this one is for calls that make several.
        self._timeout_s = options.connect_timeout_s + 2 * options.rbd_store_timeout
        self._threads = Threads(
            f"store-{name}",
            count=options.rbd_store_thread_pool_size,
            timeout_s=self._timeout_s,
        )
        # To remove a large image may take minutes, and is no reason to keep others waiting.
        self._removals = Threads(f"store-{name}-removals", count=options.rbd_store_thread_pool_size)

    def recognises(self, location: str) -> bool:
        """See Store.recognises; of another cluster's pool of that name only a known id tells."""
        try:
            place = parse_location(location)
        except BadLocation:
            return False
        return place.fsid is None or (
            place.pool == self._options.rbd_store_pool and self._cluster.fsid in (None, place.fsid)
        )

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write; an image of unknown size is made larger as bytes come."""
        self._check_writable()
        place = Place(
            self._cluster,
            attempt,
            writings=self._writings,
            expected=size,
            object_size=self._options.rbd_store_chunk_size * images.MIB,
            thin=self._options.rbd_thin_provisioning,
        )
        try:
            await self._run("write", place.begin)
            async for block in blocks:
                await self._run("write", place.append, block)
            await self._run("write", place.finish)
        except BaseException:
            # Behind a call that hangs and was given up it comes later than this returns, or never:
            # then `attempts` finds what is left.
            await self._threads.settle(
                self._threads.submit(self._translated, "discard", place.abandon)
            )
            raise
        return place.size

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish; publishing again after Unreachable is safe."""
        self._check_writable()
        check_attempt(attempt)
        return await self._run("publish", self._publish, attempt)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._check_writable()
        check_attempt(attempt)
        await self._remove("discard", self._discard, attempt, published)

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open. The first block is read on entry, others ahead of their use."""
        place = self._place(location)
        image = OpenImage(self._cluster, place, range)
        try:
            first = await self._run("open", self._open, image, place)
            async with aclosing(self._blocks(image, first)) as blocks:
                yield Reading(size=image.size, length=image.length, blocks=blocks)
        finally:
            await self._threads.settle(self._threads.submit(image.close))

    async def delete(self, location: str) -> None:
        """See Store.delete. An image with snapshots of others' goes to the pool's trash."""
        self._check_writable()
        place = self._place(location)
        await self._remove("delete", self._delete, place)

    async def free(self) -> int | None:
        """See Measures; what the pool has room for, replicas and its own quota not counted in."""
        return await self._run("free", self._free)

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        before = time.time() - older_than.total_seconds()
        for attempt in await self._run("list", self._list_attempts, before):
            yield attempt

    async def aclose(self) -> None:
        """Leave the cluster; readings and writings have to be over."""
        await self._threads.settle(self._threads.submit(self._cluster.disconnect))
        self._threads.close()
        self._removals.close()

    def _place(self, location: str) -> RbdLocation:
        place = parse_location(location)
        if place.pool not in (None, self._options.rbd_store_pool):
            raise BadLocation(f"Store {self.name} has no location in another pool than its own.")
        return place

    def _check_writable(self) -> None:
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    async def _run(self, operation: str, function: Callable[..., T], /, *args: object) -> T:
        future = self._threads.submit(self._translated, operation, function, *args)
        return await self._result(future)

    async def _remove(self, operation: str, function: Callable[..., T], /, *args: object) -> T:
        return await self._removals.run(self._translated, operation, function, *args)

    async def _result(self, future: Future[T]) -> T:
        try:
            return await self._threads.result(future)
        except TimeoutError:
            raise Unreachable(
                f"Store {self.name} did not answer within {self._timeout_s} seconds."
            ) from None

    def _translated(self, operation: str, function: Callable[..., T], /, *args: object) -> T:
        with told(self._on_call, operation):
            try:
                return function(*args)
            except self._cluster.errors as error:
                raise self._cluster.error(error) from error

    # What follows runs in the store's threads.

    def _publish(self, attempt: Attempt) -> str:
        images.publish(self._cluster, attempt)
        return str(
            RbdLocation(
                image=attempt.key,
                fsid=self._cluster.connect().fsid,
                pool=self._options.rbd_store_pool,
                snapshot=SNAPSHOT,
            )
        )

    def _discard(self, attempt: Attempt, published: bool) -> None:
        images.discard(self._cluster, attempt, writings=self._writings, published=published)

    def _check_cluster(self, place: RbdLocation) -> None:
        if place.fsid not in (None, self._cluster.connect().fsid):
            raise BadLocation(f"Store {self.name} has no location in another cluster than its own.")

    def _open(self, image: OpenImage, place: RbdLocation) -> bytes:
        try:
            self._check_cluster(place)
            return image.open()
        except self._cluster.rbd.ImageNotFound:
            self._cluster.check_pool(self._cluster.connect())
            raise NotFound(f"Store {self.name} has no object {place.image}.") from None
        except (WriteDenied, *self._cluster.errors) as error:
            translated = error if isinstance(error, StoreError) else self._cluster.error(error)
            if isinstance(translated, WriteDenied):
                raise ReadDenied(str(translated)) from error
            raise translated from error

    async def _blocks(self, image: OpenImage, first: bytes) -> AsyncGenerator[Block, None]:
        block = first
        while block:
            ahead = self._threads.submit(self._translated, "read", image.read)
            yield block
            del block
            block = await self._result(ahead)

    def _delete(self, place: RbdLocation) -> None:
        self._check_cluster(place)
        images.delete(self._cluster, place)

    def _free(self) -> int | None:
        code, answer, _ = self._cluster.connect().client.mon_command(
            json.dumps({"prefix": "df", "format": "json"}), b""
        )
        if code != 0:
            return None
        for pool in json.loads(answer)["pools"]:
            if pool["name"] == self._options.rbd_store_pool:
                return int(pool["stats"]["max_avail"])
        return None

    def _list_attempts(self, before: float) -> list[Attempt]:
        return [] if self._read_only else images.attempts(self._cluster, before=before)
