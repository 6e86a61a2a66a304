import asyncio
import contextlib
import hashlib
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from diptych_store.digests import Digests
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.drivers.memory import MemoryStore
from diptych_store.errors import Full, SizeLimitExceeded, SizeMismatch, Unreachable
from diptych_store.ingest import (
    BlockPool,
    Ingested,
    IngestedByAll,
    Target,
    ingest,
    ingest_into_all,
)
from diptych_store.options.filesystem import FilesystemOptions
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
from tests.waiting import until

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


class Doubled:
    """A sealing that anybody can open."""

    def sealed_size(self, size: int, /) -> int:
        return 2 * size

    async def sealed(self, blocks: AsyncIterator[Block], /) -> AsyncGenerator[Block]:
        async for block in blocks:
            yield bytes(block) + bytes(block)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_store_gets_what_sealing_makes_of_the_bytes(pool: BlockPool, announced: bool):
    """All that is told of them is of what came."""

    class Asked(MemoryStore):
        size: int | None = -1

        async def write(
            self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
        ) -> int:
            self.size = size
            return await super().write(attempt, blocks, size=size)

    data, attempt, store, watcher = some_bytes(100_000), attempt_at(), Asked("here"), Watcher()
    outcome = await ingest(
        pieces(data),
        store,
        attempt,
        size=len(data) if announced else None,
        limit=len(data),
        digests=BOTH,
        observers=[watcher],
        sealing=Doubled(),
        pool=pool,
    )
    assert (outcome.size, outcome.digests) == (
        len(data),
        {"md5": hashlib.md5(data).hexdigest(), "sha512": hashlib.sha512(data).hexdigest()},
    )
    assert watcher.seen == data
    assert store.size == (200_000 if announced else None)
    assert await get(store, await store.publish(attempt)) == data + data


async def test_a_stream_that_breaks_while_it_is_sealed_leaves_nothing(
    store: MemoryStore, pool: BlockPool
):
    async def broken() -> AsyncIterator[bytes]:
        yield some_bytes(2 * MIB)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await ingest(
            broken(),
            store,
            attempt_at(),
            size=None,
            limit=None,
            digests=BOTH,
            sealing=Doubled(),
            pool=pool,
        )


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


# --- Several targets --------------------------------------------------------------------------


class Faulty(MemoryStore):
    """Stops when it has taken `after` blocks, or in the end: it may `hang`, or fail with `error`.

    It hangs until it is `released`; one that is `stubborn` even when it is cancelled.
    """

    def __init__(
        self,
        name: str = "faulty",
        *,
        error: Exception | None = None,
        after: int | None = None,
        hang: bool = False,
        stubborn: bool = False,
    ) -> None:
        super().__init__(name)
        self.released = asyncio.Event()
        self.stopped = asyncio.Event()
        self.discarded: list[Attempt] = []
        self._error = error
        self._after = after
        self._hang = hang
        self._stubborn = stubborn

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        async def until_then() -> AsyncGenerator[Block, None]:
            number = 0
            async for block in blocks:
                if number == self._after:
                    await self._stop()
                number += 1
                yield block
            if self._after is None or number <= self._after:
                await self._stop()

        async with aclosing(until_then()) as taken:
            return await super().write(attempt, taken, size=size)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        self.discarded.append(attempt)
        await super().discard(attempt, published=published)

    async def _stop(self) -> None:
        self.stopped.set()
        try:
            if self._hang:
                await self.released.wait()
        except asyncio.CancelledError:
            if self._stubborn:
                await self.released.wait()
            raise
        if self._error is not None:
            raise self._error


async def into_all(
    stream: AsyncIterator[bytes],
    stores: Sequence[MemoryStore | FilesystemStore],
    pool: BlockPool,
    *,
    key: str = "key",
    size: int | None = None,
    limit: int | None = None,
    observers: Sequence[Watcher] = (),
    stalled_after_s: float = 60.0,
) -> IngestedByAll:
    targets = [Target(one, Attempt(key, f"token-{number}")) for number, one in enumerate(stores)]
    return await ingest_into_all(
        stream,
        targets,
        size=size,
        limit=limit,
        digests=BOTH,
        observers=observers,
        pool=pool,
        stalled_after_s=stalled_after_s,
    )


async def kept(store: MemoryStore | FilesystemStore, number: int, *, key: str = "key") -> bytes:
    """What a store has of the attempt that `into_all` made there, which is over then."""
    location = await store.publish(Attempt(key, f"token-{number}"))
    data = await get(store, location)
    await store.delete(location)
    return data


def failed_stores(outcome: IngestedByAll) -> dict[str, str]:
    return {target.store.name: str(error) for target, error in outcome.failed.items()}


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    options = FilesystemOptions(filesystem_store_datadir=str(tmp_path / "directory"))
    async with aclosing(await FilesystemStore.open_directory("directory", options)) as store:
        yield store
        assert await begun_attempts(store) == []


