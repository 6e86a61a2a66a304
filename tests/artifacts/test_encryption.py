"""Sealed frames and wrapped keys: what they are, what opens them, and what does not."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterable, Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from diptych_artifacts import encryption
from diptych_artifacts.encryption import BlobKey, Envelope, Unreadable
from diptych_store.errors import RangeOutside
from diptych_store.protocol import WHOLE, Block, ByteRange
from diptych_store.threads import Threads
from hypothesis import given, settings
from hypothesis import strategies as st

ID = "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"
OTHER_ID = "0b9a1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2e"
FRAME = 16
TAG = encryption.TAG_SIZE
STEP = FRAME + TAG
KEY = BlobKey(ID, bytes(range(32)), FRAME)
DATA = bytes(range(100, 100 + 3 * FRAME + 5))


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    threads = Threads("sealing", count=2)
    yield threads
    threads.close()


async def stream(blocks: Iterable[Block]) -> AsyncGenerator[Block]:
    for block in blocks:
        yield block


async def sealed(
    data: bytes, threads: Threads, *, key: BlobKey = KEY, cuts: Iterable[int] = ()
) -> bytes:
    found = [
        block async for block in encryption.seal(stream(cut(data, cuts)), key, threads=threads)
    ]
    return b"".join(found)


async def unsealed(
    data: bytes,
    threads: Threads,
    *,
    size: int,
    key: BlobKey = KEY,
    part: ByteRange = WHOLE,
    cuts: Iterable[int] = (),
) -> bytes:
    blocks = encryption.unseal(stream(cut(data, cuts)), key, part=part, size=size, threads=threads)
    return b"".join([block async for block in blocks])


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces, none of which is empty."""
    edges = [0, *sorted({at for at in cuts if 0 < at < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def frames(data: bytes) -> list[bytes]:
    return [data[start : start + STEP] for start in range(0, len(data), STEP)]


# --- Frames -----------------------------------------------------------------------------------


async def test_frames_are_aes_gcm_as_the_documentation_has_it(threads: Threads) -> None:
    """Another implementation opens them, by docs/operators/artifact-secrets.md."""
    found = frames(await sealed(DATA, threads))
    plain = b""
    for number, frame in enumerate(found):
        mode = modes.GCM(number.to_bytes(12, "big"), frame[-TAG:])
        opening = Cipher(algorithms.AES(KEY.key), mode).decryptor()
        opening.authenticate_additional_data(
            UUID(ID).bytes + number.to_bytes(8, "big") + (b"\1" if number == 3 else b"\0")
        )
        plain += opening.update(frame[:-TAG]) + opening.finalize()
    assert plain == DATA
    # What was stored by one release is read by the next.
    assert (
        await sealed(b"secret", threads)
    ).hex() == "7dd9d6acd0585c4cfa3e78f110998645d0009939491e"


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * FRAME + 3])
async def test_sizes_are_told_beforehand(threads: Threads, size: int) -> None:
    there = await sealed(bytes(size), threads)
    assert len(there) == KEY.sealed_size(size)
    assert await unsealed(there, threads, size=size) == bytes(size)


async def test_no_more_than_a_frame_waits_for_the_next_block(threads: Threads) -> None:
    async def blocks() -> AsyncGenerator[Block]:
        for _ in range(3):
            yield bytes(10 * FRAME)
            passed.append(taken)

    taken, passed = 0, list[int]()
    async for block in encryption.seal(blocks(), KEY, threads=threads):
        taken += len(block)
    assert passed == [9 * STEP, 19 * STEP, 29 * STEP]
    assert taken == 30 * STEP


@pytest.mark.parametrize(
    "at",
    [0, FRAME - 1, FRAME, STEP - 1, STEP, 2 * STEP + 3, 3 * STEP, -TAG - 1, -TAG, -1],
)
async def test_a_changed_byte_is_noticed_before_its_frame_is_given_out(
    threads: Threads, at: int
) -> None:
    there = bytearray(await sealed(DATA, threads))
    there[at] ^= 1
    given_out = bytearray()
    blocks = encryption.unseal(stream(frames(bytes(there))), KEY, size=len(DATA), threads=threads)

    async def read() -> None:
        async for block in blocks:
            given_out.extend(block)

    with pytest.raises(Unreadable):
        await read()
    assert given_out == DATA[: at % len(there) // STEP * FRAME]


async def test_frames_stay_where_and_what_they_are(threads: Threads) -> None:
    """Frames are exchanged, repeated, left out and taken from another blob or key."""
    one, two, three, last = frames(await sealed(DATA, threads))
    size = len(DATA)
    other = BlobKey(OTHER_ID, KEY.key, FRAME)
    foreign = frames(await sealed(DATA, threads, key=other))[1]
    rekeyed = frames(await sealed(DATA, threads, key=encryption.new_key(ID)))[0]
    for changed, told_size in (
        ([two, one, three, last], size),
        ([one, one, three, last], size),
        ([one, two, three], size),
        # Whoever changes the row as well.
        ([one, two, three], 3 * FRAME),
        ([one], FRAME),
        ([one, two, three, last, last], size),
        ([one, two, three, last], size + 1),
        ([one, two, last], 2 * FRAME + 5),
        ([one, foreign, three, last], size),
        ([rekeyed[:STEP], two, three, last], size),
        ([], size),
    ):
        with pytest.raises(Unreadable):
            await unsealed(b"".join(changed), threads, size=told_size)


async def test_an_empty_blob_is_sealed_too(threads: Threads) -> None:
    there = await sealed(b"", threads)
    assert len(there) == TAG
    assert await unsealed(there, threads, size=0) == b""
    for changed in (b"", bytes(TAG), there + b"x"):
        with pytest.raises(Unreadable):
            await unsealed(changed, threads, size=0)
    with pytest.raises(Unreadable):
        await unsealed(there, threads, size=0, key=BlobKey(OTHER_ID, KEY.key, FRAME))


EDGES = sorted({0, 1, *(n * FRAME + d for n in (1, 2, 3) for d in (-1, 0, 1)), len(DATA) - 1})


@pytest.mark.parametrize("start", EDGES)
async def test_parts_are_read_by_the_frames_they_lie_in(threads: Threads, start: int) -> None:
    there = await sealed(DATA, threads)
    for length in (1, 2, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, len(DATA), None):
        part = ByteRange(start, length)
        where = KEY.sealed_part(part, len(DATA))
        assert where.length is not None
        data = there[where.start : where.start + where.length]
        expected = DATA[start:][:length]
        assert await unsealed(data, threads, size=len(DATA), part=part) == expected
        touched = (start + len(expected) - 1) // FRAME - start // FRAME + 1
        assert len(frames(data)) == touched


def test_parts_that_are_not_there_are_refused() -> None:
    for start in (len(DATA), len(DATA) + 1):
        with pytest.raises(RangeOutside):
            KEY.sealed_part(ByteRange(start), len(DATA))
    with pytest.raises(RangeOutside):
        KEY.sealed_part(ByteRange(1), 0)


@given(
    data=st.binary(max_size=200),
    frame=st.integers(1, 40),
    cuts=st.lists(st.integers(1, 400), max_size=6),
    start=st.integers(0, 199),
    length=st.none() | st.integers(1, 220),
)
@settings(max_examples=150, deadline=None)
def test_however_it_is_cut_what_was_sealed_is_opened(
    threads: Threads, data: bytes, frame: int, cuts: list[int], start: int, length: int | None
) -> None:
    key = BlobKey(ID, KEY.key, frame)
    part = ByteRange(start, length) if start < len(data) else WHOLE

    async def through() -> bytes:
        there = await sealed(data, threads, key=key, cuts=cuts)
        assert len(there) == key.sealed_size(len(data))
        where = key.sealed_part(part, len(data))
        assert where.length is not None
        piece = there[where.start : where.start + where.length]
        return await unsealed(piece, threads, size=len(data), key=key, part=part, cuts=cuts)

    assert asyncio.run(through()) == data[part.start :][: part.length]


# --- Keys -------------------------------------------------------------------------------------

WRAPPING = bytes(range(32, 64))


def test_a_wrapped_key_is_aes_gcm_as_the_documentation_has_it() -> None:
    envelope = KEY.wrap("2026", WRAPPING)
    wrapped = envelope.wrapped_key
    opening = Cipher(algorithms.AES(WRAPPING), modes.GCM(wrapped[:12], wrapped[-TAG:])).decryptor()
    opening.authenticate_additional_data(b"diptych data key " + UUID(ID).bytes)
    assert opening.update(wrapped[12:-TAG]) + opening.finalize() == KEY.key
    kept = {
        "algorithm": "AES-256-GCM",
        "frame_size": 64 * 1024,
        "key_id": "2026",
        "wrapped_key": (
            "AAECAwQFBgcICQoLXFNfpE4w7eu08MPNKn5QMwNh+3d+BLAGPBTJoaec1YcnSPJbHGeU9qVAPrijJjy9"
        ),
    }
    key = encryption.unwrap(encryption.read_envelope(kept), ID, WRAPPING)
    assert key == BlobKey(ID, KEY.key)


def test_an_envelope_tells_which_key_opens_it_and_no_key() -> None:
    envelope = KEY.wrap("2026", WRAPPING)
    document = envelope.document()
    assert document["key_id"] == "2026"
    assert KEY.key not in base64.b64decode(str(document["wrapped_key"]))
    assert encryption.read_envelope(document) == envelope
    assert encryption.unwrap(envelope, ID, WRAPPING) == KEY
    assert KEY.wrap("2026", WRAPPING) != envelope
    for shown in (repr(KEY), repr(envelope)):
        assert "x0" not in shown


def test_keys_of_blobs_are_their_own() -> None:
    assert encryption.new_key(ID).key != encryption.new_key(ID).key
    assert len(encryption.new_key(ID).key) == 32


def test_a_wrapped_key_opens_for_its_blob_with_its_key_only() -> None:
    envelope = KEY.wrap("2026", WRAPPING)
    with pytest.raises(Unreadable, match=f"blob {ID} cannot be unwrapped with the key '2026'"):
        encryption.unwrap(envelope, ID, bytes(32))
    with pytest.raises(Unreadable):
        encryption.unwrap(envelope, OTHER_ID, WRAPPING)
    for at in range(len(envelope.wrapped_key)):
        changed = bytearray(envelope.wrapped_key)
        changed[at] ^= 0x80
        with pytest.raises(Unreadable):
            encryption.unwrap(Envelope("2026", bytes(changed), FRAME), ID, WRAPPING)
    for length in (0, 11, 12, 27, 59):
        with pytest.raises(Unreadable):
            encryption.unwrap(Envelope("2026", envelope.wrapped_key[:length]), ID, WRAPPING)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "ROT13"},
        {"frame_size": 0},
        {"frame_size": -1},
        {"frame_size": 1024 * 1024 + 1},
        {"frame_size": "16"},
        {"key_id": None},
        {"wrapped_key": "é"},
        {"wrapped_key": "not base64"},
        {"wrapped_key": None},
    ],
    ids=str,
)
def test_an_envelope_that_this_release_does_not_know_is_not_read(change: dict[str, Any]) -> None:
    document = KEY.wrap("2026", WRAPPING).document()
    with pytest.raises(Unreadable):
        encryption.read_envelope({**document, **change})
    with pytest.raises(Unreadable):
        encryption.read_envelope({name: document[name] for name in document if name not in change})
