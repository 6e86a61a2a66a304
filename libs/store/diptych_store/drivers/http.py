"""Objects that lie somewhere on the web: read, never written, and never this store's to delete.

A location is the object's URL. Where a request may go is decided by `Outbound`, at every redirect
again; here is what the answers mean.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, NoReturn

from diptych_store.calls import OnCall, tell_nobody, told
from diptych_store.errors import (
    BadLocation,
    NotFound,
    ReadDenied,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import for_display
from diptych_store.options.http import HttpOptions
from diptych_store.protocol import (
    WHOLE,
    Answer,
    Attempt,
    Block,
    ByteRange,
    Outbound,
    Reading,
)
from diptych_store.retries import Retries, resumed

FARTHEST_SKIP: Final = 16 * 1024 * 1024
"""Bytes that are read and dropped for the sake of a part, where a server has no ranges."""

RETRIES: Final = Retries(count=3)
_NO_RETRIES: Final = Retries(count=0)

# What a URL may hold is said by `Outbound`, which takes it apart; this is what it could be.
_LOCATION: Final = re.compile(r"https?://[^/?# \\][^ \\]*", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.IGNORECASE)
_UNSATISFIED: Final = re.compile(r"(?:bytes )?\*/(\d{1,18})", re.IGNORECASE)
_LENGTH: Final = re.compile(r"\d{1,18}")
_STRONG: Final = re.compile(r'"[\x21\x23-\x7e]*"')


class HttpStore:
    """A store without a place of its own: any URL that may be asked is one of its locations."""

    def __init__(
        self,
        name: str,
        options: HttpOptions,
        *,
        outbound: Outbound | None = None,
        on_call: OnCall = tell_nobody,
        retries: Retries = RETRIES,
    ) -> None:
        self.name = name
        self._retries = retries
        self._cafile = options.https_ca_certificates_file or None
        self._outbound = outbound
        self._on_call = on_call

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write."""
        self._deny()

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish."""
        self._deny()

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._deny()

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        self._deny()

    def _deny(self) -> NoReturn:
        raise WriteDenied(f"Store {self.name} is read-only.")

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        is_plain = location.isascii() and location.isprintable()
        return is_plain and _LOCATION.fullmatch(location) is not None

    async def aclose(self) -> None:
        """See Store.aclose."""

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading]:
        """See Store.open."""
        if not self.recognises(location):
            raise BadLocation(f"Store {self.name} has no location {for_display(location)}.")
        headers = {} if range == WHOLE else {"range": _range_header(range)}
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._answered(location, headers))
            whole: int | None = None
            if answer.status == 200 and _announced(answer) is None:
                # A server that sees to one request at a time takes no other during this one.
                await stack.aclose()
                whole = await self._size(location)
                answer = await stack.enter_async_context(self._answered(location, headers))
            size, length, skipped = await self._measured(location, range, answer, whole)
            etag = answer.headers.get("etag", "")
            first = await stack.enter_async_context(aclosing(self._blocks(answer)))
            if range != WHOLE:
                first = await stack.enter_async_context(
                    aclosing(_cut(first, skipped=skipped, length=length))
                )

            @asynccontextmanager
            async def again(offset: int) -> AsyncGenerator[AsyncIterator[bytes]]:
                rest = ByteRange(range.start + offset, length - offset)
                headers = {"range": _range_header(rest), "if-range": etag}
                # Tries are counted by `resumed`.
                async with self._answered(location, headers, retries=_NO_RETRIES) as answer:
                    if (
                        answer.status != 206
                        or answer.headers.get("etag") != etag
                        or self._part(location, rest, answer) != size
                    ):
                        # Trying again would not bring the old object back.
                        raise ReadDenied(
                            f"Store {self.name}: {for_display(location)} changed while it was read."
                        )
                    async with aclosing(self._blocks(answer)) as blocks:
                        yield blocks

            blocks = resumed(
                first,
                again,
                length=length,
                # Without a strong validator nobody could tell whether it is the same object.
                retries=self._retries if _STRONG.fullmatch(etag) else _NO_RETRIES,
            )
            await stack.enter_async_context(aclosing(blocks))
            # A server that has only begun to answer is found out here, where there is another way.
            begun = await anext(blocks, b"")
            yield Reading(
                size=size,
                length=length,
                blocks=await stack.enter_async_context(aclosing(_joined(begun, blocks))),
            )

    @asynccontextmanager
    async def _answered(
        self,
        location: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        retries: Retries | None = None,
    ) -> AsyncGenerator[Answer]:
        """The answer to a request, if it is one about an object: 200, 206 or 416."""
        pauses = (retries or self._retries).pauses()
        async with AsyncExitStack() as stack:
            while True:
                try:
                    with told(self._on_call, "size" if method == "HEAD" else "open"):
                        answer = await self._opened(stack, location, headers, method)
                        self._check_status(location, answer.status)
                    break
                except Unreachable as error:
                    pause_s = next(pauses, None)
                    # One that is silent was waited for long enough.
                    if pause_s is None or isinstance(error.__cause__, TimeoutError):
                        raise
                await stack.aclose()
                await asyncio.sleep(pause_s)
            yield answer

    async def _opened(
        self, stack: AsyncExitStack, location: str, headers: Mapping[str, str], method: str
    ) -> Answer:
        if self._outbound is None:
            raise ReadDenied(f"Store {self.name}: this process opens no URLs.")
        opening = self._outbound.open(location, method=method, headers=headers, cafile=self._cafile)
        try:
            return await stack.enter_async_context(opening)
        except PermissionError as error:
            raise ReadDenied(f"Store {self.name}: {error}") from error
        except ValueError as error:
            raise BadLocation(f"Store {self.name}: {error}") from error
        except (ConnectionError, TimeoutError) as error:
            raise Unreachable(f"Store {self.name}: {error}") from error

    def _check_status(self, location: str, status: int) -> None:
        if status in (200, 206, 416):
            return
        message = f"Store {self.name}: {for_display(location)} was answered with {status}."
        if status in (404, 410):
            raise NotFound(message)
        if 400 <= status < 500 and status not in (408, 429):
            raise ReadDenied(message)
        raise Unreachable(message)

    async def _measured(
        self, location: str, range: ByteRange, answer: Answer, whole: int | None
    ) -> tuple[int, int, int]:
        """The object's size, the length of the part, and what of the body comes before it.

        `whole` is its size where it had to be asked for.
        """
        if answer.status == 206 and range != WHOLE:
            size = self._part(location, range, answer)
            return size, range.length_within(size), 0
        if answer.status == 416 and range != WHOLE:
            told_size = _UNSATISFIED.fullmatch(answer.headers.get("content-range", ""))
            size = int(told_size[1]) if told_size else await self._size(location)
            range.length_within(size)
        if answer.status != 200:
            raise Unreachable(
                f"Store {self.name}: {for_display(location)} was answered with {answer.status},"
                " which is no answer to what was asked."
            )
        size = _announced(answer)
        if size is None:
            size = await self._size(location) if whole is None else whole
        length = range.length_within(size)
        if range.start > FARTHEST_SKIP:
            raise ReadDenied(
                f"Store {self.name}: the server of {for_display(location)} gives no parts, and byte"
                f" {range.start} is too far from the beginning."
            )
        return size, length, range.start

    async def _size(self, location: str) -> int:
        async with self._answered(location, {}, method="HEAD") as answer:
            size = _announced(answer)
        if size is None or answer.status != 200:
            raise Unreachable(
                f"Store {self.name}: the server of {for_display(location)} does not say how long"
                " it is."
            )
        return size

    def _part(self, location: str, range: ByteRange, answer: Answer) -> int:
        """The size of the object of which the answer is a part; it begins where it was asked to."""
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match is None or int(match[1]) != range.start or int(match[2]) >= int(match[3]):
            raise Unreachable(
                f"Store {self.name}: {for_display(location)} was answered with another part than"
                " was asked for."
            )
        return int(match[3])

    async def _blocks(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        try:
            async for block in answer.blocks:
                yield block
        except (ConnectionError, TimeoutError) as error:
            raise Unreachable(f"Store {self.name}: {error}") from error


def _range_header(range: ByteRange) -> str:
    if range.length is None:
        return f"bytes={range.start}-"
    # No header asks for nothing; one byte tells as much about the object.
    return f"bytes={range.start}-{range.start + max(1, range.length) - 1}"


def _announced(answer: Answer) -> int | None:
    if "transfer-encoding" in answer.headers:
        return None  # the two contradict each other, and this one wins (RFC 9112, 6.3)
    length = answer.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


async def _joined(begun: bytes, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    if begun:
        yield begun
    async for block in blocks:
        yield block


async def _cut(
    blocks: AsyncIterator[bytes], *, skipped: int, length: int
) -> AsyncGenerator[bytes, None]:
    """At most `length` bytes of the blocks, beginning after those that are skipped."""
    if length == 0:
        return
    async for block in blocks:
        if skipped >= len(block):
            skipped -= len(block)
            continue
        part = block[skipped : skipped + length]
        skipped = 0
        length -= len(part)
        yield part
        if length == 0:
            return
