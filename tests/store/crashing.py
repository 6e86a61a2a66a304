"""A process that forks children which kill themselves at a given step of a store's work.

Run as `python -m tests.store.crashing FACTORY ARGUMENT WATCHED`: FACTORY is `module:function`, an
async function that opens the store from ARGUMENT. A line `SCENARIO STEP KEY TOKEN` on stdin forks
a child, which dies by SIGKILL at the STEPth (from 0) step of the scenario; the answer is the name
of that step, or `end` when the scenario had no more of them (the child dies then, too).

WATCHED is the end of the path of the driver's module, or of a folder of its modules: then a step
is a system call that they make, and the child dies just before it. The calls are seen by a profile
function, so that the driver needs no hook for this. Or WATCHED is `calls`: then a step is a call to
the backend, and the child dies just after it; FACTORY gets an OnCall as a second argument. The fork
is made by a process without threads or loop.
"""

import asyncio
import importlib
import os
import signal
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import NoReturn

from diptych_store.errors import StoreError
from diptych_store.protocol import Attempt, Copies, Store

from tests.store.conformance import CALLS, SOURCE, WriterGone, in_blocks, some_bytes

SIZE = 2_500_000


class Killer:
    """Counts the steps of a scenario once it is armed."""

    def __init__(self, *, step: int, watched: str, report: int) -> None:
        self.armed = False
        self._left = step
        self._watched = watched
        self._report = report

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of a system call that is about to be made."""
        if event != "c_call" or getattr(argument, "__module__", "") != "posix":
            return
        _, is_there, rest = frame.f_code.co_filename.partition(self._watched)
        if is_there and "/" not in rest:
            self._count(getattr(argument, "__name__", "?"))

    def on_call(self, operation: str, seconds: float, error: StoreError | None, /) -> None:
        """Take note of a call to the backend that was made."""
        self._count(operation)

    def _count(self, name: str) -> None:
        if not self.armed:
            return
        if not self._left:
            self.die(name)
        self._left -= 1

    def die(self, name: str) -> NoReturn:
        os.write(self._report, name.encode())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def write(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    arm()
    await store.write(attempt, in_blocks(some_bytes(SIZE), 1_000_000), size=None)
    await store.publish(attempt)


async def fail(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield some_bytes(SIZE)
        arm()
        raise WriterGone

    try:
        await store.write(attempt, blocks(), size=None)
    except WriterGone:
        return


async def discard_written(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    await store.write(attempt, in_blocks(some_bytes(SIZE)), size=None)
    arm()
    await store.discard(attempt)


async def discard_published(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    await store.write(attempt, in_blocks(some_bytes(SIZE)), size=None)
    await store.publish(attempt)
    arm()
    await store.discard(attempt, published=True)


async def delete(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    await store.write(attempt, in_blocks(some_bytes(SIZE)), size=None)
    location = await store.publish(attempt)
    arm()
    await store.delete(location)


async def copy(
    store: Store, attempt: Attempt, arm: Callable[[], None], *, temporary: bool = False
) -> None:
    assert isinstance(store, Copies)
    source = Attempt(key=f"{attempt.key}{SOURCE}", token=str(uuid.uuid4()))
    await store.write(source, in_blocks(some_bytes(SIZE)), size=None)
    location = await store.publish(source)
    arm()
    await store.copy(attempt, store, location, temporary=temporary)
    await store.publish(attempt)
    if temporary:
        await store.delete(location)


async def take_over(store: Store, attempt: Attempt, arm: Callable[[], None]) -> None:
    await copy(store, attempt, arm, temporary=True)


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (write, fail, discard_written, discard_published, delete, copy, take_over)
}


async def play(opening: Awaitable[Store], scenario: str, attempt: Attempt, killer: Killer) -> None:
    store = await opening
    await SCENARIOS[scenario](store, attempt, lambda: setattr(killer, "armed", True))
    killer.die("end")


def main(factory: str, argument: str, watched: str) -> None:
    module, _, function = factory.partition(":")
    open_store = getattr(importlib.import_module(module), function)
    for line in sys.stdin:
        scenario, step, key, token = line.split()
        reading, report = os.pipe()
        child = os.fork()
        if not child:
            killer = Killer(step=int(step), watched=watched, report=report)
            if watched == CALLS:
                opening = open_store(argument, killer.on_call)
            else:
                threading.setprofile(killer.profile)
                sys.setprofile(killer.profile)
                opening = open_store(argument)
            asyncio.run(play(opening, scenario, Attempt(key=key, token=token), killer))
        os.close(report)
        _, status = os.waitpid(child, 0)
        name = os.read(reading, 100).decode()
        os.close(reading)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(f"{name if killed else f'failed:{status}'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
