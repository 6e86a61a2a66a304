"""Threads that run blocking calls for one owner: a store, or the digests of a process."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """At most `count` threads, started when needed; `close` lets them end.

    `niceness` is how much sooner the kernel runs others than them, as `nice(1)` has it.

    `concurrent.futures.ThreadPoolExecutor` is not used because the interpreter joins its threads
    at exit: one call that hangs in a dead mount would keep the process from ending. These are
    daemons.
    """

    def __init__(
        self, name: str, *, count: int, timeout_s: float | None = None, niceness: int = 0
    ) -> None:
        self._name = name
        self._niceness = niceness
        self._count = count
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._closed = False

    def submit(self, function: Callable[..., T], /, *args: object) -> Future[T]:
        """Queue a call; `result` waits for it. Calls start in the order in which they came."""
        if self._closed:
            raise RuntimeError(f"The threads of {self._name} are closed.")
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args)
            except BaseException as error:  # handed on to the one who waits
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and self._started < self._count:
            self._started += 1
            threading.Thread(
                target=_work,
                args=(self._calls, self._idle, self._niceness),
                name=f"{self._name}-{self._started}",
                daemon=True,
            ).start()
        return future

    async def result(self, future: Future[T]) -> T:
        """Wait for a queued call and return its result, or raise what it raised.

        Raises TimeoutError after `timeout_s`. A cancelled or timed-out call that had not begun
        never will. One that is running cannot be stopped: a cancelled caller waits for its end
        (`timeout_s` at most), so that what the call uses can be freed afterwards; after a
        TimeoutError it may still be running.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled():
                await self.settle(future)
            raise

    async def run(self, function: Callable[..., T], /, *args: object) -> T:
        """Queue a call and wait for it: see `submit` and `result`."""
        return await self.result(self.submit(function, *args))

    async def settle(self, future: Future[T]) -> None:
        """Wait until a queued call has ended, however, `timeout_s` at most; it runs in any case.

        For calls that clean up: neither a cancellation nor the timeout withdraws them.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        future.add_done_callback(wake)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await ended.wait()

    def close(self) -> None:
        """Let the threads end after what is queued; waits for nothing."""
        self._closed = True
        for _ in range(self._started):
            self._calls.put(None)


def _work(
    calls: SimpleQueue[Callable[[], None] | None], idle: threading.Semaphore, niceness: int
) -> None:
    if niceness:
        # Of this thread alone: that is what Linux takes a process for here.
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, own + niceness)
    while (call := calls.get()) is not None:
        call()
        # An idle thread must not keep a block of somebody's upload alive.
        del call
        idle.release()
