"""Objects in the memory of this process: for tests, and for trying things out."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from diptych_store.errors import AlreadyThere, AttemptLost, BadLocation, NotFound, WriteDenied
from diptych_store.locations import check_attempt, check_key, for_display
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading

_BLOCK_SIZE = 64 * 1024


class MemoryStore:
    """A dictionary; gone with the process, and unknown to its other workers. It can sweep."""

    def __init__(self, name: str, *, read_only: bool = False) -> None:
        self.name = name
        self._read_only = read_only
        self._objects: dict[str, tuple[str, bytes]] = {}
        self._places: dict[Attempt, tuple[float, bytearray]] = {}

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            self._key(location)
        except BadLocation:
            return False
        return True

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write."""
        self._check(attempt)
        if attempt in self._places:
            raise AlreadyThere("The attempt was begun before.")
        place = bytearray()
        self._places[attempt] = (time.monotonic(), place)
        try:
            async for block in blocks:
                place += block
        except BaseException:
            self._places.pop(attempt, None)
            raise
        return len(place)

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish."""
        self._check(attempt)
        if attempt not in self._places:
            raise AttemptLost(f"The attempt at writing {attempt.key} was discarded.")
        if attempt.key in self._objects:
            raise AlreadyThere(f"Store {self.name} already holds an object {attempt.key}.")
        _, place = self._places.pop(attempt)
        self._objects[attempt.key] = (attempt.token, bytes(place))
        return f"memory://{self.name}/{attempt.key}"

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._check(attempt)
        self._places.pop(attempt, None)
        owner, _ = self._objects.get(attempt.key, (None, b""))
        if published and owner == attempt.token:
            del self._objects[attempt.key]

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open."""
        key = self._key(location)
        if key not in self._objects:
            raise NotFound(f"Store {self.name} has no object {key}.")
        _, data = self._objects[key]
        length = range.length_within(len(data))
        part = memoryview(data)[range.start : range.start + length]
        yield Reading(size=len(data), length=length, blocks=_blocks(part))

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        key = self._key(location)
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")
        if self._objects.pop(key, None) is None:
            raise NotFound(f"Store {self.name} has no object {key}.")

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        before = time.monotonic() - older_than.total_seconds()
        for attempt, (begun, _) in list(self._places.items()):
            if begun < before:
                yield attempt

    async def aclose(self) -> None:
        """Nothing is held open. What is stored goes with the last reference to the store."""

    def again(self, *, read_only: bool = False) -> "MemoryStore":
        """Another store with the same contents."""
        store = MemoryStore(self.name, read_only=read_only)
        store._objects, store._places = self._objects, self._places
        return store

    def everything(self) -> list[str]:
        """The keys of all objects and attempts, for tests to look for leftovers."""
        return [*self._objects, *(attempt.key for attempt in self._places)]

    def _check(self, attempt: Attempt) -> None:
        check_attempt(attempt)
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    def _key(self, location: str) -> str:
        prefix = f"memory://{self.name}/"
        if not location.startswith(prefix):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")
        return check_key(location.removeprefix(prefix))


async def _blocks(data: memoryview) -> AsyncIterator[Block]:
    for start in range(0, len(data), _BLOCK_SIZE):
        yield data[start : start + _BLOCK_SIZE]
        await asyncio.sleep(0)
