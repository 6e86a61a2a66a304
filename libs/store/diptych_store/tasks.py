"""Coroutines that end in spite of a cancellation, several at a time, in turn, or on a condition."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def finished(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Await work that must not be left in the middle: a cancellation waits until it has ended.

    A request that was let go would still have its effect, and after that of the next one.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # The one who asked is gone: nobody else will ask for it.
        raise cancelled
    return task.result()


async def gathered(at_a_time: int, calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What the calls return, in their order; the first error ends those under way."""
    room = asyncio.Semaphore(at_a_time)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def only_publisher(address: str) -> asyncio.Lock:
    """What lets one after the other publish the object at an address, of those in this process.

    For servers that look at a condition before the bytes come, as Swift does: they keep to it for
    whoever comes later, not for two at once. It holds whichever store they came through.
    """
    return _locks.setdefault(address, asyncio.Lock())


async def unless(work: Coroutine[Any, Any, T], failing: Coroutine[Any, Any, Exception]) -> T:
    """What `work` returns or raises, or what `failing` returns, raised, if that comes first.

    The other one is cancelled, and has ended when this does; both have when this is cancelled.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(failing)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise watching.result()
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
