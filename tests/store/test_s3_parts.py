"""How much of an object S3 has in memory while it is sent in parts."""

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from diptych_store.drivers.s3.parts import MIB, Room, Sending

from tests.waiting import until


@pytest.mark.parametrize(
    ("size", "places", "in_memory"),
    [
        # Beside its own place it takes what fits into 32 MiB, and not all there is.
        (100 * MIB, 10, 30 * MIB),
        (100 * MIB, 1, 20 * MIB),
        # A part is sent while the next one is filled.
        (None, 10, 16 * MIB),
    ],
)
async def test_a_server_that_is_slow_holds_up_the_source(
    size: int | None, places: int, in_memory: int
) -> None:
    taken, sent, allowed = 0, 0, asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += MIB
            yield bytes(MIB)

    async def send(_number: int, part: io.BytesIO) -> None:
        nonlocal sent
        await allowed.wait()
        sent += len(part.getvalue())

    sending = Sending(send, size=size, smallest=10 * MIB, room=Room(places))
    all_sent = asyncio.create_task(sending.all(blocks()))
    await until(lambda: taken == in_memory)
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == in_memory
    allowed.set()
    assert await all_sent == sent == 100 * MIB
