"""An object in parts: how long they are, and how many of them are in memory at a time."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from diptych_store.protocol import Block

MIB = 1024 * 1024
# Source: "Amazon S3 multipart upload limits" in the user guide of Amazon S3.
MOST_PARTS = 10_000
LARGEST_PART = 5 * 1024 * MIB
LARGEST_OBJECT = 5 * 1024 * 1024 * MIB

_FIRST = 8 * MIB
# Each part is so much longer than the one before that 10,000 of them reach the largest object. The
# longest one is then at all times about the same share of what was sent.
_GROWTH = 1.0006

# What one object of known size has in memory at most, while its parts are not longer than half of
# it. Of parts of 10 MiB two are on their way: at 50 ms from the server that is 400 MB/s, as fast as
# digests are made.
_MOST_IN_MEMORY = 32 * MIB


def part_size(number: int) -> int:
    """The bytes of part `number`, from 1 on, of an object whose size nobody knows."""
    return int(_FIRST * _GROWTH ** (number - 1)) // MIB * MIB


def known_part_size(size: int, *, smallest: int) -> int:
    """The bytes of each part but the last of an object of `size` bytes, in whole MiB."""
    fewest = -(-size // MOST_PARTS)
    return max(smallest, -(-fewest // MIB) * MIB)


class Room:
    """Places for parts in memory, shared by the uploads of a store beside one of each."""

    def __init__(self, places: int) -> None:
        self._free = places

    def take(self) -> bool:
        """Take a place if there is one."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """Give a place back."""
        self._free += 1


class Sending:
    """One object on its way in parts: one is filled while others are sent.

    `send` sends a part, given its number and its bytes. A part has a place in memory from before
    its first byte comes until it is sent: the upload's own place or one from the room that all
    share. Without a `size` one part is on its way at a time.
    """

    def __init__(
        self,
        send: Callable[[int, io.BytesIO], Coroutine[Any, Any, None]],
        *,
        size: int | None,
        smallest: int,
        room: Room,
    ) -> None:
        self._send = send
        self._size = size
        self._part_size = None if size is None else known_part_size(size, smallest=smallest)
        fitting = 1 if self._part_size is None else _MOST_IN_MEMORY // self._part_size
        # Beside the one that is filled.
        self._at_a_time = max(1, fitting - 1)
        self._room = room
        self._sent = 0
        self._number = 1
        self._has_own_place = True
        self._under_way: set[asyncio.Task[None]] = set()

    async def all(self, blocks: AsyncIterator[Block]) -> int:
        """Send all; returns the bytes. Whatever it raises, no part is on its way any more."""
        give_back = await self._place()
        part = io.BytesIO()
        try:
            wanted = self._wanted()
            async for block in blocks:
                rest = memoryview(block)
                while len(rest) >= wanted - part.tell():
                    room = wanted - part.tell()
                    part.write(rest[:room])
                    rest = rest[room:]
                    await self._launch(part, give_back)
                    give_back, part = _nothing, io.BytesIO()
                    give_back = await self._place()
                    wanted = self._wanted()
                part.write(rest)
                del rest
            # An object of no bytes has one part of none.
            if part.tell() or self._number == 1:
                await self._launch(part, give_back)
                give_back = _nothing
            while self._under_way:
                await self._one_is_sent()
        except BaseException:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            raise
        finally:
            give_back()
        return self._sent

    def _wanted(self) -> int:
        # More may come than was announced; then it goes on as if nothing had been.
        if self._part_size is not None and self._size is not None and self._sent <= self._size:
            return self._part_size
        return max(part_size(self._number), self._part_size or 0)

    async def _place(self) -> Callable[[], None]:
        """Wait for a place; returns what gives it back."""
        while len(self._under_way) > self._at_a_time:
            await self._one_is_sent()
        while True:
            if self._has_own_place:
                self._has_own_place = False
                return self._own_place_is_free
            if self._room.take():
                return self._room.give
            # The own place is a part's that is on its way: nobody else holds one meanwhile.
            await self._one_is_sent()

    def _own_place_is_free(self) -> None:
        self._has_own_place = True

    async def _launch(self, part: io.BytesIO, give_back: Callable[[], None]) -> None:
        while self._size is None and self._under_way:
            await self._one_is_sent()
        self._sent += part.tell()
        part.seek(0)
        task = asyncio.create_task(self._send(self._number, part))
        # Not in the task: one that is cancelled before it began would never come to it.
        task.add_done_callback(lambda _: give_back())
        self._under_way.add(task)
        self._number += 1

    async def _one_is_sent(self) -> None:
        sent, self._under_way = await asyncio.wait(
            self._under_way, return_when=asyncio.FIRST_COMPLETED
        )
        failed = [error for task in sent if (error := task.exception()) is not None]
        if failed:
            raise failed[0]


def _nothing() -> None:
    pass
