"""The one way by which bytes reach stores: counted, digested and looked at while they pass.

Four things go on at once, for four neighbouring parts of a stream: the server receives, a block is
gathered, the block before is digested and observed in threads, and the one before that is written.
The slowest of them sets the pace and holds the others back, down to the client's socket. Where
several stores are to have the bytes, they take the same blocks, and a block is there until the last
of them has taken it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

from diptych_store.digests import Digests, Hash
from diptych_store.errors import SizeLimitExceeded, SizeMismatch, StoreError, Unreachable
from diptych_store.protocol import Attempt, Block, Store
from diptych_store.tasks import finished
from diptych_store.threads import Threads

# Blocks of one transfer that exist at a time: gathered, digested, written.
_BLOCKS_PER_TRANSFER = 3
# About what a server hands over at once; smaller blocks would only add thread hops.
_SMALLEST_BLOCK = 64 * 1024
# Digesting keeps all cores busy while bytes come, and small requests, which the loop answers in
# between, stand in line behind it: with this, half as long.
_NICENESS = 5
# So many times longer than for a block it may take a store to make all the bytes durable, or to
# undo them, when it has been given the last one.
_LAST_STEP: Final = 10

# What still cleans up in a store that hangs; the loop itself does not hold on to its tasks.
_left_behind: set[asyncio.Task[None]] = set()


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


class Sealing(Protocol):
    """What becomes of the bytes on their way into a store, after they were digested."""

    def sealed_size(self, size: int, /) -> int:
        """How many bytes `size` bytes become."""
        ...

    def sealed(self, blocks: AsyncIterator[Block], /) -> AsyncGenerator[Block]:
        """The bytes that the store gets. A block is valid until the next one is asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A store that is to have the bytes, and the attempt which they are written as.

    With `sealing` it has what that makes of them.
    """

    store: Store
    attempt: Attempt
    sealing: Sealing | None = None


@dataclass(frozen=True, slots=True)
class IngestedByAll:
    """What passed, as Ingested, and which targets have nothing of it, in the order of failing."""

    size: int
    digests: dict[str, str]
    failed: Mapping[Target, StoreError]


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
        self.threads = Threads(
            "digests", count=threads or 2 * (os.cpu_count() or 1), niceness=_NICENESS
        )

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
    sealing: Sealing | None = None,
    pool: BlockPool,
) -> Ingested:
    """Write a stream into the attempt's place, in one pass; publishing is the caller's.

    `size` is the announced number of bytes, None if unknown; `limit` the largest number allowed,
    inclusive, None for no limit. With `sealing` the store gets what that makes of the bytes; sizes
    and digests are those of the stream. On any error, cancellation included, nothing of the attempt
    remains. Raises SizeLimitExceeded (at once if `size` is beyond it) and SizeMismatch, what the
    stream or an observer raises, and what `Store.write` raises.
    """
    passed = await ingest_into_all(
        stream,
        [Target(store, attempt, sealing)],
        size=size,
        limit=limit,
        digests=digests,
        observers=observers,
        pool=pool,
    )
    return Ingested(passed.size, passed.digests)


async def ingest_into_all(
    stream: AsyncIterator[bytes],
    targets: Sequence[Target],
    *,
    size: int | None,
    limit: int | None,
    digests: Digests,
    observers: Sequence[Observer] = (),
    pool: BlockPool,
    stalled_after_s: float = 60.0,
) -> IngestedByAll:
    """Write a stream into several attempts' places, read once; otherwise as `ingest`.

    It takes as much memory as for one target. A target whose `write` raises a StoreError drops out,
    and so does, as Unreachable, one that takes nothing for `stalled_after_s` while another waits
    for it (10 times as long once it has all bytes). The others go on; nothing of its attempt
    remains. Raises the first target's error if all failed, and whatever else befalls, leaving
    nothing anywhere: for the stream's error, an observer's or a cancellation all targets end.

    A store that hangs even when its write is cancelled is waited for `stalled_after_s` and no
    longer: then what it has of the attempt is removed when it answers again, or by a `discard`.
    """
    if not targets:
        raise ValueError("Bytes have to go somewhere: there is no target.")
    if limit is not None and size is not None and size > limit:
        raise _beyond(limit)
    hashes = digests.begin()
    with _Transfer(pool) as transfer:
        transfer.writings = [_Writing(transfer, target, size=size) for target in targets]
        reading = (
            asyncio.create_task(_gather(stream, transfer, size=size, limit=limit)),
            asyncio.create_task(_look(transfer, hashes=hashes, observers=observers)),
        )
        try:
            await _all_written(transfer, stalled_after_s=stalled_after_s)
        except BaseException:
            for task in reading:
                task.cancel()
            undoing = [writing.undo() for writing in transfer.writings]
            await finished(_ended(reading, undoing, wait_s=stalled_after_s))
            raise
    # Nothing may be awaited from here on: a cancellation would leave the attempts' bytes behind.
    return IngestedByAll(
        transfer.received,
        {name: hash_.hexdigest() for name, hash_ in hashes.items()},
        transfer.failed,
    )


@dataclass(slots=True)
class _Passing:
    """A block on its way into the targets; `takers` is how many are not done with it."""

    block: Block
    takers: int


class _Transfer:
    """The blocks of one transfer on their way from stage to stage.

    A stage hands on blocks, and at the end None or the exception that ended it. The queues have no
    bounds of their own: `slots` limits the blocks that exist. `paused_at` is since when no more is
    asked of the stream, None while it is; `error` what ended the stream before its end.
    """

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.held = 0
        self.received = 0
        self.slots = asyncio.Semaphore(_BLOCKS_PER_TRANSFER)
        self.gathered: asyncio.Queue[Block | BaseException | None] = asyncio.Queue()
        self.writings: list[_Writing] = []
        self.failed: dict[Target, StoreError] = {}
        self.error: BaseException | None = None
        self.paused_at: float | None = None

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

    async def room(self) -> None:
        """Wait until another block may be there."""
        self.paused_at = _now()
        await self.slots.acquire()
        self.paused_at = None

    def pass_on(self, block: Block) -> None:
        """Hand a block to all targets that have not dropped out."""
        passing = _Passing(block, 1)
        for writing in self.writings:
            if not writing.has_left:
                passing.takers += 1
                writing.put(passing)
        self.taken(passing)

    def taken(self, passing: _Passing) -> None:
        """Note that one more is done with a block; the last one frees it."""
        passing.takers -= 1
        if passing.takers == 0:
            self.hold(-len(passing.block))
            self.slots.release()

    def end(self, error: BaseException | None) -> None:
        """Tell all targets that no more comes, and why if it is not all."""
        self.error = error
        for writing in self.writings:
            writing.put(error)


class _Writing:
    """One target while it is written to, in a task of its own.

    `since` is when it last took a block (`is_waiting`: when it began to wait for one; at the end:
    when it had ended). `has_left` if it takes no more blocks, whatever the reason.
    """

    def __init__(self, transfer: _Transfer, target: Target, *, size: int | None) -> None:
        self.target = target
        self.is_waiting = False
        self.has_end = False
        self.has_left = False
        self.since = _now()
        self.undoing: asyncio.Task[None] | None = None
        self._is_written = False
        self._transfer = transfer
        self._coming: asyncio.Queue[_Passing | BaseException | None] = asyncio.Queue()
        self._taken: _Passing | None = None
        self.task = asyncio.create_task(self._run(size))

    @property
    def has_failed(self) -> bool:
        """Whether the target has dropped out, by its own fault."""
        return self.target in self._transfer.failed

    def put(self, item: _Passing | BaseException | None) -> None:
        """Hand over the next block, or the end as `_Transfer` has it."""
        self._coming.put_nowait(item)

    def leave(self) -> None:
        """Have nothing to do with any block from here on, so that the others can go on."""
        self.has_left = True
        self._done_with_it()
        while not self._coming.empty():
            item = self._coming.get_nowait()
            if isinstance(item, _Passing):
                self._transfer.taken(item)

    def give_up(self, error: StoreError) -> None:
        """Have the target drop out, which may never notice, and begin to undo its attempt."""
        self._transfer.failed[self.target] = error
        self.leave()
        self.put(error)
        self.undo()

    def undo(self) -> asyncio.Task[None]:
        """Begin to leave nothing of the attempt; the task ends when nothing is left."""
        if self.undoing is None:
            self.undoing = asyncio.create_task(self._undo())
        return self.undoing

    async def _undo(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        if self._is_written:
            # If it fails: the attempt is still the caller's, who discards it as well.
            with suppress(StoreError):
                await self.target.store.discard(self.target.attempt)

    async def _run(self, size: int | None) -> None:
        target, sealing = self.target, self.target.sealing
        try:
            async with AsyncExitStack() as stack:
                blocks = await stack.enter_async_context(aclosing(self._blocks()))
                if sealing is not None:
                    blocks = await stack.enter_async_context(aclosing(sealing.sealed(blocks)))
                    size = None if size is None else sealing.sealed_size(size)
                await target.store.write(target.attempt, blocks, size=size)
            self._is_written = True
        except StoreError as error:
            if error is not self._transfer.error:
                self._transfer.failed.setdefault(self.target, error)
        except BaseException as error:
            if error is not self._transfer.error:
                raise
        finally:
            self.leave()
            self.since = _now()

    async def _blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks as a store wants them; asking for the next one is being done with this."""
        while (item := await self._next()) is not None:
            yield item.block
            del item
            self._done_with_it()

    async def _next(self) -> _Passing | None:
        self.is_waiting, self.since = True, _now()
        item = await self._coming.get()
        self.is_waiting, self.since = False, _now()
        if isinstance(item, _Passing):
            self._taken = item
            return item
        self.has_end = True
        if item is not None:
            raise item
        return None

    def _done_with_it(self) -> None:
        if self._taken is not None:
            self._transfer.taken(self._taken)
            self._taken = None


