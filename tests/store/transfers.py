"""A process that moves several objects at a time and tells how much memory that took.

Run as `python -m tests.store.transfers COUNT LENGTH FACTORY ARGUMENT WATCHED`: COUNT objects of
LENGTH bytes each, the others mean the same as for tests/store/crashing.py. Half of the objects that
are uploaded have no known length. Prints four numbers of bytes in a line: what the process has in
memory before all are uploaded, the peak meanwhile, and the same for downloads.
"""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from diptych_store.calls import tell_nobody
from diptych_store.digests import Digests
from diptych_store.ingest import BlockPool, ingest
from diptych_store.protocol import Store

from tests.store.conformance import CALLS, MIB, attempt_at, some_bytes

_PIECE = 64 * 1024
_UNIT = memoryview(some_bytes(MIB))
_STATUS = Path("/proc/self/status")


async def upload(store: Store, pool: BlockPool, length: int, number: int) -> str:
    async def pieces() -> AsyncIterator[bytes]:
        # As a server hands them over: each in memory of its own.
        for start in range(0, length, _PIECE):
            yield bytes(_UNIT[start % MIB :][:_PIECE])
            await asyncio.sleep(0)

    attempt = attempt_at()
    size = length if number % 2 else None
    digests = Digests(("md5",))
    await ingest(pieces(), store, attempt, size=size, limit=None, digests=digests, pool=pool)
    return await store.publish(attempt)


async def download(store: Store, location: str) -> None:
    length = 0
    async with store.open(location) as reading:
        async for block in reading.blocks:
            length += len(block)
    assert length == reading.length


def in_memory(name: str) -> int:
    """VmRSS, or VmHWM, its peak since `forget_peak`, in bytes."""
    return int(_STATUS.read_text().partition(f"{name}:")[2].split()[0]) * 1024


def forget_peak() -> None:
    # See proc(5).
    Path("/proc/self/clear_refs").write_text("5")


async def main(count: int, length: int, factory: str, argument: str, watched: str) -> None:
    module, _, function = factory.partition(":")
    arguments = (argument, tell_nobody) if watched == CALLS else (argument,)
    store: Store = await getattr(importlib.import_module(module), function)(*arguments)
    pool = BlockPool()
    locations = [await upload(store, pool, length, 0)]
    await download(store, locations[0])
    before = in_memory("VmRSS")
    forget_peak()
    locations += await asyncio.gather(*(upload(store, pool, length, n) for n in range(count)))
    uploading = in_memory("VmHWM")
    between = in_memory("VmRSS")
    forget_peak()
    await asyncio.gather(*(download(store, location) for location in locations[1:]))
    downloading = in_memory("VmHWM")
    await asyncio.gather(*(store.delete(location) for location in locations))
    pool.close()
    await store.aclose()
    sys.stdout.write(f"{before} {uploading} {between} {downloading}\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
