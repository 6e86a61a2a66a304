"""Downloads through the cache: what is there is read, what is not is fetched once for all who ask.

A fetch is a task of its own. It goes from block to block for as long as somebody in this process
waits for more; all others, in other processes too, read what it writes as it grows. It is the only
one to open a store, but for readers that the cache cannot serve: they go on without it.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Final, Literal, TypeVar

from diptych_common.metrics import Metrics
from diptych_store.digests import Hash
from diptych_store.errors import ReadDenied, Unreachable
from diptych_store.protocol import ByteRange, Reading, Store
from diptych_store.threads import Threads
from prometheus_client import Counter

from diptych_images.cache.directory import Directory, Dropped, Image, Part, Refusal

log = logging.getLogger(__name__)
T = TypeVar("T")

Source = Callable[[ByteRange], AbstractAsyncContextManager[tuple[Store, Reading] | None]]
"""Opens a part of an image in a store; None if the bytes are nowhere. Raises StoreError."""

# As the filesystem store reads.
_READ_SIZE: Final = 1 << 20
# Seconds between two looks at what another process fetches, and after which one that does not move
# is waited for no longer.
_LOOK_EVERY: Final = 0.02
_PATIENCE: Final = 60.0


class Damaged(Unreachable):
    """What a store gave for an image does not have its digest."""


class NoRoom(Exception):
    """The cache can't have the image: all that is in it is in use, or its disk fails."""


class Nowhere(Exception):
    """No store has the bytes."""


class CacheMetrics:
    """What the cache tells Prometheus.

    `requests` are downloads by where their first bytes came from: `hit`, `miss` (it began the
    fetch), `shared` (another did), `bypass` (the cache had no room, or failed). `bytes` are those
    `fetched` from stores into the cache, `served` from it, and that had to `bypass` it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.requests = Counter(
            "diptych_image_cache_requests",
            "Downloads of what can be cached, by where their first bytes came from: hit, miss,"
            " shared (another download's fetch), bypass (no room, or the cache failed).",
            ["outcome"],
            registry=metrics.registry,
        )
        self.bytes = Counter(
            "diptych_image_cache_bytes",
            "Bytes fetched into the cache, served from it, and that had to bypass it.",
            ["way"],
            registry=metrics.registry,
        )


class _Fetch:
    """A fetch under way, of one block after another."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.ended: Refusal | Exception | None = None

    def tell(self) -> None:
        """Wake all who wait for more."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class _Reader:
    """A download under way; `end` is the first byte that it does not want any more.

    It goes no further when it has a `failure`.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.failure: Damaged | None = None
        self.outcome: Literal["hit", "miss", "shared", "bypass"] = "hit"


