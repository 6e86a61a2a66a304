"""What every driver has to do when its server, or the way there, fails: subclass it, give a `rig`.

Each operation is done once for each exchange with the server that it takes, so that the fault
befalls every one of them. `ReadFaults` is for every driver, `StoreFaults` for one that writes.
"""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from urllib.parse import unquote

import pytest
from diptych_store.errors import AttemptLost, NotFound, StoreError, Unreachable
from diptych_store.protocol import WHOLE, Attempt, ByteRange, Copies, Store

from tests.store.conformance import (
    LENGTH,
    MIB,
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    put,
    some_bytes,
)
from tests.store.faults import Answer, Break, Fault, Garbage, Request, Slow, Wire, WrongLength
from tests.waiting import open_files, until

DATA = some_bytes(MIB + 1)
# For what is expected to be answered, for what is answered before it is not, and for what is not.
_PATIENT_S = 30
_HASTY_S = 1
_RASH_S = 0.2
# Far beyond what the latter two can add up to.
_NEVER_S = 60
# Of how many exchanges one is struck in the usual run.
_EACH = 5

# The server has seen nothing of the request, or has said that it did nothing.
UNDONE: Sequence[Fault] = (
    Break("request", 0, "reset"),
    Break("request", 0, "close"),
    Answer(503),
)
# The server may have done what it was asked.
DOUBTFUL: Sequence[Fault] = (
    Break("request", 1000, "close"),
    Break("answer", None, "reset"),
    Break("answer", 0, "reset"),
    Break("answer", 10, "close"),
    Answer(500),
    Garbage(),
)
LASTING: Sequence[Fault] = (
    Break("request", 0, "reset"),
    Break("request", 0, "stall"),
    Break("answer", None, "reset"),
    Break("answer", None, "stall"),
    Answer(429),
    Answer(500),
    Answer(503),
    Garbage(),
)
# Much like one of those above.
SIMILAR: Sequence[Fault] = (Break("answer", None, "close"), Answer(502), Answer(504))