@pytest.mark.parametrize("length", [0, 1, MIB, 5 * MIB + 7])
async def test_one_read_feeds_all_targets(
    store: MemoryStore, directory: FilesystemStore, pool: BlockPool, length: int
):
    data, watcher, another = some_bytes(length), Watcher(), MemoryStore("another")
    stores = [store, directory, another]
    outcome = await into_all(pieces(data), stores, pool, size=length, observers=[watcher])
    assert outcome == IngestedByAll(
        length,
        {"md5": hashlib.md5(data).hexdigest(), "sha512": hashlib.sha512(data).hexdigest()},
        {},
    )
    assert watcher.seen == data
    for number, one in enumerate(stores):
        assert await kept(one, number) == data


async def test_bytes_without_a_target_are_not_read(pool: BlockPool):
    with pytest.raises(ValueError, match="no target"):
        await into_all(pieces(b"x"), [], pool)


@pytest.mark.parametrize("after", [0, 1, 3, None])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_target_that_fails_drops_out_and_the_others_go_on(
    directory: FilesystemStore, store: MemoryStore, pool: BlockPool, after: int | None, place: int
):
    data, faulty = some_bytes(5 * MIB + 7), Faulty(error=Full("no room"), after=after)
    stores: list[MemoryStore | FilesystemStore] = [directory, store]
    stores.insert(place, faulty)
    outcome = await into_all(pieces(data), stores, pool)
    assert (outcome.size, failed_stores(outcome)) == (len(data), {"faulty": "no room"})
    assert faulty.everything() == []
    for number, one in enumerate(stores):
        if one is not faulty:
            assert await kept(one, number) == data


async def test_two_that_fail_leave_the_third_and_are_told_in_the_order_of_failing(
    store: MemoryStore, pool: BlockPool
):
    late = Faulty("late", error=Full("no room"))
    early = Faulty("early", error=Unreachable("gone"), after=0)
    outcome = await into_all(pieces(some_bytes(3 * MIB)), [late, store, early], pool)
    assert [*failed_stores(outcome).items()] == [("early", "gone"), ("late", "no room")]
    assert len(await kept(store, 1)) == 3 * MIB


async def test_when_all_fail_the_first_error_comes_out_and_the_stream_is_let_go(pool: BlockPool):
    tasks = asyncio.all_tasks()

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(65_536)

    late = Faulty("late", error=Full("no room"), after=3)
    early = Faulty("early", error=Unreachable("gone"), after=0)
    source = endless()
    with pytest.raises(Unreachable, match="gone"):
        await into_all(source, [late, early], pool)
    await source.aclose()  # would raise if somebody still waited in it
    assert (late.everything(), early.everything()) == ([], [])
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("at_the_end", [True, False])
async def test_a_target_that_stalls_is_unreachable_and_the_others_go_on(
    store: MemoryStore, pool: BlockPool, at_the_end: bool
):
    data, another = some_bytes(9 * MIB), MemoryStore("another")
    stalled = Faulty("stalled", hang=True, after=None if at_the_end else 1)
    outcome = await into_all(pieces(data), [store, stalled, another], pool, stalled_after_s=0.05)
    assert [(type(error), target.store) for target, error in outcome.failed.items()] == [
        (Unreachable, stalled)
    ]
    assert stalled.everything() == []
    assert await kept(store, 0) == await kept(another, 2) == data


async def test_a_target_that_takes_nothing_at_all_is_given_up_too(
    store: MemoryStore, pool: BlockPool
):
    class Shut(Faulty):
        async def write(
            self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
        ) -> int:
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                raise Full("there was no room either") from None
            return 0

    outcome = await into_all(
        pieces(some_bytes(9 * MIB)), [Shut("shut"), store], pool, stalled_after_s=0.05
    )
    # What it fails with later is not what it failed for.
    assert [type(error) for error in outcome.failed.values()] == [Unreachable]
    assert len(await kept(store, 1)) == 9 * MIB


async def test_a_target_has_more_time_when_it_has_all_bytes(store: MemoryStore, pool: BlockPool):
    syncing = Faulty("syncing", hang=True)
    task = asyncio.create_task(into_all(pieces(b"x"), [syncing, store], pool, stalled_after_s=0.2))
    await syncing.stopped.wait()
    await asyncio.sleep(0.5)
    syncing.released.set()
    assert (await task).failed == {}
    assert await kept(syncing, 0) == await kept(store, 1) == b"x"


