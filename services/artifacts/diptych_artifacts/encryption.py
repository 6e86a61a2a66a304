"""Blobs that are encrypted where they lie: their bytes in sealed frames, and their wrapped keys.

A blob has a key of its own. Its bytes are cut into frames, the last of which may be shorter and, of
an empty blob, empty. Each frame is sealed with AES-256-GCM: the nonce is its number, and what is
authenticated besides are the blob's id, the number, and whether it is the last. So frames cannot be
changed, moved, left out at the end or given to another blob, and a part of a blob is read by the
frames that it lies in. The blob's key is sealed by a wrapping key, with AES-256-GCM too.

Nothing here knows of stores' drivers, the database or where wrapping keys come from.
"""

import base64
import binascii
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from diptych_store.errors import RangeOutside
from diptych_store.protocol import WHOLE, Block, ByteRange, Reading, Store
from diptych_store.threads import Threads

ALGORITHM: Final = "AES-256-GCM"
KEY_SIZE: Final = 32
FRAME_SIZE: Final = 64 * 1024
LARGEST_FRAME: Final = 1024 * 1024
TAG_SIZE: Final = 16
_NONCE_SIZE: Final = 12
# Apart from the frames' own words, so that a wrapped key is never taken for a frame.
_OF_KEYS: Final = b"diptych data key "


class Unreadable(Exception):
    """What was sealed cannot be opened; the message is for the log, and tells nothing of it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is kept of a blob's encryption; the key in it is worth nothing without the wrapping key.

    `frame_size` counts the bytes that a frame holds, without its tag; `key_id` names the wrapping
    key.
    """

    key_id: str
    wrapped_key: bytes = field(repr=False)
    frame_size: int = FRAME_SIZE

    def document(self) -> dict[str, object]:
        """The envelope as JSON has it."""
        return {
            "algorithm": ALGORITHM,
            "frame_size": self.frame_size,
            "key_id": self.key_id,
            "wrapped_key": base64.b64encode(self.wrapped_key).decode(),
        }


def read_envelope(document: Mapping[str, Any]) -> Envelope:
    """The envelope of a document; raises Unreadable for what `Envelope.document` never writes."""
    match document:
        case {
            "algorithm": str(algorithm),
            "frame_size": int(frame_size),
            "key_id": str(key_id),
            "wrapped_key": str(wrapped_key),
        } if algorithm == ALGORITHM and 0 < frame_size <= LARGEST_FRAME:
            try:
                return Envelope(key_id, base64.b64decode(wrapped_key, validate=True), frame_size)
            except (binascii.Error, ValueError):
                raise Unreadable("The wrapped key of a blob is not in base64.") from None
        case _:
            raise Unreadable("What is kept of a blob's encryption is not known to this release.")


