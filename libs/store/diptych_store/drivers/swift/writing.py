"""The bytes of an attempt, sent as segments of a bounded size without being held."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from diptych_store.protocol import Block
from diptych_store.threads import Threads

MIB = 1024 * 1024
# Up to here a segment is held and can be sent again.
HELD = MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster allows; Swift's own defaults where it doesn't say."""

    max_file_size: int = 5 * 1024 * MIB + 2
    max_segments: int = 1000

    def segment_size(self, number: int, *, usual: int, size: int | None) -> int:
        """The bytes of segment `number` (from 1 on) if the stream has as many.

        Large enough that an object of `size` fits into a manifest. Every tenth of the manifest
        doubles the size, so that one of unknown size may become as large as any, and small ones
        are not cut coarsely.
        """
        at_least = max(usual, -(-(size or 0) // self.max_segments))
        doublings = (number - 1) // max(1, self.max_segments // 10)
        return min(at_least << doublings, self.max_file_size)


class Stream:
    """The blocks of an upload, to be taken in pieces that end where a segment does."""

    def __init__(self, blocks: AsyncIterator[Block]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self.has_ended = False

    async def take(self, at_most: int) -> memoryview:
        """The next bytes, valid until the next call; empty at the end only."""
        while not self._rest and not self.has_ended:
            block = await anext(self._blocks, None)
            if block is None:
                self.has_ended = True
            else:
                self._rest = memoryview(block).cast("B")
        taken, self._rest = self._rest[:at_most], self._rest[at_most:]
        return taken

    async def head(self, at_most: int) -> bytes:
        """The next bytes, as many as that unless the stream ends before."""
        held = bytearray()
        while len(held) < at_most and (taken := await self.take(at_most - len(held))):
            held += taken
        return bytes(held)


class Body:
    """The body of one segment: `head`, then up to `limit` bytes altogether of the stream.

    `size` and `etag` are what was sent of it; `failure` is what the stream raised, if it did.
    """

    def __init__(self, head: bytes, stream: Stream, *, limit: int, hashing: Threads) -> None:
        self.size = 0
        self.failure: Exception | None = None
        self._head = head
        self._stream = stream
        self._limit = limit
        self._hashing = hashing
        self._digest = hashlib.md5(usedforsecurity=False)

    @property
    def etag(self) -> str:
        """The MD5 of what was sent, in hexadecimal: what Swift calls it."""
        return self._digest.hexdigest()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, in pieces of up to a mebibyte; each is valid until the next is asked for."""
        taken = memoryview(self._head)
        while taken:
            self.size += len(taken)
            # A piece is hashed while the one who asked for it sends it.
            hashed = self._hashing.submit(self._digest.update, taken)
            # httpx and what is under it take anything with a length that can be joined to bytes.
            yield taken  # pyright: ignore[reportReturnType]
            await self._hashing.result(hashed)
            try:
                taken = await self._stream.take(min(MIB, self._limit - self.size))
            except Exception as error:
                self.failure = error
                raise


def etag_of(data: bytes) -> str:
    """The ETag that Swift gives to an object of these bytes."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def manifest_etag(etags: list[str]) -> str:
    """The ETag that Swift gives to a manifest of whole segments with these ETags."""
    return etag_of("".join(etags).encode())
