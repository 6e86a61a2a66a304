"""Trying again: pauses that grow, and a broken download that goes on where it broke off."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from diptych_store.errors import Unreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried again after Unreachable, and after how many seconds.

    The pause doubles from `first_s` up to `longest_s`, each a random part of that, so that many
    callers that failed together do not come back together.
    """

    count: int
    first_s: float = 0.2
    longest_s: float = 10.0

    def pauses(self) -> Iterator[float]:
        """The seconds to wait before each further try."""
        for number in range(self.count):
            longest_s = min(self.longest_s, self.first_s * 2**number)
            yield random.uniform(longest_s / 2, longest_s)  # noqa: S311 - not a secret


async def retried(call: Callable[[], Awaitable[T]], retries: Retries) -> T:
    """What `call` returns; called again after Unreachable. Raises what the last try raised."""
    for pause_s in retries.pauses():
        try:
            return await call()
        except Unreachable:
            await asyncio.sleep(pause_s)
    return await call()


async def resumed(
    first: AsyncIterator[bytes],
    again: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]],
    *,
    length: int,
    retries: Retries,
) -> AsyncGenerator[bytes, None]:
    """The `length` bytes of a download that may break off: `first`, then `again(offset)`.

    `again` opens what is left from byte `offset` on (the download's first byte being 0) and has
    to make sure that it is the same object; what it opened is closed before it is called again
    and in the end, also when the generator is closed early. `first` is the caller's to close.
    An end that comes too early is a break like any other, one after the last byte is none. Tries
    are counted from the last byte that came. Raises the last Unreachable when they are used up,
    Unreachable at once when more than `length` bytes come, and whatever `again` raises besides.
    """
    reached = 0
    blocks = first
    pauses = retries.pauses()
    async with AsyncExitStack() as stack:
        while True:
            broken = Unreachable(f"The end came before all of {length} bytes.")
            try:
                async for block in blocks:
                    reached += len(block)
                    if reached > length:
                        break
                    if block:
                        pauses = retries.pauses()
                        yield block
            except Unreachable as error:
                broken = error
            if reached > length:
                raise Unreachable(f"More than the {length} bytes came that were to come.")
            if reached == length:
                return
            pause_s = next(pauses, None)
            if pause_s is None:
                raise broken
            await stack.aclose()
            await asyncio.sleep(pause_s)
            blocks = await _opened(stack, again, reached, pauses)


async def _opened(
    stack: AsyncExitStack,
    again: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]],
    offset: int,
    pauses: Iterator[float],
) -> AsyncIterator[bytes]:
    while True:
        try:
            return await stack.enter_async_context(again(offset))
        except Unreachable:
            pause_s = next(pauses, None)
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)
