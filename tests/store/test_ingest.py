import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import pytest
from diptych_store.digests import Digests
from diptych_store.drivers.memory import MemoryStore
from diptych_store.errors import Full, SizeLimitExceeded, SizeMismatch
from diptych_store.ingest import BlockPool, Ingested, ingest
from diptych_store.protocol import Attempt, Block

from tests.store.conformance import (
    MIB,
    WriterGone,
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    some_bytes,
)

BOTH = Digests(("md5", "sha512"))


@pytest.fixture
def pool() -> Iterator[BlockPool]:
    pool = BlockPool()
    yield pool
    assert (pool.held, pool.transfers) == (0, 0)
    pool.close()


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore("here")
    yield store
    assert store.everything() == []


class Recorder(MemoryStore):
    """Keeps nothing but the sizes of the blocks that reach it; can be made to hang."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.sizes: list[int] = []
        self.allowed = asyncio.Event()
        self.allowed.set()

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        async for block in blocks:
            self.sizes.append(len(block))
            await self.allowed.wait()
        return sum(self.sizes)


class Watcher:
    """An observer that may refuse what it sees from some block on."""

    def __init__(self, *, refuse_from: int | None = None) -> None:
        self.seen = bytearray()
        self.blocks = 0
        self.threads: set[int] = set()
        self._refuse_from = refuse_from

    def update(self, block: Block, /) -> None:
        self.threads.add(threading.get_ident())
        if self.blocks == self._refuse_from:
            raise ValueError("this is no image")
        self.blocks += 1
        self.seen += block


async def pieces(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    async for piece in in_blocks(data, size):
        yield piece


@pytest.mark.parametrize("length", [0, 1, 65_536, MIB, MIB + 1, 5 * MIB + 7])
@pytest.mark.parametrize("announced", [True, False])
async def test_bytes_arrive_with_their_size_and_digests(
    store: MemoryStore, pool: BlockPool, length: int, announced: bool
):
    data, attempt, watcher = some_bytes(length), attempt_at(), Watcher()
    outcome = await ingest(
        pieces(data),
        store,
        attempt,
        size=length if announced else None,
        limit=length,
        digests=BOTH,
        observers=[watcher],
        pool=pool,
    )
    assert outcome == Ingested(
        length,
        {"md5": hashlib.md5(data).hexdigest(), "sha512": hashlib.sha512(data).hexdigest()},
    )
    assert watcher.seen == data
    assert threading.get_ident() not in watcher.threads
    location = await store.publish(attempt)
    assert await get(store, location) == data
    await store.delete(location)


async def test_nothing_is_published(store: MemoryStore, pool: BlockPool):
    attempt = attempt_at()
    await ingest(pieces(b"x"), store, attempt, size=1, limit=None, digests=BOTH, pool=pool)
    assert await begun_attempts(store) == [attempt]
    await store.discard(attempt)


async def test_small_pieces_are_gathered_to_blocks_of_a_mebibyte(pool: BlockPool):
    recorder = Recorder()
    data = some_bytes(3 * MIB + 5)
    await ingest(
        pieces(data), recorder, attempt_at(), size=None, limit=None, digests=BOTH, pool=pool
    )
    assert recorder.sizes == [MIB, MIB, MIB, 5]


async def test_a_size_beyond_the_limit_is_refused_before_anything_is_read(
    store: MemoryStore, pool: BlockPool
):
    async def unread() -> AsyncIterator[bytes]:
        pytest.fail("the stream was read")
        yield b""

    with pytest.raises(SizeLimitExceeded) as raised:
        await ingest(unread(), store, attempt_at(), size=11, limit=10, digests=BOTH, pool=pool)
    assert raised.value.limit == 10


@pytest.mark.parametrize("limit", [0, 1, MIB - 1, 3 * MIB - 1])
async def test_an_unannounced_size_beyond_the_limit_leaves_nothing(
    store: MemoryStore, pool: BlockPool, limit: int
):
    with pytest.raises(SizeLimitExceeded):
        await ingest(
            pieces(some_bytes(3 * MIB)),
            store,
            attempt_at(),
            size=None,
            limit=limit,
            digests=BOTH,
            pool=pool,
        )


async def test_reading_stops_at_the_limit(store: MemoryStore, pool: BlockPool):
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield bytes(65_536)

    with pytest.raises(SizeLimitExceeded):
        await ingest(endless(), store, attempt_at(), size=None, limit=MIB, digests=BOTH, pool=pool)
    assert read == MIB + 65_536


@pytest.mark.parametrize("announced", [1, 65_535, 65_537, 3 * MIB - 1, 3 * MIB + 1])
async def test_a_stream_of_another_size_than_announced_leaves_nothing(
    store: MemoryStore, pool: BlockPool, announced: int
):
    length = 65_536 if announced < MIB else 3 * MIB
    with pytest.raises(SizeMismatch):
        await ingest(
            pieces(some_bytes(length)),
            store,
            attempt_at(),
            size=announced,
            limit=None,
            digests=BOTH,
            pool=pool,
        )


@pytest.mark.parametrize("after", [0, 1, 20])
async def test_the_error_of_a_stream_comes_out_and_leaves_nothing(
    store: MemoryStore, pool: BlockPool, after: int
):
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(after):
            yield bytes(65_536)
        raise WriterGone

    with pytest.raises(WriterGone):
        await ingest(stream(), store, attempt_at(), size=None, limit=None, digests=BOTH, pool=pool)


@pytest.mark.parametrize("block", [0, 2])
async def test_what_an_observer_refuses_never_reaches_the_store(pool: BlockPool, block: int):
    recorder = Recorder()
    with pytest.raises(ValueError, match="no image"):
        await ingest(
            pieces(some_bytes(5 * MIB)),
            recorder,
            attempt_at(),
            size=None,
            limit=None,
            digests=BOTH,
            observers=[Watcher(refuse_from=block)],
            pool=pool,
        )
    assert recorder.sizes == [MIB] * block


async def test_the_error_of_a_store_comes_out_and_the_stream_is_let_go(pool: BlockPool):
    class FullStore(Recorder):
        async def write(
            self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
        ) -> int:
            await anext(blocks)
            raise Full("no room")

    let_go = False

    async def stream() -> AsyncGenerator[bytes, None]:
        nonlocal let_go
        try:
            while True:
                yield bytes(65_536)
                await asyncio.sleep(0)
        finally:
            let_go = True

    source = stream()
    with pytest.raises(Full):
        await ingest(
            source, FullStore(), attempt_at(), size=None, limit=None, digests=BOTH, pool=pool
        )
    await source.aclose()  # would raise if somebody still waited in it
    assert let_go


async def test_a_cancelled_transfer_leaves_nothing(store: MemoryStore, pool: BlockPool):
    tasks = asyncio.all_tasks()
    for turns in range(60):
        task = asyncio.create_task(
            ingest(
                pieces(some_bytes(2 * MIB), 16_384),
                store,
                attempt_at(),
                size=None,
                limit=None,
                digests=BOTH,
                pool=pool,
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.everything() == []
        assert asyncio.all_tasks() == tasks


async def test_a_slow_store_holds_the_client_back(pool: BlockPool):
    recorder, sent = Recorder(), 0
    recorder.allowed.clear()

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 65_536
            yield bytes(65_536)
            await asyncio.sleep(0)

    task = asyncio.create_task(
        ingest(stream(), recorder, attempt_at(), size=None, limit=None, digests=BOTH, pool=pool)
    )
    await asyncio.sleep(0.3)
    # One block being written, one digested, one gathered; the next is not begun.
    assert sent == 3 * MIB
    assert pool.held == 3 * MIB
    recorder.allowed.set()
    assert (await task).size == 160 * 65_536


async def test_the_pool_is_divided_among_the_transfers(pool: BlockPool):
    recorders = [Recorder() for _ in range(24)]
    all_begun = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        await all_begun.wait()
        async for piece in pieces(some_bytes(2 * MIB)):
            yield piece

    tasks = [
        asyncio.create_task(
            ingest(stream(), one, attempt_at(), size=None, limit=None, digests=BOTH, pool=pool)
        )
        for one in recorders
    ]
    await asyncio.sleep(0.01)
    assert pool.transfers == 24
    all_begun.set()
    most = 0
    while not all(task.done() for task in tasks):
        most = max(most, pool.held)
        await asyncio.sleep(0)
    assert [(await task).size for task in tasks] == [2 * MIB] * 24
    # 24 MiB for 24 transfers of 3 blocks each; a block ends with the piece that fills it.
    assert 20 * MIB < most <= 24 * MIB + 24 * 3 * 65_536
    assert {max(one.sizes) for one in recorders} <= {6 * 65_536, MIB}


async def test_stores_that_hang_and_clients_that_dawdle_hold_up_nobody_else(
    store: MemoryStore, pool: BlockPool
):
    stuck = Recorder()
    stuck.allowed.clear()

    async def dawdle() -> AsyncIterator[bytes]:
        yield some_bytes(MIB - 1)
        await asyncio.Event().wait()

    others = [
        asyncio.create_task(
            ingest(stream, stuck, attempt_at(), size=None, limit=None, digests=BOTH, pool=pool)
        )
        for stream in (
            *(dawdle() for _ in range(50)),
            *(pieces(some_bytes(5 * MIB)) for _ in range(10)),
        )
    ]
    await asyncio.sleep(0.2)
    attempt, data = attempt_at(), some_bytes(4 * MIB)
    async with asyncio.timeout(20):
        outcome = await ingest(
            pieces(data), store, attempt, size=len(data), limit=None, digests=BOTH, pool=pool
        )
    assert outcome.digests["md5"] == hashlib.md5(data).hexdigest()
    await store.discard(attempt)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def test_an_algorithm_has_to_exist_and_to_have_a_length():
    with pytest.raises(ValueError, match="no digest algorithm nonsense"):
        Digests(("md5", "nonsense"))
    with pytest.raises(ValueError, match="shake_128 has no length"):
        Digests(("shake_128",))


async def test_a_digest_named_twice_is_taken_once(store: MemoryStore, pool: BlockPool):
    attempt = attempt_at()
    outcome = await ingest(
        pieces(b"abc"),
        store,
        attempt,
        size=3,
        limit=3,
        digests=Digests(("md5", "md5")),
        pool=pool,
    )
    assert outcome.digests == {"md5": hashlib.md5(b"abc").hexdigest()}
    await store.discard(attempt)
