"""The contract of a store, and what some stores can do beyond it.

Bytes are written in two steps, so that bytes and rows agree whatever dies: `write` puts them into
a place that only this attempt knows, `publish` makes them the object of the key, atomically and
never over another object. Whoever finds a dead attempt (its row says so) calls `discard`, after
which a late `publish` of that attempt fails. A `publish` follows a look at the attempt's row that
was made after `write` returned: then the bytes were there when the row was still good, and a
`discard` that comes between the two takes them away. One conformance suite
(tests/store/conformance.py) holds every driver to this.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

from diptych_store.errors import RangeOutside

Block = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at writing one object.

    `key` names the object to be (an image id); `token` is unique to this try (a UUID) and names
    the place of its bytes until they are published.
    """

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Part of an object: `length` bytes (None: all) from byte `start` on, the first being 0."""

    start: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.length is not None and self.length < 0):
            raise ValueError(f"A range cannot be negative: {self}.")

    def length_within(self, size: int) -> int:
        """The number of bytes of this range that an object of `size` bytes has.

        Raises RangeOutside when it begins at or beyond the end; the whole of an empty object has
        0 bytes and is no error.
        """
        if self.start >= size and (self.start, self.length, size) != (0, None, 0):
            raise RangeOutside(
                f"The range begins at byte {self.start}, the object has {size} bytes.",
                size=size,
            )
        rest = size - self.start
        return rest if self.length is None else min(self.length, rest)


WHOLE = ByteRange()


@dataclass(frozen=True, slots=True)
class Reading:
    """An object opened for reading.

    `size` is that of the whole object in bytes, `length` that of the part which `blocks` yields.
    A block may be of any size above 0 and is valid until the next one is asked for.
    """

    size: int
    length: int
    blocks: AsyncIterator[Block]


class Store(Protocol):
    """A named place for bytes."""

    name: str

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """Write all blocks into the attempt's own place, durably; return the number of bytes.

        `size` is the expected number of bytes where it is known; a store may use it to choose
        how to write and must not trust it. A block is valid until the next one is asked for. On
        any error, cancellation included, nothing of the attempt remains.
        Raises Full, WriteDenied, Unreachable, and whatever `blocks` raises.
        """
        ...

    async def publish(self, attempt: Attempt) -> str:
        """Make the attempt's bytes the object of its key; return the location URI.

        Atomic, durable on return, and never over an existing object. Raises AlreadyThere when the
        key is taken (the attempt's bytes stay until it is discarded), AttemptLost when the
        attempt was discarded meanwhile, Full, WriteDenied, Unreachable. After Unreachable the
        object may be there or not; `discard` with `published` settles it.
        """
        ...

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """Remove what the attempt left, so that a later `publish` of it raises AttemptLost.

        With `published`, the object of the key goes as well: only for a caller that knows that
        the key can hold no other attempt's object (it holds the attempt's row). A driver that can
        tell whose object it is leaves another attempt's alone all the same. Nothing there is not
        an error. Raises WriteDenied, Unreachable.
        """
        ...

    def open(self, location: str, range: ByteRange = WHOLE) -> AbstractAsyncContextManager[Reading]:
        """Open an object for reading; errors arise on entry, before a byte is sent to anybody.

        Leaving the context frees the backend's connection or file, however much was read. A range
        that ends beyond the object is cut; one that begins at or beyond its end raises
        RangeOutside (an empty object opened whole is fine). Raises NotFound, ReadDenied,
        BadLocation, Unreachable.
        """
        ...

    async def delete(self, location: str) -> None:
        """Delete an object. Raises NotFound, InUse, WriteDenied, BadLocation, Unreachable."""
        ...

    async def aclose(self) -> None:
        """Free everything that the store holds open."""
        ...


@runtime_checkable
class LocalPaths(Protocol):
    """Objects are files that this host can open: for `pathsend` and `X-Accel-Redirect`."""

    def local_path(self, location: str) -> Path:
        """The file of an object; raises BadLocation. The file need not exist."""
        ...


@runtime_checkable
class Measures(Protocol):
    """The backend can tell how much room is left."""

    async def free(self) -> int | None:
        """Free bytes, None where the backend does not say at the moment."""
        ...


@runtime_checkable
class Sweeps(Protocol):
    """Attempts can be listed, to find those that no row knows of."""

    def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """Attempts whose own place is still there and was last written to longer ago than this.

        One that died while it was published may be among them, its object whole under the key:
        `discard` without `published` removes the rest of the attempt and leaves the object.
        """
        ...