async def _all_written(transfer: _Transfer, *, stalled_after_s: float) -> None:
    """Wait until each target has all bytes or has failed; raises as `ingest_into_all`."""
    going = transfer.writings
    while going:
        dues = [_due(one, transfer, stalled_after_s=stalled_after_s) for one in going]
        first = min((due for due in dues if due is not None), default=_now() + stalled_after_s)
        await asyncio.wait(
            [one.task for one in going],
            timeout=max(0.0, first - _now()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        for one in going:
            if one.task.done():
                one.task.result()
        for one in going:
            due = _due(one, transfer, stalled_after_s=stalled_after_s)
            if not one.has_left and due is not None and due <= _now():
                one.give_up(
                    Unreachable(
                        f"Store {one.target.store.name} took no data for {stalled_after_s:g}"
                        " seconds while others waited for it."
                    )
                )
        going = [one for one in going if not one.has_left]
    undoing = [one.undoing for one in transfer.writings if one.undoing]
    await _undone(undoing, wait_s=stalled_after_s)
    if transfer.error is not None:
        raise transfer.error
    if all(one.has_failed for one in transfer.writings):
        raise next(iter(transfer.failed.values()))


def _due(one: _Writing, transfer: _Transfer, *, stalled_after_s: float) -> float | None:
    """When a target is given up unless it takes something before; None if no other waits for it."""
    waiting = [
        other.since
        for other in transfer.writings
        if other is not one and not other.has_failed and (other.is_waiting or other.task.done())
    ]
    if one.is_waiting or transfer.paused_at is None or not waiting:
        return None
    patience_s = stalled_after_s * (_LAST_STEP if one.has_end else 1)
    return max(one.since, transfer.paused_at, min(waiting)) + patience_s


async def _ended(
    reading: Sequence[asyncio.Task[None]], undoing: Sequence[asyncio.Task[None]], *, wait_s: float
) -> None:
    await asyncio.wait(reading)
    await _undone(undoing, wait_s=wait_s)


async def _undone(undoing: Sequence[asyncio.Task[None]], *, wait_s: float) -> None:
    """Wait a while until nothing is left of attempts; what hangs goes on by itself."""
    for task in undoing:
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)
    if undoing:
        await asyncio.wait(undoing, timeout=wait_s)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _gather(
    stream: AsyncIterator[bytes], transfer: _Transfer, *, size: int | None, limit: int | None
) -> None:
    """Make blocks of the pieces that a server hands over, and count them."""
    try:
        await transfer.room()
        # A block grows with what was sent, so that a slow client costs no more than that. It is
        # given away, never used again: a thread may be busy with it when the transfer is over.
        block = bytearray()
        async for piece in stream:
            transfer.received += len(piece)
            if limit is not None and transfer.received > limit:
                raise _beyond(limit)
            if size is not None and transfer.received > size:
                raise SizeMismatch(f"More than the announced {size} bytes were sent.")
            transfer.hold(len(piece))
            block += piece
            if len(block) >= transfer.pool.block_size:
                transfer.gathered.put_nowait(block)
                block = bytearray()
                await transfer.room()
        if size is not None and transfer.received < size:
            raise SizeMismatch(f"{transfer.received} bytes were sent, {size} were announced.")
        if block:
            transfer.gathered.put_nowait(block)
        transfer.gathered.put_nowait(None)
    except BaseException as error:  # travels with the blocks, so that all before it is in order
        transfer.gathered.put_nowait(error)
    finally:
        transfer.paused_at = _now()


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
            transfer.pass_on(item)
            del item
        transfer.end(None)
    except BaseException as error:  # travels with the blocks, as above
        transfer.end(error)


def _beyond(limit: int) -> SizeLimitExceeded:
    return SizeLimitExceeded(f"The data are larger than the limit of {limit} bytes.", limit=limit)
