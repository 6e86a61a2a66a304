"""The contract of a store, and what some stores can do beyond it.

Bytes are written in two steps, so that bytes and rows agree whatever dies: `write` puts them into
a place that only this attempt knows, `publish` makes them the object of the key, atomically and
never over another object. Whoever finds a dead attempt (its row says so) calls `discard`, after
which a late `publish` of that attempt fails. A `publish` follows a look at the attempt's row that
was made after `write` returned: then the bytes were there when the row was still good, and a
`discard` that comes between the two takes them away. One conformance suite
(tests/store/conformance.py) holds every driver to this.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
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

    `pass_to`, where there is one, does without blocks: it has the kernel pass the next bytes to a
    socket that never blocks, by its descriptor, a number of them at most. It returns how many went,
    0 if the socket takes none for now, None if it never will again; raises Unreachable. Whoever
    calls it takes nothing of `blocks`. The descriptor may be closed when it was cancelled or has
    raised, whatever still goes on.
    """

    size: int
    length: int
    blocks: AsyncIterator[Block]
    pass_to: Callable[[int, int], Awaitable[int | None]] | None = None


class Store(Protocol):
    """A named place for bytes."""

    name: str

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """Write all blocks into the attempt's own place, durably; return the number of bytes.

        `size` is the expected number of bytes where it is known; a store may use it to choose
        how to write and must not trust it. A block is valid until the next one is asked for, and
        not to be changed: other stores may be taking it too. On any error, cancellation included,
        nothing of the attempt remains.
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

    def recognises(self, location: str) -> bool:
        """Whether this can be the location of an object of this store; asks nobody.

        In every form that Glance has ever written: a secret in it is neither needed nor compared.
        """
        ...

    async def aclose(self) -> None:
        """Free everything that the store holds open."""
        ...


@runtime_checkable
class ActsForUsers(Protocol):
    """Objects lie in accounts of the users' own, so it matters on whose behalf a store acts."""

    def acting_for(self, project_id: str, *, token: str | None) -> Store:
        """The same store acting in the account of a project, with the token of one of its users.

        Shares all that is open with this one, and is not closed. Without a token it acts there
        with the service's own credentials, which need rights in all accounts: what runs later,
        without a user, finds by the project where an attempt is. A location tells by itself, so
        that the store itself opens and deletes what is anywhere.
        """
        ...


@runtime_checkable
class AccessLists(Protocol):
    """The backend keeps lists of the projects that may read an object without this service."""

    async def allow_reading(self, location: str, *, projects: Iterable[str], public: bool) -> None:
        """Let these projects (everybody, if `public`) read the object; replaces the list.

        Raises NotFound, WriteDenied, BadLocation, Unreachable.
        """
        ...


@runtime_checkable
class Copies(Protocol):
    """Bytes can be had from some other stores without passing through this process."""

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        """Fill the attempt's own place with an object of `source` (which may be this store).

        Returns the number of bytes; None, with nothing left, if the two backends cannot do it
        between them: then the caller reads and writes. With `temporary` the caller will delete
        the object and never read it again once the copy is published, so that its bytes may be
        shared instead of copied; it stays readable until it is deleted. Otherwise as `write`;
        raises NotFound, ReadDenied and BadLocation of the source as well.
        """
        ...


@runtime_checkable
class Presigns(Protocol):
    """URLs that let whoever holds one do one thing for a while, without this service.

    They are secrets until they expire: never to be logged or stored. `expires` is at least a
    second.
    """

    async def presign_get(self, location: str, *, expires: timedelta) -> str:
        """A URL to GET the object, whole or in ranges. Raises BadLocation, Unreachable."""
        ...

    async def presign_put(self, attempt: Attempt, *, part: int = 1, expires: timedelta) -> str:
        """A URL to PUT part of the attempt's bytes: all of them, if there is but part 1.

        `publish` joins the parts in the order of their numbers, from 1 on. What limits a part's
        size is in the driver's page of docs/drivers. Raises WriteDenied, Unreachable.
        """
        ...


@runtime_checkable
class LocalPaths(Protocol):
    """Objects are files that this host can open: for the kernel to pass, for `X-Accel-Redirect`."""

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
class Annotates(Protocol):
    """Locations come with words for those who reach the objects without this service."""

    def annotations(self, location: str) -> Mapping[str, object]:
        """What is told beside the location of a new object, under Glance's names; asks nobody.

        Raises BadLocation.
        """
        ...


@runtime_checkable
class Marks(Protocol):
    """The place of the objects may be this host's own without anybody noticing."""

    async def marks(self) -> frozenset[str]:
        """Ids that are kept in the store's places themselves, one in each.

        A mark is made when it is first asked for; a read-only store makes none and has those that
        it finds. Hosts of which each has a mark that the other has not have different places under
        one name. None at all: nothing is to be compared, because the operator said so or nothing
        can be. Raises Full, WriteDenied, Unreachable.
        """
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


class Answer(Protocol):
    """The answer to a request that was let out."""

    @property
    def status(self) -> int:
        """The status, after redirects."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by their names in lower case."""
        ...

    @property
    def blocks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come; raises ConnectionError and TimeoutError."""
        ...


class Outbound(Protocol):
    """The service's one way to open a URL that a user had a hand in."""

    def open(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        cafile: str | None = None,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request after vetting where it goes, redirects included.

        `cafile` has the authorities that certificates are checked against, if not the usual ones.

        Raises on entry PermissionError where it must not go, ValueError for what is no such URL,
        ConnectionError and TimeoutError where no answer comes.
        """
        ...