class FaultRig(Protocol):
    """A real server, and stores that reach it over a wire. To be inherited from."""

    server: tuple[str, int]

    async def open_through(self, wire: Wire, *, timeout_s: float) -> Store:
        """The same place over this wire; the caller closes it.

        It waits so long for whatever it waits for, and tries again twice or so after short pauses.
        """
        ...

    async def place(self, store: Store, wire: Wire, data: bytes, key: str | None = None) -> str:
        """Make an object; the location by which that store reads it."""
        return await put(store, data, key=key)

    async def remove(self, store: Store, location: str) -> None:
        """Remove what `place` made."""
        await store.delete(location)

    async def everything(self) -> list[str]:
        """The names of all that the backend holds, asked for without a wire."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """An operation that is about to be tried. `location` is that of the attempt's key."""

    store: Store
    attempt: Attempt
    location: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What is tried, what has to be there for it, and how it has to look afterwards.

    `check` is told whether the operation came to its end; nothing stands in the way then any more.
    """

    name: str
    prepare: Callable[[Trial], Awaitable[object]]
    act: Callable[[Trial], Awaitable[object]]
    check: Callable[[Trial, bool], Awaitable[object]]


async def _write(trial: Trial) -> None:
    await trial.store.write(trial.attempt, in_blocks(DATA, 300_000), size=len(DATA))


async def _write_unannounced(trial: Trial) -> None:
    await trial.store.write(trial.attempt, in_blocks(DATA, 300_000), size=None)


async def _publish(trial: Trial) -> None:
    assert await trial.store.publish(trial.attempt) == trial.location


async def _write_and_publish(trial: Trial) -> None:
    await _write(trial)
    await _publish(trial)


async def _discard(trial: Trial) -> None:
    await trial.store.discard(trial.attempt)


async def _discard_published(trial: Trial) -> None:
    await trial.store.discard(trial.attempt, published=True)


async def _delete(trial: Trial) -> None:
    await trial.store.delete(trial.location)


async def _read(trial: Trial) -> None:
    assert await get(trial.store, trial.location) == DATA


async def _list(trial: Trial) -> None:
    assert trial.attempt in await begun_attempts(trial.store)


async def _copy(trial: Trial) -> None:
    source = f"{trial.attempt.key}-source"
    assert isinstance(trial.store, Copies)
    location = trial.location.replace(trial.attempt.key, source)
    assert await trial.store.copy(trial.attempt, trial.store, location) == len(DATA)


async def _put_source(trial: Trial) -> None:
    await put(trial.store, DATA, key=f"{trial.attempt.key}-source")


async def _nothing(trial: Trial) -> None:
    pass


async def _is_written(trial: Trial, ended: bool) -> None:
    if ended:
        await _publish(trial)
        await _read(trial)
    else:
        await _is_discarded(trial, False)


async def _is_published(trial: Trial, ended: bool) -> None:
    if not ended:
        # Who does not know how it ended tries again.
        with contextlib.suppress(AttemptLost):
            await _publish(trial)
    await _read(trial)


async def _is_discarded(trial: Trial, ended: bool) -> None:
    if not ended:
        await _discard(trial)
    with pytest.raises(AttemptLost):
        await trial.store.publish(trial.attempt)


async def _is_unpublished(trial: Trial, ended: bool) -> None:
    if not ended:
        await _discard_published(trial)
    with pytest.raises(NotFound):
        await get(trial.store, trial.location)


async def _is_deleted(trial: Trial, ended: bool) -> None:
    if not ended:
        with contextlib.suppress(NotFound):
            await _delete(trial)
    with pytest.raises(NotFound):
        await get(trial.store, trial.location)


async def _is_readable(trial: Trial, ended: bool) -> None:
    await _read(trial)


async def _is_listed(trial: Trial, ended: bool) -> None:
    await _list(trial)


async def _is_copied(trial: Trial, ended: bool) -> None:
    await _is_written(trial, ended)
    await trial.store.delete(
        trial.location.replace(trial.attempt.key, f"{trial.attempt.key}-source")
    )


OPERATIONS = (
    Operation("write", _nothing, _write, _is_written),
    Operation("write unannounced", _nothing, _write_unannounced, _is_written),
    Operation("publish", _write, _publish, _is_published),
    Operation("discard", _write, _discard, _is_discarded),
    Operation("discard published", _write_and_publish, _discard_published, _is_unpublished),
    Operation("delete", _write_and_publish, _delete, _is_deleted),
    Operation("read", _write_and_publish, _read, _is_readable),
    Operation("attempts", _write, _list, _is_listed),
)
COPY = Operation("copy", _put_source, _copy, _is_copied)


async def error_of(call: Awaitable[object]) -> StoreError | None:
    """The error that a store answers with, if any; anything else, and no answer, is a failure."""
    try:
        async with asyncio.timeout(_NEVER_S):
            await call
    except StoreError as error:
        return error
    except TimeoutError:
        pytest.fail("it hangs")
    return None


def gets(location: str) -> Callable[[Request], bool]:
    """Chooses the requests for the bytes of an object."""
    key = unquote(location).rpartition("/")[2]
    return lambda request: request.method == "GET" and key in unquote(request.target)


class ReadFaults:
    @pytest.fixture
    async def rig(self) -> FaultRig:
        raise NotImplementedError("a subclass says which driver")

    @pytest.fixture(autouse=True)
    async def _leaves_nothing(self, rig: FaultRig) -> AsyncIterator[None]:
        files, tasks = open_files(), asyncio.all_tasks()
        assert await rig.everything() == []
        yield
        assert await rig.everything() == []
        assert open_files() <= files
        await until(lambda: asyncio.all_tasks() - tasks <= {asyncio.current_task()})

    @asynccontextmanager
    async def connected(self, rig: FaultRig) -> AsyncGenerator[tuple[Wire, Store]]:
        """A store at the end of a wire; no exchange may be under way in the end."""
        with Wire.to(*rig.server) as wire:
            async with aclosing(await rig.open_through(wire, timeout_s=_PATIENT_S)) as store:
                yield wire, store
                await until(lambda: wire.exchanges == 0)
            await until(lambda: wire.connections == 0)

    @asynccontextmanager
    async def hasty(
        self, rig: FaultRig, wire: Wire, *, timeout_s: float = _HASTY_S
    ) -> AsyncGenerator[Store]:
        """Another store at the end of the same wire, which soon gives up."""
        async with aclosing(await rig.open_through(wire, timeout_s=timeout_s)) as store:
            yield store

    @pytest.mark.parametrize("fault", UNDONE, ids=repr)
    async def test_a_reader_does_not_see_a_fault_that_ends(self, rig: FaultRig, fault: Fault):
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, DATA)
            position = 0
            while wire.struck or not position:
                wire.heal()
                wire.inflict(fault, skip=position)
                assert await get(store, location) == DATA
                position += 1
            assert position > 1
            wire.heal()
            await rig.remove(store, location)

    @pytest.mark.parametrize("fault", LASTING, ids=repr)
    async def test_a_fault_that_stays_raises_on_entry(self, rig: FaultRig, fault: Fault):
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, DATA)
            async with self.hasty(rig, wire, timeout_s=_RASH_S) as hasty:
                wire.heal()
                wire.inflict(fault, times=None)
                error = await error_of(get(hasty, location))
                assert isinstance(error, Unreachable)
                assert wire.struck
                # What was given up is over, not only forgotten.
                await until(lambda: wire.exchanges == 0)
            wire.heal()
            assert await get(store, location) == DATA
            await rig.remove(store, location)

    async def test_a_server_that_is_not_there_raises_on_entry(self, rig: FaultRig):
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, DATA)
            wire.refuse()
            error = await error_of(get(store, location))
            assert isinstance(error, Unreachable)
            wire.listen()
            assert await get(store, location) == DATA
            await rig.remove(store, location)

    @pytest.mark.parametrize("part", [WHOLE, ByteRange(1000, 2 * MIB)], ids=repr)
    @pytest.mark.parametrize("how", ["reset", "close"])
    async def test_a_download_that_breaks_goes_on(
        self, rig: FaultRig, how: Literal["reset", "close"], part: ByteRange
    ):
        data = some_bytes(LENGTH)
        expected = data[part.start :][: part.length]
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, data)
            for after in (1, 65_536, MIB, len(expected) - 1):
                wire.heal()
                wire.inflict(Break("answer", after, how), when=gets(location))
                assert await get(store, location, part) == expected
                assert wire.struck == 1
            wire.heal()
            wire.inflict(Break("answer", 700_000, how), times=2, when=gets(location))
            assert await get(store, location, part) == expected
            assert wire.struck == 2
            wire.heal()
            await rig.remove(store, location)

    async def test_a_download_that_hangs_goes_on(self, rig: FaultRig):
        data = some_bytes(LENGTH)
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, data)
            async with self.hasty(rig, wire) as hasty:
                wire.inflict(Break("answer", MIB + 5, "stall"), when=gets(location))
                assert await get(hasty, location) == data
                assert wire.struck == 1
                await until(lambda: wire.exchanges == 0)
            wire.heal()
            await rig.remove(store, location)

    @pytest.mark.parametrize(
        "lasting",
        [Answer(503), Break("answer", 0, "close"), Break("request", 0, "stall")],
        ids=repr,
    )
    async def test_a_download_that_stays_broken_is_an_error(self, rig: FaultRig, lasting: Fault):
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, some_bytes(LENGTH))
            async with self.hasty(rig, wire) as hasty:
                wire.inflict(Break("answer", 2 * MIB, "close"), when=gets(location))
                async with hasty.open(location) as reading:
                    await anext(reading.blocks)
                    wire.inflict(lasting, times=None)
                    error = await error_of(_exhausted(reading.blocks))
                    assert isinstance(error, Unreachable)
                await until(lambda: wire.exchanges == 0)
            wire.heal()
            await rig.remove(store, location)

    @pytest.mark.parametrize("by", [-5, 5])
    async def test_a_wrong_length_does_not_pass(self, rig: FaultRig, by: int):
        part = ByteRange(1000, 500_000)
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, DATA)
            wire.inflict(WrongLength(by=by), when=gets(location))
            data = b""

            async def read() -> None:
                nonlocal data
                data = await get(store, location, part)

            error = await error_of(read())
            assert wire.struck
            wire.heal()
            assert isinstance(error, Unreachable) or data == DATA[1000:501_000]
            assert await get(store, location, part) == DATA[1000:501_000]
            await rig.remove(store, location)

    async def test_a_slow_answer_is_waited_for_while_it_comes(self, rig: FaultRig):
        """A time-out is for silence: a download may last however long."""
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, DATA)
            async with self.hasty(rig, wire, timeout_s=2) as hasty:
                wire.inflict(Slow(bytes_per_s=len(DATA) / 4), times=None, when=gets(location))
                assert await get(hasty, location) == DATA
                assert wire.struck == 1
            wire.heal()
            await rig.remove(store, location)

    async def test_a_reader_may_leave_while_nothing_comes(self, rig: FaultRig):
        async with self.connected(rig) as (wire, store):
            location = await rig.place(store, wire, some_bytes(LENGTH))
            wire.inflict(Break("answer", MIB, "stall"), times=None, when=gets(location))
            async with store.open(location) as reading:
                await anext(reading.blocks)
            await until(lambda: wire.exchanges == 0)
            reading = asyncio.create_task(get(store, location))
            await until(lambda: wire.struck > 1)
            reading.cancel()
            await asyncio.wait({reading})
            assert reading.cancelled()
            await until(lambda: wire.exchanges == 0)
            wire.heal()
            await rig.remove(store, location)


class StoreFaults(ReadFaults):
    """`shown` are the operations that cannot be tried again, so that a fault that ends is shown:
    where bytes have gone that nobody has any more."""

    shown: frozenset[str] = frozenset()

    @pytest.mark.parametrize("fault", [*UNDONE, *DOUBTFUL], ids=repr)
    async def test_a_fault_in_one_exchange(self, rig: FaultRig, fault: Fault):
        """In each second operation, in its first exchange and each fifth; others by each fault."""
        number = [*UNDONE, *DOUBTFUL].index(fault)
        await self.strike(
            rig,
            fault,
            [*OPERATIONS, COPY][number % 2 :: 2],
            lambda: itertools.chain([0], itertools.count(1 + number % _EACH, _EACH)),
        )

    @pytest.mark.long
    @pytest.mark.parametrize("fault", [*UNDONE, *DOUBTFUL, *SIMILAR], ids=repr)
    async def test_a_fault_in_any_exchange(self, rig: FaultRig, fault: Fault):
        await self.strike(rig, fault, [*OPERATIONS, COPY], itertools.count)

    async def strike(
        self,
        rig: FaultRig,
        fault: Fault,
        operations: Sequence[Operation],
        positions: Callable[[], Iterator[int]],
    ) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for operation in operations:
                wire, store = await stack.enter_async_context(self.connected(rig))
                if operation is not COPY or isinstance(store, Copies):
                    group.create_task(self.struck_once(wire, store, operation, fault, positions()))
        await self.check_leftovers(rig)

    async def struck_once(
        self,
        wire: Wire,
        store: Store,
        operation: Operation,
        fault: Fault,
        positions: Iterator[int],
    ) -> None:
        location_of = await self.locations(store)
        for position in positions:
            trial = await self.prepared(store, operation, location_of)
            wire.heal()
            wire.inflict(fault, skip=position)
            error = await error_of(operation.act(trial))
            was_struck = wire.struck > 0
            story = f"{operation.name}, {fault} in {wire.requests[position:][:1]}: {error!r}"
            wire.heal()
            is_gone = operation.name == "delete" and isinstance(error, NotFound)
            assert error is None or is_gone or isinstance(error, Unreachable), story
            if not was_struck:
                assert error is None, story
                assert position > 0 or operation.name == "attempts", story
            if fault in UNDONE and operation.name not in self.shown:
                assert error is None, story
            try:
                await operation.check(trial, error is None)
            except BaseException as failure:
                failure.add_note(story)
                raise
            await store.discard(trial.attempt, published=True)
            if not was_struck:
                return

    @pytest.mark.parametrize("fault", LASTING, ids=repr)
    async def test_a_fault_that_stays(self, rig: FaultRig, fault: Fault):
        async with self.connected(rig) as (wire, store):
            location_of = await self.locations(store)
            trials = [(one, await self.prepared(store, one, location_of)) for one in OPERATIONS]
            async with self.hasty(rig, wire, timeout_s=_RASH_S) as hasty:
                await self.acquainted(hasty)
                wire.heal()
                wire.inflict(fault, times=None)
                errors = await asyncio.gather(
                    *(error_of(one.act(replace(trial, store=hasty))) for one, trial in trials)
                )
                await until(lambda: wire.exchanges == 0)
            wire.heal()
            await self.check_recovery(store, trials, errors)
        await self.check_leftovers(rig)

    async def test_a_server_that_is_not_there(self, rig: FaultRig):
        async with self.connected(rig) as (wire, store):
            location_of = await self.locations(store)
            trials = [(one, await self.prepared(store, one, location_of)) for one in OPERATIONS]
            wire.refuse()
            errors = await asyncio.gather(
                *(error_of(operation.act(trial)) for operation, trial in trials)
            )
            wire.listen()
            await self.check_recovery(store, trials, errors)
        await self.check_leftovers(rig)

    async def test_what_hangs_may_be_cancelled(self, rig: FaultRig):
        async with self.connected(rig) as (wire, store):
            location_of = await self.locations(store)
            trials = [(one, await self.prepared(store, one, location_of)) for one in OPERATIONS]
            async with self.hasty(rig, wire, timeout_s=_RASH_S) as hasty:
                await self.acquainted(hasty)
                wire.heal()
                wire.inflict(Break("answer", None, "stall"), times=None)
                tasks = [
                    asyncio.ensure_future(one.act(replace(trial, store=hasty)))
                    for one, trial in trials
                ]
                await until(lambda: wire.exchanges > 0)
                for task in tasks:
                    task.cancel()
                async with asyncio.timeout(_NEVER_S):
                    await asyncio.wait(tasks)
                assert all(task.cancelled() for task in tasks)
                await until(lambda: wire.exchanges == 0)
            wire.heal()
            await self.check_recovery(store, trials, [Unreachable("cancelled")] * len(trials))
        await self.check_leftovers(rig)

    async def test_bytes_of_two_objects_are_never_mixed(self, rig: FaultRig):
        old, new = some_bytes(LENGTH, 1), some_bytes(LENGTH, 2)
        async with self.connected(rig) as (wire, store):
            location = await put(store, old, key="key")
            wire.inflict(Break("answer", 2 * MIB, "reset"), when=gets(location))
            async with store.open(location) as reading:
                data = bytes(await anext(reading.blocks))
                await store.delete(location)
                assert await put(store, new, key="key") == location
                try:
                    async for block in reading.blocks:
                        data += block
                except StoreError:
                    assert old.startswith(data)
                else:
                    assert data == old
            assert await get(store, location) == new
            await store.delete(location)

    async def acquainted(self, store: Store) -> None:
        """Let a store ask for what it asks for once, a token, so that the fault befalls the rest.

        Where the server is too slow for it, it befalls that.
        """
        await error_of(begun_attempts(store))

    async def locations(self, store: Store) -> Callable[[str], str]:
        """What tells the location of a key."""
        known = str(uuid.uuid4())
        location = await put(store, b"x", key=known)
        await store.delete(location)
        return lambda key: location.replace(known, key)

    async def prepared(
        self, store: Store, operation: Operation, location_of: Callable[[str], str]
    ) -> Trial:
        attempt = attempt_at()
        trial = Trial(store, attempt, location_of(attempt.key))
        await operation.prepare(trial)
        return trial

    async def check_recovery(
        self,
        store: Store,
        trials: Sequence[tuple[Operation, Trial]],
        errors: Sequence[StoreError | None],
    ) -> None:
        """All had failed; now all is well again, for other objects too."""
        for (operation, trial), error in zip(trials, errors, strict=True):
            assert isinstance(error, Unreachable), f"{operation.name}: {error!r}"
            await operation.check(trial, False)
            await store.discard(trial.attempt, published=True)
        location = await put(store, DATA)
        assert await get(store, location) == DATA
        await store.delete(location)

    async def check_leftovers(self, rig: FaultRig) -> None:
        """What may be left of attempts that failed is found, and goes by being discarded."""
        async with self.connected(rig) as (_, store):
            for leftover in await begun_attempts(store):
                await store.discard(leftover)


async def _exhausted(blocks: AsyncIterator[object]) -> None:
    async for _ in blocks:
        pass
