"""The one way by which bytes reach a store: counted, digested and looked at while they pass.

Four things go on at once, for four neighbouring parts of a stream: the server receives, a block is
gathered, the block before is digested and observed in threads, and the one before that is written.
The slowest of them sets the pace and holds the others back, down to the client's socket.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, Self

from diptych_store.digests import Digests, Hash
from diptych_store.errors import SizeLimitExceeded, SizeMismatch
from diptych_store.protocol import Attempt, Block, Store
from diptych_store.threads import Threads

# Blocks of one transfer that exist at a time: gathered, digested, written.
_BLOCKS_PER_TRANSFER = 3
# About what a server hands over at once; smaller blocks would only add thread hops.
_SMALLEST_BLOCK = 64 * 1024


class Observer(Protocol):
    """Somebody who looks at the bytes as they pass."""

    def update(self, block: Block, /) -> None:
        """Take in the next block, in a thread; never two at a time, always in order.

        Whatever it raises ends the transfer and comes out of `ingest`; no byte of this block has
        reached the store by then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ingested:
    """What passed: bytes, and the hexadecimal digest by algorithm."""

    size: int
    digests: dict[str, str]


class BlockPool:
    """Memory and threads for all transfers of a process.

    The memory, `blocks` times `block_size` bytes, is divided among the transfers that are going
    on: with up to 8 of them (of the default 24 blocks) each gathers blocks of full size, with more
    they make do with smaller ones, down to 64 KiB. So no transfer ever waits for another's memory:
    a slow client, or a store that hangs, holds its own share and nobody else's.
    """

    def __init__(
        self, *, blocks: int = 24, block_size: int = 1024 * 1024, threads: int | None = None
    ) -> None:
        self._size = blocks * block_size
        self._block_size = block_size
        self.transfers = 0
        self.held = 0
        self.threads = Threads("digests", count=threads or 2 * (os.cpu_count() or 1))

    @property
    def block_size(self) -> int:
        """The size in bytes to which a transfer should gather a block at the moment."""
        share = self._size // (_BLOCKS_PER_TRANSFER * max(1, self.transfers))
        return max(_SMALLEST_BLOCK, min(share, self._block_size))

    def close(self) -> None:
        """Let the threads end."""
        self.threads.close()


async def ingest(
    stream: AsyncIterator[bytes],
    store: Store,
    attempt: Attempt,
    *,
    size: int | None,
    limit: int | None,
    digests: Digests,
    observers: Sequence[Observer] = (),
    pool: BlockPool,
) -> Ingested:
    """Write a stream into the attempt's place, in one pass; publishing is the caller's.

    `size` is the announced number of bytes, None if unknown; `limit` the largest number allowed,
    inclusive, None for no limit. On any error, cancellation included, nothing of the attempt
    remains. Raises SizeLimitExceeded (at once if `size` is beyond it) and SizeMismatch, what the
    stream or an observer raises, and what `Store.write` raises.
    """
    if limit is not None and size is not None and size > limit:
        raise _beyond(limit)
    hashes = digests.begin()
    with _Transfer(pool) as transfer:
        tasks = (
            asyncio.create_task(_gather(stream, transfer, size=size, limit=limit)),
            asyncio.create_task(_look(transfer, hashes=hashes, observers=observers)),
        )
        try:
            async with aclosing(transfer.blocks()) as blocks:
                written = await store.write(attempt, blocks, size=size)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
    # Nothing may be awaited from here on: a cancellation would leave the attempt's bytes behind.
    return Ingested(written, {name: hash_.hexdigest() for name, hash_ in hashes.items()})


class _Transfer:
    """The blocks of one transfer on their way from stage to stage.

    A stage hands on blocks, and at the end None or the exception that ended it. The queues have no
    bounds of their own: `slots` limits the blocks that exist.
    """

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.held = 0
        self.slots = asyncio.Semaphore(_BLOCKS_PER_TRANSFER)
        self.gathered: asyncio.Queue[Block | BaseException | None] = asyncio.Queue()
        self.looked_at: asyncio.Queue[Block | BaseException | None] = asyncio.Queue()

    def __enter__(self) -> Self:
        self.pool.transfers += 1
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pool.transfers -= 1
        self.hold(-self.held)

    def hold(self, change: int) -> None:
        """Account for bytes that came (positive) or went."""
        self.held += change
        self.pool.held += change

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks as a store wants them; asking for the next one frees the one before."""
        while (item := await self.looked_at.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            length = len(item)
            yield item
            del item
            self.hold(-length)
            self.slots.release()


async def _gather(
    stream: AsyncIterator[bytes], transfer: _Transfer, *, size: int | None, limit: int | None
) -> None:
    """Make blocks of the pieces that a server hands over, and count them."""
    received = 0
    try:
        await transfer.slots.acquire()
        # A block grows with what was sent, so that a slow client costs no more than that. It is
        # given away, never used again: a thread may be busy with it when the transfer is over.
        block = bytearray()
        async for piece in stream:
            received += len(piece)
            if limit is not None and received > limit:
                raise _beyond(limit)
            if size is not None and received > size:
                raise SizeMismatch(f"More than the announced {size} bytes were sent.")
            transfer.hold(len(piece))
            block += piece
            if len(block) >= transfer.pool.block_size:
                transfer.gathered.put_nowait(block)
                block = bytearray()
                await transfer.slots.acquire()
        if size is not None and received < size:
            raise SizeMismatch(f"{received} bytes were sent, {size} were announced.")
        if block:
            transfer.gathered.put_nowait(block)
        transfer.gathered.put_nowait(None)
    except BaseException as error:  # travels with the blocks, so that all before it is in order
        transfer.gathered.put_nowait(error)


async def _look(
    transfer: _Transfer, *, hashes: dict[str, Hash], observers: Sequence[Observer]
) -> None:
    """Have each block digested and observed, each by a thread of its own, before it goes on."""
    threads = transfer.pool.threads
    updates = [hash_.update for hash_ in hashes.values()]
    updates += [observer.update for observer in observers]
    try:
        while (item := await transfer.gathered.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            calls = [threads.submit(update, item) for update in updates]
            outcomes = await asyncio.gather(
                *(threads.result(call) for call in calls), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            transfer.looked_at.put_nowait(item)
            del item
        transfer.looked_at.put_nowait(None)
    except BaseException as error:  # travels with the blocks, as above
        transfer.looked_at.put_nowait(error)


def _beyond(limit: int) -> SizeLimitExceeded:
    return SizeLimitExceeded(f"The data are larger than the limit of {limit} bytes.", limit=limit)
