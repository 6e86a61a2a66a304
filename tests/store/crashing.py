"""A process that forks children which kill themselves at a given step of a store's work.

Run as `python -m tests.store.crashing FACTORY ARGUMENT WATCHED`: FACTORY is `module:function`, an
async function that opens the store from ARGUMENT; WATCHED is the end of the path of the driver's
module. A line `SCENARIO STEP KEY TOKEN` on stdin forks a child, which dies by SIGKILL just before
the STEPth (from 0) system call that the driver makes in the scenario; the answer is the name of
that call, or `end` when the scenario had no more steps (the child dies then, too).

The calls are seen by a profile function, so that the driver needs no hook for this. The fork is
made by a process without threads or loop.
"""

import asyncio
import importlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import NoReturn

from diptych_store.protocol import Attempt, Store

from tests.store.conformance import WriterGone, in_blocks, some_bytes

SIZE = 2_500_000


class Killer:
    """Counts the driver's system calls once it is armed."""

    def __init__(self, *, step: int, watched: str, report: int) -> None:
        self.armed = False
        self._left = step
        self._watched = watched
        self._report = report

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if not self.armed or event != "c_call" or getattr(argument, "__module__", "") != "posix":
            return
        if not frame.f_code.co_filename.endswith(self._watched):
            return
        if not self._left:
            self.die(getattr(argument, "__name__", "?"))
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


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (write, fail, discard_written, discard_published, delete)
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
            threading.setprofile(killer)
            sys.setprofile(killer)
            asyncio.run(play(open_store(argument), scenario, Attempt(key=key, token=token), killer))
        os.close(report)
        _, status = os.waitpid(child, 0)
        name = os.read(reading, 100).decode()
        os.close(reading)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(f"{name if killed else f'failed:{status}'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