class Cache:
    """The cache of a process's node; to be closed before the stores are."""

    def __init__(
        self, directory: Directory, metrics: Metrics, *, on_fetched: Callable[[str, int], None]
    ) -> None:
        self.directory = directory
        self._metrics = CacheMetrics(metrics)
        self._on_fetched = on_fetched
        self._threads = Threads("cache", count=16)
        # Nobody waits for ever for a disk that hangs, or for who holds the directory's lock.
        self._reads = Threads("cache-reads", count=16, timeout_s=_PATIENCE)
        # To hold a large image against its digest takes minutes, for which no stop has to wait.
        self._verifying = Threads("cache-verify", count=1)
        self.stopping = threading.Event()
        self._fetches: dict[tuple[str, int], _Fetch] = {}
        self._readers: dict[str, set[_Reader]] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}

    async def aclose(self) -> None:
        """End all fetches; what they have begun goes."""
        self.stopping.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.close()
        self._reads.close()
        self._verifying.close()

    async def run(self, function: Callable[..., T], /, *args: object) -> T:
        """Call a function of the directory in a thread. Raises OSError."""
        return await self._threads.run(function, *args)

    def can_have(self, image: Image) -> bool:
        """Whether the image is one for the cache: not empty, and not larger than all of it."""
        return 0 < image.size <= self.directory.max_size

    @asynccontextmanager
    async def open(
        self, image: Image, asked: ByteRange, source: Source
    ) -> AsyncGenerator[Reading | None]:
        """Open a part of an image; None if it is not cached and in no store.

        Nothing that goes wrong with the cache is an error: the rest comes from a store then. What
        a store raises before the first byte comes out of here, later out of the blocks.
        """
        length = asked.length_within(image.size)
        reader = _Reader(asked.start + length)
        blocks = self._blocks(image, asked.start, reader, source)
        async with self._reading(image, reader), aclosing(blocks):
            try:
                first = await anext(blocks)
            except Nowhere:
                yield None
                return
            self._metrics.requests.labels(reader.outcome).inc()
            if reader.outcome == "hit":
                with suppress(OSError):
                    await self._reads.run(self.directory.hit, image)
            async with aclosing(_with_first(first, blocks)) as all_blocks:
                yield Reading(size=image.size, length=length, blocks=all_blocks)

    async def fill(self, image: Image, source: Source) -> None:
        """Fetch what is missing of an image, until it is verified.

        Raises NoRoom, Nowhere, and what the store raises.
        """
        reader = _Reader(image.size)
        blocks = self._cached_blocks(image, 0, reader, source)
        async with self._reading(image, reader), aclosing(blocks):
            async for _ in blocks:
                pass
        # The last bytes are there to be read before their block is.
        if running := [task for task, image_id in self._tasks.items() if image_id == image.id]:
            await asyncio.wait(running)
        if reader.outcome == "bypass":
            raise NoRoom(f"There is no room for image {image.id} in the cache.")

    @asynccontextmanager
    async def _reading(self, image: Image, reader: _Reader) -> AsyncGenerator[None]:
        readers = self._readers.setdefault(image.id, set())
        readers.add(reader)
        try:
            yield
        finally:
            readers.discard(reader)
            if not readers and self._readers.get(image.id) is readers:
                del self._readers[image.id]

    async def _blocks(
        self, image: Image, start: int, reader: _Reader, source: Source
    ) -> AsyncGenerator[bytes]:
        position = start
        async with aclosing(self._cached_blocks(image, start, reader, source)) as cached:
            async for block in cached:
                position += len(block)
                self._metrics.bytes.labels("served").inc(len(block))
                yield block
        if position == reader.end:
            return
        if position == start:
            reader.outcome = "bypass"
        async with source(_part(image, position, reader.end)) as opened:
            if opened is None:
                raise Nowhere
            store, reading = opened
            async for block in reading.blocks:
                self._metrics.bytes.labels("bypass").inc(len(block))
                self._on_fetched(store.name, len(block))
                yield bytes(block)

    async def _cached_blocks(
        self, image: Image, start: int, reader: _Reader, source: Source
    ) -> AsyncGenerator[bytes]:
        """What the reader wants, or as much of it as the cache can give."""
        position = start
        ahead: Future[bytes] | None = None
        while position < reader.end:
            try:
                block = b"" if ahead is None else await self._reads.result(ahead)
                more = block or await self._more(image, position, reader, source)
            except OSError as error:
                log.warning("Image %s is not read from the cache: %s", image.id, error)
                more = None
            if more is None:
                reader.outcome = "bypass"
                return
            position += len(more)
            # Each block is read while the one before it is sent.
            ahead = None
            if position < reader.end:
                wanted = self._next_of(image, position, reader)
                ahead = self._reads.submit(self.directory.read, *wanted)
            yield more

    async def _more(
        self, image: Image, position: int, reader: _Reader, source: Source
    ) -> bytes | None:
        """The next bytes as soon as there are any; None if the cache will not have them."""
        key = self._key(image, position)
        busy_since: float | None = None
        while True:
            if reader.failure is not None:
                raise reader.failure
            fetch = self._fetches.get(key)
            # Before the look, so that nothing that comes after it is missed.
            changed = None if fetch is None else fetch.changed
            wanted = self._next_of(image, position, reader)
            block = await self._reads.run(self.directory.read, *wanted)
            if block:
                return block
            is_own = changed is None
            if fetch is None or changed is None:
                if key in self._fetches:
                    continue
                fetch = self._begin(image, key[1], source)
                changed = fetch.changed
            if reader.outcome == "hit":
                reader.outcome = "miss" if is_own else "shared"
            async with asyncio.timeout(_PATIENCE):
                await changed.wait()
            match fetch.ended:
                case None | Refusal.THERE:
                    pass
                case Refusal.NO_ROOM | NoRoom():
                    return None
                case Refusal.BUSY:
                    # Another process fetches it: what it has written is there to be read.
                    reader.outcome = "shared"
                    now = asyncio.get_running_loop().time()
                    busy_since = busy_since or now
                    if now - busy_since > _PATIENCE:
                        log.warning("Image %s: the process that caches it is stuck", image.id)
                        return None
                    await asyncio.sleep(_LOOK_EVERY)
                case ReadDenied() if not is_own:
                    pass  # the other one's user may have fewer rights at the backend
                case Exception() as error:
                    raise error

    def _next_of(self, image: Image, position: int, reader: _Reader) -> tuple[Image, int, int]:
        return image, position, min(_READ_SIZE, reader.end - position)

    def _key(self, image: Image, position: int) -> tuple[str, int]:
        return image.id, position // self.directory.block_size

    def _begin(self, image: Image, number: int, source: Source) -> _Fetch:
        fetch = self._fetches[image.id, number] = _Fetch()
        task = asyncio.create_task(self._run(fetch, image, number, source))
        self._tasks[task] = image.id
        task.add_done_callback(self._tasks.pop)
        return fetch

    async def _run(self, fetch: _Fetch, image: Image, number: int, source: Source) -> None:
        try:
            fetch.ended = await self._fetch(fetch, image, number, source)
        except asyncio.CancelledError:
            fetch.ended = NoRoom("The service stops.")
            raise
        except Exception as error:
            fetch.ended = error
        finally:
            for key in [key for key, one in self._fetches.items() if one is fetch]:
                del self._fetches[key]
            fetch.tell()
        if fetch.ended is None:
            # Blocks that were fetched at several times: the last of them makes the image whole.
            await self.verify(image)

    async def _fetch(
        self, fetch: _Fetch, image: Image, number: int, source: Source
    ) -> Refusal | None:
        """Fetch from a block on for as long as somebody wants more; or why not even the first."""
        claimed = await self._on_disk(self.directory.claim, image, number)
        if isinstance(claimed, Refusal):
            return claimed
        part, owned = claimed, {claimed}
        publishing: tuple[Part, Future[None]] | None = None
        position = number * self.directory.block_size
        # Of an image that is fetched as a whole, what would complete it is given to nobody before
        # the digest is known to be right.
        digest = hashlib.new(image.algorithm, usedforsecurity=False) if position == 0 else None
        try:
            # No further than to what is there, or on its way: a store sends more than is read.
            wanted = self._wanted_end(image, position)
            end = await self._on_disk(self.directory.gap_end, image, number, wanted)
            async with source(_part(image, position, end)) as opened:
                if opened is None:
                    raise Nowhere
                store, reading = opened
                async for block in reading.blocks:
                    self._on_fetched(store.name, len(block))
                    self._metrics.bytes.labels("fetched").inc(len(block))
                    rest = memoryview(block)
                    while rest:
                        piece, rest = rest[: part.missing], rest[part.missing :]
                        position += len(piece)
                        is_last = position == image.size
                        # Begun before the other is there: no process is to come in between, which
                        # would have to open the store again.
                        following = None
                        if len(piece) == part.missing and position < end:
                            following = await self._next(fetch, image, position)
                            owned |= {following} if following else set()
                        await self._on_disk(_take, part, piece, digest, image, is_last)
                        fetch.tell()
                        if part.missing:
                            continue
                        # It takes the disk a while, in which the next block is fetched.
                        if publishing is not None:
                            await self._done(publishing[1])
                            owned.discard(publishing[0])
                        publishing = part, self._threads.submit(part.publish)
                        if following is not None:
                            part = following
                            del self._fetches[self._key(image, position - 1)]
                            continue
                        await self._done(publishing[1])
                        if digest is not None and is_last:
                            await self._on_disk(self.directory.confirm, image)
                        return None
            raise Unreachable(f"Image {image.id} ended at byte {position} in store {store.name}.")
        except Damaged as error:
            log.error("Image %s does not have its digest; it is not cached", image.id)
            for reader in self._readers.get(image.id, ()):
                reader.failure = error
            await self._on_disk(self.directory.drop, image.id)
            raise
        finally:
            if publishing is not None:
                await self._threads.settle(publishing[1])
            for one in owned:
                await self._threads.settle(self._threads.submit(one.abandon))

    async def _next(self, fetch: _Fetch, image: Image, position: int) -> Part | None:
        """The block at the position, for the fetch to go on with; None if it is not to."""
        key = self._key(image, position)
        is_wanted = any(reader.end > position for reader in self._readers.get(image.id, ()))
        if not is_wanted or key in self._fetches:
            return None
        self._fetches[key] = fetch
        claimed = await self._on_disk(self.directory.claim, image, key[1])
        if isinstance(claimed, Refusal):
            del self._fetches[key]
            return None
        return claimed

    def _wanted_end(self, image: Image, position: int) -> int:
        """Where the block ends that has the last byte which anybody wants."""
        block_size = self.directory.block_size
        last = max((reader.end for reader in self._readers.get(image.id, ())), default=0)
        blocks = -(-max(last, position + 1) // block_size)
        return min(blocks * block_size, image.size)

    async def verify(self, image: Image) -> None:
        """Hold an image that became whole against its digest, if nobody did."""
        try:
            if await self.run(self.directory.is_verified, image):
                return
            if await self._verifying.run(self.directory.verify, image, self.stopping) is False:
                log.error("Image %s does not have its digest; it is not cached", image.id)
        except OSError as error:
            log.warning("Image %s is not verified in the cache: %s", image.id, error)

    async def _on_disk(self, function: Callable[..., T], /, *args: object) -> T:
        """As `run`, but raises NoRoom if the directory cannot be used."""
        return await self._done(self._threads.submit(function, *args))

    async def _done(self, future: Future[T]) -> T:
        try:
            return await self._threads.result(future)
        except Dropped as error:
            raise NoRoom(str(error)) from error
        except OSError as error:
            log.warning("The image cache fails: %s", error)
            raise NoRoom(f"The image cache fails: {error}") from error


def _take(part: Part, piece: memoryview, digest: Hash | None, image: Image, is_last: bool) -> None:
    """Write the next bytes of an image; raises Damaged instead if they are the last of a wrong one.

    `digest` has taken in all bytes before; None if it is not known.
    """
    if digest is not None:
        digest.update(piece)
        if is_last and digest.hexdigest() != image.digest:
            raise Damaged(f"Image {image.id} is damaged.")
    part.write(piece)


def _part(image: Image, start: int, end: int) -> ByteRange:
    # Without an end where there is none: some servers have no ranges.
    return ByteRange(start, None if end == image.size else end - start)


async def _with_first(first: bytes, others: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    del first
    async for block in others:
        yield block
