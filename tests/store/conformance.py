"""What every driver has to do, as one suite: subclass it and give it a `rig`.

`ReadConformance` is for every driver, `StoreConformance` for one that writes as well. After each
case the rig is asked for what is left: a case has to end with nothing in the store, no attempt, no
open file and no task. The crash cases kill a process of their own at each step.
"""

import asyncio
import contextlib
import hashlib
import os
import sys
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import httpx
import pytest
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    NotFound,
    RangeOutside,
    StoreError,
    WriteDenied,
)
from diptych_store.protocol import (
    WHOLE,
    AccessLists,
    Attempt,
    ByteRange,
    Copies,
    LocalPaths,
    Marks,
    Measures,
    Presigns,
    Store,
    Sweeps,
)

from tests.waiting import open_files, open_sockets, until

T = TypeVar("T")

MIB = 1024 * 1024
# Long enough for several blocks of every driver, and not a multiple of anything.
LENGTH = 3 * MIB + 4321
# Locations of every kind of store; those of the kind in question are left out.
LOCATIONS = (
    "file:///etc/passwd",
    "filesystem:///etc/passwd",
    "http://127.0.0.1/4d3c8f1a",
    "https://127.0.0.1/4d3c8f1a",
    "memory://elsewhere/4d3c8f1a",
    "rbd://4d3c8f1a",
    "rbd://fsid/images/4d3c8f1a/snap",
    "s3://127.0.0.1/images/4d3c8f1a",
    "s3+https://127.0.0.1/images/4d3c8f1a",
    "swift://127.0.0.1/images/4d3c8f1a",
    "swift+https://127.0.0.1/v3/images/4d3c8f1a",
    "swift+config://ref1/images/4d3c8f1a",
    "cinder://4d3c8f1a",
    "vsphere://127.0.0.1/folder/4d3c8f1a",
)
KEYS = (
    "a",
    "0",
    "a.b.c",
    "A-b_c~",
    "with space",
    "100%41",
    "a?b#c&d=e+f",
    "ключ-図-🙂",
    "x" * 200,
)
# In place of the end of a driver's module, in `Rig.crash`: see tests/store/crashing.py.
CALLS = "calls"


class Calls:
    """An OnCall that notes what it is told, and does something after a given call."""

    def __init__(self) -> None:
        self.made: list[tuple[str, StoreError | None]] = []
        self._then: tuple[int, Callable[[], object]] | None = None

    def __call__(self, operation: str, seconds: float, error: StoreError | None, /) -> None:
        self.made.append((operation, error))
        if self._then is not None and self._then[0] == len(self.made):
            self._then[1]()

    def after(self, number: int, then: Callable[[], object]) -> None:
        """Do that, once, right after the call of this number from now, the next being 1."""
        self._then = (len(self.made) + number, then)


class Rig(Protocol):
    """A driver's store, and a look behind its back. To be inherited from, for its defaults.

    `store` is one of the rig's own, closed by it; where it was opened with a `Calls` as `on_call`,
    `calls` is that.
    """

    store: Store
    calls: Calls | None = None

    async def place(self, data: bytes, key: str | None = None) -> str:
        """Make an object, of a new key if it is None; the location by which the store reads it."""
        ...

    async def remove(self, location: str) -> None:
        """Remove what `place` made."""
        ...

    async def open_another(self) -> Store:
        """The same place, opened as another process would; the caller closes it."""
        ...

    async def everything(self) -> list[str]:
        """The names of all that the backend holds, objects and attempts."""
        ...

    async def settle(self) -> None:
        """Wait until what the store's client does after a call has ended is over."""
        # Generators that were left in the middle are closed by the loop in its next turns.
        for _ in range(5):
            await asyncio.sleep(0)


class WritableRig(Rig, Protocol):
    """What the cases of writing need besides.

    `crash` says how another process opens the same place, None where it cannot: the arguments of
    tests/store/crashing.py. An object of `several_parts` bytes is one that the driver writes in
    more than one piece. `held_writing` and `held_reading` are the bytes that the driver may have in
    memory for one upload, beside the blocks that it is given, and for one download: a good deal
    less than `transferred`, the length of the objects that are moved to measure it. `held_together`
    is what all uploads share.
    """

    crash: tuple[str, str, str] | None = None
    several_parts: int = LENGTH
    held_writing: int = 256 * 1024
    held_reading: int = MIB
    held_together: int = 0
    transferred: int = 12 * MIB

    async def place(self, data: bytes, key: str | None = None) -> str:
        return await put(self.store, data, key=key)

    async def remove(self, location: str) -> None:
        await self.store.delete(location)

    async def open_read_only(self) -> Store:
        """The same place, opened to be read; the caller closes it."""
        ...

    async def open_elsewhere(self) -> Store | None:
        """Another, empty place of the same backend, for copies; the caller closes it."""
        return None


# What a process that is to be killed copies from: the end of the key.
SOURCE = "-source"


class WriterGone(Exception):
    """The one who sends the bytes has gone."""


def attempt_at(key: str | None = None) -> Attempt:
    return Attempt(key=key or str(uuid.uuid4()), token=str(uuid.uuid4()))