@dataclass(frozen=True, slots=True)
class BlobKey:
    """The key of one blob, which seals its frames and opens them."""

    blob_id: str
    key: bytes = field(repr=False)
    frame_size: int = FRAME_SIZE

    def wrap(self, key_id: str, wrapping_key: bytes) -> Envelope:
        """The envelope to keep; another one each time."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        wrapped = AESGCM(wrapping_key).encrypt(nonce, self.key, _words_of_key(self.blob_id))
        return Envelope(key_id, nonce + wrapped, self.frame_size)

    def sealed_size(self, size: int) -> int:
        """How many bytes `size` bytes are when they are sealed."""
        return size + TAG_SIZE * self.frames(size)

    def frames(self, size: int) -> int:
        """How many frames a blob of `size` bytes has."""
        return max(1, -(-size // self.frame_size))

    def sealed_part(self, part: ByteRange, size: int) -> ByteRange:
        """Where the frames lie that hold a part of a blob of `size` bytes.

        Raises RangeOutside as `ByteRange.length_within`.
        """
        step = self.frame_size + TAG_SIZE
        start = part.start // self.frame_size * step
        frames_to = self.frames(part.start + part.length_within(size))
        return ByteRange(start, min(frames_to * step, self.sealed_size(size)) - start)


def new_key(blob_id: str) -> BlobKey:
    """A key for a new blob."""
    return BlobKey(blob_id, secrets.token_bytes(KEY_SIZE))


def unwrap(envelope: Envelope, blob_id: str, wrapping_key: bytes) -> BlobKey:
    """The key of the blob; raises Unreadable unless it was wrapped with this key for this blob."""
    nonce, wrapped = envelope.wrapped_key[:_NONCE_SIZE], envelope.wrapped_key[_NONCE_SIZE:]
    try:
        key = AESGCM(wrapping_key).decrypt(nonce, wrapped, _words_of_key(blob_id))
    except (InvalidTag, ValueError):
        raise Unreadable(
            f"The key of blob {blob_id} cannot be unwrapped with the key {envelope.key_id!r}."
        ) from None
    return BlobKey(blob_id, key, envelope.frame_size)


async def seal(
    blocks: AsyncIterator[Block], key: BlobKey, *, threads: Threads
) -> AsyncGenerator[bytes]:
    """The sealed frames of a stream, as many at a time as a block filled.

    Besides the block it holds one frame: which one is the last shows only at the end.
    """
    held = bytearray()
    number = 0
    async for block in blocks:
        held += block
        full = (len(held) - 1) // key.frame_size
        if full > 0:
            size = full * key.frame_size
            frames = await threads.run(_sealed, key, held, size, number, False)
            del held[:size]
            yield frames
            number += full
    yield await threads.run(_sealed, key, held, len(held), number, True)


@dataclass(frozen=True, slots=True)
class Sealing:
    """The sealing of one blob on its way into a store, as `diptych_store.ingest` wants it."""

    key: BlobKey
    threads: Threads

    def sealed_size(self, size: int) -> int:
        """How many bytes `size` bytes are when they are sealed."""
        return self.key.sealed_size(size)

    def sealed(self, blocks: AsyncIterator[Block]) -> AsyncGenerator[bytes]:
        """The sealed frames of a stream."""
        return seal(blocks, self.key, threads=self.threads)


async def unseal(
    blocks: AsyncIterator[Block],
    key: BlobKey,
    *,
    part: ByteRange = WHOLE,
    size: int,
    threads: Threads,
) -> AsyncGenerator[bytes]:
    """A part of a blob of `size` bytes, from the sealed bytes at `key.sealed_part`.

    No byte is yielded before its frame was found to be what was sealed. Raises Unreadable.
    """
    sealed = key.sealed_part(part, size)
    step = key.frame_size + TAG_SIZE
    number = sealed.start // step
    skip = part.start - number * key.frame_size
    wanted = part.length_within(size)
    missing = sealed.length or 0
    held = bytearray()
    async for block in blocks:
        held += block
        missing -= len(block)
        ready = len(held) if missing == 0 else len(held) - len(held) % step
        if ready == 0:
            continue
        opened = await threads.run(_opened, key, held, ready, number, key.frames(size))
        del held[:ready]
        number += -(-ready // step)
        asked = opened[skip : skip + wanted]
        skip = 0
        wanted -= len(asked)
        if asked:
            yield asked
    if missing:
        raise _changed(key)


@asynccontextmanager
async def opened(
    store: Store,
    location: str,
    key: BlobKey,
    *,
    part: ByteRange = WHOLE,
    size: int,
    threads: Threads,
) -> AsyncGenerator[Reading]:
    """Open a sealed blob of `size` bytes as `Store.open` does one that is not.

    What was cut off or extended, and changes of the first block, raise Unreadable on entry; changes
    beyond it do while the blocks are read.
    """
    at = key.sealed_part(part, size)
    async with AsyncExitStack() as stack:
        try:
            sealed = await stack.enter_async_context(store.open(location, at))
        except RangeOutside:
            # The part is one of the blob: it is the object that is shorter.
            raise _changed(key) from None
        if sealed.size != key.sealed_size(size):
            raise _changed(key)
        blocks = unseal(sealed.blocks, key, part=part, size=size, threads=threads)
        await stack.enter_async_context(aclosing(blocks))
        first = await anext(blocks, b"")
        reading = await stack.enter_async_context(aclosing(_after(first, blocks)))
        yield Reading(size, part.length_within(size), reading)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    if first:
        yield first
    async for block in rest:
        yield block


def _sealed(key: BlobKey, data: bytearray, size: int, number: int, has_last: bool) -> bytes:
    """The frames from `number` on that so many of the data fill; `has_last`: and no more come."""
    cipher = AESGCM(key.key)
    with memoryview(data) as view:
        starts = range(0, max(1, size), key.frame_size)
        return b"".join(
            cipher.encrypt(
                _nonce(at),
                view[start : min(start + key.frame_size, size)],
                _words(key, at, is_last=has_last and start == starts[-1]),
            )
            for at, start in enumerate(starts, number)
        )


def _opened(key: BlobKey, sealed: bytearray, size: int, number: int, frames: int) -> bytes:
    """What the first `size` sealed bytes hold, which are frames from `number` on.

    `frames` is how many the whole blob has.
    """
    cipher = AESGCM(key.key)
    step = key.frame_size + TAG_SIZE
    try:
        with memoryview(sealed) as view:
            return b"".join(
                cipher.decrypt(
                    _nonce(at),
                    view[start : min(start + step, size)],
                    _words(key, at, is_last=at == frames - 1),
                )
                for at, start in enumerate(range(0, size, step), number)
            )
    except (InvalidTag, ValueError):
        raise _changed(key) from None


def _nonce(number: int) -> bytes:
    # Unique under a key, for a key seals one blob, once.
    return number.to_bytes(_NONCE_SIZE, "big")


def _words(key: BlobKey, number: int, *, is_last: bool) -> bytes:
    return UUID(key.blob_id).bytes + number.to_bytes(8, "big") + bytes([is_last])


def _words_of_key(blob_id: str) -> bytes:
    return _OF_KEYS + UUID(blob_id).bytes


def _changed(key: BlobKey) -> Unreadable:
    return Unreadable(f"The bytes of blob {key.blob_id} are not those that were sealed for it.")