async def test_the_time_of_a_target_runs_from_when_another_waits(pool: BlockPool):
    slow = [Faulty(f"slow-{number}", hang=True, after=1) for number in range(2)]
    task = asyncio.create_task(into_all(pieces(some_bytes(5 * MIB)), slow, pool, stalled_after_s=1))
    for one in slow:
        await one.stopped.wait()
    await asyncio.sleep(0.7)
    slow[0].released.set()
    await asyncio.sleep(0.5)
    slow[1].released.set()
    assert (await task).failed == {}
    assert len(await kept(slow[0], 0)) == len(await kept(slow[1], 1)) == 5 * MIB


async def test_two_that_stall_together_are_both_given_up(store: MemoryStore, pool: BlockPool):
    stalled = [Faulty(f"stalled-{number}", hang=True, after=1) for number in range(2)]
    outcome = await into_all(
        pieces(some_bytes(9 * MIB)), [*stalled, store], pool, stalled_after_s=0.05
    )
    assert {*failed_stores(outcome)} == {"stalled-0", "stalled-1"}
    assert len(await kept(store, 2)) == 9 * MIB


async def test_what_hangs_even_when_it_is_given_up_does_not_hold_up_the_others(
    store: MemoryStore, pool: BlockPool
):
    tasks = asyncio.all_tasks()
    stubborn = Faulty("stubborn", hang=True, after=1, stubborn=True)
    outcome = await into_all(
        pieces(some_bytes(9 * MIB)), [stubborn, store], pool, stalled_after_s=0.05
    )
    assert {*failed_stores(outcome)} == {"stubborn"}
    assert len(await kept(store, 1)) == 9 * MIB
    assert stubborn.everything() == ["key"]
    stubborn.released.set()
    await until(lambda: stubborn.everything() == [])
    await until(lambda: asyncio.all_tasks() == tasks)


async def test_what_was_given_up_and_is_written_after_all_is_removed(
    store: MemoryStore, pool: BlockPool
):
    class Deaf(Faulty):
        async def write(
            self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
        ) -> int:
            written = await MemoryStore.write(self, attempt, blocks, size=size)
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()
            return written

    deaf = Deaf()
    outcome = await into_all(pieces(b"x"), [deaf, store], pool, stalled_after_s=0.01)
    assert {*failed_stores(outcome)} == {"faulty"}
    assert deaf.everything() == []
    assert await kept(store, 1) == b"x"


async def test_nobody_is_given_up_while_all_wait_for_the_stream(
    store: MemoryStore, pool: BlockPool
):
    slow = Faulty("slow", hang=True, after=0)

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        await slow.stopped.wait()
        await asyncio.sleep(0.6)
        slow.released.set()
        yield bytes(MIB)

    outcome = await into_all(stream(), [slow, store], pool, stalled_after_s=0.25)
    assert outcome.failed == {}
    assert len(await kept(slow, 0)) == len(await kept(store, 1)) == 2 * MIB


async def test_nobody_is_given_up_where_no_other_waits(pool: BlockPool):
    slow = Faulty("slow", hang=True, after=1)
    stores = [slow, Faulty("gone", error=Full("no room"), after=1)]
    task = asyncio.create_task(
        into_all(pieces(some_bytes(5 * MIB)), stores, pool, stalled_after_s=0.05)
    )
    await slow.stopped.wait()
    await asyncio.sleep(0.2)
    slow.released.set()
    assert {*failed_stores(await task)} == {"gone"}
    assert len(await kept(slow, 0)) == 5 * MIB


@pytest.mark.parametrize("after", [0, 1, 40])
@pytest.mark.parametrize("error", [WriterGone(), Unreachable("the source is gone")])
async def test_a_broken_stream_ends_all_targets_even_one_that_hangs(
    store: MemoryStore, pool: BlockPool, after: int, error: Exception
):
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(after):
            yield bytes(65_536)
        raise error

    hanging, tasks = Faulty(hang=True, after=0), asyncio.all_tasks()
    with pytest.raises(type(error)):
        await into_all(stream(), [store, hanging], pool, stalled_after_s=0.05)
    assert hanging.everything() == []
    assert asyncio.all_tasks() == tasks


async def test_a_stream_that_breaks_as_a_store_does_is_not_a_targets_failure(
    store: MemoryStore, pool: BlockPool
):
    async def stream() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        raise Unreachable("the source is gone")

    with pytest.raises(Unreachable, match="the source is gone"):
        await into_all(stream(), [store, Faulty(error=Full("no room"), after=0)], pool)


async def test_what_is_too_long_or_refused_leaves_nothing_anywhere(
    store: MemoryStore, directory: FilesystemStore, pool: BlockPool
):
    stores, data = [store, directory], some_bytes(3 * MIB)
    with pytest.raises(SizeLimitExceeded):
        await into_all(pieces(data), stores, pool, limit=len(data) - 1)
    with pytest.raises(SizeMismatch):
        await into_all(pieces(data), stores, pool, size=len(data) + 1)
    with pytest.raises(ValueError, match="no image"):
        await into_all(pieces(data), stores, pool, observers=[Watcher(refuse_from=2)])


