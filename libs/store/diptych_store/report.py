"""What the `stores` commands tell: how stores are configured, and whether each does its work."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import uuid4

from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    Full,
    InUse,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.protocol import WHOLE, Attempt, ByteRange, Measures, Outbound, Store, Sweeps
from diptych_store.registry import check_host, open_store
from diptych_store.settings import StoreConfig, StoresConfig, StoreSettingsError

log = logging.getLogger(__name__)

# Of one block with most stores, and more than fits into any buffer on the way.
_PROBE_SIZE: Final = 200_000
_PART: Final = ByteRange(70_001, 60_000)

# How long a check that was given up, or interrupted, gets to remove its probe object.
_CLEAN_UP_S: Final = 10.0


class _WrongBytes(StoreError):
    """What was read is not what was written."""


# The driver's message says what happened; this is where to look.
_ADVICE: Final[dict[type[Exception], str]] = {
    Unreachable: "Is the server up, and are address, port and names in the settings right? Check"
    " the certificate authorities too, and what is between: firewalls, proxies, mounts.",
    WriteDenied: "Check that the names in the settings are right, and that the user there may"
    " write, list and delete; or set read_only.",
    ReadDenied: "Check user and key in the settings, what the user may read, and this host's clock:"
    " a signature that is minutes off is refused.",
    NotFound: "Check the names in the settings: of the bucket, the container or the pool.",
    Full: "Make room there, or raise the quota.",
    InUse: "Something else uses the probe object: is a snapshot or a lock made of every new one?",
    AlreadyThere: "Something else answers for this store: the name of the probe object is new.",
    AttemptLost: "Something else removes unfinished uploads there: a rule of the bucket or a job.",
    _WrongBytes: "Something between here and the store changes bytes.",
    BadLocation: "The store does not take its own location back: its settings contradict it.",
    ImportError: "Install the client of this type of store.",
}


_NOT_OVER: Final = "It was not over when it was given up."


class _Failed(Exception):
    """A step has failed and told so; what would follow it is not tried."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the check of one store, in short: `error` is None where all went well.

    `free` is the number of bytes that there is room for, None where nobody knows.
    """

    store: str
    told: str
    error: str | None
    advice: str
    free: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a command tells: `lines` to people, `document` (as JSON has it) to machines.

    `hangs` if a call is still under way that cannot be ended. `outcomes` are those of a check.
    """

    lines: Sequence[str]
    document: Sequence[Mapping[str, object]]
    is_well: bool = True
    hangs: bool = False
    outcomes: Sequence[Outcome] = ()


@dataclass(slots=True)
class Step:
    """One thing that is tried: what it told, and until it is over and well, what is wrong."""

    name: str
    ms: float | None = None
    told: str = ""
    error: str | None = _NOT_OVER
    advice: str = _ADVICE[Unreachable]


@dataclass(slots=True)
class Checked:
    """What has been tried of a store so far; `probe` is the object that may be there.

    `free` are the bytes that the store has room for, where it knows them.
    """

    store: str
    type: str
    steps: list[Step] = field(default_factory=list[Step])
    probe: Attempt | None = None
    free: int | None = None

    @property
    def is_well(self) -> bool:
        """Whether all that was to be tried has been, and nothing has failed."""
        return bool(self.steps) and all(step.error is None for step in self.steps)


def describe(config: StoresConfig) -> Report:
    """The stores as they are configured; nobody is asked."""
    staging = config.staging.name if config.staging else config.default
    rows = [
        {
            "store": one.name,
            "type": one.type,
            "default": one.name == config.default,
            "weight": one.weight,
            "read_only": one.read_only,
            "staging": one.name == staging,
            "description": one.description,
            "places": [*one.options.places()],
        }
        for one in config.every
    ]
    table = [("store", "type", "weight", "role", "place", "description")]
    for row, one in zip(rows, config.every, strict=True):
        marks = [mark for mark in ("default", "staging", "read_only") if row[mark]]
        places = ", ".join(one.options.places())
        table.append(
            (
                one.name,
                one.type,
                str(one.weight),
                ", ".join(marks).replace("_", "-"),
                places,
                one.description,
            )
        )
    return Report(_table(table), rows)


def named(config: StoresConfig, names: Sequence[str]) -> list[StoreConfig]:
    """The stores of these names, each once, the staging store among them; all if none is named.

    Raises ValueError for a name that no store has.
    """
    every = {one.name: one for one in config.every}
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ValueError(f"There is no store {unknown[0]}; there are {', '.join(every)}.")
    return [every[name] for name in dict.fromkeys(names)] or [*every.values()]


async def check(
    config: StoresConfig,
    names: Sequence[str] = (),
    *,
    seconds: float,
    outbound: Outbound | None = None,
) -> Report:
    """Try what each store is for with an object of its own; all of them at a time.

    `names` chooses stores, see `named`. One that takes longer than `seconds` is given up. Whatever
    happens, a cancellation included, the probe objects are removed, or the report says which may
    be left.
    """
    chosen = named(config, names)
    # Drivers are imported before the clock runs: that can take a second, and blocks the loop. One
    # that lacks its client says so when it is opened.
    with suppress(StoreSettingsError):
        check_host(config)
    found = [Checked(one.name, one.type) for one in chosen]
    tasks = [
        asyncio.create_task(_check(one, into, outbound))
        for one, into in zip(chosen, found, strict=True)
    ]
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()
        # Not for ever: a thread that hangs cannot be cancelled.
        _, hanging = await asyncio.wait(tasks, timeout=_CLEAN_UP_S)
    return Report(
        lines=_table(
            [("store", "step", "ms", "outcome"), *(line for one in found for line in _lines(one))]
        ),
        document=[_document(one) for one in found],
        is_well=all(one.is_well for one in found),
        hangs=bool(hanging),
        outcomes=[_outcome(one) for one in found],
    )