def some_bytes(length: int, seed: int = 0) -> bytes:
    """Bytes of which no two parts are alike."""
    unit = hashlib.shake_256(str(seed).encode()).digest(min(length, 999_983))
    return (unit * (length // max(1, len(unit)) + 1))[:length]


async def in_blocks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


async def put(store: Store, data: bytes, *, key: str | None = None) -> str:
    attempt = attempt_at(key)
    assert await store.write(attempt, in_blocks(data), size=len(data)) == len(data)
    return await store.publish(attempt)


async def get(store: Store, location: str, range: ByteRange = WHOLE) -> bytes:
    async with store.open(location, range) as reading:
        data = b"".join([bytes(block) async for block in reading.blocks])
        assert len(data) == reading.length
    return data


async def begun_attempts(store: Store) -> list[Attempt]:
    assert isinstance(store, Sweeps)
    return [attempt async for attempt in store.attempts(older_than=timedelta(seconds=-60))]


Cancelling = Callable[[int, Coroutine[Any, Any, object]], Awaitable[bool]]


class Stepped(Generic[T]):
    """A call whose awaits are counted and which is cancelled at one of them: to be awaited once.

    Awaits inside of tasks that the call makes do not count: those are its own to cancel.
    """

    def __init__(self, call: Coroutine[Any, Any, T], *, cancel_at: int) -> None:
        self.awaits = 0
        self._call = call
        self._cancel_at = cancel_at

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._call.throw(thrown) if thrown else self._call.send(None)
            except StopIteration as end:
                return end.value
            self.awaits += 1
            if self.awaits == self._cancel_at:
                task.cancel()
            thrown = None
            try:
                yield awaited
            except BaseException as error:  # the cancellation, for one
                thrown = error


async def cancelled_at(await_number: int, call: Coroutine[Any, Any, object]) -> bool:
    """Whether the call was cancelled at this await of its own; False when it had fewer."""
    stepped = Stepped(call, cancel_at=await_number)

    async def run() -> None:
        await stepped

    task = asyncio.create_task(run())
    try:
        await task
    except asyncio.CancelledError:
        assert stepped.awaits >= await_number
        return True
    assert stepped.awaits < await_number, "the call has swallowed its cancellation"
    return False


async def cancelled_after(calls: Calls, number: int, call: Coroutine[Any, Any, object]) -> bool:
    """Whether the call was cancelled right after this call to the backend; False if it ended."""
    ended = False

    async def run() -> None:
        nonlocal ended
        await call
        ended = True

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run())
    calls.after(number, lambda: loop.call_soon_threadsafe(task.cancel))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    calls.after(0, task.done)
    return not ended


def some_numbers() -> Iterator[int]:
    """From 1 on, all of the small and fewer and fewer of the large."""
    number = 1
    while True:
        yield number
        number += 1 + number // 8


def kind_of(location: str) -> str:
    """The kind of store that a location is of."""
    scheme = location.partition("://")[0].partition("+")[0]
    return {"filesystem": "file", "https": "http"}.get(scheme, scheme)


async def check_refusal(store: Store, location: str) -> None:
    """Fail unless the store takes this for no location of its own, whatever it is asked to do."""
    assert not store.recognises(location)
    with pytest.raises(BadLocation):
        await get(store, location)
    with pytest.raises((BadLocation, WriteDenied)):
        await store.delete(location)
    if isinstance(store, LocalPaths):
        with pytest.raises(BadLocation):
            store.local_path(location)


async def start(module: str, *arguments: str) -> asyncio.subprocess.Process:
    """A process that runs a module of the tests, with its input and output at our end."""
    checkout = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env={**os.environ, "PYTHONPATH": str(checkout / "deploy")},
        cwd=checkout,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


def bare_client() -> httpx.AsyncClient:
    """A client that knows nothing of the store, for what is handed to others."""
    return httpx.AsyncClient(trust_env=False, timeout=60)


async def until_refused(client: httpx.AsyncClient, method: str, url: str) -> None:
    """Wait until the URL has expired; fails after 30 seconds."""
    async with asyncio.timeout(30):
        while (answer := await client.request(method, url)).is_success:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert 400 <= answer.status_code < 500


class ReadConformance:
    @pytest.fixture
    async def rig(self) -> Rig:
        raise NotImplementedError("a subclass says which driver")

    @pytest.fixture
    async def store(self, rig: Rig) -> AsyncIterator[Store]:
        files = open_files()
        tasks = asyncio.all_tasks()
        assert await rig.everything() == []
        yield rig.store
        await rig.settle()
        assert await rig.everything() == []
        assert open_files() <= files
        assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}

    @pytest.fixture(params=["at each await", "after each call"])
    def cancelling(self, request: pytest.FixtureRequest, rig: Rig) -> Cancelling:
        """Cancels what it is given at its nth moment; tells whether there was one."""
        if request.param == "at each await":
            return cancelled_at
        if rig.calls is None:
            pytest.skip("there are no calls to a backend")
        return partial(cancelled_after, rig.calls)

    @pytest.mark.parametrize("length", [0, 1, 65_536, MIB - 1, MIB, MIB + 1, LENGTH])
    async def test_an_object_is_read_as_it_was_written(self, rig: Rig, store: Store, length: int):
        data = some_bytes(length)
        location = await rig.place(data)
        assert await get(store, location) == data
        await rig.remove(location)

    @pytest.mark.parametrize(
        ("start", "length"),
        [
            (0, 1),
            (0, None),
            (0, LENGTH),
            (0, LENGTH + 1),
            (1, None),
            (LENGTH - 1, 1),
            (LENGTH - 1, None),
            (LENGTH - 1, 500),
            (LENGTH - 777, None),
            (MIB - 1, 2),
            (MIB, MIB),
            (12_345, 2 * MIB),
            (5, 0),
        ],
    )
    async def test_part_of_an_object_is_read(
        self, rig: Rig, store: Store, start: int, length: int | None
    ):
        data = some_bytes(LENGTH)
        location = await rig.place(data)
        expected = data[start:] if length is None else data[start : start + length]
        assert await get(store, location, ByteRange(start, length)) == expected
        async with store.open(location, ByteRange(start, length)) as reading:
            assert (reading.size, reading.length) == (LENGTH, len(expected))
        await rig.remove(location)

    @pytest.mark.parametrize(("size", "start"), [(0, 1), (1, 1), (LENGTH, LENGTH), (10, 2**63)])
    async def test_a_range_beyond_the_end_raises_on_entry(
        self, rig: Rig, store: Store, size: int, start: int
    ):
        location = await rig.place(some_bytes(size))
        with pytest.raises(RangeOutside) as raised:
            async with store.open(location, ByteRange(start)):
                pytest.fail("the range is outside")
        assert raised.value.size == size
        await rig.remove(location)

    async def test_part_of_an_empty_object_is_outside(self, rig: Rig, store: Store):
        location = await rig.place(b"")
        with pytest.raises(RangeOutside):
            await get(store, location, ByteRange(0, 1))
        assert await get(store, location) == b""
        await rig.remove(location)

    async def test_a_missing_object_raises_on_entry(self, rig: Rig, store: Store):
        location = await rig.place(b"x")
        await rig.remove(location)
        with pytest.raises(NotFound):
            async with store.open(location):
                pytest.fail("there is no such object")

    @pytest.mark.parametrize("blocks", [0, 1, 2])
    async def test_a_reader_may_leave_early(self, rig: Rig, store: Store, blocks: int):
        location = await rig.place(some_bytes(LENGTH))
        async with store.open(location) as reading:
            for _ in range(blocks):
                await anext(reading.blocks)
        with contextlib.suppress(WriterGone):
            async with store.open(location) as reading:
                for _ in range(blocks):
                    await anext(reading.blocks)
                raise WriterGone
        await rig.remove(location)

    async def test_a_reader_may_be_cancelled_at_any_moment(self, rig: Rig, store: Store):
        location = await rig.place(some_bytes(LENGTH))
        for turns in range(30):
            task = asyncio.create_task(get(store, location))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await rig.remove(location)

    async def test_a_reader_cancelled_anywhere_leaves_nothing(
        self, rig: Rig, store: Store, cancelling: Cancelling
    ):
        location = await rig.place(some_bytes(LENGTH))
        for number in some_numbers():
            if not await cancelling(number, get(store, location)):
                break
        await rig.remove(location)

    async def test_readers_who_leave_early_keep_no_connection(self, rig: Rig, store: Store):
        location = await rig.place(some_bytes(LENGTH))
        await get(store, location)
        sockets = len(open_sockets())
        for _ in range(20):
            async with store.open(location) as reading:
                await anext(reading.blocks)
        # One or two may be kept to be used again, here and by a server in this process.
        await until(lambda: len(open_sockets()) <= sockets + 4)
        await rig.remove(location)

    async def test_a_closed_store_holds_nothing_open(self, rig: Rig, store: Store):
        location = await rig.place(some_bytes(LENGTH))
        sockets, files, tasks = open_sockets(), open_files(), asyncio.all_tasks()
        async with aclosing(await rig.open_another()) as another:
            await asyncio.gather(*(get(another, location) for _ in range(8)))
            async with another.open(location) as reading:
                await anext(reading.blocks)
        await until(lambda: open_sockets() <= sockets and open_files() <= files)
        await until(lambda: asyncio.all_tasks() <= tasks)
        await rig.remove(location)

    async def test_a_block_stays_as_it_is_while_it_is_used(self, rig: Rig, store: Store):
        data = some_bytes(LENGTH)
        location = await rig.place(data)
        read = bytearray()
        async with store.open(location) as reading:
            async for block in reading.blocks:
                before = bytes(block)
                await asyncio.sleep(0.005)
                assert bytes(block) == before
                read += block
        assert read == data
        await rig.remove(location)

    async def test_an_object_deleted_while_it_is_read_is_whole_or_an_error(
        self, rig: Rig, store: Store
    ):
        data = some_bytes(LENGTH)
        location = await rig.place(data)
        async with store.open(location) as reading:
            read = bytes(await anext(reading.blocks))
            await rig.remove(location)
            with contextlib.suppress(NotFound):
                async for block in reading.blocks:
                    read += block
                assert read == data

    async def test_many_read_one_object_at_once(self, rig: Rig, store: Store):
        data = some_bytes(LENGTH)
        location = await rig.place(data)
        for read in await asyncio.gather(*(get(store, location) for _ in range(64))):
            assert read == data
        await rig.remove(location)

    @pytest.mark.parametrize("key", KEYS)
    async def test_a_key_may_be_any_plain_text(self, rig: Rig, store: Store, key: str):
        location = await rig.place(key.encode(), key)
        assert store.recognises(location)
        assert await get(store, location) == key.encode()
        await rig.remove(location)

    async def test_keys_that_look_alike_are_different_objects(self, rig: Rig, store: Store):
        keys = ("é", "e\u0301", "É")
        locations = {key: await rig.place(key.encode(), key) for key in keys}
        for key, location in locations.items():
            assert await get(store, location) == key.encode()
            await rig.remove(location)

    @pytest.mark.parametrize(
        "change",
        [
            lambda location: "",
            lambda location: "nonsense",
            lambda location: location.replace("://", ":/"),
            lambda location: "x" + location,
            lambda location: location + "\n",
            lambda location: location + "\0",
        ],
    )
    async def test_what_is_no_location_is_refused(
        self, rig: Rig, store: Store, change: Callable[[str], str]
    ):
        location = await rig.place(b"x")
        await check_refusal(store, change(location))
        await rig.remove(location)

    async def test_a_location_of_another_kind_of_store_is_refused(self, rig: Rig, store: Store):
        location = await rig.place(b"x")
        for other in LOCATIONS:
            if kind_of(other) != kind_of(location):
                await check_refusal(store, other)
        await rig.remove(location)

    async def test_a_store_recognises_its_own_and_asks_nobody(self, rig: Rig, store: Store):
        location = await rig.place(b"x")
        assert store.recognises(location)
        await rig.remove(location)
        assert store.recognises(location)


