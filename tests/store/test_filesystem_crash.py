"""A busy process killed at any moment, again and again: nothing acknowledged is lost."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import NotFound
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import Attempt

from tests.store.conformance import get, some_bytes

# Thirty-two at a time write, publish, tell and delete every other object, for ever.
PROGRAM = """
import asyncio, itertools, sys, uuid
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.protocol import Attempt
from diptych_store.options.filesystem import FilesystemOptions
from tests.store.conformance import in_blocks, some_bytes


async def work(store, numbers):
    for number in numbers:
        attempt = Attempt(key=f"{number}-{uuid.uuid4()}", token=str(uuid.uuid4()))
        print("begun", attempt.key, attempt.token, flush=True)
        await store.write(attempt, in_blocks(some_bytes(300_000, number)), size=None)
        location = await store.publish(attempt)
        print("published", attempt.key, attempt.token, flush=True)
        if number % 2:
            print("deleting", attempt.key, attempt.token, flush=True)
            await store.delete(location)
            print("deleted", attempt.key, attempt.token, flush=True)


async def main(directory):
    settings = FilesystemOptions(filesystem_store_datadir=directory)
    store = await FilesystemStore.open_directory("here", settings)
    numbers = itertools.count()
    await asyncio.gather(*(work(store, numbers) for _ in range(32)))


asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    settings = FilesystemOptions(filesystem_store_datadir=str(tmp_path / "images"))
    store = await FilesystemStore.open_directory("here", settings)
    yield store
    await store.aclose()


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(40))
async def test_a_busy_process_may_be_killed_at_any_moment(
    store: FilesystemStore, tmp_path: Path, seed: int
):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path / "images"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline()]
    killing = asyncio.get_running_loop().call_later(random.Random(seed).uniform(0, 1), process.kill)
    lines += (await process.stdout.read()).splitlines(keepends=True)
    killing.cancel()
    await process.wait()

    said: dict[Attempt, str] = {}
    for line in lines:
        if line.endswith(b"\n"):
            word, key, token = line.decode().split()
            said[Attempt(key=key, token=token)] = word
    leftovers = [one async for one in store.attempts(older_than=timedelta(seconds=-60))]
    assert set(leftovers) <= set(said)
    for leftover in leftovers:
        await store.discard(leftover)
    for attempt, word in said.items():
        number = int(attempt.key.partition("-")[0])
        try:
            data = await get(store, f"file://{tmp_path}/images/{attempt.key}")
        except NotFound:
            assert word != "published"
        else:
            assert word != "deleted"
            assert data == some_bytes(300_000, number)
        await store.discard(attempt, published=True)
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]  # noqa: ASYNC240
    assert left == []