async def _check(config: StoreConfig, found: Checked, outbound: Outbound | None) -> None:
    with suppress(_Failed):
        with _step(found, "open"):
            store = await open_store(config, outbound=outbound)
        try:
            if config.read_only:
                await _look(store, found)
            else:
                await _use(store, found)
        finally:
            with _step(found, "close"):
                await store.aclose()


async def _look(store: Store, found: Checked) -> None:
    """Try what can be tried without writing, and without knowing an object."""
    if isinstance(store, Measures):
        with _step(found, "measure") as step:
            free = found.free = await store.free()
            step.told = "" if free is None else f"{free / 2**30:.1f} GiB free"


async def _use(store: Store, found: Checked) -> None:
    attempt = Attempt(key=f"diptych-probe-{uuid4()}", token=str(uuid4()))
    data = os.urandom(_PROBE_SIZE)
    with _step(found, "write"):
        # Known as long as the call lasts and no longer: a write that fails leaves nothing.
        found.probe = attempt
        try:
            await store.write(attempt, _blocks(data), size=len(data))
        except (StoreError, asyncio.CancelledError):
            found.probe = None
            raise
    try:
        if isinstance(store, Sweeps):
            with _step(found, "list attempts") as step:
                step.told = await _listed(store, attempt)
        with _step(found, "publish"):
            location = await store.publish(attempt)
        with _step(found, "read"):
            await _read(store, location, WHOLE, data)
        with _step(found, "read a range"):
            await _read(store, location, _PART, data[_PART.start :][: _PART.length])
        with _step(found, "delete"):
            await store.delete(location)
        found.probe = None
    finally:
        if found.probe is not None:
            with _step(found, "remove the probe object"):
                await store.discard(attempt, published=True)
                found.probe = None
    if isinstance(store, Measures):
        with suppress(StoreError):  # who may write need not be told how much room there is
            found.free = await store.free()


@contextmanager
def _step(found: Checked, name: str) -> Generator[Step]:
    """Do one step; what fails is told, and ends the check as _Failed."""
    step = Step(name)
    found.steps.append(step)
    begun = time.perf_counter()
    try:
        yield step
    except (StoreError, ValueError, ImportError) as error:
        step.error, step.advice = str(error), _advice(error)
        raise _Failed from error
    except Exception as error:
        # A mistake of ours. Its words may hold anything, so only the log has them.
        log.exception("Store %s could not be checked", found.store)
        step.error, step.advice = f"{type(error).__name__}; the log has more.", ""
        raise _Failed from error
    else:
        step.error, step.advice = None, ""
    finally:
        step.ms = round((time.perf_counter() - begun) * 1000, 1)


async def _blocks(data: bytes) -> AsyncGenerator[bytes]:
    yield data


async def _listed(store: Sweeps, attempt: Attempt) -> str:
    async for one in store.attempts(older_than=timedelta(0)):
        if one == attempt:
            return ""
    # Some backends list what is new only after a while.
    return "The probe's is not listed yet."


async def _read(store: Store, location: str, part: ByteRange, expected: bytes) -> None:
    async with store.open(location, part) as reading:
        found = b"".join([bytes(block) async for block in reading.blocks])
        size = reading.size
    if found != expected or size != _PROBE_SIZE:
        raise _WrongBytes("Other bytes were read than were written.")


def _outcome(found: Checked) -> Outcome:
    tried = [step.name for step in found.steps]
    failed = next((step for step in found.steps if step.error is not None), None)
    if failed is None and not tried:
        failed = Step("open")
    if failed is None:
        told = f"It did all that was tried: {', '.join(tried)}."
        return Outcome(found.store, told, error=None, advice="", free=found.free)
    left = "" if found.probe is None else f" {_left(found.probe)}"
    error = f"{failed.name}: {failed.error}"
    return Outcome(found.store, "", error=error, advice=failed.advice + left, free=found.free)


def _advice(error: Exception) -> str:
    return next((_ADVICE[kind] for kind in type(error).__mro__ if kind in _ADVICE), "")


def _lines(found: Checked) -> Iterator[tuple[str, ...]]:
    name = found.store
    for step in found.steps or [Step("")]:
        ms = "" if step.ms is None else f"{step.ms:.1f}"
        yield name, step.name, ms, f"FAILED: {step.error}" if step.error else step.told or "ok"
        if step.advice:
            yield "", "", "", step.advice
        name = ""
    if found.probe is not None:
        yield "", "", "", _left(found.probe)


def _document(found: Checked) -> dict[str, object]:
    steps = [
        {
            "step": step.name,
            "ms": step.ms,
            "ok": step.error is None,
            "told": step.told,
            "error": step.error,
            "advice": step.advice,
        }
        for step in found.steps
    ]
    left = None if found.probe is None else _left(found.probe)
    return {
        "store": found.store,
        "type": found.type,
        "ok": found.is_well,
        "steps": steps,
        "left": left,
    }


def _left(probe: Attempt) -> str:
    return f"The probe object may be left there: {probe.key}, attempt {probe.token}."


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows in columns; the last column may be as wide as it likes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