class StoreConformance(ReadConformance):
    @pytest.fixture
    async def rig(self) -> WritableRig:
        raise NotImplementedError("a subclass says which driver")

    # Writing.

    async def test_the_length_may_be_unknown(self, store: Store):
        attempt, data = attempt_at(), some_bytes(LENGTH)
        assert await store.write(attempt, in_blocks(data), size=None) == LENGTH
        location = await store.publish(attempt)
        assert await get(store, location) == data
        await store.delete(location)

    @pytest.mark.parametrize("announced", [0, 1, 10 * MIB])
    async def test_the_announced_length_is_not_trusted(self, store: Store, announced: int):
        attempt, data = attempt_at(), some_bytes(LENGTH)
        assert await store.write(attempt, in_blocks(data), size=announced) == LENGTH
        location = await store.publish(attempt)
        assert await get(store, location) == data
        await store.delete(location)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    async def test_blocks_are_anything_that_holds_bytes(self, store: Store, kind: type):
        attempt, data = attempt_at(), some_bytes(LENGTH)

        async def blocks() -> AsyncIterator[bytes]:
            async for block in in_blocks(data):
                yield kind(block)

        await store.write(attempt, blocks(), size=None)
        location = await store.publish(attempt)
        assert await get(store, location) == data
        await store.delete(location)

    async def test_a_block_may_be_used_again_once_the_next_is_asked_for(self, store: Store):
        attempt, data = attempt_at(), some_bytes(LENGTH)

        async def blocks() -> AsyncIterator[bytearray]:
            async for block in in_blocks(data):
                lent = bytearray(block)
                yield lent
                lent[:] = bytes(len(lent))

        await store.write(attempt, blocks(), size=None)
        location = await store.publish(attempt)
        assert await get(store, location) == data
        await store.delete(location)

    @pytest.mark.parametrize("is_announced", [True, False])
    async def test_an_object_of_several_parts(
        self, rig: WritableRig, store: Store, is_announced: bool
    ):
        attempt, length = attempt_at(), rig.several_parts
        data = some_bytes(length)
        size = length if is_announced else None
        assert await store.write(attempt, in_blocks(data, MIB), size=size) == length
        location = await store.publish(attempt)
        assert await get(store, location) == data
        for start in (1, length // 3, length // 2, length - 1000):
            part = ByteRange(start, length // 2)
            assert await get(store, location, part) == data[start : start + length // 2]
        await store.delete(location)

    async def test_blocks_of_any_size_are_taken(self, store: Store):
        sizes = [1, 2, 3, 5 * MIB, 7, 65_536, 1]
        data = some_bytes(sum(sizes))

        async def blocks() -> AsyncIterator[bytes]:
            start = 0
            for size in sizes:
                yield data[start : start + size]
                start += size

        attempt = attempt_at()
        await store.write(attempt, blocks(), size=None)
        location = await store.publish(attempt)
        assert await get(store, location) == data
        await store.delete(location)

    async def test_what_is_written_is_no_object_before_it_is_published(self, store: Store):
        other = attempt_at()
        location = await put(store, b"x", key=other.key)
        await store.delete(location)
        await store.write(other, in_blocks(b"y"), size=1)
        with pytest.raises(NotFound):
            await get(store, location)
        await store.discard(other)

    async def test_a_writer_who_fails_leaves_nothing(self, store: Store):
        attempt = attempt_at()

        async def blocks() -> AsyncIterator[bytes]:
            yield some_bytes(MIB)
            raise WriterGone

        with pytest.raises(WriterGone):
            await store.write(attempt, blocks(), size=None)
        assert await begun_attempts(store) == []
        with pytest.raises(AttemptLost):
            await store.publish(attempt)

    async def test_a_writer_who_fails_at_once_leaves_nothing(self, store: Store):
        async def blocks() -> AsyncIterator[bytes]:
            raise WriterGone
            yield b""

        with pytest.raises(WriterGone):
            await store.write(attempt_at(), blocks(), size=None)
        assert await begun_attempts(store) == []

    async def test_a_failed_attempt_does_not_stand_in_the_way_of_the_next(self, store: Store):
        key = str(uuid.uuid4())

        async def blocks() -> AsyncIterator[bytes]:
            yield b"abc"
            raise WriterGone

        with pytest.raises(WriterGone):
            await store.write(attempt_at(key), blocks(), size=None)
        location = await put(store, b"abcdef", key=key)
        assert await get(store, location) == b"abcdef"
        await store.delete(location)

    @pytest.mark.parametrize("blocks_before", [0, 1, 4])
    async def test_a_cancelled_write_leaves_nothing(self, store: Store, blocks_before: int):
        reached = asyncio.Event()

        async def blocks() -> AsyncIterator[bytes]:
            for number in range(blocks_before):
                yield some_bytes(MIB, number)
            reached.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.write(attempt_at(), blocks(), size=None))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await begun_attempts(store) == []

    async def test_a_write_cancelled_at_any_moment_leaves_nothing(self, store: Store):
        data = some_bytes(2 * MIB)
        for turns in range(40):
            blocks = in_blocks(data, 20_000)  # more of them than turns
            task = asyncio.create_task(store.write(attempt_at(), blocks, size=None))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await begun_attempts(store) == []

    async def test_a_write_cancelled_anywhere_leaves_nothing(
        self, store: Store, cancelling: Cancelling
    ):
        for number in some_numbers():
            attempt = attempt_at()
            blocks = in_blocks(some_bytes(LENGTH), MIB)
            if not await cancelling(number, store.write(attempt, blocks, size=None)):
                await store.discard(attempt)
                break
            assert await begun_attempts(store) == []
            with pytest.raises(AttemptLost):
                await store.publish(attempt)

    @pytest.mark.parametrize("is_announced", [True, False])
    async def test_a_write_of_several_parts_cancelled_after_any_call_leaves_nothing(
        self, rig: WritableRig, store: Store, is_announced: bool
    ):
        if rig.calls is None:
            pytest.skip("there are no calls to a backend")
        data = some_bytes(rig.several_parts)
        size = len(data) if is_announced else None
        for number in some_numbers():
            attempt = attempt_at()
            call = store.write(attempt, in_blocks(data, MIB), size=size)
            if not await cancelled_after(rig.calls, number, call):
                await store.discard(attempt)
                break
            assert await begun_attempts(store) == []

    async def test_one_attempt_is_begun_once(self, store: Store):
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"first"), size=None)
        with pytest.raises(AlreadyThere):
            await store.write(attempt, in_blocks(b"second"), size=None)
        location = await store.publish(attempt)
        assert await get(store, location) == b"first"
        await store.delete(location)

    # Publishing.

    async def test_an_object_is_never_replaced(self, store: Store):
        late = attempt_at()
        location = await put(store, b"first", key=late.key)
        await store.write(late, in_blocks(b"second"), size=None)
        with pytest.raises(AlreadyThere):
            await store.publish(late)
        assert await get(store, location) == b"first"
        await store.discard(late)
        assert await get(store, location) == b"first"
        await store.delete(location)

    async def test_of_many_attempts_at_one_key_one_wins(self, store: Store):
        key = str(uuid.uuid4())
        attempts = [attempt_at(key) for _ in range(16)]

        async def write(number: int) -> str | None:
            await store.write(attempts[number], in_blocks(some_bytes(MIB, number)), size=MIB)
            try:
                return await store.publish(attempts[number])
            except (AlreadyThere, AttemptLost):
                await store.discard(attempts[number])
                return None

        locations = await asyncio.gather(*(write(number) for number in range(16)))
        [(winner, location)] = [(n, one) for n, one in enumerate(locations) if one is not None]
        assert await get(store, location) == some_bytes(MIB, winner)
        await store.delete(location)

    async def test_of_many_attempts_published_at_once_one_wins(
        self, rig: WritableRig, store: Store
    ):
        async with aclosing(await rig.open_another()) as another:
            for _ in range(3):
                key = str(uuid.uuid4())
                attempts = [attempt_at(key) for _ in range(16)]
                for number, attempt in enumerate(attempts):
                    await store.write(attempt, in_blocks(some_bytes(1000, number)), size=1000)
                outcomes = await asyncio.gather(
                    *((store, another)[n % 2].publish(one) for n, one in enumerate(attempts)),
                    return_exceptions=True,
                )
                [winner] = [n for n, one in enumerate(outcomes) if isinstance(one, str)]
                location = str(outcomes.pop(winner))
                unexpected = [
                    one for one in outcomes if not isinstance(one, AlreadyThere | AttemptLost)
                ]
                assert unexpected == []
                # What a loser leaves is a loser's to remove, and never the winner's object.
                for number, attempt in enumerate(attempts):
                    if number != winner:
                        await another.discard(attempt)
                assert await get(store, location) == some_bytes(1000, winner)
                assert await begun_attempts(store) == []
                await store.delete(location)

    async def test_publishing_again_harms_nothing(self, store: Store):
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"bytes"), size=None)
        location = await store.publish(attempt)
        with contextlib.suppress(AttemptLost):  # a driver may know no more of a published one
            assert await store.publish(attempt) == location
        assert await get(store, location) == b"bytes"
        await store.discard(attempt, published=True)
        with pytest.raises(NotFound):
            await get(store, location)
        with pytest.raises(AttemptLost):
            await store.publish(attempt)

    async def test_a_publish_cancelled_anywhere_loses_nothing(
        self, rig: WritableRig, store: Store, cancelling: Cancelling
    ):
        key = str(uuid.uuid4())
        location = await put(store, b"x", key=key)
        await store.delete(location)
        for number in some_numbers():
            attempt = attempt_at(key)
            await store.write(attempt, in_blocks(b"bytes"), size=None)
            was_cancelled = await cancelling(number, store.publish(attempt))
            if was_cancelled:
                # Somebody who does not know how it ended tries again.
                with contextlib.suppress(AttemptLost):
                    assert await store.publish(attempt) == location
            assert await get(store, location) == b"bytes"
            await store.discard(attempt, published=True)
            assert await rig.everything() == []
            if not was_cancelled:
                break

    async def test_another_process_may_go_on_with_an_attempt(self, rig: WritableRig, store: Store):
        published, discarded, unpublished = attempt_at(), attempt_at(), attempt_at()
        for attempt in (published, discarded, unpublished):
            await store.write(attempt, in_blocks(some_bytes(rig.several_parts), MIB), size=None)
        await store.publish(unpublished)
        async with aclosing(await rig.open_another()) as another:
            assert set(await begun_attempts(another)) == {published, discarded}
            location = await another.publish(published)
            await another.discard(discarded)
            await another.discard(unpublished, published=True)
            with pytest.raises(AttemptLost):
                await store.publish(discarded)
            assert await get(store, location) == some_bytes(rig.several_parts)
            await another.delete(location)

    async def test_the_location_of_a_key_does_not_depend_on_the_attempt(self, store: Store):
        key = str(uuid.uuid4())
        first = await put(store, b"1", key=key)
        await store.delete(first)
        second = await put(store, b"2", key=key)
        assert first == second
        await store.delete(second)

    async def test_an_attempt_that_was_never_begun_cannot_be_published(self, store: Store):
        with pytest.raises(AttemptLost):
            await store.publish(attempt_at())

    # Discarding.

    async def test_a_discarded_attempt_cannot_be_published(self, store: Store):
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"bytes"), size=None)
        await store.discard(attempt)
        with pytest.raises(AttemptLost):
            await store.publish(attempt)

    async def test_an_attempt_discarded_while_it_is_written_cannot_be_published(self, store: Store):
        attempt, under_way, go_on = attempt_at(), asyncio.Event(), asyncio.Event()

        async def blocks() -> AsyncIterator[bytes]:
            yield some_bytes(MIB)
            under_way.set()
            await go_on.wait()
            yield some_bytes(MIB)

        task = asyncio.create_task(store.write(attempt, blocks(), size=None))
        await under_way.wait()
        await store.discard(attempt)
        go_on.set()
        with contextlib.suppress(AttemptLost):  # a driver may notice at once
            await task
        with pytest.raises(AttemptLost):
            await store.publish(attempt)

    async def test_discarding_is_idempotent_and_takes_nothing_for_granted(self, store: Store):
        attempt = attempt_at()
        await store.discard(attempt)
        await store.discard(attempt, published=True)
        await store.write(attempt, in_blocks(b"bytes"), size=None)
        await store.discard(attempt)
        await store.discard(attempt)

    async def test_discarding_spares_the_published_object_unless_told(self, store: Store):
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"bytes"), size=None)
        location = await store.publish(attempt)
        await store.discard(attempt)
        assert await get(store, location) == b"bytes"
        await store.discard(attempt, published=True)
        with pytest.raises(NotFound):
            await get(store, location)

    async def test_discarding_spares_the_object_of_another_attempt(self, store: Store):
        """A reaper that woke up late must not take away what was uploaded since."""
        dead = attempt_at()
        await store.write(dead, in_blocks(b"dead"), size=None)
        await store.publish(dead)
        await store.discard(dead, published=True)
        location = await put(store, b"alive", key=dead.key)
        await store.discard(dead, published=True)
        assert await get(store, location) == b"alive"
        await store.delete(location)

    async def test_publishing_and_discarding_at_once_leave_nothing(self, store: Store):
        for turn in range(20):
            attempt = attempt_at()
            await store.write(attempt, in_blocks(b"bytes"), size=None)
            calls = [store.publish(attempt), store.discard(attempt, published=True)]
            if turn % 2:
                calls.reverse()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            unexpected = [
                one
                for one in outcomes
                if isinstance(one, BaseException) and not isinstance(one, AttemptLost)
            ]
            assert unexpected == []
            # A publish that came after the discard was refused; one before it was undone.
            with pytest.raises(AttemptLost):
                await store.publish(attempt)

    @pytest.mark.parametrize("published", [False, True])
    async def test_a_discard_cancelled_anywhere_can_be_repeated(
        self, rig: WritableRig, store: Store, cancelling: Cancelling, published: bool
    ):
        for number in some_numbers():
            attempt = attempt_at()
            await store.write(attempt, in_blocks(b"bytes"), size=None)
            if published:
                await store.publish(attempt)
            if not await cancelling(number, store.discard(attempt, published=published)):
                break
            await store.discard(attempt, published=published)
            with pytest.raises(AttemptLost):
                await store.publish(attempt)
            assert await rig.everything() == []

    async def test_attempts_are_listed_with_their_keys(self, store: Store):
        attempts = [attempt_at() for _ in range(5)]
        for attempt in attempts:
            await store.write(attempt, in_blocks(b"bytes"), size=None)
        assert sorted(await begun_attempts(store), key=repr) == sorted(attempts, key=repr)
        assert isinstance(store, Sweeps)
        assert [one async for one in store.attempts(older_than=timedelta(hours=1))] == []
        location = await store.publish(attempts[0])
        assert attempts[0] not in await begun_attempts(store)
        for attempt in attempts[1:]:
            await store.discard(attempt)
        assert await begun_attempts(store) == []
        await store.delete(location)

    @pytest.mark.parametrize("count", [24, pytest.param(64, marks=pytest.mark.long)])
    async def test_many_transfers_take_little_memory(
        self, rig: WritableRig, store: Store, count: int
    ):
        if rig.crash is None:
            pytest.skip("what is stored is in memory")
        process = await start("tests.store.transfers", f"{count}", f"{rig.transferred}", *rig.crash)
        output, _ = await process.communicate()
        assert process.returncode == 0
        before, uploading, between, downloading = map(int, output.split())
        # Beside each transfer's own: the blocks on their way have 24 MiB together, and so many
        # transfers take some of an interpreter and an allocator.
        written = 56 * MIB + rig.held_together + count * rig.held_writing
        read = 56 * MIB + count * rig.held_reading
        assert uploading - before < written < count * rig.transferred
        assert downloading - between < read < count * rig.transferred

    # Deleting.

    async def test_an_object_is_deleted_once(self, store: Store):
        location = await put(store, b"x")
        await store.delete(location)
        with pytest.raises(NotFound):
            await store.delete(location)

    async def test_deleting_spares_an_attempt_at_the_same_key(self, store: Store):
        late = attempt_at()
        location = await put(store, b"first", key=late.key)
        await store.write(late, in_blocks(b"second"), size=None)
        await store.delete(location)
        assert await store.publish(late) == location
        assert await get(store, location) == b"second"
        await store.delete(location)

    async def test_a_delete_cancelled_anywhere_can_be_repeated(
        self, store: Store, cancelling: Cancelling
    ):
        for number in some_numbers():
            location = await put(store, b"bytes")
            if not await cancelling(number, store.delete(location)):
                break
            try:
                assert await get(store, location) == b"bytes"
                await store.delete(location)
            except NotFound:
                continue

    # Many at once, names, rights.

    async def test_sixty_four_objects_at_once(self, store: Store):
        async def one(number: int) -> None:
            data = some_bytes(200_000, number)
            location = await put(store, data)
            assert await get(store, location) == data
            await store.delete(location)

        await asyncio.gather(*(one(number) for number in range(64)))

    @pytest.mark.parametrize("key", KEYS)
    async def test_an_attempt_may_have_any_plain_text_for_a_key(self, store: Store, key: str):
        attempt = attempt_at(key)
        await store.write(attempt, in_blocks(b"x"), size=None)
        assert await begun_attempts(store) == [attempt]
        await store.discard(attempt)

    @pytest.mark.parametrize(
        "key",
        [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "../a",
            "a\0b",
            "a\nb",
            "\x7f",
            "x" * 201,
            "\udc80",
        ],
    )
    async def test_a_key_that_could_lead_elsewhere_is_refused(self, store: Store, key: str):
        attempt = Attempt(key=key, token=str(uuid.uuid4()))
        with pytest.raises(BadLocation):
            await store.write(attempt, in_blocks(b"x"), size=None)
        with pytest.raises(BadLocation):
            await store.publish(attempt)
        with pytest.raises(BadLocation):
            await store.discard(attempt, published=True)

    @pytest.mark.parametrize("token", ["", "..", "a/b", "a.b", "a\0", "x" * 51])
    async def test_a_token_that_could_lead_elsewhere_is_refused(self, store: Store, token: str):
        attempt = Attempt(key="a", token=token)
        with pytest.raises(BadLocation):
            await store.write(attempt, in_blocks(b"x"), size=None)
        with pytest.raises(BadLocation):
            await store.publish(attempt)
        with pytest.raises(BadLocation):
            await store.discard(attempt)

    @pytest.mark.parametrize(
        "change",
        [
            lambda location: location.upper(),
            lambda location: location + "/",
            lambda location: location.rpartition("/")[0],
            lambda location: location.rpartition("/")[0] + "/",
            lambda location: location.rpartition("/")[0] + "/..",
            lambda location: location.rpartition("/")[0] + "/../" + location.rpartition("/")[2],
            lambda location: location.rpartition("/")[0] + "/./" + location.rpartition("/")[2],
            lambda location: location.rpartition("/")[0] + "//" + location.rpartition("/")[2],
        ],
    )
    async def test_a_location_that_the_store_cannot_have_made_is_refused(
        self, store: Store, change: Callable[[str], str]
    ):
        location = await put(store, b"x")
        await check_refusal(store, change(location))
        await store.delete(location)

    async def test_a_read_only_store_reads_and_changes_nothing(
        self, rig: WritableRig, store: Store
    ):
        location, attempt = await put(store, b"x"), attempt_at()
        await store.write(attempt, in_blocks(b"y"), size=None)
        read_only = await rig.open_read_only()
        assert await get(read_only, location) == b"x"
        with pytest.raises(WriteDenied):
            await read_only.write(attempt_at(), in_blocks(b"z"), size=None)
        with pytest.raises(WriteDenied):
            await read_only.publish(attempt)
        with pytest.raises(WriteDenied):
            await read_only.discard(attempt)
        with pytest.raises(WriteDenied):
            await read_only.delete(location)
        await read_only.aclose()
        await store.discard(attempt)
        await store.delete(location)

    # Capabilities.

    async def test_a_local_path_leads_to_the_bytes(self, store: Store):
        if not isinstance(store, LocalPaths):
            pytest.skip("no files of this host")
        data = some_bytes(MIB)
        location = await put(store, data)
        assert await asyncio.to_thread(store.local_path(location).read_bytes) == data
        await store.delete(location)

    async def test_the_free_room_is_a_number_of_bytes(self, store: Store):
        if not isinstance(store, Measures):
            pytest.skip("the backend does not measure")
        free = await store.free()
        assert free is None or free > 0

    async def test_marks_are_the_places_own(self, rig: WritableRig, store: Store):
        if not isinstance(store, Marks):
            pytest.skip("the place is the same from everywhere")
        marks = await store.marks()
        assert marks == await store.marks()
        for opening in (rig.open_another(), rig.open_read_only()):
            async with aclosing(await opening) as another:
                assert isinstance(another, Marks)
                assert await another.marks() == marks

    async def test_the_list_of_those_who_may_read_is_replaced(self, store: Store):
        if not isinstance(store, AccessLists):
            pytest.skip("the backend keeps no lists")
        location = await put(store, b"x")
        for projects, public in ((["alpha", "beta"], False), ([], True), ([], False)):
            await store.allow_reading(location, projects=projects, public=public)
            assert await get(store, location) == b"x"
        await store.delete(location)
        with pytest.raises(NotFound):
            await store.allow_reading(location, projects=["alpha"], public=False)
        with pytest.raises(BadLocation):
            await store.allow_reading("nonsense", projects=["alpha"], public=False)

    # Capabilities: URLs.

    @pytest.mark.parametrize("key", [None, "a?b#c&d=e+f 100%41 図"])
    async def test_a_url_lets_its_holder_read(self, store: Store, key: str | None):
        if not isinstance(store, Presigns):
            pytest.skip("the backend has no such URLs")
        data = some_bytes(LENGTH)
        location = await put(store, data, key=key)
        url = await store.presign_get(location, expires=timedelta(minutes=5))
        async with bare_client() as client:
            whole = await client.get(url)
            assert (whole.status_code, whole.content) == (200, data)
            part = await client.get(url, headers={"Range": "bytes=12345-2345678"})
            assert (part.status_code, part.content) == (206, data[12345:2345679])
            for method in ("PUT", "DELETE", "POST"):
                # Swift does not know a POST to an object of S3, and says so with a 501.
                assert (await client.request(method, url, content=b"x")).is_error
        assert await get(store, location) == data
        await store.delete(location)

    async def test_a_url_is_good_for_one_object(self, store: Store):
        if not isinstance(store, Presigns):
            pytest.skip("the backend has no such URLs")
        keys = [str(uuid.uuid4()), str(uuid.uuid4())]
        locations = [await put(store, key.encode(), key=key) for key in keys]
        url = await store.presign_get(locations[0], expires=timedelta(minutes=5))
        assert keys[0] in url
        async with bare_client() as client:
            refused = await client.get(url.replace(keys[0], keys[1]))
        assert 400 <= refused.status_code < 500
        for location in locations:
            await store.delete(location)
        with pytest.raises(BadLocation):
            await store.presign_get("nonsense", expires=timedelta(minutes=5))

    async def test_a_url_expires(self, store: Store):
        if not isinstance(store, Presigns):
            pytest.skip("the backend has no such URLs")
        attempt, location = attempt_at(), await put(store, b"x")
        url = await store.presign_get(location, expires=timedelta(seconds=1))
        put_url = await store.presign_put(attempt, expires=timedelta(seconds=1))
        async with bare_client() as client:
            await until_refused(client, "PUT", put_url)
            await until_refused(client, "GET", url)
        await store.discard(attempt)
        await store.delete(location)

    @pytest.mark.parametrize("lengths", [[0], [1], [LENGTH], [5 * MIB, 5 * MIB, 1234]], ids=repr)
    async def test_urls_let_their_holder_write(self, store: Store, lengths: Sequence[int]):
        if not isinstance(store, Presigns):
            pytest.skip("the backend has no such URLs")
        attempt = attempt_at()
        parts = [some_bytes(length, seed) for seed, length in enumerate(lengths)]
        urls = [
            await store.presign_put(attempt, part=number, expires=timedelta(minutes=5))
            for number in range(1, len(parts) + 1)
        ]
        async with bare_client() as client:
            for url, part in reversed(list(zip(urls, parts, strict=True))):
                assert (await client.put(url, content=part)).is_success
                assert 400 <= (await client.get(url)).status_code < 500
            assert await begun_attempts(store) == [attempt]
            location = await store.publish(attempt)
            assert await get(store, location) == b"".join(parts)
            # Who still has the URL cannot change what was published.
            await client.put(urls[0], content=b"late")
        assert await get(store, location) == b"".join(parts)
        await store.discard(attempt)
        await store.delete(location)

    async def test_what_came_by_a_url_is_discarded_like_all_else(self, store: Store):
        if not isinstance(store, Presigns):
            pytest.skip("the backend has no such URLs")
        attempt = attempt_at()
        url = await store.presign_put(attempt, expires=timedelta(minutes=5))
        async with bare_client() as client:
            assert (await client.put(url, content=b"x")).is_success
        await store.discard(attempt)
        with pytest.raises(AttemptLost):
            await store.publish(attempt)

    # Capabilities: copies.

    @asynccontextmanager
    async def source(self, rig: WritableRig, where: str) -> AsyncGenerator[Store]:
        if not isinstance(rig.store, Copies):
            pytest.skip("the backend does not copy")
        if where == "itself":
            yield rig.store
            return
        opened = await (rig.open_another() if where == "another" else rig.open_elsewhere())
        if opened is None:
            pytest.skip("there is but one place")
        async with aclosing(opened):
            yield opened
            assert await begun_attempts(opened) == []

    @pytest.mark.parametrize("where", ["itself", "another", "elsewhere"])
    @pytest.mark.parametrize("temporary", [False, True])
    @pytest.mark.parametrize("length", [0, 1, LENGTH, None])
    async def test_an_object_is_copied(
        self, rig: WritableRig, store: Store, where: str, temporary: bool, length: int | None
    ):
        async with self.source(rig, where) as source:
            assert isinstance(store, Copies)
            data = some_bytes(rig.several_parts if length is None else length)
            attempt, location = attempt_at(), await put(source, data)
            copied = await store.copy(attempt, source, location, temporary=temporary)
            if copied is None:
                assert where == "elsewhere"
                assert await begun_attempts(store) == []
                with pytest.raises(AttemptLost):
                    await store.publish(attempt)
                await source.delete(location)
                return
            assert copied == len(data)
            assert await begun_attempts(store) == [attempt]
            assert await get(source, location) == data
            copy = await store.publish(attempt)
            assert await get(source, location) == data
            await source.delete(location)
            assert await get(store, copy) == data
            await store.delete(copy)

    async def test_a_copy_of_nothing_is_an_error(self, rig: WritableRig, store: Store):
        async with self.source(rig, "itself") as source:
            assert isinstance(store, Copies)
            attempt, location = attempt_at(), await put(source, b"x")
            await source.delete(location)
            with pytest.raises(NotFound):
                await store.copy(attempt, source, location)
            with pytest.raises(BadLocation):
                await store.copy(attempt, source, "nonsense")
            assert await begun_attempts(store) == []

    @pytest.mark.parametrize("temporary", [False, True])
    async def test_a_copy_is_an_attempt_like_all_others(
        self, rig: WritableRig, store: Store, temporary: bool
    ):
        async with self.source(rig, "itself") as source:
            assert isinstance(store, Copies)
            location = await put(source, b"first")
            discarded, late = attempt_at(), attempt_at()
            await store.copy(discarded, source, location, temporary=temporary)
            await store.discard(discarded)
            with pytest.raises(AttemptLost):
                await store.publish(discarded)
            other = await put(store, b"second", key=late.key)
            await store.copy(late, source, location, temporary=temporary)
            with pytest.raises(AlreadyThere):
                await store.publish(late)
            await store.discard(late, published=True)
            assert await get(source, location) == b"first"
            await source.delete(location)
            await store.delete(other)

    async def test_a_copy_cancelled_anywhere_leaves_nothing(
        self, rig: WritableRig, store: Store, cancelling: Cancelling
    ):
        async with self.source(rig, "itself") as source:
            assert isinstance(store, Copies)
            location = await put(source, some_bytes(LENGTH))
            for number in some_numbers():
                attempt = attempt_at()
                if not await cancelling(number, store.copy(attempt, source, location)):
                    await store.discard(attempt)
                    break
                assert await begun_attempts(store) == []
            assert await get(source, location) == some_bytes(LENGTH)
            await source.delete(location)

    # Crashes.

    async def killed(
        self, rig: WritableRig, scenario: str
    ) -> AsyncIterator[tuple[Attempt, str, str]]:
        """For each step of the scenario: the attempt of a process killed there, the object's
        location, and the step's name."""
        if rig.crash is None:
            pytest.skip("what is stored goes with the process")
        process = await start("tests.store.crashing", *rig.crash)
        assert process.stdin is not None
        assert process.stdout is not None
        step, name = 0, ""
        try:
            while name != "end":
                attempt = attempt_at()
                location = await put(rig.store, b"x", key=attempt.key)
                await rig.store.delete(location)
                process.stdin.write(f"{scenario} {step} {attempt.key} {attempt.token}\n".encode())
                name = (await process.stdout.readline()).decode().strip()
                assert name
                assert not name.startswith("failed")
                yield attempt, location, name
                step += 1
        finally:
            process.stdin.close()
            await process.wait()
        assert step > 1

    async def test_killed_while_writing_the_object_is_whole_or_not_there(
        self, rig: WritableRig, store: Store
    ):
        outcomes: list[str] = []
        async for attempt, location, name in self.killed(rig, "write"):
            begun = await begun_attempts(store)
            assert set(begun) <= {attempt}
            try:
                assert await get(store, location) == some_bytes(2_500_000)
                outcomes.append("whole")
            except NotFound:
                outcomes.append("leftover" if begun else "nothing")
            # What a sweep does: it takes the leftover and leaves the object.
            for leftover in begun:
                await store.discard(leftover)
            if outcomes[-1] == "whole":
                assert await get(store, location) == some_bytes(2_500_000)
            # What the reaper does, who knows that no row has the object.
            await store.discard(attempt, published=True)
            assert await rig.everything() == [], name
            await store.delete(await put(store, b"again", key=attempt.key))
        # Never one after which it could have been another, and each was met: the first only before
        # the first call to the backend, which may leave something already.
        assert outcomes == sorted(outcomes, key=["nothing", "leftover", "whole"].index)
        assert set(outcomes) | {"nothing"} == {"nothing", "leftover", "whole"}

    @pytest.mark.parametrize("scenario", ["fail", "discard_written", "discard_published"])
    async def test_killed_while_cleaning_up_the_rest_is_found_and_removed(
        self, rig: WritableRig, store: Store, scenario: str
    ):
        async for attempt, _, name in self.killed(rig, scenario):
            for leftover in await begun_attempts(store):
                assert leftover == attempt
                await store.discard(leftover)
            await store.discard(attempt, published=True)
            assert await rig.everything() == [], name

    @pytest.mark.parametrize("scenario", ["copy", "take_over"])
    async def test_killed_while_copying_both_objects_are_whole_or_not_there(
        self, rig: WritableRig, store: Store, scenario: str
    ):
        if not isinstance(store, Copies):
            pytest.skip("the backend does not copy")
        outcomes: list[str] = []
        async for attempt, location, name in self.killed(rig, scenario):
            begun = await begun_attempts(store)
            assert set(begun) <= {attempt}
            try:
                assert await get(store, location) == some_bytes(2_500_000)
                outcomes.append("whole")
            except NotFound:
                outcomes.append("leftover" if begun else "nothing")
            await store.discard(attempt, published=True)
            source = await put(store, b"x", key=f"{attempt.key}-another")
            await store.delete(source)
            source = source.removesuffix("-another") + SOURCE
            try:
                assert await get(store, source) == some_bytes(2_500_000)
                await store.delete(source)
            except NotFound:
                assert (scenario, outcomes[-1]) == ("take_over", "whole")
            assert await rig.everything() == [], name
        assert outcomes == sorted(outcomes, key=["nothing", "leftover", "whole"].index)
        assert outcomes[-1] == "whole"

    async def test_killed_while_deleting_the_object_is_whole_or_gone(
        self, rig: WritableRig, store: Store
    ):
        outcomes: list[bool] = []
        async for _, location, _ in self.killed(rig, "delete"):
            try:
                assert await get(store, location) == some_bytes(2_500_000)
                await store.delete(location)
                outcomes.append(True)
            except NotFound:
                outcomes.append(False)
        assert outcomes == sorted(outcomes, reverse=True)
        assert not outcomes[-1]
