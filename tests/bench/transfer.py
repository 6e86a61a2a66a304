"""One transfer by one of our drivers, in a process of its own, so that its CPU time is its own.

`python -m tests.bench.transfer up|down|delete CONFIG BYTES [LOCATION]`: CONFIG is the INI text of a
single store. Prints one line of JSON: seconds from the first call of the store to the end of the
last, CPU seconds, the location, the process's largest resident memory in bytes.
"""

import asyncio
import json
import resource
import sys
import time
import uuid
from collections.abc import AsyncIterator
from configparser import ConfigParser

from diptych_store.protocol import Attempt, Store
from diptych_store.registry import Stores
from diptych_store.settings import StoresConfig

from tests.bench.data import BLOCK, blocks


async def in_blocks(size: int) -> AsyncIterator[bytes]:
    for block in blocks(size):
        yield block


async def upload(store: Store, size: int) -> str:
    attempt = Attempt(key=str(uuid.uuid4()), token=str(uuid.uuid4()))
    await store.write(attempt, in_blocks(size), size=size)
    return await store.publish(attempt)


async def download(store: Store, location: str, size: int) -> None:
    async with store.open(location) as reading:
        read = 0
        async for block in reading.blocks:
            read += len(block)
    if read != size:
        raise SystemExit(f"{read} bytes came instead of {size}")


async def run(direction: str, config: str, size: int, location: str) -> dict[str, object]:
    parser = ConfigParser(interpolation=None)
    parser.read_string(config)
    sections = {name: dict(parser[name]) for name in parser.sections()}
    async with Stores.open(StoresConfig.from_sections(sections)) as stores:
        store = stores.default
        # Neither the first connection nor the first token is what is measured.
        await store.delete(await upload(store, 16 * BLOCK))
        cpu, begun = time.process_time(), time.perf_counter()
        match direction:
            case "up":
                location = await upload(store, size)
            case "down":
                await download(store, location, size)
            case _:
                await store.delete(location)
        seconds = time.perf_counter() - begun
        cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu_s": cpu, "location": location, "peak_bytes": peak}


def main(direction: str, config: str, size: str, location: str = "") -> None:
    print(json.dumps(asyncio.run(run(direction, config, int(size), location))))


if __name__ == "__main__":
    main(*sys.argv[1:])
