"""What uploads cost a process in memory, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, sys, tempfile
import psutil
from diptych_store.digests import Digests
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.ingest import BlockPool, ingest
from diptych_store.protocol import Attempt
from diptych_store.options.filesystem import FilesystemOptions

clients, mebibytes, pause_s, directory = json.loads(sys.argv[1])
PIECE = 65536


async def stream(piece, pause_s):
    # A piece that is really there, as one from a socket is: `bytes(n)` would be untouched pages.
    for _ in range(mebibytes * 1048576 // PIECE):
        await asyncio.sleep(pause_s)
        yield bytes(bytearray(piece))


async def upload(store, pool, piece, number, pause_s):
    attempt = Attempt(key=str(number), token=str(number))
    await ingest(
        stream(piece, pause_s), store, attempt, size=None, limit=None, digests=Digests(), pool=pool
    )
    await store.discard(attempt)


async def main():
    settings = FilesystemOptions(filesystem_store_datadir=directory)
    store = await FilesystemStore.open_directory("here", settings)
    pool, process, most, held = BlockPool(), psutil.Process(), 0, 0
    piece = bytes(range(256)) * (PIECE // 256)
    await upload(store, pool, piece, 0, 0)
    before = process.memory_info().rss
    uploads = [
        asyncio.create_task(upload(store, pool, piece, number, pause_s))
        for number in range(clients)
    ]
    while not all(one.done() for one in uploads):
        most = max(most, process.memory_info().rss)
        held = max(held, pool.held)
        await asyncio.sleep(0.02)
    for one in uploads:
        await one
    print(json.dumps([most - before, held]))


asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("clients", "mebibytes", "pause_s", "allowed"),
    [
        # The warm-up before the measurement is an upload of the same size: growth is a leak.
        (1, 256, 0, 8),
        # Slow clients whose pieces trickle in together, so that all hold what they can.
        (20, 64, 0.004, 64),
        # More clients than blocks: each makes do with 3 blocks of 64 KiB, and has the next piece.
        (200, 4, 0.01, 96),
    ],
)
def test_uploads_grow_a_process_within_bounds(
    tmp_path: Path, clients: int, mebibytes: int, pause_s: float, allowed: int
):
    arguments = json.dumps([clients, mebibytes, pause_s, str(tmp_path)])
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=110,
    )
    grown, held = json.loads(ended.stdout)
    assert grown < allowed * 1024 * 1024
    assert held <= 40 * 1024 * 1024