async def test_a_mistake_in_a_driver_ends_all_and_leaves_nothing(
    store: MemoryStore, directory: FilesystemStore, pool: BlockPool
):
    broken = Faulty(error=RuntimeError("a mistake"), hang=True)
    task = asyncio.create_task(
        into_all(pieces(some_bytes(3 * MIB)), [store, broken, directory], pool)
    )
    await broken.stopped.wait()
    broken.released.set()
    with pytest.raises(RuntimeError, match="a mistake"):
        await task
    assert broken.everything() == []


async def test_a_cancelled_transfer_leaves_nothing_in_any_target(
    store: MemoryStore, directory: FilesystemStore, pool: BlockPool
):
    tasks, data, another = asyncio.all_tasks(), some_bytes(MIB + 1), MemoryStore("another")
    for turns in range(80):
        task = asyncio.create_task(
            into_all(pieces(data, 262_144), [store, directory, another], pool)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.everything() == another.everything() == await begun_attempts(directory) == []
        assert asyncio.all_tasks() == tasks


async def test_a_cancellation_removes_what_is_written_already(
    store: MemoryStore, directory: FilesystemStore, pool: BlockPool
):
    last = Faulty(hang=True, stubborn=True)
    task = asyncio.create_task(into_all(pieces(some_bytes(MIB)), [store, last, directory], pool))
    await last.stopped.wait()
    await until(lambda: pool.held == 0)
    for _ in range(3):  # the clean-up is not to be cut short
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    last.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert last.everything() == []


async def test_blocks_are_shared_and_a_slow_target_holds_back_all(pool: BlockPool):
    class Keeper(Recorder):
        async def write(
            self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
        ) -> int:
            return await super().write(attempt, self._noted(blocks), size=size)

        async def _noted(self, blocks: AsyncIterator[Block]) -> AsyncIterator[Block]:
            async for block in blocks:
                first.setdefault(self.name, block)
                yield block

    first, sent = dict[str, Block](), 0
    keepers = [Keeper() for _ in range(8)]
    for number, one in enumerate(keepers):
        one.name = f"keeper-{number}"
    keepers[3].allowed.clear()

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 65_536
            yield bytes(65_536)
            await asyncio.sleep(0)

    task = asyncio.create_task(into_all(stream(), keepers, pool))
    await until(lambda: sent >= 3 * MIB)
    await asyncio.sleep(0.1)
    # As with one target: one block being written, one digested, one gathered.
    assert sent == pool.held == 3 * MIB
    assert {id(block) for block in first.values()} == {id(first["keeper-0"])}
    keepers[3].allowed.set()
    assert (await task).size == 160 * 65_536
    assert {sum(one.sizes) for one in keepers} == {160 * 65_536}


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_befalls_targets_hold_all_or_nothing(pool: BlockPool, seed: int):
    dice, tasks = random.Random(seed), asyncio.all_tasks()
    data = some_bytes(dice.randrange(6 * MIB))
    stores: list[MemoryStore] = [MemoryStore("sound")]
    for number in range(dice.randrange(4)):
        after = dice.choice([None, 0, 1, 2, 5])
        error = dice.choice([None, Full("no room"), Unreachable("gone")])
        hang = dice.random() < 0.3
        stores.append(Faulty(f"faulty-{number}", error=error, after=after, hang=hang))
    dice.shuffle(stores)
    breaks_at = dice.choice([None, None, dice.randrange(len(data) + 1)])
    cancelled_after = dice.choice([None, None, dice.randrange(200)])

    async def stream() -> AsyncIterator[bytes]:
        async for piece in pieces(data if breaks_at is None else data[:breaks_at]):
            yield piece
        if breaks_at is not None:
            raise WriterGone

    task = asyncio.create_task(into_all(stream(), stores, pool, stalled_after_s=0.02))
    if cancelled_after is not None:
        for _ in range(cancelled_after):
            await asyncio.sleep(0)
        task.cancel()
    ended: IngestedByAll | BaseException
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    failed = {target.store for target in ended.failed} if isinstance(ended, IngestedByAll) else None
    if failed is None:
        assert isinstance(ended, WriterGone | asyncio.CancelledError)
        assert [one.everything() for one in stores] == [[]] * len(stores)
    else:
        assert all(isinstance(one, Faulty) for one in failed)
        for number, one in enumerate(stores):
            if one in failed:
                assert one.everything() == []
            else:
                assert await kept(one, number) == data
    assert asyncio.all_tasks() == tasks
